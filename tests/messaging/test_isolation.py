"""Nobody hears, reads or guesses what is somebody else's, and no name of a client's reaches another place upstream."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import httpx
import pytest
import pytest_asyncio

from demo.world import INVOICES
from tests.config.provider import Provider
from tests.messaging.conftest import SignIn, Site
from tests.messaging.people import Person
from tests.services.redis import Redis

NO_TENANT = "no-such-tenant"
LOST_SECONDS = 10
"""How long a stream may outlive a membership (F89)."""

_KNOWN_PATH = re.compile(
    r"/api/v1/admin/(participants/[^/]+|tenants/(acme|globex)/"
    r"(agentActivations|agentDeployments/[^/]+|messaging/(topics|history|listen|send|messages)))|/health"
)


@dataclass
class Answer:
    status: int
    text: str

    @property
    def said(self) -> str:
        """Without what is different in every answer."""
        return re.sub(r'"requestId": "\w+"|value="\w{64}"|content="\w{64}"', "", self.text)


def raw(site: Site, person: Person, method: str, path: str, body: str | None = None) -> Answer:
    """Exactly this path, which an HTTP library would tidy up."""
    connection = http.client.HTTPConnection("127.0.0.1", site.app.port, timeout=30)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in person.client.cookies.jar)
    is_form = body is not None and not body.startswith("{")
    kind = "application/x-www-form-urlencoded" if is_form else "application/json"
    try:
        connection.request(method, path, body, {"Cookie": cookies, "Content-Type": kind, **person.csrf()})
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()


def asked_upstream(site: Site, after: int) -> list[dict[str, Any]]:
    return [request for request in site.xians.requests(after=after) if request["path"] != "/health"]


def count_upstream(site: Site) -> int:
    count: int = site.xians.control("requests")["last"]
    return count


@pytest.fixture
def provider() -> Iterator[Provider]:
    scripted = Provider()
    yield scripted
    scripted.close()


@pytest_asyncio.fixture
async def charlie(site: Site, provider: Provider) -> AsyncIterator[Person]:
    """Somebody with an account and without any tenant. The session is good in every process of the site."""
    provider.script.person["email"] = "charlie@nowhere.example"
    app = site.another_process(**provider.env)
    async with httpx.AsyncClient(base_url=app.url, timeout=30) as door:
        start = await door.get("/oidc/authenticate/")
        answer = await door.get(provider.accept(start.headers["location"]))
        assert answer.headers["location"] == "/dashboard/"
        session = door.cookies["sessionid"]
    async with httpx.AsyncClient(base_url=site.app.url, timeout=30) as client:
        client.cookies.set("sessionid", session, domain="127.0.0.1")
        person = Person(client, "charlie@nowhere.example", site.names)
        assert (await client.get("/api/tenants/")).json() == []
        yield person


def _everything(tenant: str, names: dict[str, str]) -> list[tuple[str, str, str | None]]:
    """Every address that names a tenant: (method, path, body)."""
    api = f"/api/tenants/{quote(tenant, safe='')}"
    query = urlencode({**names, "topic": "t"})
    page = f"/conversations/{quote(names['agentName'])}/{quote(names['activationName'])}"
    tail = f"?{urlencode({'tenant': tenant, 'topic': 't'})}"
    told = json.dumps({**names, "text": "x", "topic": "t"})
    form = urlencode({"text": "x", "topic": "t", "requestId": "r"})
    return [
        ("GET", f"{api}/activations/", None),
        *(("GET", f"{api}/messaging/{call}?{query}", None) for call in ("listen", "topics", "history", "unread")),
        *(("POST", f"{api}/messaging/{call}", told) for call in ("send", "read")),
        ("DELETE", f"{api}/messaging/messages?{query}", None),
        *(("GET", f"{page}/{part}{tail}", None) for part in ("", "topics/", "stream/")),
        ("GET", f"{page}/messages/{tail}&before=9", None),
        *(("POST", f"{page}/{part}/{tail}", form) for part in ("send", "read", "delete")),
        ("GET", f"/conversations/?{urlencode({'tenant': tenant})}", None),
        ("GET", f"/dashboard/?{urlencode({'tenant': tenant})}", None),
        ("POST", "/tenant/", urlencode({"tenant": tenant})),
    ]


async def test_a_foreign_tenant_answers_like_one_that_does_not_exist(
    site: Site, alice: Person, bob: Person, charlie: Person
) -> None:
    """F125: two tenants, three people, every address: the same refusal, and upstream is asked nothing about it."""
    await alice.unread()
    site.answer("alice's own", topic="t")
    for person, foreign in ((bob, ["globex"]), (charlie, ["acme", "globex"])):
        await person.client.get("/api/tenants/")  # a CSRF token
        for tenant in foreign:
            before = count_upstream(site)
            strange = _everything(NO_TENANT, site.names)
            for (method, path, body), (_, other, other_body) in zip(
                _everything(tenant, site.names), strange, strict=True
            ):
                refused = await asyncio.to_thread(raw, site, person, method, path, body)
                unknown = await asyncio.to_thread(raw, site, person, method, other, other_body)
                assert refused.status == 403, (path, refused.text[:200])
                assert (refused.status, refused.said) == (unknown.status, unknown.said), path
                assert "alice's own" not in refused.text
            asked = [request["path"] for request in asked_upstream(site, before)]
            assert not [path for path in asked if "/tenants/" in path], asked
    assert (await alice.unread())["t"] == 1
    assert [m["text"] for m in site.xians.truth(**site.thread)] == ["alice's own"]


async def test_in_a_shared_tenant_everybody_has_a_thread_of_their_own(site: Site, alice: Person, bob: Person) -> None:
    """F125: ids, topics and cursors of somebody else's say as little as made-up ones."""
    await alice.unread()
    await bob.unread()
    async with alice.listening() as stream:
        hers = site.answer("for alice", topic="secret plan")
        cursor = (await stream.next("Chat")).id
    assert (await bob.get("history", topic="secret plan")).json() == []
    assert [topic["scope"] for topic in (await bob.get("topics")).json()["topics"]] == [None]
    foreign = await bob.post("read", topic="secret plan", upToMessageId=hers["id"])
    unknown = await bob.post("read", topic="secret plan", upToMessageId="f" * 24)
    assert (foreign.status_code, foreign.json()) == (unknown.status_code, unknown.json())
    reasons = []
    for place in (cursor, "made-up"):
        async with bob.listening(last_event_id=place) as his:
            await his.next("resync")
            assert not his.texts()
            reasons.append(his.told("resync"))
    assert reasons[0] == reasons[1]
    assert (await bob.delete("messages", topic="secret plan")).json() == {"success": True}
    assert await alice.unread() == {"secret plan": 1}


