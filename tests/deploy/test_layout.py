"""The whole production layout, run: what people do goes through nginx, TLS and two processes (issue 4, point 4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import psutil
from playwright.async_api import Browser, Page

from tests.deploy.front import Front
from tests.deploy.layout import PATIENCE, Layout
from tests.journeys.conftest import be
from tests.messaging.people import Listener, Person

MANY = 8
"""More streams than a browser opens to one origin over HTTP/1.1."""
_LISTEN = """async ([url, count]) => {
  const reads = Array.from({length: count}, async () => {
    const answer = await fetch(url);
    const {value} = await answer.body.getReader().read();
    return new TextDecoder().decode(value).split("\\n")[0];
  });
  return await Promise.all(reads);
}"""


@asynccontextmanager
async def desk(chromium: Browser, layout: Layout, person: Person) -> AsyncIterator[Page]:
    """A browser with the person's conversation open, and live; it takes the test's certificate."""
    context = await chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE * 1000)
    await be(context, person, layout.front.url)
    page = await context.new_page()
    name = person.names["activationName"].replace(" ", "%20")
    await page.goto(f"{layout.front.url}/conversations/Invoice%20Helper/{name}/?tenant=acme")
    await page.wait_for_selector("#connection[data-state=live]")
    yield page
    await context.close()


async def test_two_people_talk_through_the_whole_layout(layout: Layout, alice: Person, bob: Person) -> None:
    """Each hears their own answers, each at once: nothing but the answer itself moves on these streams."""
    async with alice.listening(heartbeatSeconds=300) as hers, bob.listening(heartbeatSeconds=300) as his:
        await layout.settled()
        for number in range(1, 4):
            layout.answer(alice, f"for Alice {number}", "t")
            await hers.next("Chat", number)
            layout.answer(bob, f"for Bob {number}")
            await his.next("Chat", number)
        assert hers.texts() == [f"for Alice {number}" for number in (1, 2, 3)]
        assert his.texts() == [f"for Bob {number}" for number in (1, 2, 3)]
        assert (await alice.unread(), await bob.unread()) == ({"t": 3}, {None: 3})
        sent = await alice.post("send", text="Thank you", topic="t")
        assert sent.status_code == 200, sent.text
        read = await alice.post("read", topic="t")
        assert read.json() == {"topic": "t", "unreadCount": 0, "total": 0}
        await hers.until(lambda me: me.told("unread")[-1]["total"] == 0)
    cookies = {cookie.name: cookie.secure for cookie in alice.client.cookies.jar if cookie.domain.startswith("local")}
    assert cookies["__Host-sessionid"]
    assert all(cookies.values())


async def test_a_browser_s_streams_share_one_process_and_one_upstream_stream(layout: Layout, alice: Person) -> None:
    """Sticky by session: that is what makes tabs cheap when there are several processes."""
    before = await open_streams(layout)
    async with AsyncExitStack() as tabs:
        streams = [await tabs.enter_async_context(alice.listening()) for _ in range(6)]
        now = await open_streams(layout)
        assert sorted(n - b for n, b in zip(now, before, strict=True)) == [0, 6]
        mine = [
            thread
            for thread in layout.xians.streams()["threads"]
            if thread["activation"] == alice.names["activationName"]
        ]
        assert len(mine) == 1
        await layout.settled()
        layout.answer(alice, "to all of them")
        for stream in streams:
            await stream.next("Chat")


async def open_streams(layout: Layout) -> list[int]:
    """How many each process has."""
    return [await asyncio.to_thread(process.streams) for process in layout.processes]


async def test_browsers_speak_http2_and_open_as_many_streams_as_they_like(
    layout: Layout, alice: Person, chromium: Browser
) -> None:
    """Over HTTP/1.1 the seventh would wait for ever, and every click with it."""
    async with desk(chromium, layout, alice) as page:
        spoken = "() => [...new Set(performance.getEntries().map(each => each.nextHopProtocol).filter(Boolean))]"
        assert await page.evaluate(spoken) == ["h2"]
        query = httpx.QueryParams(alice.names)
        heard = await page.evaluate(_LISTEN, [f"{alice.path('listen')}?{query}", MANY])
        assert heard == ["event: connected"] * MANY


async def test_nginx_reloads_under_open_streams(layout: Layout, alice: Person, chromium: Browser) -> None:
    """The old workers keep what is open, the new ones take what comes; a page doesn't notice."""
    front = layout.front
    async with alice.listening(heartbeatSeconds=300) as stream, desk(chromium, layout, alice) as page:
        await page.evaluate(
            """() => {
              window.states = [];
              const chip = document.getElementById("connection");
              const note = () => states.push(chip.dataset.state);
              new MutationObserver(note).observe(chip, {attributes: true, attributeFilter: ["data-state"]});
            }"""
        )
        old = {worker.pid for worker in psutil.Process(front.pid).children()}
        front.reload()
        await new_workers(front, old)
        await layout.settled()
        layout.answer(alice, "over the reload")
        await stream.next("Chat")
        await page.get_by_text("over the reload", exact=True).wait_for()
        assert await page.evaluate("() => states") == [], "the page's stream went on"
        assert not stream.is_over
        assert (await alice.get("unread")).status_code == 200
        async with alice.listening() as another:
            layout.answer(alice, "to old and new")
            for reader in (stream, another):
                await reader.until(lambda me: me.texts()[-1:] == ["to old and new"])


