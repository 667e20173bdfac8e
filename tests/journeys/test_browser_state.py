"""What a person sees of their own words and of the counts, whatever happens: bubbles, drafts, badges, honest lines."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.journeys.conftest import Console, address, be, open_desk
from tests.messaging.conftest import SignIn, Site
from tests.messaging.people import Person

SLOW = 20_000


def badge(page: Page, topic: str) -> Locator:
    return page.locator("a.topic", has_text=topic).locator("[data-number]")


async def write(page: Page, text: str) -> None:
    await page.locator("#text").fill(text)
    await page.keyboard.press("Enter")


async def test_a_bubble_says_how_far_its_message_is_and_reaches_the_persons_other_device(
    site: Site, chromium: Browser, context: BrowserContext, desk: Page, signed_in: SignIn
) -> None:
    """Sending, waiting for connection, not sent with Retry, sent; each once, on every device without a reload."""
    phone = await chromium.new_context(viewport={"width": 390, "height": 780})
    await be(phone, await signed_in("alice@acme.example"), site.app.url)
    other = await open_desk(phone, site)
    own = desk.locator(".message.own")
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await desk.route("**/send/**", hold)
    await write(desk, "first words")
    await expect(own).to_contain_text("Sending…")
    held.set()
    await expect(own.locator(".status")).to_have_text("Sent")
    await expect(other.locator(".message.own")).to_contain_text("first words")

    await desk.unroute("**/send/**")
    await context.set_offline(True)
    await write(desk, "from a tunnel")
    await expect(own.last).to_contain_text("Waiting for connection")
    await context.set_offline(False)
    await expect(own.last.locator(".status")).to_have_text("Sent")

    site.xians.refuse(route="send", status=500, count=1)
    await write(desk, "third time lucky")
    await expect(own.last).to_contain_text("Not sent")
    await expect(own.last.locator(".status")).to_have_count(0)
    await own.last.get_by_role("button", name="Retry").click()
    await expect(own.last.locator(".status")).to_have_text("Sent")
    await write(other, "from the phone")
    for page in (desk, other):
        await expect(page.locator(".message.own .prose")).to_have_text(
            ["first words", "from a tunnel", "third time lucky", "from the phone"], timeout=SLOW
        )
    sent = [message["text"] for message in site.xians.truth(**site.thread)]
    assert sent == ["first words", "from a tunnel", "third time lucky", "from the phone"]
    await phone.close()


async def test_typed_text_survives_by_topic_a_reload_and_a_sign_in_that_has_ended(
    site: Site, context: BrowserContext, alice: Person, desk: Page
) -> None:
    await desk.locator("#text").fill("for General")
    await desk.goto(address(site, "Budget"))
    await expect(desk.locator("#text")).to_have_value("")
    await desk.locator("#text").fill("for Budget")
    await desk.reload()
    await expect(desk.locator("#text")).to_have_value("for Budget")
    await desk.locator("a.topic", has_text="General").click()
    await expect(desk.locator("#text")).to_have_value("for General")
    await context.clear_cookies(name="sessionid")
    await desk.keyboard.press("Enter")
    await expect(desk).to_have_url(re.compile("/login/"))
    await desk.get_by_role("link", name="Sign in with your company account").click()
    await desk.get_by_role("button", name="alice@acme.example").click()
    await desk.wait_for_selector("#connection[data-state=live]")
    bubble = desk.locator(".message.own")
    await expect(bubble).to_contain_text("for General")
    await bubble.get_by_role("button", name="Retry").click()
    await expect(bubble.locator(".status")).to_have_text("Sent")
    await desk.goto(address(site, "Budget"))
    await expect(desk.locator("#text")).to_have_value("for Budget")


async def test_a_gap_that_cannot_be_closed_is_said_in_every_tab_until_the_reload(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F62, F61: each tab fetches its own topic from the server, shows it whole, and asks for a reload to be sure."""
    await be(context, alice, site.app.url)
    site.answer("in general")
    site.answer("about the budget", topic="Budget")

    async def forge(route: Route) -> None:
        await route.continue_(headers={**route.request.headers, "last-event-id": "nobody-gave-this-out"})

    general, budget = await open_desk(context, site), await open_desk(context, site, "Budget")
    await general.route(re.compile("/stream/"), forge, times=1)
    await general.evaluate("dispatchEvent(new Event('online'))")
    await expect(general.locator("#resync-line")).to_be_visible()
    await expect(general.locator("#resync-line")).to_contain_text("Reload to be sure")
    site.answer("later")
    site.answer("later, too", topic="Budget")
    await expect(general.locator(".answer .prose")).to_have_text(["in general", "later"])
    await expect(budget.locator(".answer .prose")).to_have_text(["about the budget", "later, too"])
    for page in (budget, general):
        await expect(page.locator("#resync-line")).to_be_visible()
        await page.get_by_role("button", name="Reload to be sure").click()
        await page.wait_for_selector("#connection[data-state=live]")
        await expect(page.locator(".answer .prose").last).to_contain_text("later")
        await expect(page.locator("#resync-line")).to_be_hidden()