async def test_a_stream_ends_soon_after_its_tenant_is_lost(own_site: Site, signed_in: SignIn) -> None:
    """F89: the open stream is closed within 10 s, nothing of the tenant comes after it, and others go on."""
    bob, alice = await signed_in("bob@acme.example"), await signed_in("alice@acme.example")
    async with bob.listening(heartbeatSeconds=1) as his, alice.listening() as hers:
        own_site.xians.control("membership", email=bob.email, tenant="acme", role=None)
        goodbye = await his.next("goodbye", within=LOST_SECONDS)
        assert json.loads(goodbye.data)["reason"] == "forbidden"
        await his.until(lambda me: me.is_over)
        own_site.answer("too late", participant=bob.email)
        own_site.answer("for alice")
        await hers.next("Chat")
        assert not his.texts()
        assert not hers.named("goodbye")
    for call in ("listen", "history", "unread", "topics"):
        answer = await bob.get(call)
        assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_FORBIDDEN")
    assert (await bob.client.get("/api/tenants/")).json() == []


async def test_a_lower_role_or_a_switched_off_tenant_changes_what_is_told(own_site: Site, alice: Person) -> None:
    """F89: the role is upstream's to judge; here it is shown as it is by then."""
    own_site.xians.control("membership", email=alice.email, tenant="acme", role="TenantParticipant")
    async with asyncio.timeout(LOST_SECONDS):
        while (await alice.client.get("/api/tenants/")).json()[0]["role"] != "TenantParticipant":
            await asyncio.sleep(0.2)
    assert (await alice.get("unread")).status_code == 200


async def test_without_a_bus_a_sign_out_reaches_the_other_process_all_the_same(site: Site, signed_in: SignIn) -> None:
    """F86: two processes that share nothing but the database."""
    other = site.another_process()
    alice = await signed_in("alice@acme.example")
    async with alice.listening(base_url=other.url) as stream:
        await alice.client.post("/oidc/logout/", headers=alice.csrf())
        await stream.next("goodbye", within=LOST_SECONDS)
        assert stream.told("goodbye")[0]["reason"] == "signed-out"
        site.answer("after the sign-out", at_once=True)
        await stream.until(lambda me: me.is_over)
        assert not stream.texts()


