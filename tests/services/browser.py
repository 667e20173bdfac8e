"""Chromium, driven by Playwright's async API.

A browser belongs to one test: Playwright holds on to the event loop that it was started in, and a test's
loop ends with the test. Starting costs about half a second.
"""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.services.programs import find

# Quiet on closed networks, and at home in containers, where Chromium as root has no sandbox.
_FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest_asyncio.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium without windows."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium"), args=_FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def context(chromium: Browser) -> BrowserContext:
    """One person's browser: its pages (`context.new_page()`) are tabs that share cookies and storage."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    context.set_default_timeout(10_000)
    return context


@pytest_asyncio.fixture
async def page(context: BrowserContext) -> Page:
    """A tab of that browser."""
    return await context.new_page()
