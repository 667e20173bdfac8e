"""The switchboard of one process: who reads which inbox, and word from the other processes.

The only user of the channel layer, which is at most once (traps.md section 6): what goes over it is "look again"
and never the fact itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer
from redis.exceptions import RedisError

from messaging import metrics
from messaging.items import StreamItem
from messaging.wire import ThreadAddress

log = logging.getLogger(__name__)

_MAX_ITEMS = 256
_MAX_BYTES = 1 << 20
_RETRY_SECONDS = (0.5, 1, 2, 5)
DROPS_QUEUE = ("lagging", "signed-out", "forbidden")
_EVERYBODY = "portal.everybody"
AWAY = (OSError, TimeoutError, RedisError)
"""What the channel layer raises when it can't be reached."""

type Notice = dict[str, Any]


class Subscriber:
    """One reader's bounded queue. It never makes anybody wait: when it is full it is closed as `lagging`."""

    __slots__ = ("_bytes", "_items", "_waiter", "closed_because", "is_overview", "person")

    def __init__(self, person: str, *, is_overview: bool = False) -> None:
        self.person = person
        self.is_overview = is_overview
        self.closed_because: str | None = None
        self._items: deque[StreamItem] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: StreamItem) -> None:
        if self.closed_because is not None:
            return
        if len(self._items) >= _MAX_ITEMS or self._bytes > _MAX_BYTES:
            self.close("lagging")
            return
        self._items.append(item)
        self._bytes += len(item.json)
        self._wake()

    def close(self, reason: str) -> None:
        """End the stream once its reader has taken what is queued; nothing more is taken after these reasons."""
        if self.closed_because is None:
            self.closed_because = reason
            if reason in DROPS_QUEUE:
                self._items.clear()
            self._wake()

    def take(self) -> list[StreamItem]:
        """Everything that is queued now."""
        items = list(self._items)
        self._items.clear()
        self._bytes = 0
        return items

    async def wait(self, until: float) -> None:
        """Return when something is queued, the subscriber is closed, or the loop's clock shows `until`."""
        if self._items or self.closed_because is not None:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        alarm = loop.call_at(until, self._wake)
        try:
            await self._waiter
        finally:
            alarm.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def person_key(participant_id: str) -> str:
    """Stands for a participant where the address itself must not be seen."""
    return hashlib.sha256(participant_id.encode("utf-8", "replace")).hexdigest()[:40]


