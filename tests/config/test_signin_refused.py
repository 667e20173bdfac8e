"""Sign-ins that must fail: each ends at the login page with its reason, and nobody is signed in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.config.provider import ABSENT, Hang, Json, Provider, Reply, Script
from tests.config.visitor import Portal, Visitor, failed_because
from tests.services.app import AppServers

DOCUMENT = "/.well-known/openid-configuration"
HTML = Reply(200, "<html>Maintenance</html>", "text/html")


async def refused(visitor: Visitor, reason: str) -> None:
    """Somebody tries to sign in, and it ends as it should."""
    answer = await visitor.sign_in(next="/conversations/")
    assert failed_because(answer) == reason
    assert parse_qs(urlsplit(answer.headers["location"]).query)["next"] == ["/conversations/"]
    assert not await visitor.is_signed_in()
    page = await visitor.client.get(answer.headers["location"])
    assert page.status_code == 200
    assert 'role="alert"' in page.text
    session = visitor.portal.session(visitor.key)
    assert not {"_auth_user_id", "oidc_access_token", "oidc_refresh_token"} & set(session)


NOT_OURS: dict[str, Callable[[int], Json]] = {
    "for another client": lambda now: {"aud": "other"},
    "for nobody": lambda now: {"aud": ABSENT},
    "for several, issued to another": lambda now: {"aud": ["portal", "other"], "azp": "other"},
    "of another issuer": lambda now: {"iss": "https://evil.example"},
    "of no issuer": lambda now: {"iss": ABSENT},
    "with another nonce": lambda now: {"nonce": "replayed"},
    "without a nonce": lambda now: {"nonce": ABSENT},
    "expired": lambda now: {"exp": now - 120, "iat": now - 600},
    "that never expires": lambda now: {"exp": ABSENT},
    "that expires some day": lambda now: {"exp": [1]},
    "from the future": lambda now: {"iat": now + 90},
    "about nobody": lambda now: {"sub": ABSENT},
    "about a number": lambda now: {"sub": 5},
}


@pytest.mark.parametrize("claims", NOT_OURS.values(), ids=NOT_OURS.keys())
async def test_it_refuses_an_id_token(visitor: Visitor, provider: Provider, claims: Callable[[int], Json]) -> None:
    """F92, F93, F136"""
    provider.script.token = claims(int(time.time()))
    await refused(visitor, "provider_error")


STRANGE_KEY = rsa.generate_private_key(65537, 2048)
SIGNATURES: dict[str, Callable[[Provider, Json], str]] = {
    "HS256 with our secret": lambda op, claims: op.signed(claims, key=op.client_secret, algorithm="HS256"),
    "none": lambda op, claims: jwt.encode(claims, "", algorithm="none", headers={"kid": "key-1"}),
    "RS384": lambda op, claims: op.signed(claims, algorithm="RS384"),
    "unknown kid": lambda op, claims: op.signed(claims, kid="key-2"),
    "no kid": lambda op, claims: jwt.encode(claims, op.key, algorithm="RS256"),
    "somebody else's key": lambda op, claims: op.signed(claims, key=STRANGE_KEY),
    "tampered with": lambda op, claims: op.signed(claims)[:-8] + "AAAAAAAA",
    "no token": lambda op, claims: "garbage",
    "empty": lambda op, claims: "",
}


@pytest.mark.parametrize("sign", SIGNATURES.values(), ids=SIGNATURES.keys())
async def test_it_refuses_a_signature(
    visitor: Visitor, provider: Provider, sign: Callable[[Provider, Json], str]
) -> None:
    """F93"""
    provider.script.sign = sign
    await refused(visitor, "provider_error")


PEOPLE: dict[str, tuple[Callable[[Script], None], str]] = {
    "another subject in userinfo": (lambda s: s.userinfo.update(sub="somebody-else"), "provider_error"),
    "no subject in userinfo": (lambda s: s.userinfo.update(sub=ABSENT), "provider_error"),
    "no e-mail": (lambda s: s.userinfo.update(email=ABSENT), "email_missing"),
    "an empty e-mail": (lambda s: s.userinfo.update(email=""), "email_missing"),
    "no address": (lambda s: s.userinfo.update(email="alice"), "email_missing"),
    "a list of addresses": (lambda s: s.userinfo.update(email=["a@acme.example"]), "email_missing"),
    "an endless address": (lambda s: s.userinfo.update(email="a" * 300 + "@acme.example"), "email_missing"),
    "control characters": (lambda s: s.userinfo.update(email="a\x00b@acme.example"), "email_missing"),
    "an unverified e-mail": (lambda s: s.userinfo.update(email_verified=False), "email_unverified"),
    "nothing said of verification": (lambda s: s.userinfo.update(email_verified=ABSENT), "email_unverified"),
    "a word that means no": (lambda s: s.userinfo.update(email_verified="false"), "email_unverified"),
    "another address was verified": (
        lambda s: (
            s.token.update(email="own@acme.example", email_verified=True),
            s.userinfo.update(email="alice@acme.example", email_verified=ABSENT),
        )[0],
        "email_unverified",
    ),
}


@pytest.mark.parametrize(("behave", "reason"), PEOPLE.values(), ids=PEOPLE.keys())
async def test_it_refuses_a_person(
    visitor: Visitor, provider: Provider, behave: Callable[[Script], None], reason: str
) -> None:
    """F96"""
    behave(provider.script)
    await refused(visitor, reason)


@pytest.mark.parametrize("path", ["/token", "/userinfo", "/jwks"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, "oops"),
        Reply(400, json.dumps({"error": "invalid_client", "error_description": "canary"})),
        HTML,
        Reply(200, "[]"),
        Reply(200, "{}"),
        Reply(200, "null"),
        Reply(200, '{"keys": [{}]}'),
        Reply(200, '{"keys": [{"kid": "key-1", "alg": "RS256", "kty": "?"}]}'),
        Reply(200, '{"access_token": 5, "id_token": 5}'),
        Reply(302, "", "text/plain"),
    ],
    ids=["500", "400", "html", "list", "empty", "null", "a bare key", "a strange key", "numbers", "redirect"],
)
async def test_it_survives_whatever_an_endpoint_answers(
    visitor: Visitor, provider: Provider, path: str, reply: Reply
) -> None:
    """F88, F134"""
    provider.script.replies[path] = reply
    await refused(visitor, "provider_error")
    assert "canary" not in visitor.portal.log_text()


async def test_it_waits_a_few_seconds_for_a_provider_and_no_longer(visitor: Visitor, provider: Provider) -> None:
    """F88"""
    provider.script.replies["/token"] = Hang()
    started = time.monotonic()
    await refused(visitor, "provider_error")
    assert 4 < time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("error", "reason"),
    [("access_denied", "denied"), ("server_error", "provider_error"), ("\x1b[31m", "provider_error")],
)
async def test_it_says_why_the_provider_sent_the_person_back(visitor: Visitor, error: str, reason: str) -> None:
    state = parse_qs(urlsplit(await visitor.start()).query)["state"][0]
    answer = await visitor.client.get("/oidc/callback/", params={"error": error, "state": state})
    assert failed_because(answer) == reason
    assert not await visitor.is_signed_in()
    assert "\x1b" not in visitor.portal.log_text()


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=never-given-out", "?state=", "?code=x&state="])
async def test_it_refuses_a_callback_that_nobody_began(visitor: Visitor, query: str) -> None:
    """F136"""
    await visitor.start()
    assert failed_because(await visitor.client.get(f"/oidc/callback/{query}")) == "expired"
    assert not await visitor.is_signed_in()


async def test_it_takes_a_callback_once(visitor: Visitor, provider: Provider) -> None:
    """F136"""
    back = provider.accept(await visitor.start())
    assert (await visitor.client.get(back)).headers["location"] == "/dashboard/"
    assert failed_because(await visitor.client.get(back)) == "expired"
    assert len(provider.forms("authorization_code")) == 1


async def test_it_takes_a_callback_from_the_browser_that_began_it_only(portal: Portal, visitor: Visitor) -> None:
    """F136: login CSRF"""
    back = portal.provider.accept(await visitor.start())
    async with httpx.AsyncClient(base_url=portal.app.url) as victim:
        await victim.get("/oidc/authenticate/")
        assert failed_because(await victim.get(back)) == "expired"
        assert (await victim.get("/api/tenants/")).status_code == 401


async def test_a_link_to_the_callback_signs_nobody_out(visitor: Visitor) -> None:
    await visitor.sign_in()
    await visitor.client.get("/oidc/callback/?error=access_denied")
    assert await visitor.is_signed_in()


async def test_it_refuses_an_account_that_was_switched_off(portal: Portal, visitor: Visitor) -> None:
    await visitor.sign_in()
    portal.rows("UPDATE auth_user SET is_active = false WHERE username = %s", visitor.account()[0])
    assert not await visitor.is_signed_in()
    await visitor.client.get("/oidc/authenticate/")
    assert failed_because(await visitor.sign_in()) == "unknown"
    assert not await visitor.is_signed_in()


async def test_it_needs_a_discovery_document_of_the_issuer(portal: Portal, app_server: AppServers) -> None:
    """A process that has no document yet: each failure is told, and is not taken for a document."""
    script = portal.provider.script
    app = app_server(env=portal.app.env)
    visitor = Visitor(Portal(app, portal.provider, portal.xians, portal.postgres))
    for reply in (Reply(503), HTML, Reply(200, "[]"), Reply(200, json.dumps({"issuer": "https://evil.example"}))):
        script.replies[DOCUMENT] = reply
        answer = await visitor.client.get("/oidc/authenticate/", params={"next": "/conversations/"})
        assert failed_because(answer) == "provider_error"
        assert answer.headers["location"].endswith("next=%2Fconversations%2F")
    del script.replies[DOCUMENT]
    script.document = {"authorization_endpoint": ABSENT}
    assert failed_because(await visitor.client.get("/oidc/authenticate/")) == "provider_error"
    await visitor.client.aclose()


async def test_it_starts_without_its_provider_and_finds_it_later(portal: Portal, app_server: AppServers) -> None:
    env = {**portal.app.env, "OIDC_ISSUER_URL": "http://127.0.0.1:9"}
    app = app_server(env=env)
    async with httpx.AsyncClient(base_url=app.url) as client:
        assert (await client.get("/login/")).status_code == 200
        assert failed_because(await client.get("/oidc/authenticate/")) == "provider_error"
        assert (await client.get("/healthz")).status_code == 200