async def test_the_tenant_of_a_request_is_the_one_it_names(site: Site, alice: Person) -> None:
    """F90: an activation of the same name in both tenants; switching changes what no address names, and only that."""
    site.xians.control("activation", tenant="globex", agent=INVOICES, name=site.activation, active=True)
    async with alice.listening() as stream:
        token = alice.client.cookies["csrftoken"]
        form = {"tenant": "globex", "csrfmiddlewaretoken": token}
        switched = await alice.client.post("/tenant/", data=form)
        assert switched.headers["location"] == "/conversations/?tenant=globex"
        await alice.post("send", text="in acme")
        page = f"/conversations/{quote(INVOICES)}/{quote(site.activation)}/"
        for tenant, text in (("acme", "acme's page"), ("globex", "globex's page")):
            form = {"text": text, "requestId": text, "csrfmiddlewaretoken": token}
            await alice.client.post(f"{page}send/", params={"tenant": tenant}, data=form)
        await alice.client.post(f"{page}send/", data={**form, "text": "no tenant named", "requestId": "r"})
        site.answer("acme says")
        site.xians.message(**{**site.thread, "tenant": "globex"}, text="globex says")
        await stream.next("Chat")
        assert stream.texts() == ["acme says"]
    assert _said(site, "acme") == ["in acme", "acme's page"]
    assert _said(site, "globex") == ["globex's page", "no tenant named"]
    site.xians.control("activation", tenant="globex", agent=INVOICES, name=site.activation, active=False)


def _said(site: Site, tenant: str) -> list[str]:
    truth = site.xians.truth(**{**site.thread, "tenant": tenant})
    return [message["text"] for message in truth if message["direction"] == "Incoming"]


TRICKS = [
    *("..", ".", "%2e%2e", "%2E%2E%2F", "../..", "a/b", "a\\b", "a?tenantId=globex", "a#f", ";", "a;b=c", "a&b=c"),
    *("․․", "．．", "%00", "a%00b", "%0d%0aX-Injected: 1", "acme%2f..%2fglobex", "//127.0.0.1:9/", "@127.0.0.1"),
    *("%", "%2", "%%32%65", "\u202e", "a" * 260, "http://127.0.0.1:9/"),
]


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_name_leads_to_another_address_upstream(site: Site, alice: Person, trick: str) -> None:
    """F121: as tenant, agent, activation, topic and message id, as they are and percent-encoded once more."""
    await alice.unread()
    before = count_upstream(site)
    answers = []
    for segment in {quote(trick, safe=""), quote(quote(trick, safe=""), safe="")}:
        query = urlencode(site.names)
        for path in (
            f"/api/tenants/{segment}/messaging/history?{query}",
            f"/api/tenants/{segment}/activations/",
            f"/conversations/{segment}/{segment}/?tenant=acme",
            f"/conversations/{quote(INVOICES)}/{segment}/stream/?tenant=acme",
            f"/conversations/{quote(INVOICES)}/{quote(site.activation)}/?tenant={segment}",
            f"/api/tenants/acme/messaging/history?agentName={segment}&activationName={segment}",
            f"/api/tenants/acme/messaging/topics?agentName={quote(INVOICES)}&activationName={segment}",
            f"/api/tenants/acme/messaging/listen?{query}&lastEventId={segment}&topic={'t' * 201}",
        ):
            answers.append((path, await asyncio.to_thread(raw, site, alice, "GET", path)))
        body = {**site.names, "topic": trick, "upToMessageId": trick}
        answers.append((trick, await asyncio.to_thread(raw, site, alice, "POST", alice.path("read"), json.dumps(body))))
    for path, answer in answers:
        allowed = (200, 400) if path == trick else (302, 400, 403, 404, 422)
        assert answer.status in allowed, (path, answer.status)
        assert "127.0.0.1:" + str(site.xians.port) not in answer.text
    for request in asked_upstream(site, before):
        assert _KNOWN_PATH.fullmatch(request["path"]), request["path"]
        assert all(name.lower() != "x-injected" for name, _ in request["headers"])
        assert "tenantid" not in parse_qs(request["query"].lower())


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("history", {"page": "1", "pageSize": "50", "sortOrder": "desc"}),
        ("topics", {"page": "1", "pageSize": "20"}),
    ],
)
async def test_upstream_is_asked_in_our_words_only(
    site: Site, alice: Person, call: str, expected: dict[str, str]
) -> None:
    """F122: other names, other spellings and repeated names reach nobody."""
    await alice.unread()
    before = count_upstream(site)
    smuggled = "&".join(
        f"{name}={value}"
        for name in ("tenantId", "TenantId", "tenantid", "participantId", "ParticipantID", "heartbeatSeconds")
        for value in ("globex", "bob@acme.example", "1")
    )
    smuggled += "&workflowType=Other&workflowId=x&apiKey=y&scope=z&agentName=Second&activationName=Second"
    query = f"{smuggled}&{urlencode(site.names)}"  # of a repeated name Django takes the last
    answer = await asyncio.to_thread(raw, site, alice, "GET", f"{alice.path(call)}?{query}")
    assert answer.status == 200, answer.text
    names = {**site.names, "participantId": alice.email}
    (request, *_) = [request for request in asked_upstream(site, before) if request["route"] == call]
    assert parse_qs(request["query"], strict_parsing=True) == {
        name: [value] for name, value in {**names, **expected}.items()
    }


