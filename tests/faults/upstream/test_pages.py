"""What a person sees of upstream's faults, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from playwright.async_api import BrowserContext, Page, expect

from tests.faults.upstream.desk import Desk, eventually
from tests.faults.upstream.hostile import Exchange, Then
from tests.journeys.conftest import Console, be, open_desk
from tests.messaging.people import Person

GIVES_UP_MS = 60_000


def refusing(status: int, body: str, retry_after: str | None = None) -> Then:
    async def script(exchange: Exchange) -> None:
        more = {"Retry_After": retry_after} if retry_after else {}
        await exchange.head(status, "application/json", **more)
        await exchange.chunk(body.encode())
        await exchange.finish()

    return Then(script)


async def greets_and_leaves(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.event("connected", {"tenantId": "acme"})
    await exchange.finish()


async def test_the_chip_says_what_is_the_matter_and_the_page_stays_or_goes(
    site: Desk, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F4, F6, F7, F13: each conversation has its own trouble; the person stays signed in and keeps what was typed.

    A refused key (F4): unavailable, with the words of a set-up, asked again once a minute and not five times. An agent
    that is gone (F6): stopped. A throttle (F7): the wait is shown and not counted. A server that greets and leaves
    (F13): five attempts, then the waiting room, although it says `connected` each time.
    """
    scripts = {
        "key": refusing(401, '{"error":"Unauthorized","message":"Invalid API key"}'),
        "gone": refusing(404, '{"error":"Activation not found"}'),
        "throttled": refusing(429, "{}", "40"),
        "flapping": Then(greets_and_leaves),
    }
    desks = {name: site.another(script) for name, script in scripts.items()}
    await be(context, alice, site.app.url)
    pages = {name: await open_desk(context, desk) for name, desk in desks.items()}
    for page in pages.values():
        await page.locator("#text").fill("a draft")
    addresses = {name: page.url for name, page in pages.items()}
    for script in scripts.values():
        script.begin()
    patient = expect(pages["key"].locator("#connection"))
    await patient.to_have_attribute("data-state", "misconfigured", timeout=GIVES_UP_MS)
    await patient.to_contain_text("Unavailable")
    await expect(pages["key"].locator("#connection-notice")).to_contain_text("administrator")
    await expect(pages["gone"].locator("#connection")).to_have_attribute("data-state", "stopped", timeout=GIVES_UP_MS)
    await expect(pages["gone"].locator("#connection-notice")).to_contain_text("no such agent")
    throttled = pages["throttled"].locator("#connection")
    await expect(throttled).to_contain_text(re.compile(r"Reconnecting 1 of 5 · [34]\d s"))
    seen = {name: desks[name].connects for name in ("key", "gone")}
    assert all(count <= 3 for count in seen.values()), seen  # it was live, came back, and the page asked once
    await expect(pages["flapping"].locator("[data-attempt]")).to_have_text("3", timeout=GIVES_UP_MS)
    await expect(pages["flapping"]).to_have_url(re.compile("/server-unavailable/"), timeout=GIVES_UP_MS)
    assert desks["flapping"].connects >= 6
    await expect(throttled).to_contain_text("Reconnecting 1 of 5")
    assert {name: desks[name].connects for name in seen} == seen, "it was asked again at once"
    for name in ("key", "gone", "throttled"):
        assert pages[name].url == addresses[name]
        await expect(pages[name].locator("#text")).to_have_value("a draft")
    assert (await alice.client.get("/api/tenants/")).status_code == 200


