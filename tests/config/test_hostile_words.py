"""What providers, upstream and addresses say is shown as words, or not at all; secrets stay where they are."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from demo.world import INVOICES
from tests.config.provider import Provider
from tests.config.visitor import ACTIVATION, NAMES, Portal, Visitor
from tests.services.app import AppServers

PAYLOAD = "\"'><img src=x onerror=alert(1)><script>alert(1)</script>{{7*7}}{% now 'Y' %}"
PAGES = ("/dashboard/", "/conversations/", f"/conversations/{INVOICES}/{ACTIVATION}/?tenant=acme")

REFLECTED = [
    PAYLOAD,
    "javascript:alert(1)",
    "\u202eetihw",
    "Your account was suspended, call +47 555 0100",
    "UPSTREAM_UNAVAILABLE<b>",
    " UPSTREAM_UNAVAILABLE",
    "__class__",
    "x" * 4_000,
    "%00%0d%0aSet-Cookie: a=b",
]


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def harmless(html: str) -> None:
    """No element or attribute came out of a payload."""
    for tag, attributes in Tags(html).found:
        assert "onerror" not in attributes, tag
        assert attributes.get("src") != "x"
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/static/")
    assert "<script>alert" not in html


async def test_a_name_from_the_provider_is_only_a_name(visitor: Visitor, provider: Provider) -> None:
    """F116: the person's name as the provider has it, on every page; and what upstream calls a tenant."""
    provider.script.person |= {"name": PAYLOAD, "given_name": PAYLOAD, "family_name": PAYLOAD}
    await visitor.sign_in()
    for path in PAGES:
        page = await visitor.client.get(path)
        assert page.status_code == 200, path
        assert "&lt;script&gt;alert(1)" in page.text
        harmless(page.text)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 503])
async def test_upstreams_error_text_is_for_the_log_only(portal: Portal, visitor: Visitor, status: int) -> None:
    """F116: neither pages nor the API repeat it."""
    await visitor.sign_in()
    await visitor.client.get(PAGES[2])
    rules = [
        # Four refusals at most: after five the portal rests with its key for a minute, and others' tests with it.
        portal.xians.refuse(route=route, status=status, count=count, body=f'{{"error": "canary-{PAYLOAD!r}"}}')
        for route, count in (("history", 2), ("topics", 1), ("*/agentDeployments/*", 1))
    ]
    try:
        answers = [
            await visitor.client.get(PAGES[2], headers={"HX-Request": "true"}),
            await visitor.client.get("/api/tenants/acme/messaging/history", params=NAMES),
        ]
        for answer in answers:
            assert "canary" not in answer.text
            assert "onerror" not in answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"
    finally:
        for rule in rules:
            portal.xians.forgive(rule)
        await visitor.client.get(PAGES[2])  # a key that is accepted again was refused by nobody


@pytest.mark.parametrize("text", REFLECTED, ids=lambda text: repr(text[:12]))
async def test_an_address_puts_no_words_into_our_mouth(visitor: Visitor, text: str) -> None:
    """F119: `error=` and `failed=` choose among our own sentences; what they hold is not repeated."""
    for path, name, general in (
        ("/server-unavailable/", "error", "The live connection was interrupted."),
        ("/login/", "failed", "The sign-in didn’t work. Try again."),
    ):
        page = await visitor.client.get(path, params={name: text})
        assert page.status_code == 200
        assert general in page.text
        assert text not in page.text
        assert text[:12] not in page.text
        assert "set-cookie" not in page.headers or "a=b" not in page.headers["set-cookie"]
        harmless(page.text)


@pytest.mark.parametrize("token", ["evil\r\nX-Injected: 1", "evil\n", "e\x00vil", "evil-ü", "evil\x7f"])
async def test_a_token_that_no_header_can_hold_goes_nowhere(
    portal: Portal, provider: Provider, app_server: AppServers, token: str
) -> None:
    """F123: without an API key the person's own token is the bearer; a malformed one is refused before it is sent."""
    app = app_server(env={**portal.app.env, "XIANS_API_KEY": ""})
    visitor = Visitor(Portal(app, provider, portal.xians, portal.postgres))
    provider.script.answer["access_token"] = token
    before = portal.xians.control("requests")["last"]
    async with visitor.client:
        await visitor.sign_in()  # the provider's own userinfo may be the first to be refused such a header
        told = await visitor.client.get("/api/tenants/")
    assert (told.status_code, told.json()["code"]) in [(401, "UNAUTHENTICATED"), (502, "UPSTREAM_REJECTED")]
    assert "evil" not in told.text
    assert "evil" not in app.log_text()
    assert not [request for request in portal.xians.requests(after=before) if request["route"] != "health"]


