"""An answer arrives at the very moment at which its topic is opened (D4): shown there, and counted never.

`RACES` repetitions each for API clients and for pages; `make soak` runs 500 + 500 = 1,000 of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, unquote

import httpx
import pytest

from demo.world import INVOICES
from messaging.sse import Decoder
from tests.messaging.conftest import Site, alice, shared, signed_in, site, site_env  # noqa: F401 - fixtures
from tests.messaging.people import PATIENCE, Person

RACES = int(os.environ.get("RACES", "100"))
_AT_ONCE = 4
_EARLIEST, _LATEST = -0.02, 0.06
"""Seconds between opening and arriving: upstream stores at once, opening takes some time until it looks."""


class Race:
    """One activation, in which topics are opened one after the other while their answers arrive."""

    def __init__(self, site: Site, person: Person, upstream: httpx.AsyncClient, dice: random.Random) -> None:  # noqa: F811
        self.site = site
        self.names = {"agentName": INVOICES, "activationName": f"Race {dice.getrandbits(64):x}"}
        self.person = Person(person.client, person.email, self.names)
        self.dice = dice
        self._upstream = upstream

    async def begin(self) -> None:
        """Visit it for the first time: what came before that is not unread."""
        names = {"tenant": "acme", "agent": INVOICES, "name": self.names["activationName"]}
        await self._control("activation", **names, active=True)
        assert await self.person.unread() == {}

    async def answer(self, topic: str) -> str:
        """The agent writes; returns the message's id."""
        thread = {"tenant": "acme", "agent": INVOICES, "activation": self.names["activationName"]}
        told = await self._control("message", **thread, participant=self.person.email, text="now", topic=topic)
        return str(told["id"])

    async def _control(self, name: str, /, **arguments: object) -> dict[str, object]:
        answer = await self._upstream.post(f"/_control/{name}", json=arguments)
        assert answer.status_code == 200, answer.text
        told: dict[str, object] = answer.json()
        return told

    def offset(self) -> tuple[float, float]:
        """How long to wait before opening, and before the answer."""
        offset = self.dice.uniform(_EARLIEST, _LATEST)
        return max(0.0, -offset), max(0.0, offset)

    async def nothing_is_unread(self) -> None:
        """Everything was shown, so nothing is counted; what is on its way to the database has a moment."""
        deadline = time.monotonic() + PATIENCE
        while (unread := await self.person.unread()) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert unread == {}, "shown, and counted too"


async def _arrives(race: Race, topic: str, after: float) -> str:
    await asyncio.sleep(after)
    return await race.answer(topic)


async def _all(race: Race, count: int) -> None:
    """An API client opens topic after topic, and then looks at what is there already."""
    for number in range(count):
        topic = f"topic {number}"
        before, after = race.offset()
        arriving = asyncio.create_task(_arrives(race, topic, after))
        await asyncio.sleep(before)
        async with race.person.listening(topic=topic) as stream:
            history = (await race.person.get("history", topic=topic)).json()
            message_id = await arriving
            if message_id not in {message["id"] for message in history}:
                await stream.until(
                    lambda me, wanted=message_id: any(told["id"] == wanted for told in me.told("Chat"))  # type: ignore[misc]
                )
    await race.nothing_is_unread()


class OpenPage:
    """A conversation's page as its scripts keep it: one stream for all topics, one topic on the screen."""

    def __init__(self, race: Race) -> None:
        self._race = race
        self._client = race.person.client
        self._path = f"/conversations/{quote(INVOICES)}/{quote(race.names['activationName'])}/"
        self._received: list[tuple[str, str]] = []
        """Topic keys and ids of answers, as the stream brought them."""
        self._news = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        page = await self._client.get(self._path, params={"tenant": "acme"})
        assert page.status_code == 200, page.text
        cursor = _one(r'data-cursor="([^"]*)"', page.text)
        ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read(cursor, ready))
        async with asyncio.timeout(PATIENCE):
            await ready.wait()

    async def _read(self, cursor: str, ready: asyncio.Event) -> None:
        decoder = Decoder(64 << 20)
        headers = {"Last-Event-ID": cursor, "Accept": "text/event-stream"}
        url, timeout = f"{self._path}stream/?tenant=acme", httpx.Timeout(60, pool=5)
        async with self._client.stream("GET", url, headers=headers, timeout=timeout) as response:
            assert response.status_code == 200
            async for chunk in response.aiter_raw():
                async with self._news:
                    for event in decoder.feed(chunk):
                        if event.event == "message":
                            self._received += _answers(event.data)
                    self._news.notify_all()
                ready.set()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def open(self, topic: str, arriving: asyncio.Task[str]) -> None:
        """Fetch the topic, show it with what came meanwhile, and confirm the newest that is shown (read.js)."""
        since = len(self._received)
        query = {"tenant": "acme", "topic": topic}
        fetched = await self._client.get(self._path, params=query, headers={"HX-Request": "true"})
        assert fetched.status_code == 200, fetched.text
        key = _one(r'data-topic-key="([^"]*)"', fetched.text)
        shown = [message_id for its_key, message_id in _answers(fetched.text) if its_key == key]
        await self._confirm(topic, shown)
        message_id = await arriving
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: message_id in shown or (key, message_id) in self._received[since:])
        if message_id not in shown:
            await self._confirm(topic, [message_id])

    async def _confirm(self, topic: str, shown: list[str]) -> None:
        if shown:
            headers = {**self._race.person.csrf(), "X-Requested-With": "fetch"}
            form = {"topic": topic, "upTo": shown[-1]}
            done = await self._client.post(f"{self._path}read/?tenant=acme", data=form, headers=headers)
            assert done.status_code == 204, done.text


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return unquote(found[1])


def _answers(html: str) -> list[tuple[str, str]]:
    """(topic key, message id) of every answer in a piece of a page, in its order."""
    elements = re.findall(r'<li class="message theirs answer"[^>]*>', html)
    return [(_one(r'data-topic="([^"]*)"', one), _one(r'data-id="([^"]*)"', one)) for one in elements]


async def _all_on_a_page(race: Race, count: int) -> None:
    page = OpenPage(race)
    await page.load()
    try:
        for number in range(count):
            topic = f"topic {number}"
            if number % 2:
                await race.answer(topic)  # there is something to show already
            before, after = race.offset()
            arriving = asyncio.create_task(_arrives(race, topic, after))
            await asyncio.sleep(before)
            await page.open(topic, arriving)
        await race.nothing_is_unread()
    finally:
        await page.close()


async def _one_each(race: Race, count: int) -> None:
    """No feed has run before: opening the topic is what starts it."""
    for _ in range(count):
        cold = Race(race.site, race.person, race._upstream, race.dice)
        await cold.begin()
        await _all(cold, 1)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("way", "share"),
    [(_all, 0.7), (_one_each, 0.3), (_all_on_a_page, 1.0)],
    ids=["an API client", "an API client, the first of its inbox", "a page"],
)
async def test_what_arrives_while_its_topic_is_opened_is_shown_and_never_counted(
    site: Site,  # noqa: F811
    alice: Person,  # noqa: F811
    way: Callable[[Race, int], Awaitable[None]],
    share: float,
) -> None:
    """F98: an answer that arrives exactly while its topic is opened: shown there, read, and never both or neither."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    each = max(1, round(RACES * share / _AT_ONCE))
    async with httpx.AsyncClient(base_url=site.xians.url, timeout=30) as upstream:
        races = [Race(site, alice, upstream, random.Random(seed + number)) for number in range(_AT_ONCE)]
        for race in races:
            await race.begin()
        await asyncio.gather(*(way(race, each) for race in races))
