"""The access token is renewed while the person is here, once, and a provider's refusal signs them out."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.config.provider import ABSENT, HANG_SECONDS, Hang, Provider, Reply
from tests.config.visitor import Portal, Visitor, authorization_sent
from tests.services.app import AppServers
from tests.services.redis import Redis

TOKEN_SECONDS = 30
DUE_SECONDS = 16
"""A token of 30 s is renewed when half of it has passed."""

REFUSED = Reply(400, '{"error": "invalid_grant"}')
AWAY = {
    "500": Reply(500, "oops"),
    "html": Reply(200, "<html>", "text/html"),
    "list": Reply(200, "[]"),
    "null": Reply(200, "null"),
    "no token": Reply(200, "{}"),
    "429": Reply(429, "{}"),
}


async def parallel(visitor: Visitor, path: str = "/api/tenants/", count: int = 20) -> list[httpx.Response]:
    """So many requests of one browser at once."""
    return await asyncio.gather(*(visitor.client.get(path) for _ in range(count)))


async def signed_in_for(visitor: Visitor, seconds: float, *, lifetime: float = TOKEN_SECONDS) -> None:
    visitor.portal.provider.script.answer["expires_in"] = lifetime
    visitor.portal.provider.script.refreshed["expires_in"] = lifetime
    await visitor.sign_in()
    visitor.portal.let_pass(visitor.key, seconds)


async def test_it_leaves_a_good_token_alone(visitor: Visitor, provider: Provider) -> None:
    await signed_in_for(visitor, 0)
    await parallel(visitor)
    assert provider.forms("refresh_token") == []


@pytest.mark.parametrize(
    ("lifetime", "passed"), [(30, 16), (30, 29), (30, 300), (3600, 3545)], ids=["half", "nearly", "long ago", "an hour"]
)
async def test_it_renews_once_for_twenty_requests(
    visitor: Visitor, provider: Provider, lifetime: float, passed: float
) -> None:
    """F87"""
    await signed_in_for(visitor, passed, lifetime=lifetime)
    answers = await parallel(visitor)
    assert {answer.status_code for answer in answers} == {200}
    (form,) = provider.forms("refresh_token")
    assert (form["client_id"], form["client_secret"]) == (provider.client_id, provider.client_secret)


async def test_it_renews_again_and_again_with_rotating_tokens(visitor: Visitor, provider: Provider) -> None:
    """F87"""
    await signed_in_for(visitor, 0)
    for number in range(1, 5):
        visitor.portal.let_pass(visitor.key, DUE_SECONDS)
        assert {answer.status_code for answer in await parallel(visitor, "/dashboard/", 4)} == {200}
        assert len(provider.forms("refresh_token")) == number
    assert len({form["refresh_token"] for form in provider.forms("refresh_token")}) == 4


async def test_it_keeps_a_refresh_token_that_is_not_rotated(visitor: Visitor, provider: Provider) -> None:
    provider.script.refreshed["refresh_token"] = ABSENT
    await signed_in_for(visitor, DUE_SECONDS)
    await visitor.client.get("/dashboard/")
    visitor.portal.let_pass(visitor.key, DUE_SECONDS)
    await visitor.client.get("/dashboard/")
    first, second = provider.forms("refresh_token")
    assert first["refresh_token"] == second["refresh_token"]


async def test_it_renews_once_across_processes(
    portal: Portal, visitor: Visitor, provider: Provider, redis: Redis, app_server: AppServers
) -> None:
    """F87: two processes that share a database and Redis."""
    env = {**portal.app.env, "REDIS_URL": redis.url}
    apps = [app_server(env=env), app_server(env=env)]
    await signed_in_for(visitor, DUE_SECONDS)
    headers = {"Cookie": f"sessionid={visitor.key}"}
    calls = [visitor.client.get(f"{app.url}/api/tenants/", headers=headers) for _ in range(10) for app in apps]
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    assert len(provider.forms("refresh_token")) == 1


async def test_send_hands_on_the_renewed_token(portal: Portal, visitor: Visitor, provider: Provider) -> None:
    await signed_in_for(visitor, 0)
    assert (await visitor.send("before")).status_code == 200
    before = authorization_sent(portal.xians, "before")
    portal.let_pass(visitor.key, DUE_SECONDS)
    provider.script.refreshed["access_token"] = "canary-access-renewed"
    assert (await visitor.send("after")).status_code == 200
    assert before.startswith("canary-access-")
    assert authorization_sent(portal.xians, "after") == "canary-access-renewed"
    assert "canary" not in str(portal.session(visitor.key))
    assert "canary" not in portal.log_text()


async def test_send_hands_on_nothing_when_the_token_is_over(portal: Portal, visitor: Visitor) -> None:
    """Never absent, never our key: "" where there is no good token (interfaces.md section 6)."""
    portal.provider.script.answer["refresh_token"] = ABSENT
    await signed_in_for(visitor, 60)
    assert (await visitor.send("over")).status_code == 200
    assert authorization_sent(portal.xians, "over") == ""


async def test_a_refusal_signs_out(portal: Portal, visitor: Visitor, provider: Provider) -> None:
    """F88"""
    provider.script.refreshing = REFUSED
    await signed_in_for(visitor, DUE_SECONDS)
    key = visitor.key
    answers = await parallel(visitor)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(401, "UNAUTHENTICATED")}
    assert len(provider.forms("refresh_token")) == 1
    assert portal.session(key) == {}
    page = await visitor.client.get("/conversations/")
    assert (page.status_code, page.headers["location"]) == (302, "/login/?next=%2Fconversations%2F")


async def test_a_refusal_takes_a_page_to_the_login_at_once(visitor: Visitor, provider: Provider) -> None:
    """F88, F94: pages are redirected, fragments and streams are told 401."""
    provider.script.refreshing = REFUSED
    for headers, status in (
        ({}, 302),
        ({"HX-Request": "true"}, 401),
        ({"Accept": "text/event-stream"}, 401),
    ):
        await signed_in_for(visitor, DUE_SECONDS)
        answer = await visitor.client.get("/conversations/", headers=headers)
        assert answer.status_code == status
        assert "/login/" in answer.headers.get("location", answer.headers.get("hx-redirect", "/login/"))


async def test_a_refusal_ends_the_open_streams(visitor: Visitor, portal: Portal, provider: Provider) -> None:
    """F85"""
    await signed_in_for(visitor, 0)
    query = "agentName=Invoice+Helper&activationName=Nordic+desk"
    async with (
        asyncio.timeout(10),
        visitor.client.stream("GET", f"/api/tenants/acme/messaging/listen?{query}") as open_,
    ):
        lines = open_.aiter_lines()
        assert await anext(lines)
        provider.script.refreshing = REFUSED
        portal.let_pass(visitor.key, DUE_SECONDS)
        await visitor.client.get("/api/tenants/")
        rest = [line async for line in lines]
    assert '"signed-out"' in " ".join(rest)


@pytest.mark.parametrize("reply", AWAY.values(), ids=AWAY.keys())
async def test_it_stays_signed_in_while_the_provider_is_away(
    visitor: Visitor, provider: Provider, reply: Reply
) -> None:
    """F88: and doesn't ask again at every request."""
    provider.script.refreshing = reply
    await signed_in_for(visitor, DUE_SECONDS)
    assert {answer.status_code for answer in await parallel(visitor)} == {200}
    assert len(provider.forms("refresh_token")) == 1
    provider.script.refreshing = None
    visitor.portal.let_pass(visitor.key, 31)
    assert (await visitor.client.get("/api/tenants/")).status_code == 200
    assert len(provider.forms("refresh_token")) == 2
    await visitor.client.get("/api/tenants/")
    assert len(provider.forms("refresh_token")) == 2


