"""Journeys: a real browser, the real application, the stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.messaging.conftest import (  # noqa: F401 - fixtures
    Site,
    alice,
    bob,
    own_site,
    shared,
    signed_in,
    site,
    site_env,
)
from tests.messaging.people import Person

_NETWORK = (
    "Failed to load resource",
    "htmx:afterRequest",
    "htmx:sendError",
    "htmx:responseError",
    "Response Status Error",
)
"""What the browser and htmx say whenever a server isn't there; the tests' own doing."""


class Console:
    """What the browser complained about; a journey must leave it empty."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda problem: self.complaints.append(f"{page.url}: {problem}"))
        page.on(
            "console",
            lambda said: (
                self.complaints.append(f"{page.url}: {said.text}")
                if said.type == "error" and not said.text.startswith(_NETWORK)
                else None
            ),
        )


@pytest_asyncio.fixture
async def console(context: BrowserContext) -> AsyncIterator[Console]:
    found = Console()
    context.on("page", found.watch)
    yield found
    assert found.complaints == []


async def be(context: BrowserContext, person: Person, url: str) -> None:
    """Let a browser be a person who has signed in already."""
    await context.add_cookies(
        [{"name": cookie.name, "value": cookie.value or "", "url": url} for cookie in person.client.cookies.jar]
    )


@pytest_asyncio.fixture
async def desk(context: BrowserContext, console: Console, alice: Person, site: Site) -> Page:  # noqa: F811
    """Alice's browser with her conversation open, and live."""
    await be(context, alice, site.app.url)
    return await open_desk(context, site)


async def open_desk(context: BrowserContext, site: Site, topic: str = "") -> Page:  # noqa: F811
    page = await context.new_page()
    await page.goto(address(site, topic))
    await page.wait_for_selector("#connection[data-state=live]")
    return page


def address(site: Site, topic: str = "") -> str:  # noqa: F811
    path = f"/conversations/Invoice%20Helper/{site.activation.replace(' ', '%20')}/?tenant=acme"
    return f"{site.app.url}{path}" + (f"&topic={topic}" if topic else "")
