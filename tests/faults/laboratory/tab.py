"""One API client over its whole life: it reads a stream, and after any end comes back with the last id it received."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlencode

import httpx

from messaging.sse import Decoder, Event
from tests.faults.laboratory.books import NEVER, Books, Connection, Inbox, Showing

_HEARTBEAT = 1
_PATIENCE = httpx.Timeout(5, connect=2, pool=None)
_OWN = frozenset({"connected", "heartbeat", "unread", "resync", "goodbye"})
_BUSY = frozenset({429, 500, 502, 503, 504})


class Place(Protocol):
    """Where a reader may connect to."""

    name: str

    @property
    def url(self) -> str: ...


class Tab:
    """A reader of one inbox. Asleep or awake; `showings` is all that it ever received, over every connection."""

    def __init__(
        self, number: int, inbox: Inbox, client: httpx.AsyncClient, nodes: Sequence[Place], books: Books, seed: int
    ) -> None:
        self.number = number
        self.inbox = inbox
        self.shows: str | None = None
        self.last_id = ""
        self.fresh_since = NEVER
        """From here on it has to be shown everything: it was connected, or had an id to come back with."""
        self.fresh_at = datetime.max.replace(tzinfo=UTC)
        """The same by the clock. What claims to be older is history to a newcomer, whenever it was stored."""
        self.showings: list[Showing] = []
        self.connections: list[Connection] = []
        self._client = client
        self._nodes = nodes
        self._books = books
        self._random = random.Random(seed)
        self._life: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"tab {self.number} of {self.inbox}"

    @property
    def is_awake(self) -> bool:
        return self._life is not None

    @property
    def current(self) -> Connection | None:
        """The connection that is open and greeted."""
        last = self.connections[-1] if self.connections else None
        return last if last is not None and last.connected < NEVER and last.ended == NEVER else None

    def wake(self) -> None:
        if self._life is None:
            self._life = asyncio.create_task(self._live(), name=str(self))

    async def sleep(self) -> None:
        """Leave without a word; what was received is kept."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            if not life.cancelled() and (problem := life.exception()) is not None:
                raise problem

    async def _live(self) -> None:
        while True:
            node = self._random.choice(self._nodes)
            await self._connect(node)
            await asyncio.sleep(self._random.uniform(0.02, 0.3))

    async def _connect(self, node: Place) -> None:
        connection = Connection(node.name, self.shows, time.monotonic(), self.last_id)
        self.connections.append(connection)
        query = {**self.inbox.names, "heartbeatSeconds": str(_HEARTBEAT)}
        if self.shows is not None:
            query["topic"] = self.shows
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        url = f"{node.url}/api/tenants/acme/messaging/listen?{urlencode(query)}"
        end = "ended"
        try:
            async with self._client.stream("GET", url, headers=headers, timeout=_PATIENCE) as response:
                if response.status_code != 200:
                    end = f"refused with {response.status_code}"
                    if response.status_code not in _BUSY:
                        await response.aread()
                        self._books.unexpected.append(f"{self}: {end}: {response.text[:200]}")
                    return
                decoder = Decoder(64 << 20)
                async for chunk in response.aiter_raw():
                    for event in decoder.feed(chunk):
                        self._take(connection, event)
        except (httpx.HTTPError, httpx.StreamError) as problem:
            end = type(problem).__name__
        finally:
            connection.ended = time.monotonic()
            if connection.connected < NEVER:
                self._books.say(f"{self} at {node.name}: {end}, has {self.last_id[:40]}")

    def _take(self, connection: Connection, event: Event) -> None:
        at = time.monotonic()
        if event.event == "connected":
            connection.connected = at
            if not self.last_id:
                self.fresh_since, self.fresh_at = at, datetime.now(UTC)
            shows = "" if self.shows is None else f" showing {self.shows[:20]!r}"
            self._books.say(f"{self} at {connection.node}: connected{shows}, from {connection.last_id[:40] or 'now'}")
        elif event.event == "resync":
            connection.resyncs.append(at)
            self._books.say(f"{self}: resync {event.data}")
        elif event.event == "unread":
            told = json.loads(event.data)
            connection.told[told["topic"] or ""] = told["unreadCount"]
            connection.total = told["total"]
        elif event.event == "goodbye":
            self._books.say(f"{self}: goodbye {event.data}")
        elif event.event not in _OWN:
            self._show(connection, event, at)

    def _show(self, connection: Connection, event: Event, at: float) -> None:
        self.last_id = event.id
        message = {key[:1].lower() + key[1:]: value for key, value in json.loads(event.data).items()}
        showing = Showing(
            id=str(message["id"]),
            kind=str(message["messageType"]),
            at=at,
            order=event.id.partition(".")[0],
            node=connection.node,
            topic=message["scope"] or "",
        )
        self.showings.append(showing)
        connection.received.append(showing.id)
        self._books.say(f"{self} at {connection.node}: received {showing.id[-6:]}")


async def close(tabs: list[Tab]) -> None:
    """Put every tab to sleep, for good."""
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*(tab.sleep() for tab in tabs))
