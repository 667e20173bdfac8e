"""Reading is confirmed by the page, for what it has displayed and no more (D4)."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, expect

from tests.journeys.test_conversation import _pretend
from tests.messaging.conftest import Site
from tests.messaging.people import PATIENCE, Person

A_LATER_TIMER = "new Promise((done) => setTimeout(done, 450))"
"""The page confirms 150 ms after its last reason to: a timer set now, and longer, goes off behind that."""


async def test_a_hidden_tab_confirms_nothing_before_it_is_looked_at(site: Site, alice: Person, desk: Page) -> None:
    """D3"""
    confirmed: list[str] = []
    desk.on("request", lambda request: confirmed.append(request.url) if "/read/" in request.url else None)
    await _pretend(desk, "hidden")
    site.answer("unseen")
    await expect(desk.locator(".answer")).to_have_count(1)
    await _eventually(alice, {None: 1})
    await desk.evaluate(A_LATER_TIMER)
    assert confirmed == []
    assert await alice.unread() == {None: 1}
    async with desk.expect_response(lambda response: "/read/" in response.url):
        await _pretend(desk, "visible")
    await _eventually(alice, {})


async def test_the_page_confirms_what_it_displays_and_no_more(site: Site, alice: Person, desk: Page) -> None:
    """D3, D4: an answer that comes when the page can't show it any more stays counted."""
    await _pretend(desk, "hidden")
    site.answer("displayed")
    await expect(desk.locator(".answer")).to_have_count(1)
    await desk.evaluate("dispatchEvent(new Event('pagehide'))")  # its stream ends; what comes now isn't displayed
    site.answer("arrives at that very moment", at_once=True)
    await _eventually(alice, {None: 2})
    async with desk.expect_response(lambda response: "/read/" in response.url):
        await _pretend(desk, "visible")
    await expect(desk.locator(".answer")).to_have_count(1)
    assert await alice.unread() == {None: 1}


async def _eventually(person: Person, counts: dict[str | None, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await person.unread() != counts:
            await asyncio.sleep(0.05)
