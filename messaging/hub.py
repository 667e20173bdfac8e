"""The switchboard of one process: who reads which inbox. What the other processes should know goes over the bus."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import batched

from messaging import metrics
from messaging.bus import Bus, Notice
from messaging.changes import InboxRef
from messaging.items import StreamItem
from messaging.wire import ThreadAddress

_MAX_ITEMS = 256
_MAX_BYTES = 1 << 20
_ONE_WRITE_BYTES = 16 << 10
"""A server takes a few times as much before it has to wait for the reader."""
DROPS_QUEUE = ("lagging", "signed-out", "forbidden", "client")
_COUNT_SECONDS = 150
"""How long another process' count of streams is believed; it is told again every minute."""
_TELLING_SECONDS = 40
"""Over how long everybody's counts are spread, a few at a time: thousands of notices at once would hold up all else."""
_SOME = 4
_TOGETHER_SECONDS = 0.05
_FEW = 16
"""Up to so many notices are sent one by one; each takes about a quarter of a millisecond."""
_IN_ONE_NOTICE = 500


class Subscriber:
    """One reader's bounded queue. It never makes anybody wait: when it is full it is closed as `lagging`."""

    __slots__ = ("_bytes", "_is_due", "_items", "_waiter", "closed_because", "is_overview", "person", "rush", "shows")

    def __init__(self, person: str, *, is_overview: bool = False, shows: str | None = None) -> None:
        self.person = person
        self.shows = shows  # the topic on its screen, if it said so
        self.is_overview = is_overview
        self.closed_because: str | None = None
        self.rush: Callable[[], bool] | None = None
        """Called when something came while the reader waits; whether it is all taken, so that nobody need wake."""
        self._items: list[StreamItem] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_due = False  # somebody is about to rush

    def put(self, item: StreamItem) -> None:
        """Queue an item, and let the reader look up soon: what comes in one go is written in one go."""
        if self.queue(item) and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.hurry)

    def queue(self, item: StreamItem) -> bool:
        """Queue an item; whether somebody has to `hurry` the reader, which waits."""
        if self.closed_because is not None:
            return False
        if len(self._items) >= _MAX_ITEMS or self._bytes > _MAX_BYTES:
            self.close("lagging")
            return False
        self._items.append(item)
        self._bytes += len(item.json)
        if self._waiter is None:
            return False
        if self._bytes > _ONE_WRITE_BYTES:
            self.hurry()
            return False
        return True

    def hurry(self) -> None:
        """Let a reader that waits have what is queued."""
        self._is_due = False
        is_waiting = self._waiter is not None and not self._waiter.done()
        if self._items and is_waiting and (self.rush is None or not self.rush()):
            self.wake()

    def close(self, reason: str) -> None:
        """End the stream once its reader has taken what is queued; nothing more is taken after these reasons."""
        if self.closed_because is None:
            self.closed_because = reason
            if reason in DROPS_QUEUE:
                self._items.clear()
            self.wake()

    @property
    def oldest(self) -> StreamItem | None:
        """What has been queued for longest; the reader takes all at once."""
        return self._items[0] if self._items else None

    def take(self) -> list[StreamItem]:
        """Everything that is queued now."""
        items, self._items = self._items, []
        self._bytes = 0
        return items

    def messages(self) -> list[StreamItem]:
        """The new messages that are queued; they stay."""
        return [item for item in self._items if item.kind == "message" and not item.is_edit]

    def put_back(self, items: list[StreamItem]) -> None:
        """Queue again what was taken just now."""
        self._items = items + self._items
        self._bytes += sum(len(item.json) for item in items)

    async def wait(self) -> None:
        """Return when something is queued, the subscriber is closed, or somebody wakes it."""
        if self._items or self.closed_because is not None:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the reader look up, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@lru_cache(maxsize=16_384)
def person_key(participant_id: str) -> str:
    """Stands for a participant where the address itself must not be seen."""
    return hashlib.sha256(participant_id.encode("utf-8", "replace")).hexdigest()[:40]


