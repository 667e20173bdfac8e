"""Many tabs of one browser on plain HTTP/1.1 (issue 3, item 7; reliability.md F50, F51)."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import BrowserContext, Page, Route, expect

from tests.journeys.conftest import Console, be, open_desk
from tests.messaging.conftest import Site
from tests.messaging.people import Person

TABS = 12


async def test_twelve_tabs_share_a_stream_and_hand_it_over(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F50, F51"""
    await be(context, alice, site.app.url)
    before = await _streams(alice)
    tabs = [await open_desk(context, site) for _ in range(TABS)]
    assert 1 <= await _streams(alice) - before <= 2
    site.answer("to every tab")
    await _all_show(tabs, 1)
    await tabs.pop(0).close()  # the one that listened for the others
    site.answer("after the handover")
    async with asyncio.timeout(2):
        await _all_show(tabs, 2)
    site.answer("in a topic that no tab shows", topic="Side topic")
    for tab in tabs:
        await expect(tab.locator("a.topic", has_text="Side topic").locator("[data-number]")).to_have_text("1")
    assert 1 <= await _streams(alice) - before <= 2


async def test_a_tab_that_joins_has_what_came_while_it_was_loading(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    await be(context, alice, site.app.url)
    first = await open_desk(context, site)
    second = await context.new_page()
    await second.route("**/static/js/conversation.js", lambda route: _answer_first(site, first, route))
    await second.goto(first.url)
    await expect(second.locator(".answer")).to_have_text([re.compile("while the second tab was loading")])


async def test_signing_out_sends_every_tab_to_the_login(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F86"""
    await be(context, alice, site.app.url)
    tabs = [await open_desk(context, site) for _ in range(3)]
    await alice.client.post("/oidc/logout/", headers=alice.csrf())
    for tab in tabs:
        await expect(tab).to_have_url(re.compile("/login/"))


async def _answer_first(site: Site, first: Page, route: Route) -> None:
    site.answer("while the second tab was loading")
    await expect(first.locator(".answer")).to_have_count(1)
    await route.continue_()


async def _all_show(tabs: list[Page], count: int) -> None:
    await asyncio.gather(*(expect(tab.locator(".answer")).to_have_count(count) for tab in tabs))


async def _streams(person: Person) -> int:
    """How many streams the application has open, as it says itself."""
    told = (await person.client.get("/metrics")).text
    (line,) = [line for line in told.splitlines() if line.startswith("portal_streams_open ")]
    return int(float(line.split()[1]))