async def test_without_scripts_everything_works_by_reload_and_says_so(
    site: Site, chromium: Browser, alice: Person
) -> None:
    """F63: switched off: list, open, send and read; blocked on the way: the page says as much after a moment."""
    plain = await chromium.new_context(java_script_enabled=False)
    await be(plain, alice, site.app.url)
    await alice.unread()
    page = await plain.new_page()
    site.answer("news", topic="Budget")
    await page.goto(f"{site.app.url}/dashboard/")
    await expect(page.locator("noscript p")).to_contain_text("Live updates are off", use_inner_text=True)
    await page.goto(address(site))
    chip = page.locator("#connection")
    await expect(chip).to_contain_text("Live updates are off", use_inner_text=True)
    assert "Connecting" not in await chip.inner_text()
    await expect(badge(page, "Budget")).to_have_text("1")
    await page.locator("a.topic", has_text="Budget").click()
    await expect(page.locator(".answer")).to_contain_text("news")
    await page.get_by_role("button", name="Mark as read").click()
    await expect(badge(page, "Budget")).to_be_hidden()
    await page.locator("#text").fill("a plain form")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".message.own")).to_contain_text("a plain form")
    await expect(page.locator(".message.own .status, .message.own time").first).to_be_visible()
    await plain.close()

    blocked = await chromium.new_context()
    await be(blocked, alice, site.app.url)
    page = await blocked.new_page()
    await page.route("**/static/js/**", lambda route: route.abort())
    await page.goto(address(site))
    late = page.locator(".chip-late")
    await expect(late).to_be_visible(timeout=SLOW)
    await expect(page.locator("#connection")).not_to_contain_text("Connecting", use_inner_text=True)
    await blocked.close()


async def test_tabs_on_different_topics_agree_on_every_badge(
    site: Site, context: BrowserContext, desk: Page, alice: Person
) -> None:
    """F99, F111: reading in one tab clears the badge in the other; 100 shows as 99+, and one less as 99."""
    other = await open_desk(context, site, "Budget")
    site.answer("seen at once", topic="Budget")
    await expect(other.locator(".answer")).to_contain_text("seen at once")
    await expect(badge(desk, "Budget")).to_be_hidden()
    thread = {key: value for key, value in site.thread.items() if key != "participant"}
    told = await asyncio.to_thread(
        site.xians.control, "burst", count=100, participants=[alice.email], topics=["Travel"], **thread
    )
    for page in (desk, other):
        await expect(badge(page, "Travel")).to_have_text("99+", timeout=SLOW)
        await expect(page).to_have_title(re.compile(r"^\(99\+\) "))
    await alice.post("read", topic="Travel", upToMessageId=told["ids"][0])
    for page in (desk, other):
        await expect(badge(page, "Travel")).to_have_text("99")
        await expect(page).to_have_title(re.compile(r"^\(99\) "))
    await desk.locator("a.topic", has_text="Travel").click()
    await expect(badge(other, "Travel")).to_be_hidden()
    for page in (desk, other):
        await expect(page).to_have_title(re.compile(r"^[^(]"))
    assert await alice.unread() == {}


async def test_a_topic_deleted_elsewhere_leaves_the_list_and_the_open_tab_is_told(
    site: Site, context: BrowserContext, desk: Page, alice: Person
) -> None:
    """F105"""
    other = await open_desk(context, site, "Budget")
    site.answer("soon gone", topic="Budget")
    await expect(other.locator(".answer")).to_contain_text("soon gone")
    await expect(desk.locator("a.topic", has_text="Budget")).to_be_visible()
    await other.locator("#text").fill("half a thought")
    await alice.delete("messages", topic="Budget")
    await expect(desk.locator("a.topic", has_text="Budget")).to_have_count(0)
    await expect(other.get_by_text("This topic was deleted elsewhere")).to_be_visible()
    await expect(other.locator(".answer")).to_have_count(0)
    await expect(other.locator("#text")).to_have_value("half a thought")


async def test_dashboards_in_many_tabs_share_one_stream(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F51: eight overviews would use up the six connections of HTTP/1.1; the counts arrive in all of them (D5)."""
    await be(context, alice, site.app.url)
    await alice.unread()
    tabs = [await context.new_page() for _ in range(8)]
    for tab in tabs:
        await tab.goto(f"{site.app.url}/dashboard/")
        await expect(tab.locator(".cards li", has_text=site.activation)).to_be_visible()
    for left, count in ((tabs, "1"), (tabs[1:], "2")):
        await _answer(site, alice)
        for each in left:
            card = each.locator(".cards li", has_text=site.activation)
            await expect(card.locator(".badge")).to_contain_text(count, timeout=SLOW)
        await tabs[0].close()


async def _answer(site: Site, alice: Person) -> None:
    """An answer in an inbox to which another device of hers listens."""
    async with alice.listening() as stream:
        site.answer("news", topic="Budget")
        await stream.next("unread")
