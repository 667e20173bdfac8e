"""What arrives while a topic is being fetched: it is in neither page, and is shown nevertheless (issue 3)."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, Route, expect

from tests.messaging.conftest import Site
from tests.messaging.people import PATIENCE, Person


class Held:
    """A request whose answer the server has given, and the page doesn't have yet."""

    def __init__(self) -> None:
        self.is_drawn = asyncio.Event()
        self.may_arrive = asyncio.Event()

    async def hold(self, route: Route) -> None:
        if route.request.headers.get("hx-request") != "true" or "/topics/" in route.request.url:
            await route.continue_()
            return
        response = await route.fetch()
        self.is_drawn.set()
        await self.may_arrive.wait()
        await route.fulfill(response=response)


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first answer of the topic", "a further answer"])
async def test_an_answer_between_the_drawing_of_a_topic_and_its_arrival_is_shown_and_read(
    site: Site, desk: Page, alice: Person, earlier: int
) -> None:
    """F98: the topic was drawn without the answer, and the stream brought it while another topic was still open."""
    for number in range(earlier):
        site.answer(f"earlier {number}", topic="Side topic")
    site.answer("to have it in the list", topic="Side topic", type="Tool")
    row = desk.locator("a.topic", has_text="Side topic")
    await expect(row).to_be_visible()
    held = Held()
    await desk.route("**/conversations/**", held.hold)
    await row.click()
    async with asyncio.timeout(PATIENCE):
        await held.is_drawn.wait()
    site.answer("just now", topic="Side topic")
    await expect(desk.locator(".toast")).to_contain_text("just now")
    held.may_arrive.set()
    await expect(desk.locator(".answer")).to_have_count(earlier + 1)
    await expect(desk.locator(".answer").last).to_contain_text("just now")
    await expect(row.locator("[data-badge]")).to_be_hidden()
    async with asyncio.timeout(PATIENCE):
        while await alice.unread():
            await asyncio.sleep(0.1)
