"""Signing in at an honest provider: accounts, sessions, tokens, and where it leads."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from tests.config.provider import ABSENT, Provider, Script
from tests.config.visitor import Portal, Visitor, authorization_sent

CONVERSATION = "/conversations/Invoice%20Helper/Nordic%20desk/?tenant=acme&topic=Q2%20review"


@pytest_asyncio.fixture
async def another(portal: Portal) -> AsyncIterator[Visitor]:
    """A second browser."""
    somebody = Visitor(portal)
    yield somebody
    await somebody.client.aclose()


async def test_it_signs_in_whom_the_provider_vouches_for(visitor: Visitor) -> None:
    answer = await visitor.sign_in(next=CONVERSATION)
    assert (answer.status_code, answer.headers["location"]) == (302, CONVERSATION)
    assert await visitor.is_signed_in()
    assert visitor.account()[1:] == ("alice@acme.example", "Alice", "Andersen")


async def test_it_asks_with_state_nonce_and_a_code_challenge(visitor: Visitor, provider: Provider) -> None:
    """F136"""
    query = {name: values[0] for name, values in parse_qs(urlsplit(await visitor.start()).query).items()}
    assert (query["response_type"], query["client_id"]) == ("code", "portal")
    assert query["code_challenge_method"] == "S256"
    assert len(query["code_challenge"]) == 43
    assert len(query["state"]) >= 32
    assert len(query["nonce"]) >= 32
    assert {"openid", "email"} <= set(query["scope"].split())
    await visitor.sign_in()
    (form,) = provider.forms("authorization_code")
    assert 43 <= len(form["code_verifier"]) <= 128


async def test_it_makes_a_new_state_nonce_and_challenge_each_time(visitor: Visitor) -> None:
    """F136"""
    first, second = [parse_qs(urlsplit(await visitor.start()).query) for _ in range(2)]
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]


async def test_a_changed_address_keeps_the_account(visitor: Visitor, another: Visitor, provider: Provider) -> None:
    """F96"""
    await visitor.sign_in()
    provider.script.person |= {"email": " Alice.Berg@ACME.example ", "name": "Alice Berg"}
    await another.sign_in()
    username = visitor.account()[0]
    assert another.account() == (username, "alice.berg@acme.example", "Alice", "Berg")


async def test_another_subject_with_the_same_address_is_another_account(
    visitor: Visitor, another: Visitor, provider: Provider
) -> None:
    """F96"""
    await visitor.sign_in()
    provider.script = Script(provider.somebody())
    await another.sign_in()
    assert visitor.account()[0] != another.account()[0]
    assert visitor.account()[1] == another.account()[1]


async def test_two_browsers_may_be_the_first_at_once(visitor: Visitor, another: Visitor) -> None:
    answers = await asyncio.gather(visitor.sign_in(), another.sign_in())
    assert [answer.headers["location"] for answer in answers] == ["/dashboard/", "/dashboard/"]
    assert visitor.account() == another.account()


@pytest.mark.parametrize(
    "behave",
    [
        lambda script, now: script.token.update(iat=now + 3),
        lambda script, now: script.token.update(exp=now - 3, iat=now - 300),
        lambda script, now: script.token.update(aud=["portal", "other"], azp="portal"),
        lambda script, now: script.userinfo.update(email_verified="true"),
        lambda script, now: script.answer.update(expires_in=ABSENT, refresh_token=ABSENT),
    ],
    ids=["its clock is ahead", "its clock is behind", "several audiences", "verified as text", "no refresh token"],
)
async def test_it_bears_with_a_providers_ways(
    visitor: Visitor, provider: Provider, behave: Callable[[Script, int], None]
) -> None:
    """F92"""
    behave(provider.script, int(time.time()))
    assert (await visitor.sign_in()).headers["location"] == "/dashboard/"
    assert await visitor.is_signed_in()


async def test_it_takes_what_the_id_token_says_where_userinfo_is_silent(visitor: Visitor, provider: Provider) -> None:
    provider.script.token |= {"email": "carol@acme.example", "email_verified": True}
    provider.script.userinfo |= {"email": ABSENT, "email_verified": ABSENT}
    await visitor.sign_in()
    assert visitor.account()[1] == "carol@acme.example"


async def test_it_gives_the_session_a_new_key_at_every_login(portal: Portal, visitor: Visitor) -> None:
    """F97"""
    await visitor.start()
    before = visitor.key
    await visitor.sign_in()
    first = visitor.key
    await visitor.sign_in()  # the same person again, still signed in
    assert len({before, first, visitor.key}) == 3
    for ended in (before, first):
        visitor.client.cookies.set("sessionid", ended, domain="127.0.0.1")
        assert "_auth_user_id" not in portal.session(ended)


async def test_it_hands_over_nothing_when_somebody_else_signs_in_at_the_same_browser(
    portal: Portal, visitor: Visitor, provider: Provider
) -> None:
    await visitor.sign_in()
    hers = portal.session(visitor.key)
    provider.script = Script(provider.somebody())
    assert (await visitor.sign_in(next="/conversations/")).headers["location"] == "/conversations/"
    theirs = portal.session(visitor.key)
    assert theirs["_auth_user_id"] != hers["_auth_user_id"]
    assert (await visitor.send("second person")).status_code == 200
    newest = max(int(form["code"].removeprefix("code-")) for form in provider.forms("authorization_code"))
    assert int(authorization_sent(portal.xians, "second person").removeprefix("canary-access-")) > newest


async def test_a_refused_sign_in_leaves_the_one_before_as_it_was(
    portal: Portal, visitor: Visitor, provider: Provider
) -> None:
    await visitor.sign_in()
    before = portal.session(visitor.key)
    provider.script = Script({**provider.somebody(), "email_verified": False})
    await visitor.sign_in()
    after = portal.session(visitor.key)
    assert after["_auth_user_id"] == before["_auth_user_id"]
    assert after["oidc_access_token"] == before["oidc_access_token"]


async def test_tokens_stay_on_the_server_and_sealed(portal: Portal, visitor: Visitor) -> None:
    """F134, F135: canaries in the database, cookies, pages, metrics and the log (at DEBUG)."""
    answers = [await visitor.sign_in()]
    answers += [await visitor.client.get(path) for path in ("/dashboard/", "/api/tenants/", "/metrics", "/readyz")]
    assert answers[1].status_code == 200
    answers.append(await visitor.client.post("/oidc/logout/"))  # refused: without its CSRF token
    held = json.dumps(portal.session(visitor.key))
    assert "oidc_access_token" in held
    dump = " ".join(str(row) for row in portal.rows("SELECT * FROM django_session"))
    told = [text for answer in answers for text in (answer.text, str(answer.headers.multi_items()))]
    for place in (held, dump, portal.log_text(), str(dict(visitor.client.cookies)), *told):
        assert "canary" not in place
        assert portal.app.env["XIANS_API_KEY"] not in place


async def test_it_signs_out_with_a_post_only(portal: Portal, visitor: Visitor) -> None:
    """F112"""
    await visitor.sign_in()
    assert (await visitor.client.get("/oidc/logout/")).status_code == 405
    assert (await visitor.client.post("/oidc/logout/")).status_code == 403
    key = visitor.key
    await visitor.client.get("/dashboard/")
    headers = {"X-CSRFToken": visitor.client.cookies["csrftoken"]}
    answer = await visitor.client.post("/oidc/logout/", headers=headers)
    assert answer.headers["location"] == "/login/"
    assert portal.session(key) == {}
    visitor.client.cookies.set("sessionid", key, domain="127.0.0.1")
    assert not await visitor.is_signed_in()


@pytest.mark.parametrize(
    "outside",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "/%5cevil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        " /dashboard/",
        "/\tdashboard/",
        "conversations",
        "/nowhere/",
        "/oidc/logout/",
        "/admin/",
        "/dashboard/" + "x" * 4096,
    ],
)
async def test_it_leads_nowhere_but_to_pages_of_ours(visitor: Visitor, outside: str) -> None:
    """F118"""
    page = (await visitor.client.get("/login/", params={"next": outside})).text
    assert 'href="/oidc/authenticate/?next=%2Fdashboard%2F"' in page
    assert (await visitor.sign_in(next=outside)).headers["location"] == "/dashboard/"
