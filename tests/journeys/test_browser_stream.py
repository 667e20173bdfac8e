"""The page's stream through everything that can happen to it: the chip tells the truth, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, Request, Route, expect

from tests.faults.nginx import Nginx
from tests.faults.proxy import FaultProxies, FaultProxy
from tests.journeys.conftest import Console, address, be
from tests.messaging.conftest import Site
from tests.messaging.people import Person

SLOW = 30_000
WITNESS = """
window.states = [];
window.toasts = [];
document.addEventListener("stream:state", ({ detail }) => window.states.push(`${detail.state} ${detail.attempt}`));
document.addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
  for (const { addedNodes } of changes)
    for (const node of addedNodes) if (node.classList?.contains("toast")) window.toasts.push(node.textContent);
}).observe(document.body, { childList: true, subtree: true }));
"""
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""Headless tabs are always visible; this is what a page hears when somebody comes back to it."""


class Desk:
    """Alice's page behind something that can misbehave, and what it has gone through."""

    def __init__(self, page: Page, site: Site, base: str) -> None:
        self.page = page
        self.site = site
        self.base = base
        self.opened = 0
        self.chip = page.locator("#connection")
        page.on("request", self._count)

    def _count(self, request: Request) -> None:
        self.opened += "/stream/" in request.url

    def url(self, topic: str = "") -> str:
        return address(self.site, topic).replace(self.site.app.url, self.base)

    async def open(self, topic: str = "") -> None:
        await self.page.goto(self.url(topic))
        await self.is_live()

    async def is_live(self) -> None:
        await expect(self.chip).to_have_text("Live", timeout=SLOW, use_inner_text=True)

    async def shows(self, *texts: str) -> None:
        """The open topic shows exactly these answers, in this order."""
        wanted = [re.compile(re.escape(text)) for text in texts]
        await expect(self.page.locator(".answer")).to_have_text(wanted, timeout=SLOW)

    async def states(self) -> list[str]:
        states: list[str] = await self.page.evaluate("window.states.splice(0)")
        return states

    def badge(self, topic: str) -> str:
        return f"a.topic:has-text('{topic}') [data-number]"


async def open_desk(
    context: BrowserContext, site: Site, person: Person, base: str, *, with_clock: bool = False, topic: str = ""
) -> Desk:
    await be(context, person, base)
    if with_clock:
        await context.clock.install()
    await context.add_init_script(WITNESS)
    desk = Desk(await context.new_page(), site, base)
    await desk.open(topic)
    return desk


async def streams_of(site: Site, person: Person) -> int:
    """How many streams the application has open."""
    told = (await person.client.get("/metrics")).text
    (line,) = [line for line in told.splitlines() if line.startswith("portal_streams_open ")]
    return int(float(line.split()[1]))


async def becomes(site: Site, person: Person, count: int) -> None:
    async with asyncio.timeout(SLOW / 1000):
        while await streams_of(site, person) != count:
            await asyncio.sleep(0.05)


async def test_a_dead_but_open_connection_is_noticed_and_looked_at_on_every_sign_of_life(
    site: Site, context: BrowserContext, console: Console, alice: Person, fault_proxy: FaultProxies
) -> None:
    """F48, F52: no byte for 2.5 heartbeats is dead; `online`, `resume` and coming back to the tab look at once (I7)."""
    proxy = fault_proxy(site.app.port)
    desk = await open_desk(context, site, alice, proxy.url, with_clock=True)
    site.answer("before")
    await desk.shows("before")

    proxy.blackhole("downstream")
    site.answer("into the void")
    await context.clock.fast_forward(36_000)
    await expect(desk.chip).to_have_text("Live", use_inner_text=True)
    await context.clock.fast_forward(3_000)
    await expect(desk.chip).to_contain_text("Reconnecting 1 of 5", use_inner_text=True)
    proxy.clear()
    await desk.is_live()
    await desk.shows("before", "into the void")

    wakes = {
        "visibilitychange": LOOK,
        "online": "dispatchEvent(new Event('online'))",
        "resume": "document.dispatchEvent(new Event('resume'))",
    }
    shown = ["before", "into the void"]
    for name, wake in wakes.items():
        proxy.blackhole("downstream")
        shown.append(f"missed before {name}")
        site.answer(shown[-1])
        await context.clock.fast_forward(20_000)
        await expect(desk.chip).to_have_text("Live", use_inner_text=True)
        await desk.page.evaluate(wake)
        await expect(desk.chip).to_contain_text("Catching up", use_inner_text=True)
        proxy.clear()
        await desk.is_live()
        await desk.shows(*shown)