async def test_what_upstream_says_wrongly_leaves_the_page_in_order(
    site: Desk, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F20, F25, F26, F30, F36, F39, F41, F46: the chip stays live; one bubble for each message, in order, as on
    reload."""
    await be(context, alice, site.app.url)
    page = await open_desk(context, site)
    chip = page.locator("#connection")
    states = await _remember_states(page)
    site.settle()

    for raw in ("event: Chat\ndata: {\n\n", "event: error\ndata: x\n\n", "event: open\ndata: []\n\n", "data: 5\n\n"):
        site.xians.control("emit", raw=raw, thread=site.thread)
    first = site.answer("first words")
    await expect(page.locator(".answer")).to_have_count(1)
    site.xians.control("edit", id=first["id"], text="second words")
    await expect(page.locator(".answer")).to_contain_text("second words")
    site.xians.control("again", id=first["id"])
    site.xians.control("emit", event="error", payload={**first, "text": "third words"}, thread=site.thread)
    await expect(page.locator(".answer")).to_contain_text("third words")
    site.xians.control("edit", id=first["id"], text="second words")

    await page.locator("#text").fill("my own words")
    await page.keyboard.press("Enter")
    await expect(page.locator(".message.own .status")).to_contain_text("Sent")
    (mine,) = [m for m in site.xians.truth(**site.thread) if m["direction"] == "Incoming"]
    site.xians.control("again", id=mine["id"])

    base = datetime.now(UTC) + timedelta(seconds=1)
    for place in (3, 0, 4, 1, 2, 2):
        moment = (base + timedelta(milliseconds=100 * place)).isoformat().replace("+00:00", "Z")
        site.answer(f"place {place}", created_at=moment)
    site.answer("line\u2028separator nul\x00 end", created_at=(base + timedelta(seconds=1)).isoformat())
    noise = "9vQ/+aZZ" * 4_000
    site.answer(noise, created_at=(base + timedelta(seconds=2)).isoformat())
    await expect(page.locator(".answer")).to_have_count(9)
    await expect(page.locator(".message.own")).to_have_count(1)
    shown = await _messages(page)
    assert [text for _, text in shown if text.startswith("place")] == [f"place {n}" for n in (0, 1, 2, 2, 3, 4)]
    assert any("line\u2028separator nul\ufffd end" in text for _, text in shown)
    box = await page.locator(".answer").last.bounding_box()
    assert box is not None
    assert box["height"] < 700, "noise fills the page"
    placed = [
        order for order, _ in shown if order
    ]  # one's own words are where they were sent until the page is drawn anew
    assert placed == sorted(placed)
    await expect(chip).to_have_attribute("data-state", "live")
    assert await states() == []
    await page.reload()
    await page.wait_for_selector("#connection[data-state=live]")
    assert [text for _, text in await _messages(page)] == [text for _, text in shown]


async def test_a_message_too_large_for_a_stream_is_there_in_part_and_the_rest_works(
    site: Desk, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F31: over 1 MiB it comes from history, cut, with a sentence that says so; the page answers all the while."""
    await be(context, alice, site.app.url)
    page = await open_desk(context, site)
    site.answer("x" * ((1 << 20) + 1))
    await expect(page.locator(".answer .cut")).to_contain_text("too long to be shown whole", timeout=20_000)
    site.settle()
    site.answer("short again")
    await expect(page.locator(".answer").last).to_contain_text("short again")
    await expect(page.locator(".answer")).to_have_count(2)
    await page.wait_for_selector("#connection[data-state=live]")


async def test_the_page_answers_during_a_burst(
    site: Desk, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F43: thousands of messages for other topics: clicks are answered, the badge and the list end up right."""
    count = 2_000
    await be(context, alice, site.app.url)
    page = await open_desk(context, site)
    site.settle()
    thread = {key: value for key, value in site.thread.items() if key != "participant"}
    site.xians.control("burst", count=count, participants=[alice.email], topics=["Side topic"], **thread)
    slowest, asked = 0.0, 0
    badge = page.locator("a.topic", has_text="Side topic").locator("[data-badge]")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        await badge.count() and await badge.get_attribute("data-badge") == str(count)
    ):
        started = time.monotonic()
        assert await page.evaluate("1 + 1") == 2
        slowest, asked = max(slowest, time.monotonic() - started), asked + 1
    await expect(badge).to_have_attribute("data-badge", str(count))
    site.answer("one more", topic="Side topic")  # the list has been drawn; from here on only the stream tells of it
    await expect(badge).to_have_attribute("data-badge", str(count + 1))
    assert asked > 1
    assert slowest < 5, f"the page did not answer for {slowest:.1f} s"
    await eventually(lambda: site.hostile.count(activation=site.activation) == 1)


async def _remember_states(page: Page) -> Callable[[], Awaitable[list[str]]]:
    """Ask for every state that the stream has had since."""
    await page.evaluate(
        "window.statesSeen = []; document.addEventListener('stream:state', (e) => statesSeen.push(e.detail.state))"
    )

    async def seen() -> list[str]:
        states: list[str] = await page.evaluate("window.statesSeen")
        return states

    return seen


async def _messages(page: Page) -> list[tuple[str, str]]:
    """Order and text of what is shown, from top to bottom."""
    found = await page.locator("#messages > li.message").evaluate_all(
        "all => JSON.stringify(all.map(one => [one.dataset.order, one.querySelector('.content').textContent.trim()]))"
    )
    return [(order, text) for order, text in json.loads(found)]