class Hub:
    """Fan-out to the readers of this process, and notices between processes.

    `on_notice` is called with every notice of another process (and of none of ours): "unread" (look at the
    counts of an inbox again), "sent" (somebody's own message went out), "signed-out" (a session has ended).
    """

    def __init__(self, on_notice: Callable[[Notice], Awaitable[None]], on_reconnect: Callable[[], None]) -> None:
        self._by_inbox: dict[ThreadAddress, set[Subscriber]] = {}
        self._by_person: dict[str, set[Subscriber]] = {}
        self._origin = uuid.uuid4().hex
        self._on_notice = on_notice
        self._on_reconnect = on_reconnect
        self._groups: set[str] = set()
        self._listener: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._channel = ""
        self._is_deserted = asyncio.Event()
        self._alone = isinstance(get_channel_layer(), InMemoryChannelLayer)

    # -- readers ----------------------------------------------------------------------------------------------

    def attach(self, subscriber: Subscriber, address: ThreadAddress | None) -> None:
        """Start handing items to a reader: those of one inbox, or (no address) the person's counts only."""
        if address is not None:
            self._by_inbox.setdefault(address, set()).add(subscriber)
        self._by_person.setdefault(subscriber.person, set()).add(subscriber)
        self.join(f"portal.person.{subscriber.person}")
        metrics.streams_open.inc()

    def detach(self, subscriber: Subscriber, address: ThreadAddress | None) -> None:
        """Forget a reader; harmless when repeated."""
        mine = self._by_person.get(subscriber.person, set())
        if subscriber not in mine:
            return
        mine.discard(subscriber)
        metrics.streams_open.dec()
        metrics.streams_closed.labels(subscriber.closed_because or "client").inc()
        if not mine:
            del self._by_person[subscriber.person]
            if not self._by_person:
                self._is_deserted.set()
            self._errand(self._leave(f"portal.person.{subscriber.person}"))
        if address is not None and address in self._by_inbox:
            self._by_inbox[address].discard(subscriber)
            if not self._by_inbox[address]:
                del self._by_inbox[address]

    def readers(self, address: ThreadAddress) -> set[Subscriber]:
        return self._by_inbox.get(address, set())

    def readers_of(self, person: str) -> set[Subscriber]:
        """Every stream of a participant in this process, whatever it shows."""
        return self._by_person.get(person, set())

    def everybody(self) -> list[Subscriber]:
        return [subscriber for mine in self._by_person.values() for subscriber in mine]

    async def deserted(self) -> None:
        """Return once no reader is left."""
        self._is_deserted.clear()
        if self._by_person:
            await self._is_deserted.wait()

    def publish(self, address: ThreadAddress, item: StreamItem) -> None:
        """Hand an item to every reader of an inbox, waiting for none of them."""
        readers = self._by_inbox.get(address, ())
        item.is_shared = len(readers) > 1
        for subscriber in tuple(readers):
            subscriber.put(item)

    def publish_count(self, person: str, item: StreamItem) -> None:
        """Hand an inbox's new count to that inbox's readers and to the person's overviews."""
        inbox_readers = self._by_inbox.get(item.address, set()) if item.address else set()
        overviews = {s for s in self._by_person.get(person, ()) if s.is_overview}
        for subscriber in inbox_readers | overviews:
            subscriber.put(item)

    # -- other processes --------------------------------------------------------------------------------------

    def join(self, group: str) -> None:
        """Hear the notices of a group from now on."""
        if group not in self._groups and not self._alone:
            self._groups.add(group)
            self._errand(self._enter(group))

    def tell(self, person: str, notice: Notice) -> None:
        """Send a notice to every process in which this person has a stream. Never waits, never fails."""
        if not self._alone:
            self._errand(self._send(f"portal.person.{person}", notice))

    def tell_everybody(self, notice: Notice) -> None:
        if not self._alone:
            self._errand(self._send(_EVERYBODY, notice))

    def listen(self) -> None:
        """Start hearing the other processes; harmless when repeated."""
        if self._listener is None and not self._alone:
            self._groups.add(_EVERYBODY)
            self._listener = asyncio.create_task(self._hear(), name="hub")

    async def aclose(self) -> None:
        """Let notices that are on their way arrive (each has 5 s), then stop listening."""
        await asyncio.gather(*self._errands, return_exceptions=True)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    async def ping(self) -> None:
        """Raise what the channel layer raises when it can't carry a message (for /readyz)."""
        async with asyncio.timeout(2):
            await get_channel_layer().group_send("portal.ping", {"type": "ping"})

    def _errand(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._errands.add(task)  # a task that nobody holds may be collected half-way
        task.add_done_callback(self._errands.discard)

    async def _enter(self, group: str) -> None:
        self.listen()
        if self._channel:
            with suppress(*AWAY):
                await get_channel_layer().group_add(group, self._channel)

    async def _leave(self, group: str) -> None:
        if group in self._groups and group.rpartition(".")[2] not in self._by_person:
            self._groups.discard(group)
            if self._channel:
                with suppress(*AWAY):
                    await get_channel_layer().group_discard(group, self._channel)

    async def _send(self, group: str, notice: Notice) -> None:
        try:
            async with asyncio.timeout(5):
                await get_channel_layer().group_send(group, {"type": "look.again", "origin": self._origin, **notice})
        except AWAY as problem:
            # The other processes see it at their next comparison with the database (D5).
            log.warning("a notice was not sent: %s", type(problem).__name__)

    async def _hear(self) -> None:
        failures = 0
        while True:
            try:
                layer = get_channel_layer()
                self._channel = await layer.new_channel("portal")
                for group in tuple(self._groups):
                    await layer.group_add(group, self._channel)
                if failures:
                    self._on_reconnect()
                failures = 0
                while True:
                    await self._take(await layer.receive(self._channel))
            except AWAY as problem:
                self._channel = ""
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("the channel layer is away (%s); next try in %s s", type(problem).__name__, delay)
                await asyncio.sleep(delay)

    async def _take(self, notice: Notice) -> None:
        if notice.get("origin") == self._origin:
            return
        try:
            await self._on_notice(notice)
        except (KeyError, TypeError, ValueError) as problem:  # of another version of us, or of a stranger
            log.warning("a notice was not understood: %s", type(problem).__name__)
