"""The ledger: the unread store as the event loop sees it. Writes wait in line, in order, and go out in batches.

A reader of upstream must never wait for a database (reliability.md U6), so `record` and `read` only queue. One
writer takes what is queued, writes it in one transaction, and makes the new counts known. While the database
is away everything stays in line; when the line is full the inbox is marked for a fresh comparison with upstream,
from which nothing can be missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from channels.db import database_sync_to_async
from django.db import Error as DatabaseError
from django.db import InterfaceError, InternalError, OperationalError

from messaging import errors, metrics, unread
from messaging.batch import Batch
from messaging.hub import Hub, person_key
from messaging.items import StreamItem
from messaging.unread import CountsByTopic, InboxRef, Move, Read, Record, TopicState
from messaging.wire import GENERAL, Message, ThreadAddress

log = logging.getLogger(__name__)

_THREADS = 4
_BATCH = 2_000
_MAX_WAITING = 50_000
_LOOKED_AT = 500
_SAID_AT_ONCE = 16
_FLUSH_SECONDS = 5
_PAUSE_SECONDS = 0.15
"""Between batches: receipts of many inboxes are written together. Whoever waits for them to be written hurries it."""
_RETRY_SECONDS = (0.2, 0.5, 1, 2, 5)


class Ledger:
    """Queues records and reads for one event loop, and answers questions about what is unread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ledger")
        self._waiting: deque[Record | Move | Read] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._written = 0
        self._queued = 0
        self._progress = asyncio.Event()
        self._hurry = asyncio.Event()
        self._finding = Batch(lambda addresses: self.run(unread.find, addresses))
        self._surveys = Batch(lambda inboxes: self.run(unread.topic_states, inboxes))
        self._counting = Batch(lambda inboxes: self.run(unread.counts, inboxes))
        self._shown: dict[InboxRef, CountsByTopic] = {}
        self._unsaid: dict[InboxRef, CountsByTopic] = {}  # of the batch that was written last
        self.overflowed: set[InboxRef] = set()

    async def run[**P, R](self, store: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of the store in one of our few threads; LedgerUnavailable when the database is away."""
        call = database_sync_to_async(store, thread_sensitive=False, executor=self._pool)
        try:
            result: R = await call(*args, **kwargs)
        except (OperationalError, InterfaceError, InternalError) as problem:
            raise errors.LedgerUnavailable(str(problem).strip()[:300]) from problem
        return result

    # -- writing ----------------------------------------------------------------------------------------------

    def record(self, inbox: InboxRef, message: Message, *, late_at: datetime | None = None) -> None:
        """Remember an answer. Repeating it is harmless; messages that don't count (D2) are left out.

        Unless they came late, handed out (`late_at`) after messages that stand behind them: a reader who resumes from
        history would not be shown them otherwise.
        """
        if message.is_answer or late_at is not None:
            self._queue(Record(inbox, message, late_at or datetime.now(UTC)))

    def move(self, inbox: InboxRef, message: Message) -> None:
        """A known answer was changed upstream, and may stand in another topic now: its receipt goes with it."""
        if message.is_answer:
            self._queue(Move(inbox, message))

    def read(self, change: Read) -> None:
        """Mark as read, after everything that was recorded before."""
        self._queue(change)

    def _queue(self, change: Record | Move | Read) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self.overflowed.add(change.inbox)
            return
        self._waiting.append(change)
        self._queued += 1
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="ledger")

    async def flush(self) -> None:
        """Return when everything queued so far is written; LedgerUnavailable when that takes too long."""
        goal = self._queued
        if self._written < goal:
            self._hurry.set()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._written < goal:
                    await self._progress.wait()
        except TimeoutError as problem:
            raise errors.LedgerUnavailable("receipts wait to be written") from problem

    async def _write_all(self) -> None:
        failures = 0
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(len(self._waiting), _BATCH))]
            metrics.ledger_waiting.set(len(self._waiting))
            started = time.monotonic()
            try:
                counts = await self._write(batch)
            except errors.LedgerUnavailable as problem:
                metrics.ledger_failures.inc()
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                if failures % 10 == 1:
                    log.warning("receipts could not be written (%s); trying again", problem.detail.partition("\n")[0])
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                continue
            failures = 0
            metrics.ledger_batch_seconds.observe(time.monotonic() - started)
            for _ in batch:
                self._waiting.popleft()
            self._written += len(batch)
            self._progress.set()
            self._progress.clear()
            await self._say(counts)
            await self._rest()
        metrics.ledger_waiting.set(0)

    async def _say(self, counts: dict[InboxRef, CountsByTopic]) -> None:
        """Tell everybody the counts that were just written, so many at once that messages don't wait meanwhile."""
        for inbox in counts:
            if not self._hub.bus.is_alone:
                self._hub.tell(person_key(inbox.address.participant_id), {"what": "unread", "inbox": inbox.told()})
        self._unsaid = counts
        while self._unsaid:
            for inbox in list(islice(self._unsaid, _SAID_AT_ONCE)):
                self.announce(inbox, self._unsaid.pop(inbox))
            await asyncio.sleep(0)

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await self._hurry.wait()
        self._hurry.clear()

    async def _write(self, batch: list[Record | Move | Read]) -> dict[InboxRef, CountsByTopic]:
        try:
            return await self.run(unread.apply, batch)
        except DatabaseError:
            # One of them can't be stored (its inbox was deleted, say): it must not hold up the others.
            log.exception("a batch of %s was refused; writing one by one", len(batch))
        counts: dict[InboxRef, CountsByTopic] = {}
        for change in batch:
            try:
                counts |= await self.run(unread.apply, [change])
            except DatabaseError:
                log.exception("left out: %s of inbox %s", type(change).__name__, change.inbox.pk)
        return counts

    # -- asking: what many streams ask at once is one query ----------------------------------------------------

    async def find(self, address: ThreadAddress) -> InboxRef | None:
        """The inbox at an address, if this participant has ever visited it."""
        return await self._finding.get(address)

    async def topic_states(self, inbox: InboxRef) -> dict[str, TopicState]:
        """What was known of each topic when upstream was last compared."""
        return await self._surveys.get(inbox) or {}

    async def stored_counts(self, inbox: InboxRef) -> CountsByTopic:
        """Unread by topic as the database has it now."""
        return await self._counting.get(inbox) or {}

    # -- counts -----------------------------------------------------------------------------------------------

    async def counts(self, inbox: InboxRef) -> CountsByTopic:
        """Unread by topic, with everything that this process has queued taken into account."""
        await self.flush()
        return await self.stored_counts(inbox)

    async def look_again(self, inboxes: Sequence[InboxRef]) -> None:
        """Another process has changed something: show the readers here what the database says now."""
        for start in range(0, len(inboxes), _LOOKED_AT):
            several = inboxes[start : start + _LOOKED_AT]
            written = -1
            while written != self._written:  # what we write meanwhile announces newer counts than these
                written = self._written
                found = await self.run(unread.counts, several)
            for inbox, by_topic in found.items():
                self.announce(inbox, by_topic)

    def announce(self, inbox: InboxRef, by_topic: CountsByTopic) -> None:
        """Tell the readers in this process which counts of an inbox have changed; what waits to be said is older."""
        self._unsaid.pop(inbox, None)
        self._show(inbox, by_topic)

    def _show(self, inbox: InboxRef, by_topic: CountsByTopic) -> None:
        person = person_key(inbox.address.participant_id)
        if not self._hub.readers_of(person):
            self._shown.pop(inbox, None)
            return
        before = self._shown.get(inbox)
        self._shown[inbox] = by_topic
        total = sum(by_topic.values())
        changed = by_topic.keys() | (before or {}).keys() or {GENERAL}
        for topic in sorted(changed):
            count = by_topic.get(topic, 0)
            if before is None or before.get(topic, 0) != count:
                item = StreamItem("unread", address=inbox.address, topic=topic, unread_count=count, total=total)
                self._hub.publish_count(person, item)

    def remember(self, inbox: InboxRef, by_topic: CountsByTopic) -> None:
        """What a new reader is being told, so that the next change is seen as one."""
        if inbox in self._shown:
            self._show(inbox, by_topic)
        self._shown[inbox] = by_topic

    async def aclose(self) -> None:
        """Write what is left, within a few seconds, and stop."""
        try:
            await self.flush()
        except errors.LedgerUnavailable:
            log.error("%s receipts were not written; they will be counted from upstream's history", len(self._waiting))
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        self._pool.shutdown(wait=False)