class Hub:
    """Fan-out to the readers of this process."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._by_inbox: dict[ThreadAddress, set[Subscriber]] = {}
        self._by_person: dict[str, set[Subscriber]] = {}
        self._elsewhere: dict[str, dict[str, tuple[int, float]]] = {}
        self._held: dict[Subscriber, None] | None = None
        self._is_deserted = asyncio.Event()
        self.when_deserted: Callable[[str], object] = lambda _person: None
        """Told of each person whose last reader has gone."""
        self.count = 0  # readers in this process
        self._changed_counts: dict[str, bool] = {}  # of these people's streams the others have to be told
        self._telling: asyncio.Task[None] | None = None

    # -- readers ----------------------------------------------------------------------------------------------

    def attach(self, subscriber: Subscriber, address: ThreadAddress | None) -> None:
        """Start handing items to a reader: those of one inbox, or (no address) the person's counts only."""
        if address is not None:
            self._by_inbox.setdefault(address, set()).add(subscriber)
        is_first = subscriber.person not in self._by_person
        self._by_person.setdefault(subscriber.person, set()).add(subscriber)
        self.bus.join(_group(subscriber.person))
        self._tell_count(subscriber.person, asks=is_first)
        self.count += 1
        metrics.streams_open.inc()

    async def is_told(self, person: str) -> None:
        """Return when what other processes tell of this person is heard here, as a rule at once."""
        await self.bus.joined(_group(person))

    def detach(self, subscriber: Subscriber, address: ThreadAddress | None) -> None:
        """Forget a reader; harmless when repeated."""
        mine = self._by_person.get(subscriber.person, set())
        if subscriber not in mine:
            return
        mine.discard(subscriber)
        self.count -= 1
        metrics.streams_open.dec()
        metrics.streams_closed.labels(subscriber.closed_because or "client").inc()
        if not mine:
            del self._by_person[subscriber.person]
            self._elsewhere.pop(subscriber.person, None)
            self.bus.leave(_group(subscriber.person))
            self.when_deserted(subscriber.person)
            if not self._by_person:
                self._is_deserted.set()
        self._tell_count(subscriber.person)
        if address is not None and address in self._by_inbox:
            self._by_inbox[address].discard(subscriber)
            if not self._by_inbox[address]:
                del self._by_inbox[address]

    def readers(self, address: ThreadAddress) -> set[Subscriber]:
        return self._by_inbox.get(address, set())

    def is_shown(self, address: ThreadAddress, topic: str) -> bool:
        """Whether a reader in this process has this topic on its screen."""
        return any(subscriber.shows == topic for subscriber in self.readers(address))

    def readers_of(self, person: str) -> set[Subscriber]:
        """Every stream of a participant in this process, whatever it shows."""
        return self._by_person.get(person, set())

    def streams_of(self, person: str) -> int:
        """How many streams a participant has open, those in other processes included as far as they have told."""
        now = time.monotonic()
        elsewhere = sum(count for count, until in self._elsewhere.get(person, {}).values() if until > now)
        return len(self.readers_of(person)) + elsewhere

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
        held = self._held
        for subscriber in tuple(readers):
            if held is None:
                subscriber.put(item)
            elif subscriber.queue(item):
                held[subscriber] = None

    def hold(self) -> None:
        """Keep what is published from here on, until `release` lets every reader look up once. Nobody may wait."""
        self._held = {}

    def release(self) -> None:
        for subscriber in self.let_go():
            subscriber.hurry()

    def let_go(self) -> Collection[Subscriber]:
        """Keep no more; the readers who wait and have something now, whom somebody has to `hurry`."""
        held, self._held = self._held or {}, None
        return held

    def publish_count(self, person: str, item: StreamItem, *, to_overviews_only: bool) -> None:
        """Hand an inbox's new count to the person's overviews and to that inbox's readers.

        Not to these where it is the first that is told here: their streams are just being opened and begin with it.
        """
        for subscriber in tuple(self._by_person.get(person, ())):
            if subscriber.is_overview:
                subscriber.put(item)
        if item.address is not None and not to_overviews_only:
            self.publish(item.address, item)

    # -- other processes --------------------------------------------------------------------------------------

    def tell_of(self, inboxes: Collection[InboxRef], what: str, **more: str) -> None:
        """Tell every process in which their person has a stream what happened to these. Never waits, never fails.

        Of many everybody is told at once: a notice costs about the same, however much is in it.
        """
        if self.bus.is_alone:
            return
        if len(inboxes) > _FEW:
            for some in batched(inboxes, _IN_ONE_NOTICE):
                self.bus.tell_everybody({"what": what, "inboxes": [inbox.told() for inbox in some], **more})
        else:
            for inbox in inboxes:
                group = _group(person_key(inbox.address.participant_id))
                self.bus.tell(group, {"what": what, "inboxes": [inbox.told()], **more})

    def told_of(self, notice: Notice) -> list[InboxRef]:
        """The inboxes of another process' notice whose person has a stream here."""
        inboxes = map(InboxRef.from_told, notice["inboxes"])
        return [inbox for inbox in inboxes if person_key(inbox.address.participant_id) in self._by_person]

    def tell_counts(self) -> None:
        """Let the other processes know how many streams everybody has here, in the next `_TELLING_SECONDS`."""
        if not self.bus.is_alone and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_counts(), name="counts of streams")

    def tell_counts_now(self) -> None:
        """As `tell_counts`, at once: what was told before may not have been heard."""
        for person in self._by_person:
            self._tell_count(person)

    async def _tell_counts(self) -> None:
        people = list(self._by_person)
        step = _TELLING_SECONDS / len(people) if len(people) > _FEW else 0
        started = time.monotonic()
        for number, person in enumerate(people):
            if person in self._by_person:
                self._tell_count(person)
            if number % _SOME == 0:
                await asyncio.sleep(max(started + step * number - time.monotonic(), 0))

    def _tell_count(self, person: str, *, asks: bool = False) -> None:
        """Soon, with those of others, since a herd comes and goes at once; `asks`: how many are there?"""
        if self.bus.is_alone:
            return
        if not self._changed_counts:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self._tell_changed_counts)
        self._changed_counts[person] = asks or self._changed_counts.get(person, False)

    def _tell_changed_counts(self) -> None:
        changed, self._changed_counts = self._changed_counts, {}
        told = [(person, len(self.readers_of(person)), asks) for person, asks in changed.items()]
        if len(told) > _FEW:
            for some in batched(told, _IN_ONE_NOTICE):
                self.bus.tell_everybody({"what": "streams", "people": some})
        else:
            for one in told:
                self.bus.tell(_group(one[0]), {"what": "streams", "people": [one]})

    def told_counts(self, notice: Notice) -> None:
        """Another process says how many streams people have there, and may ask the same."""
        origin, until = str(notice["origin"]), time.monotonic() + _COUNT_SECONDS
        for person, count, asks in notice["people"]:
            if person in self._by_person:
                self._elsewhere.setdefault(person, {})[origin] = (int(count), until)
                if asks:
                    self._tell_count(person)

    async def aclose(self) -> None:
        """Tell what has not been told yet; `bus` is closed after this."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        self._tell_changed_counts()


def _group(person: str) -> str:
    return f"portal.person.{person}"
