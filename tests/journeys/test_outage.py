"""The server that agents run on goes away and comes back, and the page copes."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import BrowserContext, expect

from tests.journeys.conftest import Console, be, open_desk
from tests.messaging.conftest import Site
from tests.messaging.people import Person

GIVES_UP_MS = 60_000


async def test_it_shows_the_attempts_gives_up_and_brings_the_person_back_with_nothing_missing(
    own_site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F1"""
    await be(context, alice, own_site.app.url)
    page = await open_desk(context, own_site)
    own_site.answer("before the outage")
    await expect(page.locator(".answer")).to_have_count(1)
    await page.locator("#text").fill("a draft")
    own_site.xians.kill()
    chip = page.locator("#connection")
    await expect(chip).to_contain_text("Reconnecting")
    await expect(chip.locator("[data-attempt]")).to_have_text("3", timeout=GIVES_UP_MS)
    await expect(page).to_have_url(re.compile("/server-unavailable/"), timeout=GIVES_UP_MS)
    await expect(page.get_by_role("heading")).to_be_visible()
    await asyncio.to_thread(own_site.xians.start)
    own_site.xians.control("activation", tenant="acme", agent="Invoice Helper", name=own_site.activation, active=True)
    own_site.answer("while nobody could look")
    await expect(page).to_have_url(re.compile("/conversations/"), timeout=GIVES_UP_MS)
    await page.wait_for_selector("#connection[data-state=live]")
    await expect(page.locator(".answer")).to_have_count(2)
    await expect(page.locator(".answer").last).to_contain_text("while nobody could look")
    await expect(page.locator("#text")).to_have_value("a draft")


async def test_a_short_break_is_mended_in_place(
    own_site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    """F17, F18: a continuity line says what was recovered."""
    await be(context, alice, own_site.app.url)
    page = await open_desk(context, own_site)
    own_site.answer("one")
    await expect(page.locator(".answer")).to_have_count(1)
    own_site.xians.cut("reset")
    own_site.answer("two, while the stream was broken", at_once=True)
    await expect(page.locator(".answer")).to_have_count(2)
    await expect(page.locator(".continuity")).to_contain_text("1 message recovered")
    await page.wait_for_selector("#connection[data-state=live]")


async def test_a_restart_of_the_application_is_mended_in_place(
    own_site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    await be(context, alice, own_site.app.url)
    page = await open_desk(context, own_site)
    own_site.answer("one")
    await expect(page.locator(".answer")).to_have_count(1)
    own_site.app.kill()
    own_site.answer("two, while we were down")
    own_site.app.start()
    await expect(page.locator(".answer")).to_have_count(2, timeout=20_000)
    own_site.answer("three")
    await expect(page.locator(".answer")).to_have_count(3)