async def new_workers(front: Front, old: set[int]) -> None:
    """Wait until workers with the new configuration have taken over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            workers = psutil.Process(front.pid).children()
            retiring = [each for each in workers if "shutting down" in " ".join(each.cmdline())]
            if {each.pid for each in workers} - old and {each.pid for each in retiring} <= old and retiring:
                return
            await asyncio.sleep(0.05)


class Reader:
    """Somebody whose stream is opened again, from where it ended, as often as it ends."""

    def __init__(self, person: Person) -> None:
        self.texts: list[str] = []
        self.openings = 0
        self.is_there = asyncio.Event()
        self.resyncs = 0
        self._person = person
        self._place: str | None = None
        self._task = asyncio.create_task(self._read())

    async def has(self, count: int) -> None:
        async with asyncio.timeout(2 * PATIENCE):
            while len(self.texts) < count:
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                async with self._person.listening(last_event_id=self._place) as stream:
                    self.openings += 1
                    self.is_there.set()
                    await self._follow(stream)
            except (AssertionError, httpx.HTTPError):  # 503 while it restarts
                await asyncio.sleep(0.5)

    async def _follow(self, stream: Listener) -> None:
        taken = 0
        while not stream.is_over or len(stream.events) > taken:
            for event in stream.events[taken:]:
                taken += 1
                self.resyncs += event.event == "resync"
                if event.event == "Chat":
                    self.texts.append(json.loads(event.data)["text"])
                    self._place = event.id
            await asyncio.sleep(0.02)


class Talk:
    """Answers for everybody, and Alice's own messages, for as long as it is asked to go on."""

    def __init__(self, layout: Layout, alice: Person, bob: Person) -> None:
        self.texts: list[str] = []
        self.sent = 0
        self._layout = layout
        self._people = (alice, bob)

    def answer(self) -> None:
        text = f"m{len(self.texts):03d}"
        for person in self._people:
            self._layout.answer(person, text, f"t{len(self.texts) % 3}")
        self.texts.append(text)

    async def send(self) -> None:
        """As pages do: what was not answered is sent again under the same request id.

        A process that is just ending may take a request and close; nginx never sends a POST a second time.
        """
        body = {"text": "still there?", "topic": "mine", "requestId": f"r{self.sent}"}
        async with asyncio.timeout(PATIENCE):
            while (answer := await self._people[0].post("send", **body)).status_code == 503:
                await asyncio.sleep(0.2)
        assert answer.status_code == 200, answer.text
        self.sent += 1


async def test_processes_restart_one_after_the_other_and_nothing_is_lost_or_doubled(
    layout: Layout, alice: Person, bob: Person
) -> None:
    """F77: the procedure of docs/deploying.md, while answers come and people send."""
    assert (await alice.unread(), await bob.unread()) == ({}, {})
    readers = [Reader(alice), Reader(bob)]
    talk = Talk(layout, alice, bob)
    await asyncio.gather(*(asyncio.wait_for(reader.is_there.wait(), PATIENCE) for reader in readers))
    await layout.settled()
    await asyncio.to_thread(talk.answer)
    await asyncio.gather(*(reader.has(1) for reader in readers))
    for process in layout.processes:
        restarting = asyncio.create_task(asyncio.to_thread(process.restart))
        while not restarting.done():
            await asyncio.to_thread(talk.answer)
            await talk.send()
            await asyncio.wait([restarting], timeout=0.25)
        await restarting
    await asyncio.to_thread(talk.answer)
    for reader in readers:
        await reader.has(len(talk.texts))
        await reader.stop()
        assert sorted(reader.texts) == talk.texts
        assert reader.resyncs == 0
        assert reader.openings > 1, "its process was restarted"
    assert sum((await alice.unread()).values()) == sum((await bob.unread()).values()) == len(talk.texts)
    stored = layout.xians.truth(**layout.thread(alice.names, alice.email))
    mine = [each["requestId"] for each in stored if each["direction"] == "Incoming"]
    assert sorted(mine) == sorted(f"r{number}" for number in range(talk.sent))
    assert all("Traceback" not in process.log_text() for process in layout.processes)
