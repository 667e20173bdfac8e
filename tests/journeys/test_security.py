"""What other sites, hostile texts and leftovers of a session can do to a person's browser: nothing."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, Route, expect
from psycopg import connect

from conversations import links, markdown
from demo.world import INVOICES
from tests.conversations.test_markdown import HOSTILE
from tests.journeys.conftest import Console, address, be, open_desk
from tests.messaging.conftest import SignIn, Site
from tests.messaging.people import Person

_SLOW = 30_000
_WATCH = """
window.alert = window.confirm = window.prompt = () => window.ran(location.href);
document.addEventListener("securitypolicyviolation", (event) =>
  window.violated(`${event.effectiveDirective} ${event.blockedURI} in ${location.pathname}`));
"""
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Elsewhere:
    """Another site, at another port of this machine: serves `pages`, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="elsewhere")
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _handler(site: Elsewhere) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            body = site.pages.get(self.path.partition("?")[0], "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            """Says nothing."""

    return Handler


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    site = Elsewhere()
    yield site
    site.close()


class Watch:
    """What ran although it must not, what the policy had to stop, and where the pages turned to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.violations: list[str] = []
        self.requests: list[str] = []

    def strange(self, site: Site) -> list[str]:
        own = (site.app.url + "/", "data:", "blob:", "about:")
        return [url for url in self.requests if not url.startswith(own)]


@pytest_asyncio.fixture
async def watch(context: BrowserContext) -> Watch:
    found = Watch()
    await context.expose_function("ran", lambda where: found.ran.append(where))
    await context.expose_function("violated", lambda what: found.violations.append(what))
    await context.add_init_script(_WATCH)
    context.on("request", lambda request: found.requests.append(request.url))
    return found


async def _settled(page: Page) -> None:
    await page.evaluate(_SETTLED)


# -- other sites ----------------------------------------------------------------------------------------------


def _forged(site: Site, tenant: str = "acme") -> dict[str, tuple[str, dict[str, str]]]:
    """Every change that a form could make: its address and its fields."""
    part = f"{site.app.url}/conversations/{quote(INVOICES)}/{quote(site.activation)}"
    query = urlencode({"tenant": tenant})
    return {
        "send": (f"{part}/send/?{query}", {"text": "forged", "topic": "t", "requestId": "forged"}),
        "read": (f"{part}/read/?{query}", {"topic": "t"}),
        "delete": (f"{part}/delete/?{query}", {"topic": "t"}),
        "switch": (f"{site.app.url}/tenant/", {"tenant": "globex"}),
        "logout": (f"{site.app.url}/oidc/logout/", {}),
        "api": (f"{site.app.url}/api/tenants/acme/messaging/send", {'{"text":"forged","x':'"}'}),
    }  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_form_on_another_site_changes_nothing(
    site: Site, context: BrowserContext, alice: Person, elsewhere: Elsewhere, host: str
) -> None:
    """F112: send, read, delete, switch and logout; at another port of our host the cookies even go along."""
    await be(context, alice, site.app.url)
    await alice.unread()
    site.answer("unread", topic="t")
    page = await context.new_page()
    for name, (action, fields) in _forged(site).items():
        inputs = "".join(f'<input name="{escape(key)}" value="{escape(value)}">' for key, value in fields.items())
        kind = ' enctype="text/plain"' if name == "api" else ""
        elsewhere.pages[f"/{name}"] = (
            f'<form method="post" action="{escape(action)}"{kind}>{inputs}<button>Win</button>'
        )
        await page.goto(elsewhere.url(f"/{name}", host))
        async with page.expect_navigation() as navigation:
            await page.get_by_role("button", name="Win").click()
        answer = await navigation.value
        assert answer is not None
        assert answer.status == 403 or page.url.startswith(f"{site.app.url}/login/"), name
    assert not site.xians.requests(route="send")
    assert await alice.unread() == {"t": 1}
    assert [message["text"] for message in site.xians.truth(**site.thread)] == ["unread"]
    assert "tenant" not in {cookie["name"] for cookie in await context.cookies(site.app.url)}
    await page.goto(address(site))
    await page.wait_for_selector("#connection[data-state=live]")


async def test_no_change_is_made_by_a_get(site: Site, alice: Person) -> None:
    """F112: an image's address or a link of somebody else's can do nothing either."""
    await alice.unread()
    site.answer("unread", topic="t")
    for action, fields in _forged(site).values():
        answer = await alice.client.get(action, params=fields)
        assert answer.status_code == 405, action
    assert (await alice.client.get(alice.path("read"), params={**site.names, "topic": "t"})).status_code == 405
    assert (await alice.client.get(address(site, "t"))).status_code == 200  # the page itself confirms, by POST
    assert await alice.unread() == {"t": 1}


_SPY = """<script>
window.found = [];
const took = (how) => (value) => window.found.push(how + ": " + value);
const url = %r;
const one = new Promise((done) => {
  const source = new EventSource(url, { withCredentials: true });
  source.onmessage = took("event");
  source.addEventListener("connected", took("event"));
  source.onerror = () => { source.close(); done(); };
});
const two = fetch(url, { credentials: "include" }).then((answer) => answer.text()).then(took("cors"), () => {});
const three = fetch(url, { credentials: "include", mode: "no-cors" })
  .then((answer) => answer.body && took("opaque")(answer.type), () => {});
const four = ["img", "script", "iframe", "link"].map((tag) => new Promise((done) => {
  const element = document.createElement(tag);
  element.onload = tag === "iframe" ? done : () => { took(tag)("loaded"); done(); };
  element.onerror = done;
  if (tag === "link") { element.rel = "stylesheet"; element.href = url; } else element.src = url;
  document.documentElement.append(element);
}));
window.done = Promise.all([one, two, three, ...four]).then(() => true);
</script>"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_another_site_reads_no_stream_and_opens_none(
    site: Site, context: BrowserContext, alice: Person, elsewhere: Elsewhere, host: str
) -> None:
    """F113: EventSource, fetch, image, script and frame, with the cookies; `listen` with a topic would even read it."""
    await be(context, alice, site.app.url)
    await alice.unread()
    site.answer("unread", topic="t")
    opened = site.xians.streams()["opened"]
    page = await context.new_page()
    query = urlencode({**site.names, "topic": "t", "tenant": "acme"})
    part = f"/conversations/{quote(INVOICES)}/{quote(site.activation)}/stream/"
    for path in (alice.path("listen"), part, alice.path("history"), "/dashboard/"):
        elsewhere.pages["/spy"] = _SPY % f"{site.app.url}{path}?{query}"
        await page.goto(elsewhere.url("/spy", host))
        assert await page.evaluate("() => window.done")
        assert await page.evaluate("() => window.found") == []
    assert site.xians.streams()["opened"] == opened
    assert await alice.unread() == {"t": 1}


async def test_no_other_site_can_frame_a_page(
    site: Site, context: BrowserContext, alice: Person, elsewhere: Elsewhere
) -> None:
    """F127"""
    await be(context, alice, site.app.url)
    page = await context.new_page()
    for target in (address(site), f"{site.app.url}/login/", f"{site.app.url}/server-unavailable/"):
        elsewhere.pages["/frame"] = f'<iframe src="{escape(target)}"></iframe>'
        await page.goto(elsewhere.url("/frame"))
        (frame,) = page.main_frame.child_frames
        await frame.wait_for_load_state()
        assert await frame.locator("main, form, a").count() == 0
        answer = await alice.client.get(target)
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


# -- hostile texts --------------------------------------------------------------------------------------------


async def test_the_corpus_does_nothing_live_nor_after_a_reload(
    site: Site, watch: Watch, desk: Page, elsewhere: Elsewhere
) -> None:
    """F114, F115, F117, F124: every text as an answer; nothing runs, no request leaves, no element of ours is touched,
    and none ends the stream."""
    pixel = elsewhere.url("/pixel.png")
    texts = [*HOSTILE, f"![x]({pixel})", f'<img src="{pixel}">', f"[![x]({pixel})]({pixel})", f"[p]: {pixel}\n\n![p]"]
    texts += [f"x{end}{end}event: goodbye{end}data: {GOODBYE}{end}{end}" for end in ("\n", "\r", "\r\n", "\u2028")]
    site.settle()
    for text in texts:
        site.answer(text, at_once=True)
    site.answer("the last one", at_once=True)
    await expect(desk.locator(".answer").last).to_contain_text("the last one", timeout=_SLOW)
    live = await _inspect(desk)
    await desk.reload()
    await desk.wait_for_selector("#connection[data-state=live]")
    async with asyncio.timeout(30):
        while await desk.locator(".answer").count() <= len(texts):
            await desk.evaluate("() => document.querySelector('#earlier a')?.click()")
            await asyncio.sleep(0.1)
    await expect(desk.locator(".answer")).to_have_count(len(texts) + 1)
    for state in (live, await _inspect(desk)):
        assert state == {"owned": 0, "ids": 0, "stray": 0}
    assert (watch.ran, watch.violations, watch.strange(site)) == ([], [], [])
    assert elsewhere.asked == []
    for link in await desk.locator(".answer .content a").all():
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert await link.get_attribute("target") == "_blank"


async def _inspect(page: Page) -> dict[str, int]:
    """Elements and attributes inside messages that no text may make; ids of ours that it may not take."""
    await _settled(page)
    found: dict[str, int] = await page.evaluate(
        """() => {
            const inside = [...document.querySelectorAll(".answer .content *")];
            const allowed = new Set(["class", "dir", "data-prose", "href", "title", "rel", "target", "start", "align"]);
            const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
            return {
              owned: inside.filter((one) => one.matches("script, img, svg, math, iframe, form, input, style")).length,
              ids: ids.length - new Set(ids).size + inside.filter((one) => one.id || one.getAttribute("name")).length,
              stray: inside.filter((one) => [...one.attributes].some(({ name }) => !allowed.has(name))).length,
            };
        }"""
    )
    return found


GOODBYE = '{"reason": "signed-out"}'
LAYERS: dict[str, Callable[[str], str]] = {
    "the renderer": lambda text: markdown._PARSER.render(text),
    "the cleaner": lambda text: markdown._CLEANER.clean(text),
    "the renderer on the cleaner's leavings": lambda text: markdown._PARSER.render(markdown._CLEANER.clean(text)),
}


def _frames(texts: list[str]) -> str:
    """A page that holds each text in a document of its own."""
    return "<!doctype html>" + "".join(f'<iframe srcdoc="{escape(text)}"></iframe>' for text in texts)


async def test_each_layer_is_enough_alone(site: Site, context: BrowserContext, watch: Watch) -> None:
    """F114: without a policy the renderer and the cleaner each; without those two, the policy. And without any of the
    three the corpus does run, or this would prove nothing."""
    policy = (await context.request.get(f"{site.app.url}/login/")).headers["content-security-policy"]
    page = await context.new_page()
    shown: dict[str, Any] = {}

    async def serve(route: Route) -> None:
        if route.request.url == "http://layers.example/":
            await route.fulfill(content_type="text/html", **shown)
        else:
            await route.abort()

    await page.route("**/*", serve)

    async def show(body: str, headers: dict[str, str] | None = None) -> None:
        shown.update(body=body, headers=headers or {})
        await page.goto("http://layers.example/", wait_until="domcontentloaded", timeout=_SLOW)
        await _settled(page)

    for name, layer in LAYERS.items():
        await show(_frames([layer(text) for text in HOSTILE]))
        assert not [url for url in watch.ran if url], name
    await show(_frames(HOSTILE))
    async with asyncio.timeout(10):
        while len(watch.ran) < 5:
            await asyncio.sleep(0.05)
    for text in HOSTILE:
        if "<meta" not in text:  # a refresh runs nothing, and no policy stops it: the two layers before do
            await show(text, {"Content-Security-Policy": policy})
    assert not [where for where in watch.ran if where.startswith("http://layers.example")]
    assert watch.violations


PAYLOAD = "\"'><img src=x onerror=alert(1)><script>alert(1)</script>{{7*7}}<b id=messages hx-get=/ hx-trigger=load>"


async def test_a_hostile_name_is_shown_as_it_is_wherever_it_stands(
    site: Site, context: BrowserContext, console: Console, watch: Watch, alice: Person
) -> None:
    """F116: agent, activation, topic, toast, step, tool, file, field, other type: each is text, live and reloaded."""
    site.xians.control("activation", tenant="acme", agent=PAYLOAD, name=PAYLOAD, active=True)
    site.activation = PAYLOAD
    thread = {**site.thread, "agent": PAYLOAD}
    await be(context, alice, site.app.url)
    page = await context.new_page()
    await page.goto(site.app.url + links.page("acme", PAYLOAD, PAYLOAD))
    await page.wait_for_selector("#connection[data-state=live]")
    site.settle()
    told: list[dict[str, Any]] = [
        {"text": PAYLOAD},
        {"text": PAYLOAD, "type": "Reasoning"},
        {"text": PAYLOAD, "type": "Tool"},
        {"text": None, "type": "File", "data": {"fileName": PAYLOAD, "content": "x"}},
        {"text": None, "type": "Data", "data": {PAYLOAD: PAYLOAD}},
        {"text": None, "type": "Data", "data": {"deep": {PAYLOAD: [PAYLOAD]}}},
        {"text": PAYLOAD, "type": "Handoff", "data": {PAYLOAD: PAYLOAD}},
        {"text": PAYLOAD, "topic": PAYLOAD[:190]},
        {"text": "the end"},
    ]
    for words in told:
        site.xians.message(**{**thread, **words})
    await expect(page.locator(".answer").last).to_contain_text("the end")
    await expect(page.locator(".toast")).to_contain_text("<script>alert(1)")
    await expect(page.locator("a.topic").nth(1)).to_contain_text("<img src=x onerror")
    for path in (page.url, page.url + "&topic=" + quote(PAYLOAD[:190]), "/dashboard/", "/conversations/?q=alert"):
        await page.goto(path if path.startswith("http") else site.app.url + path)
        await expect(page.locator("main")).to_contain_text("<script>alert(1)")
        await _settled(page)
        assert await page.locator("[id=messages][hx-trigger]").count() == 0
    assert (watch.ran, watch.violations, watch.strange(site)) == ([], [], [])
    site.xians.control("activation", tenant="acme", agent=PAYLOAD, name=PAYLOAD, active=False)


# -- the policy and the cookies -------------------------------------------------------------------------------


async def test_the_policy_has_nothing_to_stop_on_a_walk_through_the_site(
    site: Site, context: BrowserContext, console: Console, watch: Watch
) -> None:
    """F128: every page and part, as a person uses them; the console and the policy stay silent."""
    page = await context.new_page()
    for path in ("/login/", "/login/?failed=denied", "/server-unavailable/", "/nowhere/", "/admin/login/"):
        await page.goto(site.app.url + path)
        await _settled(page)
    await page.goto(address(site, "walk"))
    await page.get_by_role("link", name="Sign in with your company account").click()
    await page.get_by_role("button", name="alice@acme.example").click()
    await page.wait_for_selector("#connection[data-state=live]")
    await page.locator("#text").fill("hello")
    await page.keyboard.press("Enter")
    await expect(page.locator(".message.own .status")).to_contain_text("Sent")
    site.answer("| a |\n|--:|\n| `1` |", topic="walk")
    site.answer("thinking", topic="walk", type="Reasoning")
    site.answer("elsewhere", topic="other")
    await expect(page.locator(".answer td")).to_have_text("1")
    await page.locator(".toast").click()
    await expect(page.locator("#thread-title")).to_have_text("other")
    await page.locator("#new-topic summary").click()
    await page.locator("#new-topic-name").fill("brand new")
    await page.get_by_role("button", name="Start").click()
    await expect(page.locator("#thread-title")).to_have_text("brand new")
    await page.locator("a.topic", has_text="walk").click()
    await page.locator("#delete-open").click()
    await page.get_by_role("button", name="Delete topic").click()
    await expect(page.locator("#thread-title")).to_have_text("General Discussions")
    await page.goto(f"{site.app.url}/dashboard/")
    await page.get_by_role("link", name="Agents", exact=True).click()
    await page.get_by_role("searchbox").fill("nothing like it")
    await expect(page.get_by_text("Nothing matches")).to_be_visible()
    for path in ("/nowhere/", "/conversations/?tenant=no-such-tenant", "/admin/"):
        await page.goto(site.app.url + path)
        await _settled(page)
    provider = site.app.env["OIDC_ISSUER_URL"] + "/"
    assert watch.violations == []
    assert not [url for url in watch.strange(site) if not url.startswith(provider)]


async def test_after_signing_out_going_back_shows_the_sign_in(
    site: Site, context: BrowserContext, console: Console, desk: Page
) -> None:
    """F126: nothing of the conversation comes out of any cache of the browser."""
    site.answer("for alice's eyes")
    await expect(desk.locator(".answer")).to_contain_text("for alice's eyes")
    await desk.goto(f"{site.app.url}/dashboard/")
    await desk.locator(".person-button").click()
    await desk.get_by_role("button", name="Sign out").click()
    await expect(desk).to_have_url(re.compile("/end_session"))  # the provider asks whether to end its own session, too
    for _ in range(2):
        await desk.go_back()
        await expect(desk).to_have_url(re.compile("/login/"))
        assert "for alice's eyes" not in await desk.content()
    await desk.goto(address(site))
    await expect(desk).to_have_url(re.compile("/login/"))


# -- sign-ins that end ----------------------------------------------------------------------------------------


async def test_an_expired_session_takes_the_page_to_the_sign_in_at_once_and_back(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F85, F94: no five tries, no waiting room, back in the same topic with the draft; the session's row expires."""
    await be(context, alice, site.app.url)
    page = await open_desk(context, site, "Budget")
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "/stream/" in request.url else None)
    await page.locator("#text").fill("half a thought")
    _expire(site, alice)
    await expect(page).to_have_url(re.compile(r"/login/\?next=.*Budget"), timeout=_SLOW)
    assert len(streams) <= 1
    await page.get_by_role("link", name="Sign in with your company account").click()
    await page.get_by_role("button", name="alice@acme.example").click()
    await page.wait_for_selector("#connection[data-state=live]")
    assert "topic=Budget" in page.url
    await expect(page.locator("#text")).to_have_value("half a thought")