async def test_a_body_adds_nothing_to_what_upstream_is_told(site: Site, alice: Person) -> None:
    """F122: what we don't know in a body is left out."""
    await alice.post(
        "send", text="x", participantId="bob@acme.example", tenantId="globex", workflowType="Other:Flow", threadId="t",
        authorization="Bearer stolen", apiKey="k",
    )  # fmt: skip
    (request,) = site.xians.requests(route="send")
    body = json.loads(request["body"])
    assert set(body) <= {"agentName", "activationName", "participantId", "text", "topic", "requestId", "authorization"}
    assert body["participantId"] == alice.email
    assert body["authorization"] != "Bearer stolen"
    assert "tenantId" not in request["query"]
    assert "/tenants/acme/" in request["path"]


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb", "a\x00b", "a\x85b", "a\u2028b", "\ud800"])
async def test_a_name_that_a_header_could_not_hold_is_refused(site: Site, alice: Person, value: str) -> None:
    """F123: line ends, NUL and half characters, in every value of ours that travels on."""
    headers = {**alice.csrf(), "Content-Type": "application/json"}
    for field in ("agentName", "activationName", "topic", "requestId", "hint", "origin"):
        body = json.dumps({**site.names, "text": "x", field: value})
        answer = await alice.client.post(alice.path("send"), content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), field
        assert "\n" not in answer.json()["error"]
    assert not site.xians.requests(route="send")


async def test_odd_bytes_in_headers_do_no_harm(site: Site, alice: Person) -> None:
    """F123"""
    for name in ("Last-Event-ID", "Accept", "Accept-Language", "HX-Request", "X-CSRFToken", "Referer", "Origin"):
        for value in (b"\xff\xfe", b"\xc3\x28", b"x" * 5_000, b"'\"><script>"):
            answer = await alice.client.get(alice.path("unread"), params=site.names, headers=[(name.encode(), value)])
            assert answer.status_code == 200, (name, answer.text)


async def test_a_heartbeat_counts_the_participants_own_streams_only(site: Site, alice: Person, bob: Person) -> None:
    """F138: upstream counts everybody's; what others do shows nowhere in the bytes."""
    async with bob.listening(heartbeatSeconds=1) as his, alice.listening() as _, alice.listening() as _:
        async with alice.listening(heartbeatSeconds=1) as hers:
            await hers.next("heartbeat")
            await his.next("heartbeat")
            assert hers.told("heartbeat")[-1]["subscriberCount"] == 3
            await his.next("heartbeat", 2)
        assert {told["subscriberCount"] for told in his.told("heartbeat")} == {1}
        assert not [event for event in his.events if "subscriberCount" in event.data and event.event != "heartbeat"]


async def test_what_the_processes_share_names_nobody(redis: Redis, site: Site, signed_in: SignIn) -> None:
    """F126: channels are named after a digest; what is cached is told apart by person."""
    app = site.another_process(REDIS_URL=redis.url)
    alice = await signed_in("alice@acme.example", app=app)
    async with alice.listening(base_url=app.url):
        with redis.client() as inside:
            async with asyncio.timeout(10):
                while not (channels := inside.pubsub_channels()):
                    await asyncio.sleep(0.05)
            names = b" ".join([*channels, *inside.keys("*")]).decode()
    for told in ("alice", "@", "acme", site.activation, alice.client.cookies["sessionid"]):
        assert told not in names


async def test_no_cache_may_keep_what_is_a_persons_own(site: Site, alice: Person) -> None:
    """F126: pages, fragments, refusals and JSON; the stream says it in its own words."""
    page = f"/conversations/{quote(INVOICES)}/{quote(site.activation)}/"
    paths = ["/dashboard/", "/conversations/", f"{page}?tenant=acme", f"{page}topics/?tenant=acme", "/api/tenants/"]
    paths += [f"{page}?tenant={NO_TENANT}", f"{alice.path('unread')}?{urlencode(site.names)}", alice.path("unread")]
    for path in paths:
        answer = await alice.client.get(path)
        assert answer.headers["cache-control"] == "no-store", path
        assert "Cookie" in answer.headers["vary"], path
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    async with alice.listening() as stream:
        headers = stream.response.headers
        assert headers["cache-control"] == "no-cache, no-transform"
        assert "Cookie" in headers["vary"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]