async def test_it_waits_for_the_provider_a_few_seconds_only(visitor: Visitor, provider: Provider) -> None:
    """F88"""
    await signed_in_for(visitor, DUE_SECONDS)
    provider.script.replies["/token"] = Hang()
    async with asyncio.timeout(HANG_SECONDS / 2):
        assert {answer.status_code for answer in await parallel(visitor)} == {200}


async def test_it_serves_the_person_while_the_cache_is_away(
    portal: Portal, visitor: Visitor, provider: Provider, app_server: AppServers
) -> None:
    """Without its lock a process doesn't renew: nothing listens at port 9."""
    app = app_server(env={**portal.app.env, "REDIS_URL": "redis://127.0.0.1:9"})
    await signed_in_for(visitor, DUE_SECONDS)
    answer = await visitor.client.get(f"{app.url}/api/tenants/", headers={"Cookie": f"sessionid={visitor.key}"})
    assert answer.status_code == 200
    assert provider.forms("refresh_token") == []


async def test_machines_cause_no_renewal(visitor: Visitor, provider: Provider) -> None:
    await signed_in_for(visitor, DUE_SECONDS)
    for path in ("/healthz", "/readyz", "/metrics", "/server-unavailable/", "/static/css/tokens.css"):
        assert (await visitor.client.get(path)).status_code == 200
    assert provider.forms("refresh_token") == []
