"""What a person does and sees in a conversation."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.journeys.conftest import Console, address, be, open_desk
from tests.messaging.conftest import Site
from tests.messaging.people import PATIENCE, Person


async def test_a_newcomer_signs_in_talks_and_sees_steps_and_the_answer_without_a_reload(
    site: Site, context: BrowserContext, console: Console
) -> None:
    page = await context.new_page()
    await page.goto(site.app.url)
    await page.get_by_role("link", name="Sign in with your company account").click()
    await page.get_by_role("button", name="alice@acme.example").click()
    await expect(page.get_by_role("heading", name="Hello, Alice")).to_be_visible()
    await page.get_by_role("link", name="Agents", exact=True).click()
    await page.get_by_role("searchbox").fill(site.activation)
    await page.get_by_role("link", name=site.activation).first.click()
    await page.wait_for_selector("#connection[data-state=live]")
    await page.locator("#text").fill("When is **it** due?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".message.own")).to_contain_text("When is it due?")
    await expect(page.locator(".message.own .status")).to_contain_text("Sent")
    await expect(page.locator("#text")).to_have_value("")
    site.answer("", type="Reasoning", data="Looking it up")
    site.answer("lookup_invoice", type="Tool")
    await expect(page.locator(".steps")).to_contain_text("Looking it up")
    await expect(page.locator(".steps [data-count]")).to_have_text("2")
    site.answer("On **15 July**.")
    await expect(page.locator(".answer strong")).to_have_text("15 July")
    live = await page.locator("#messages > li[id]").evaluate_all("all => all.map(one => one.id)")
    await page.reload()
    assert await page.locator("#messages > li[id]").evaluate_all("all => all.map(one => one.id)") == live


async def test_what_is_typed_into_the_search_before_the_page_is_ready_is_looked_for(
    site: Site, context: BrowserContext, console: Console, alice: Person
) -> None:
    await be(context, alice, site.app.url)
    page = await context.new_page()
    is_typed = asyncio.Event()

    async def wait(route: Route) -> None:
        await is_typed.wait()
        await route.continue_()

    await page.route(re.compile(r"/htmx[^/]*\.js"), wait)
    await page.goto(f"{site.app.url}/conversations/?tenant={alice.tenant}", wait_until="commit")
    await page.get_by_role("searchbox").fill("nothing like it")
    is_typed.set()
    await expect(page.get_by_text("Nothing matches")).to_be_visible()


async def test_a_badge_grows_and_goes_when_the_topic_is_opened_in_another_tab_too(
    site: Site, context: BrowserContext, desk: Page
) -> None:
    """D3, D4, D5"""
    second = await open_desk(context, site)
    for number in range(3):
        site.answer(f"news {number}", topic="Side topic")
    for page in (desk, second):
        await expect(_badge(page, "Side topic")).to_have_text("3")
    await expect(desk.locator(".toast")).to_contain_text("Side topic")
    await desk.bring_to_front()
    await desk.locator("a.topic", has_text="Side topic").click()
    await expect(desk.locator(".answer")).to_have_count(3)
    await expect(_badge(desk, "Side topic")).to_be_hidden()
    await expect(_badge(second, "Side topic")).to_be_hidden(timeout=1500)
    site.answer("while it is open", topic="Side topic")
    await expect(desk.locator(".answer")).to_have_count(4)
    await expect(_badge(desk, "Side topic")).to_be_hidden()
    await expect(_badge(second, "Side topic")).to_be_hidden()


async def test_the_dashboard_shows_a_new_count_by_itself(site: Site, context: BrowserContext, desk: Page) -> None:
    """D5"""
    dashboard = await context.new_page()
    await dashboard.goto(f"{site.app.url}/dashboard/")
    card = dashboard.locator(".cards li", has_text=site.activation)
    await expect(card).to_be_visible()
    site.answer("somewhere else", topic="Side topic")
    await expect(card.locator(".badge")).to_contain_text("1", timeout=3000)


async def test_counts_that_changed_while_the_page_was_cut_off_are_put_right(
    site: Site, context: BrowserContext, alice: Person, desk: Page
) -> None:
    """F100"""
    site.answer("news", topic="Side topic")
    await expect(_badge(desk, "Side topic")).to_have_text("1")
    await context.set_offline(True)
    await desk.evaluate("dispatchEvent(new Event('pagehide'))")
    await alice.post("read", topic="Side topic")
    await context.set_offline(False)
    await desk.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    await expect(_badge(desk, "Side topic")).to_be_hidden()


async def test_a_hidden_tab_reads_nothing_until_it_is_looked_at(site: Site, alice: Person, desk: Page) -> None:
    """D3"""
    await _pretend(desk, "hidden")
    site.answer("unseen")
    await expect(desk.locator(".answer")).to_contain_text("unseen")
    await _eventually(alice, {None: 1})
    await _pretend(desk, "visible")
    await _eventually(alice, {})


async def test_what_was_typed_survives_a_failed_send_and_a_reload(site: Site, desk: Page) -> None:
    site.xians.refuse(route="send", status=503, count=1)
    await desk.locator("#text").fill("precious words")
    await desk.keyboard.press("Enter")
    await expect(desk.locator(".message.own")).to_contain_text("Not sent")
    await desk.reload()
    await expect(desk.locator(".message.own, #text").filter(has_text="precious words").first).to_be_visible()
    await desk.get_by_role("button", name=re.compile("Retry")).click()
    await expect(desk.locator(".message.own .status")).to_contain_text("Sent")
    assert [m["text"] for m in site.xians.truth(**site.thread)] == ["precious words"]


async def test_the_agent_is_said_to_work_once_the_question_has_arrived(site: Site, desk: Page) -> None:
    line = desk.get_by_text("is working on it")
    may_go = asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.method == "POST":
            await may_go.wait()
        await route.continue_()

    await desk.route("**/conversations/**", hold)
    await desk.locator("#text").fill("When is it due?")
    await desk.keyboard.press("Enter")
    await expect(desk.locator(".message.own")).to_contain_text("Sending")
    await expect(line).to_be_hidden()
    may_go.set()
    await expect(desk.locator(".message.own .status")).to_contain_text("Sent")
    await expect(line).to_be_visible()
    site.answer("On 15 July.")
    await expect(desk.locator(".answer")).to_have_count(1)
    await expect(line).to_be_hidden()


async def test_an_expired_login_leads_to_the_sign_in_and_back_to_the_same_topic(
    site: Site, context: BrowserContext, alice: Person, desk: Page
) -> None:
    await desk.goto(address(site, "Budget"))
    await desk.wait_for_selector("#connection[data-state=live]")
    await desk.locator("#text").fill("half a thought")
    await alice.client.post("/oidc/logout/", headers=alice.csrf())
    await expect(desk).to_have_url(re.compile("/login/"))
    assert "topic%3DBudget" in desk.url or "topic%253DBudget" in desk.url
    await desk.get_by_role("link", name="Sign in with your company account").click()
    await desk.get_by_role("button", name="alice@acme.example").click()
    await desk.wait_for_selector("#connection[data-state=live]")
    assert "topic=Budget" in desk.url
    await expect(desk.locator("#text")).to_have_value("half a thought")


async def test_hostile_text_does_nothing(site: Site, desk: Page) -> None:
    """F114-F117: the console fixture sees whatever a script or the content policy would say."""
    requested: list[str] = []
    desk.on("request", lambda request: requested.append(request.url))
    site.answer(
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
        "[link](javascript:alert(1)) ![pixel](http://127.0.0.1:9/pixel.png)"
        '<div hx-get="/dashboard/" hx-trigger="load" id="messages">x</div>'
    )
    await expect(desk.locator(".answer")).to_have_count(1)
    assert await desk.title() != "owned"
    assert await desk.locator(".answer script, .answer img, .answer [hx-get], .answer [href^=javascript]").count() == 0
    assert not [url for url in requested if "pixel" in url]


async def test_it_works_without_scripts(site: Site, chromium: Browser, alice: Person) -> None:
    """F63"""
    context = await chromium.new_context(java_script_enabled=False)
    await be(context, alice, site.app.url)
    page = await context.new_page()
    site.answer("an old answer", topic="plain")
    await page.goto(address(site, "plain"))
    await expect(page.locator(".answer")).to_contain_text("an old answer")
    await page.locator("#text").fill("sent by a plain form")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".message.own")).to_contain_text("sent by a plain form")
    site.answer("unread until said otherwise", topic="plain")
    await _eventually(alice, {"plain": 1})
    await page.goto(address(site, "plain"))
    await page.get_by_role("button", name="Mark as read").click()
    await _eventually(alice, {})


async def test_somebody_elses_tenant_is_refused(site: Site, context: BrowserContext, bob: Person) -> None:
    await be(context, bob, site.app.url)
    page = await context.new_page()
    answer = await page.goto(address(site).replace("tenant=acme", "tenant=globex"))
    assert answer is not None
    assert answer.status == 403
    await expect(page.get_by_role("heading", name="No access")).to_be_visible()


def _badge(page: Page, topic: str) -> Locator:
    return page.locator("a.topic", has_text=topic).locator(".badge [data-number]")


async def _pretend(page: Page, state: str) -> None:
    """Headless tabs are always visible; this is what a page sees of being hidden."""
    await page.evaluate(
        """state => {
            Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
            Object.defineProperty(document, "hidden", { value: state === "hidden", configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


async def _eventually(person: Person, counts: dict[str | None, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await person.unread() != counts:
            await asyncio.sleep(0.05)
