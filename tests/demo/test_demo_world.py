"""The demo as a newcomer meets it: agents that answer, one that writes first, and a way to sign in."""

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from demo import agents, answers, people, world
from demo.children import Provider, StandIn
from demo.xians import XiansApp, create_app
from demo.xians.bell import Bell
from demo.xians.messages import Message

ALICE = people.ALICE.email


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


class Heard:
    """The messages that a world stored, in order."""

    def __init__(self, app: XiansApp) -> None:
        self._messages: list[Message] = []
        self._bell = Bell()
        app.site.world.messages.changes.message_stored.append(self._hear)

    def _hear(self, message: Message) -> None:
        self._messages.append(message)
        self._bell.ring()

    async def outgoing(self, count: int) -> list[Message]:
        """Wait until so many agent messages are stored."""
        async with asyncio.timeout(5):
            while True:
                found = [one for one in self._messages if one.draft.direction == "Outgoing"]
                if len(found) >= count:
                    return found
                await self._bell.wait()


def conversation_with(agent: str, activation: str) -> dict[str, str]:
    return {"agentName": agent, "activationName": activation, "participantId": ALICE}


async def ask(agent: str, activation: str, text: str, *, answers_wanted: int) -> list[Message]:
    """Ask an agent in a stand-in of its own and return what it says."""
    app = create_app(world.demo())
    heard = Heard(app)
    living = agents.install(app, pace=0.01, news_seconds=60)
    await living.start()
    try:
        transport = httpx.ASGITransport(app=app)
        headers = {"Authorization": f"Bearer {world.API_KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://xians", headers=headers) as client:
            body = {**conversation_with(agent, activation), "text": text, "topic": "here", "requestId": "r-1"}
            response = await client.post("/api/v1/admin/tenants/acme/messaging/send", json=body)
            assert response.status_code == 200
        return await heard.outgoing(answers_wanted)
    finally:
        await living.stop()


async def test_the_invoice_helper_shows_its_steps_and_answers_in_place() -> None:
    said = await ask(world.INVOICES, "Nordic desk", "When is inv-1007 due?", answers_wanted=3)
    assert [one.draft.type for one in said[:2]] == ["Reasoning", "Tool"]
    assert {(one.draft.scope, one.draft.request_id) for one in said} == {("here", "r-1")}
    answer = answers.invoice("When is inv-1007 due?", random.Random(1))[-1]
    assert "INV-1007" in (answer.text or "")
    assert "When is inv-1007 due?" in (answer.text or "")


async def test_the_gallery_shows_everything_and_the_hostile_piece() -> None:
    said = await ask(world.GALLERY, "Showcase", "Everything, please", answers_wanted=len(answers.GALLERY))
    texts = "\n".join(one.draft.text or "" for one in said)
    for piece in (
        "| :--- |",
        "```python",
        "- [x]",
        "> Simplicity",
        "<script>",
        "onerror=",
        "hx-get=",
        "javascript:",
    ):
        assert piece in texts
    assert len(answers.gallery("only the table")) == 1


async def test_the_newsroom_writes_first_and_falls_silent() -> None:
    app = create_app(world.demo())
    heard = Heard(app)
    living = agents.install(app, pace=0, news_seconds=0)
    await living.start()
    try:
        thread = app.control.thread_of("acme", world.NEWS, "Morning wire", ALICE)
        app.control.message(
            tenant="acme",
            agent=world.NEWS,
            activation="Morning wire",
            participant=ALICE,
            text="Hello?",
            direction="Incoming",
        )
        said = await heard.outgoing(agents.NEWS_LIMIT + 1)
        assert "That is all for now" in (said[-1].draft.text or "")
        assert len({one.draft.scope for one in said}) > 2
        assert {one.thread for one in said} == {thread}
    finally:
        await living.stop()


def test_the_agents_dice_are_seeded() -> None:
    first, second = (answers.invoice("What?", random.Random(3)) for _ in range(2))
    assert first == second


async def test_the_world_has_history_an_inactive_activation_and_a_mute_agent() -> None:
    built = world.demo()
    world.seed(built)
    app = create_app(built)
    headers = {"Authorization": f"Bearer {world.API_KEY}"}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://xians", headers=headers) as client:
        url = "/api/v1/admin/tenants/acme/messaging/topics"
        seeded = (await client.get(url, params=conversation_with(world.INVOICES, "Nordic desk"))).json()
        assert sum(one["messageCount"] for one in seeded["topics"]) == 12
        assert {one["scope"] for one in seeded["topics"]} == {None, "Q2 review", "Åse & Co"}
        off = await client.get(url, params=conversation_with(world.ARCHIVE, "Old files"))
        mute = await client.get(url, params=conversation_with(world.IMPORTER, "Nightly run"))
    assert off.status_code == 409
    assert mute.status_code == 400
    assert "is not registered" in mute.json()["error"]


def test_the_demo_world_serves_as_a_process() -> None:
    with StandIn(world="demo", pace=0.01) as standin:
        truth = standin.control("truth", participant="Alice@acme.example")
        assert len(truth["messages"]) == 12


def sign_in(provider: Provider, email: str) -> dict[str, Any]:
    """What a browser and the application do: the form, the code, the tokens."""
    endpoints = httpx.get(f"{provider.url}/.well-known/openid-configuration").json()
    assert endpoints["issuer"] == provider.issuer
    query = {
        "response_type": "code",
        "client_id": "portal",
        "redirect_uri": "http://127.0.0.1:8000/oidc/callback/",
        "scope": "openid email profile",
        "state": "s",
        "nonce": "n",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    form = httpx.get(endpoints["authorization_endpoint"], params=query)
    assert f'value="{ALICE}"' in form.text
    assert "https://" not in form.text
    answer = httpx.post(form.url, data={"sub": email})
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    tokens: dict[str, Any] = httpx.post(
        endpoints["token_endpoint"],
        data={
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": query["redirect_uri"],
            "client_id": "portal",
            "client_secret": "any",
            "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        },
    ).json()
    return tokens


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


def test_the_two_people_sign_in_with_a_verified_address(provider: Provider) -> None:
    for person in (people.ALICE, people.BOB):
        tokens = sign_in(provider, person.email)
        said = claims(tokens["id_token"])
        assert said["iss"] == provider.issuer
        assert said["aud"] == ["portal"]
        assert said["nonce"] == "n"
        assert (said["sub"], said["email"], said["email_verified"]) == (person.email, person.email, True)
        assert said["name"] == person.name
        assert tokens["refresh_token"]


def test_anyone_elses_address_is_not_verified(provider: Provider) -> None:
    said = claims(sign_in(provider, "mallory@acme.example")["id_token"])
    assert "email_verified" not in said