async def test_signing_out_ends_the_session_at_the_provider_where_it_offers_that(
    portal: Portal, provider: Provider, app_server: AppServers
) -> None:
    """F86: by the address in its discovery document; then back to our login."""
    provider.script.document = {"end_session_endpoint": f"{provider.issuer}/end"}
    app = app_server(env=portal.app.env)
    visitor = Visitor(Portal(app, provider, portal.xians, portal.postgres))
    async with visitor.client:
        await visitor.sign_in()
        await visitor.client.get("/dashboard/")
        headers = {"X-CSRFToken": visitor.client.cookies["csrftoken"]}
        target = urlsplit((await visitor.client.post("/oidc/logout/", headers=headers)).headers["location"])
        assert not await visitor.is_signed_in()
    assert f"{target.scheme}://{target.netloc}{target.path}" == f"{provider.issuer}/end"
    query = parse_qs(target.query)
    assert query["post_logout_redirect_uri"] == [f"{app.url}/login/"]
    assert query["id_token_hint"][0].count(".") == 2


async def test_a_dozen_canaries_stay_where_they_belong(portal: Portal, visitor: Visitor, provider: Provider) -> None:
    """F134, F135: keys, tokens, cookies, words and codes: in no log (at DEBUG), metric, refusal or other row."""
    await visitor.sign_in()
    await visitor.client.get("/dashboard/")
    await visitor.send("canary words of a person")
    thread = {"tenant": "acme", "agent": INVOICES, "activation": ACTIVATION, "participant": "alice@acme.example"}
    portal.xians.message(**thread, text="canary words of an agent", topic="canary topic", data={"canary": "data"})
    page = await visitor.client.get(PAGES[2])
    await visitor.client.get("/api/tenants/acme/messaging/history", params={**NAMES, "topic": "canary topic"})
    await visitor.client.get("/api/tenants/acme/messaging/unread", params=NAMES)
    rule = portal.xians.refuse(route="history", status=500, body='{"error":"canary of upstream"}')
    refusals = [
        await visitor.client.get("/api/tenants/acme/messaging/history", params=NAMES),
        await visitor.client.get("/api/tenants/canary-tenant/messaging/history", params=NAMES),
        await visitor.client.post("/api/tenants/acme/messaging/send", json={**NAMES, "text": "canary"}),
    ]
    portal.xians.forgive(rule)
    metrics = await visitor.client.get("/metrics")
    (form,) = provider.forms("authorization_code")
    secrets = [
        *(portal.app.env["XIANS_API_KEY"], provider.client_secret, visitor.key, form["code_verifier"]),
        *("canary-access", "canary-refresh", "eyJhbGciOi", "canary words of a person", "canary words of an agent"),
        *("canary topic", '"canary": "data"', "canary of upstream"),
    ]
    assert len(secrets) == 12
    log = portal.log_text()
    told = [answer.text + str(answer.headers) for answer in (*refusals, metrics)]
    for secret in secrets:
        assert not [place for place in told if secret in place], secret
        if secret not in ("canary topic", "canary of upstream"):  # a topic is in addresses; upstream's words are ops's
            assert secret not in log, secret
    for secret in (*secrets[:7], "alice@acme.example"):
        assert secret not in metrics.text
    for secret in (*secrets[:2], *secrets[3:7]):
        assert secret not in page.text
    assert not [
        row for row in portal.rows("SELECT * FROM messaging_receipt") if "canary words" in str(row)
    ]  # ids and places are kept, never words


async def test_no_e_mail_address_is_in_the_log(portal: Portal, visitor: Visitor) -> None:
    """F134: people are numbers there."""
    await visitor.sign_in()
    await visitor.send("hello")
    for path in PAGES:
        await visitor.client.get(path)
    async with httpx.AsyncClient(base_url=portal.app.url, cookies=visitor.client.cookies, timeout=30) as client:
        await client.get("/api/tenants/no-such-tenant/messaging/unread", params=NAMES)
    assert "alice@" not in portal.log_text()
