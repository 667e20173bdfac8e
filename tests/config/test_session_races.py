"""Requests of one browser that come at once: none undoes what another one wrote into the session (F95)."""

from __future__ import annotations

import asyncio

import httpx

from demo.world import INVOICES
from tests.config.provider import Provider
from tests.config.visitor import ACTIVATION, Portal, Visitor
from tests.messaging.people import PATIENCE

PARTS = {"HX-Request": "true"}
PAGE = f"/conversations/{INVOICES}/{ACTIVATION}/"
TOKEN_SECONDS = 30
DUE_SECONDS = 16


async def _sign_in(visitor: Visitor, *, email: str = "alice@acme.example") -> None:
    script = visitor.portal.provider.script
    script.person["email"] = email
    script.answer["expires_in"] = script.refreshed["expires_in"] = TOKEN_SECONDS
    await visitor.sign_in()
    await visitor.client.get("/api/tenants/")


async def test_fifty_parts_of_a_page_during_a_renewal(portal: Portal, visitor: Visitor, provider: Provider) -> None:
    """F95, F87: 50 parallel `hx-get` and a switch of the tenant while the token is renewed: nobody is sent away."""
    await _sign_in(visitor)
    for renewal in (1, 2):
        portal.let_pass(visitor.key, DUE_SECONDS)
        token = visitor.client.cookies["csrftoken"]
        calls = [
            visitor.client.get(path, params=query, headers=PARTS)
            for number in range(50)
            for path, query in [
                (("/dashboard/", {}), (f"{PAGE}topics/", {"tenant": "acme"}), ("/conversations/", {}))[number % 3]
            ]
        ]
        switch = visitor.client.post("/tenant/", data={"tenant": "globex", "csrfmiddlewaretoken": token})
        answers: list[httpx.Response] = await asyncio.gather(*calls[:25], switch, *calls[25:])
        assert {answer.status_code for answer in answers} == {200, 302}
        assert [a.headers["location"] for a in answers if a.is_redirect] == ["/conversations/?tenant=globex"]
        assert len(provider.forms("refresh_token")) == renewal
    assert await visitor.is_signed_in()
    page = await visitor.client.get("/conversations/")
    assert "Agents of Globex" in page.text


async def test_a_slow_request_does_not_bring_the_old_tokens_back(
    portal: Portal, visitor: Visitor, provider: Provider
) -> None:
    """F95: it had loaded the session before another one renewed the token, and ends after it."""
    somebody = f"somebody-{visitor.portal.app.port}@acme.example"
    portal.xians.control("membership", email=somebody, tenant="acme", role="TenantUser")
    await _sign_in(visitor, email=somebody)
    portal.xians.control("membership", email=somebody, tenant="globex", role="TenantUser")
    await visitor.client.get("/dashboard/")
    rule = portal.xians.refuse(route="*", contains=None, delay_seconds=2.0)
    slow = asyncio.create_task(
        visitor.client.post(
            "/tenant/", data={"tenant": "acme", "csrfmiddlewaretoken": visitor.client.cookies["csrftoken"]}
        )
    )
    await asyncio.sleep(0)
    portal.let_pass(visitor.key, DUE_SECONDS)
    await visitor.client.get("/dashboard/")
    portal.xians.forgive(rule)
    assert (await slow).status_code == 302
    portal.let_pass(visitor.key, DUE_SECONDS)
    assert await visitor.is_signed_in()
    forms = [form["refresh_token"] for form in provider.forms("refresh_token")]
    assert len(set(forms)) == len(forms) >= 2


async def test_a_stream_and_the_other_requests_leave_the_session_alone(portal: Portal, visitor: Visitor) -> None:
    """F95: what people do all day writes nothing into the session; the current tenant is kept elsewhere."""
    await _sign_in(visitor)
    before = portal.session(visitor.key)
    query = {"agentName": INVOICES, "activationName": ACTIVATION}
    async with (
        asyncio.timeout(PATIENCE),
        visitor.client.stream("GET", "/api/tenants/acme/messaging/listen", params=query) as stream,
    ):
        assert stream.status_code == 200
        await anext(stream.aiter_lines())
        token = visitor.client.cookies["csrftoken"]
        await visitor.client.post("/tenant/", data={"tenant": "globex", "csrfmiddlewaretoken": token})
        await visitor.send("hello")
        await visitor.client.get(PAGE, params={"tenant": "acme"})
        headers = {"X-CSRFToken": token}
        await visitor.client.post("/api/tenants/acme/messaging/read", json={**query, "topic": None}, headers=headers)
    assert portal.session(visitor.key) == before
    (cookie,) = [cookie for cookie in visitor.client.cookies.jar if cookie.name == "tenant"]
    assert (cookie.value, cookie.path, cookie.has_nonstandard_attr("HttpOnly")) == ("globex", "/", True)
    await visitor.client.post("/oidc/logout/", headers={"X-CSRFToken": visitor.client.cookies["csrftoken"]})
    assert "tenant" not in visitor.client.cookies


async def test_a_tenant_cookie_is_no_key(visitor: Visitor) -> None:
    """F95: what a person writes into it names at most one of their own tenants."""
    await _sign_in(visitor)
    for forged in ("no-such-tenant", "..", "%2e%2e", "a%00b", "%ff", "x" * 3000, '"><script>'):
        visitor.client.cookies.set("tenant", forged, domain="127.0.0.1")
        page = await visitor.client.get("/conversations/")
        assert page.status_code == 200
        assert "Agents of Acme AS" in page.text