async def test_a_part_of_a_page_never_becomes_the_way_back(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F94: an `hx-get` that meets an ended session: the way back is the page, not the fragment or the stream."""
    await be(context, alice, site.app.url)
    page = await context.new_page()
    await page.goto(f"{site.app.url}/conversations/?tenant=acme")
    _expire(site, alice)
    await page.get_by_role("searchbox").fill("desk")
    await expect(page).to_have_url(re.compile(r"/login/\?next=%2Fconversations%2F%3F"))
    for headers in ({"HX-Request": "true"}, {"Accept": "text/event-stream"}):
        answer = await alice.client.get(address(site).replace("/?", "/stream/?"), headers=headers)
        assert answer.status_code == 401
        assert "location" not in answer.headers


def _expire(site: Site, person: Person) -> None:
    key = person.client.cookies["sessionid"]
    with connect(site.app.database_url) as database:
        database.execute(
            "UPDATE django_session SET expire_date = now() - interval '1 minute' WHERE session_key = %s", [key]
        )


async def test_nothing_of_a_lost_tenant_stays_on_the_page(
    own_site: Site, context: BrowserContext, console: Console, signed_in: SignIn
) -> None:
    """F89: the page says that there is no access, without the messages, the topics and the title that it showed."""
    bob = await signed_in("bob@acme.example")
    await be(context, bob, own_site.app.url)
    page = await open_desk(context, own_site, "Secret plan")
    own_site.answer("not for strangers", topic="Secret plan", participant=bob.email)
    await expect(page.locator(".answer")).to_contain_text("not for strangers")
    own_site.xians.control("membership", email=bob.email, tenant="acme", role=None)
    await expect(page.get_by_role("heading", name="No access")).to_be_visible(timeout=_SLOW)
    shown = await page.content()
    for gone in ("not for strangers", "Secret plan</", own_site.activation + "<"):
        assert gone not in shown


async def test_two_tabs_are_in_two_tenants(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F90: each page stays in its own tenant, whatever the other one is switched to: its links and forms name it, so
    there is nothing to warn of and no stream to end."""
    site.xians.control("activation", tenant="globex", agent=INVOICES, name=site.activation, active=True)
    await be(context, alice, site.app.url)
    acme = await open_desk(context, site)
    other = await context.new_page()
    await other.goto(f"{site.app.url}/dashboard/")
    await other.locator(".menu-button").click()
    await other.get_by_role("button", name="Globex").click()
    await other.get_by_role("link", name=site.activation).first.click()
    await other.wait_for_selector("#connection[data-state=live]")
    for page, text in ((acme, "said in acme"), (other, "said in globex")):
        await page.locator("#text").fill(text)
        await page.keyboard.press("Enter")
        await expect(page.locator(".message.own .status")).to_contain_text("Sent")
    site.answer("acme answers")
    site.xians.message(**{**site.thread, "tenant": "globex"}, text="globex answers")
    await expect(acme.locator(".answer")).to_have_text([re.compile("acme answers")])
    await expect(other.locator(".answer")).to_have_text([re.compile("globex answers")])
    for tenant, page in (("acme", acme), ("globex", other)):
        truth = site.xians.truth(**{**site.thread, "tenant": tenant})
        assert [message["text"] for message in truth] == [f"said in {tenant}", f"{tenant} answers"]
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    site.xians.control("activation", tenant="globex", agent=INVOICES, name=site.activation, active=False)


_LOOK_AGAIN = """() => new Promise((done) => {
    document.addEventListener("htmx:afterOnLoad", done, { once: true });
    document.dispatchEvent(new Event("topics:outdated"));
})"""
"""Fetch the list of topics anew, whatever comes of it."""


async def test_an_agent_that_is_switched_off_says_so_and_what_was_said_stays(
    site: Site, context: BrowserContext, console: Console, desk: Page
) -> None:
    """F91: upstream refuses an inactive activation's history (409), so what is on the page is what stays readable."""
    site.answer("said before")
    await expect(desk.locator(".answer")).to_contain_text("said before")
    _switch(site, is_active=False)
    await desk.locator("#text").fill("are you there?")
    await desk.keyboard.press("Enter")
    await expect(desk.locator(".message.own")).to_contain_text("This agent is switched off")
    site.xians.cut()
    await expect(desk.locator("#connection")).to_have_attribute("data-state", "stopped", timeout=_SLOW)
    await expect(desk.locator("#connection-notice")).to_contain_text("This agent is switched off")
    await expect(desk.locator(".answer")).to_contain_text("said before")
    await desk.evaluate(_LOOK_AGAIN)
    await expect(desk.locator("#topics a.topic")).to_have_count(1)  # a list that is refused stays as it was
    await expect(desk.locator(".answer")).to_contain_text("said before")
    await desk.reload()
    await expect(desk.locator(".composer-place")).to_contain_text("is switched off")
    _switch(site, is_active=True)
    await desk.reload()
    await desk.wait_for_selector("#connection[data-state=live]")
    await expect(desk.locator(".answer")).to_contain_text("said before")


async def test_an_agent_that_was_deleted_is_told_apart_from_an_outage(
    site: Site, context: BrowserContext, console: Console, desk: Page
) -> None:
    """F91"""
    site.answer("said before")
    await expect(desk.locator(".answer")).to_contain_text("said before")
    await expect(desk.locator("#topics [data-messages]").first).to_have_text("1")  # the list has been fetched anew
    gone = "{\"error\":\"Activation 'x' not found for agent 'y'\"}"
    for route in ("listen", "topics", "history", "send"):
        site.xians.refuse(route=route, status=404, headers={"content-type": "application/json"}, body=gone)
    site.xians.cut()
    await expect(desk.locator("#connection")).to_have_attribute("data-state", "stopped", timeout=_SLOW)
    await expect(desk.locator("#connection-notice")).to_contain_text("There is no such agent in this workspace")
    await expect(desk.locator(".answer")).to_contain_text("said before")


def _switch(site: Site, *, is_active: bool) -> None:
    site.xians.control("activation", tenant="acme", agent=INVOICES, name=site.activation, active=is_active)


# -- the waiting room -----------------------------------------------------------------------------------------


async def test_the_waiting_room_is_neither_a_loop_nor_a_beacon(
    site: Site, context: BrowserContext, alice: Person
) -> None:
    """F120: the server says that it is well and fails each page: not more than a round in ten seconds; and a tab that
    nobody looks at asks nothing. The page's clock runs faster than ours."""
    await be(context, alice, site.app.url)
    rule = site.xians.refuse(route="*/agentActivations", status=503)
    page = await context.new_page()
    await page.clock.install()
    rounds: list[str] = []
    probes: list[str] = []
    page.on("request", lambda request: rounds.append(request.url) if "/conversations/" in request.url else None)
    page.on("request", lambda request: probes.append(request.url) if "/readyz" in request.url else None)
    await page.goto(address(site))
    await expect(page).to_have_url(re.compile("/server-unavailable/"))
    rounds.clear()
    for _ in range(60):
        await page.clock.run_for(1_000)
        await page.wait_for_load_state()
    assert 1 <= len([url for url in rounds if "returnUrl" not in url]) <= 7
    await expect(page).to_have_url(re.compile("/server-unavailable/"))
    await page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    before = len(probes)
    await page.clock.run_for(300_000)
    assert len(probes) == before
    site.xians.forgive(rule)


async def test_the_waiting_room_asks_more_and_more_seldom(site: Site, context: BrowserContext) -> None:
    """F120: while the server stays away, down to once a minute."""
    page = await context.new_page()
    await page.clock.install()
    probes: list[str] = []

    async def away(route: Route) -> None:
        probes.append(route.request.url)
        await route.fulfill(status=503)

    await page.route("**/readyz", away)
    await page.goto(f"{site.app.url}/server-unavailable/?returnUrl=%2Fdashboard%2F")
    counts = []
    for _ in range(3):
        before = len(probes)
        for _ in range(60):
            await page.clock.run_for(5_000)
            await expect(page.locator("[data-when=checking]")).to_be_hidden()
        counts.append(len(probes) - before)
    assert counts[0] > max(counts[1:])
    assert all(3 <= count <= 6 for count in counts[1:]), counts