async def test_a_frozen_tab_catches_up_when_it_is_looked_at(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F52: frozen by the browser and woken; however many signs of life come at once, it looks once."""
    desk = await open_desk(context, site, alice, site.app.url)
    control = await context.new_cdp_session(desk.page)
    await control.send("Page.setWebLifecycleState", {"state": "frozen"})
    site.answer("while frozen")
    site.answer("elsewhere", topic="Side topic")
    await control.send("Page.setWebLifecycleState", {"state": "active"})
    await desk.shows("while frozen")
    await expect(desk.page.locator(desk.badge("Side topic"))).to_have_text("1")
    await desk.is_live()
    await desk.page.wait_for_timeout(2_100)  # the rest between two looks
    opened = desk.opened
    await desk.page.evaluate(
        "for (let n = 0; n < 20; n += 1) { dispatchEvent(new Event('online'));"
        " document.dispatchEvent(new Event('resume')); document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await desk.is_live()
    site.answer("after all that")
    await desk.shows("while frozen", "after all that")
    assert desk.opened == opened + 1


async def test_a_tab_whose_leader_is_mute_hears_by_itself_when_it_is_looked_at(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F52: the tab that listens for the others hangs or sleeps, with the connection in its hands."""
    leader = await open_desk(context, site, alice, site.app.url)
    follower = Desk(await context.new_page(), site, site.app.url)
    await follower.open()
    assert follower.opened == 0
    await leader.page.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    site.answer("unheard of")
    await leader.shows("unheard of")
    assert await follower.page.locator(".answer").count() == 0
    await follower.page.evaluate(LOOK)
    await follower.shows("unheard of")
    await follower.is_live()
    assert follower.opened == 1


async def test_ten_minutes_without_a_network_use_up_no_attempt(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F54: the laptop slept and woke without a network; counting begins when there is one."""
    desk = await open_desk(context, site, alice, site.app.url, with_clock=True)
    await context.set_offline(True)
    for _ in range(10):
        await context.clock.fast_forward(60_000)
        await desk.page.evaluate("new Promise((done) => setTimeout(done, 50))")
    await expect(desk.chip).to_contain_text("Reconnecting 1 of 5", use_inner_text=True)
    site.answer("while asleep")
    await context.set_offline(False)
    await desk.is_live()
    await desk.shows("while asleep")
    assert not [state for state in await desk.states() if state.startswith(("reconnecting 2", "unavailable"))]


async def test_there_is_one_stream_after_any_walk_through_pages_and_topics(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F53, F55: back and forward ten times, a hundred swaps of the thread: one stream, and one upstream."""
    before = await streams_of(site, alice)
    desk = await open_desk(context, site, alice, site.app.url)
    opened = desk.opened
    await desk.page.evaluate(
        """async ([first, second]) => {
          for (let n = 0; n < 50; n += 1)
            for (const url of [first, second]) await htmx.ajax("GET", url, { target: "#thread-stage" });
        }""",
        [desk.url("Side topic"), desk.url()],
    )
    assert desk.opened == opened
    await desk.page.goto(f"{site.app.url}/conversations/?tenant=acme")
    for _ in range(10):
        await desk.page.go_back()
        await expect(desk.page.locator("#connection")).to_be_visible()
        await desk.page.go_forward()
    await desk.page.go_back()
    await desk.is_live()
    await becomes(site, alice, before + 1)
    (upstream,) = [one for one in site.xians.streams()["threads"] if one["activation"] == site.activation]
    assert upstream["count"] == 1
    site.answer("once")
    await desk.shows("once")


@pytest.fixture
def nginx(tmp_path: Path, site: Site, fault_proxy: FaultProxies) -> Iterator[tuple[Nginx, FaultProxy]]:
    """An nginx in front, and the way from it to the application."""
    way = fault_proxy(site.app.port)
    front = Nginx(tmp_path / "nginx", way.port, settings="proxy_buffering on; proxy_connect_timeout 2s;")
    yield front, way
    front.stop()


async def test_a_proxy_that_answers_for_a_dead_application_is_not_taken_for_an_answer(
    site: Site, context: BrowserContext, console: Console, alice: Person, nginx: tuple[Nginx, FaultProxy]
) -> None:
    """F56: 502 in HTML: Reconnecting, twice, then live again, with all that came; and what was sent meanwhile waits."""
    front, way = nginx
    desk = await open_desk(context, site, alice, front.url)
    site.answer("before")
    await desk.shows("before")
    way.down()
    await expect(desk.chip).to_contain_text("Reconnecting 2 of 5", use_inner_text=True, timeout=SLOW)
    site.answer("while it was dead")
    way.up()
    await desk.is_live()
    await desk.shows("before", "while it was dead")


async def test_streams_that_are_cut_again_and_again_show_nothing_twice_and_no_old_toast(
    site: Site, context: BrowserContext, console: Console, alice: Person, fault_proxy: FaultProxies
) -> None:
    """F59, F102: after each cut all is replayed; badges stay, toasts are for news, no attempt is ever used up."""
    proxy = fault_proxy(site.app.port)
    desk = await open_desk(context, site, alice, proxy.url)
    badge = desk.page.locator(desk.badge("Side topic"))
    shown = []
    site.answer("news", topic="Side topic")
    await expect(badge).to_have_text("1")
    await expect(desk.page.locator(".toast")).to_contain_text("news")
    for number in range(7):
        proxy.cut(reset=number % 2 == 0)
        shown.append(f"while cut off {number}")
        site.answer(shown[-1])
        await desk.shows(*shown)
        await desk.is_live()
        await expect(badge).to_have_text("1")
    assert len(await desk.page.evaluate("window.toasts")) == 1
    assert {state.rpartition(" ")[2] for state in await desk.states()} == {"1"}

    await desk.page.goto("about:blank")  # long enough for upstream's stream to be closed: the next one replays a minute
    await asyncio.to_thread(_until_nobody_listens, site)
    await desk.open()
    site.answer("after the visit")
    await desk.shows(*shown, "after the visit")
    await expect(badge).to_have_text("1")
    assert await desk.page.evaluate("window.toasts") == []
    site.answer("more news", topic="Side topic")
    await expect(desk.page.locator(".toast")).to_contain_text("more news")
    await expect(badge).to_have_text("2")
    await desk.page.locator("a.topic", has_text="Side topic").click()
    await desk.shows("news", "more news")


def _until_nobody_listens(site: Site) -> None:
    site.xians.wait_streams(count=0, exactly=True, within_seconds=SLOW / 1000)


ALONE = """([url, seconds]) => import("/static/js/stream.js").then(({ Listener }) => {
  window.heard = [];
  const settings = { streamUrl: url, heartbeatSeconds: seconds, loginUrl: "/login/", unavailableUrl: "/login/" };
  const tell = (name, { state, attempt }) => window.heard.push(state ? `${state} ${attempt}` : name);
  new Listener(settings, tell, "").start();
})"""
"""The listener of stream.js by itself, on the API's own stream: the only one whose heartbeat can be made fast."""


async def test_a_heartbeat_refills_the_attempts_and_silence_is_death(
    site: Site, context: BrowserContext, alice: Person, fault_proxy: FaultProxies
) -> None:
    """F59, F48: cut after every first heartbeat, seven times, and still at attempt 1; mute for 2.5 beats, and lost."""
    proxy = fault_proxy(site.app.port)
    await be(context, alice, proxy.url)
    page = await context.new_page()
    await page.goto(f"{proxy.url}/conversations/?tenant=acme")
    query = f"agentName=Invoice%20Helper&activationName={site.activation.replace(' ', '%20')}"
    path = f"/api/tenants/acme/messaging/listen?{query}&heartbeatSeconds="
    await page.evaluate(ALONE, [f"{path}1", 1])
    for number in range(7):
        await page.wait_for_function(
            """count => window.heard.filter((word) => word === "live 1").length === count
                 && window.heard.at(-1) === "stream:byte" && window.heard.at(-2) === "stream:byte" """,
            arg=number + 1,
            timeout=SLOW,
        )
        proxy.cut(reset=number % 2 == 0)
    heard = await page.evaluate("window.heard")
    assert not [word for word in heard if word.endswith((" 2", " 3")) or word.startswith("unavailable")]

    await page.reload()
    await page.evaluate(ALONE, [f"{path}300", 1])
    await page.wait_for_function("() => window.heard.includes('reconnecting 1')", timeout=SLOW)
    assert (await page.evaluate("window.heard"))[:3] == ["connecting 1", "stream:byte", "live 1"]


WORDS = [
    (500, "text/html", "<p>Oops</p>", "Reconnecting 1 of 5", ""),
    (502, "text/html", "<p>Bad gateway</p>", "Reconnecting 1 of 5", ""),
    (200, "text/html", "<p>Sign in to the Wi-Fi</p>", "Reconnecting 1 of 5", ""),
    (204, "text/plain", "", "Reconnecting 1 of 5", ""),
    (403, "application/json", '{"error": "Not your workspace.", "code": "X"}', "No access", "Not your workspace."),
    (404, "application/json", '{"error": "No such agent.", "code": "X"}', "Stopped", "No such agent."),
    (409, "application/json", '{"error": "Switched off.", "code": "X"}', "Stopped", "Switched off."),
    (422, "application/json", '{"error": "Not for talking.", "code": "X"}', "Stopped", "Not for talking."),
    (429, "application/json", '{"error": "Too many.", "code": "X"}', "Open in too many tabs", "Too many."),
]


async def test_the_chip_says_what_the_server_says_and_never_live(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F50, F56: every refusal in its words (I7); the page works on, and a refusal for too many ends by itself."""
    await be(context, alice, site.app.url)
    await context.add_init_script(WITNESS)
    desk = Desk(await context.new_page(), site, site.app.url)
    given: list[tuple[int, str, str]] = []

    async def refuse(route: Route) -> None:
        status, kind, body = given[-1]
        await route.fulfill(status=status, content_type=kind, body=body)

    await desk.page.route("**/stream/", refuse)
    await desk.page.route("**/stream/?*", refuse)
    for status, kind, body, words, sentence in WORDS:
        given.append((status, kind, body))
        await desk.page.goto(desk.url())
        await expect(desk.chip).to_contain_text(words, use_inner_text=True)
        await expect(desk.page.locator("#connection-notice")).to_have_text(sentence)
        assert not [state for state in await desk.states() if state.startswith("live")]
    await desk.page.locator("#text").fill("sent without a stream")
    await desk.page.keyboard.press("Enter")
    await expect(desk.page.locator(".message.own .status")).to_contain_text("Sent")
    site.answer("found by a reload")
    await desk.page.reload()
    await desk.shows("found by a reload")
    await desk.page.unroute("**/stream/")
    await desk.page.unroute("**/stream/?*")
    await desk.page.evaluate(LOOK)
    await desk.is_live()
    await expect(desk.page.locator("#connection-notice")).to_be_hidden()
