"""The ledger: the unread store as the event loop sees it. Writes wait in line, in order, and go out in batches.

A reader of upstream must never wait for a database (reliability.md U6), so `record` and `read` only queue. One
writer takes what is queued and writes it in one transaction. While the database is away everything stays in line; when
the line is full the inbox is marked for a fresh comparison with upstream, from which nothing can be missing.

Counts that anybody is shown come from one query after the other, and after each change there is one that begins later:
so what was shown last is what is true, whichever process made the change.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import batched
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import InterfaceError, InternalError, OperationalError, close_old_connections

from messaging import errors, metrics, unread
from messaging.batch import Batch
from messaging.changes import Change, InboxRef, Move, Read, Record, Sheet
from messaging.hub import Hub, Subscriber, person_key
from messaging.items import StreamItem
from messaging.threads import give_way
from messaging.unread import (
    CountsByTopic,
    Familiar,
    KnownBefore,
    LearntAfter,
    Settlement,
    TopicState,
)
from messaging.wire import GENERAL, Message, ThreadAddress

log = logging.getLogger(__name__)

_THREADS = 4
_BATCH = 1_000
_MAX_WAITING = 50_000
_SAID_AT_ONCE = 16
_FLUSH_SECONDS = 5
_PAUSE_SECONDS = 0.15
_MANY = 100
_LONG_PAUSE_SECONDS = 0.6
"""Between batches, and after one of many: receipts are written, and counts told, together. Whoever waits for them to be
written hurries it, and so does a whole batch. With writing and telling, a count is less than a second old (D5)."""
_COMPANY_SECONDS = 0.9
"""Where many new counts are told each waits for a message that goes the same way, until its oldest answer is so old:
most of them need no write of their own. What somebody read is told at once."""
_EARLY_SECONDS = 0.05
"""Those that find no company go that much early: each after a message of somebody else's, while the process is awake
anyway, or several at once. So does a sheet: what comes while it is written waits, and just after a message nothing has
come yet."""
_AT_ONCE = 0.0
_NOBODY: Mapping[InboxRef, float] = MappingProxyType({})
_SHORTEST_PAUSE = 0.03
"""In a herd somebody always waits."""
_RETRY_SECONDS = (0.2, 0.5, 1, 2, 5)


class _Waiting(NamedTuple):
    """A reader whose new count waits for company, until a moment; `oldest` is what its queue began with then."""

    until: float
    reader: Subscriber
    oldest: StreamItem | None


class Ledger:
    """Queues records and reads for one event loop, and answers questions about what is unread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ledger", initializer=give_way)
        self._sheets: deque[Sheet] = deque()  # in line; the first one stays until it is written
        self._open: Sheet | None = None  # the last of them, while changes are added to it
        self._writer: asyncio.Task[None] | None = None
        self._written = 0
        self._queued = 0
        self._progress = asyncio.Event()
        self._hurry = asyncio.Event()
        self._rests_until: float | None = None  # monotonic; None: it doesn't rest
        self._finding = Batch(lambda addresses: self.run(unread.find, addresses))
        self._surveys = Batch(lambda inboxes: self.run(unread.topic_states, inboxes))
        self._counting = Batch(self._count)
        self._settling = Batch(self._settle)
        self._recalling = Batch(lambda questions: self.run(unread.known_before, questions))
        self._recognising = Batch(lambda questions: self.run(unread.familiar, questions))
        self._late = Batch(lambda questions: self.run(unread.learnt_after, questions))
        self._shown: dict[str, dict[InboxRef, CountsByTopic]] = {}  # by person
        hub.when_deserted = lambda person: self._shown.pop(person, None)
        self._retry: asyncio.TimerHandle | None = None
        self._unshown: set[InboxRef] = set()  # whose counts could not be read
        self._until: dict[InboxRef, float] = {}
        """For how long the count that was asked for may wait for company (monotonic)."""
        self._company: list[_Waiting] = []  # the last is the next whose time is up
        self._telling: asyncio.TimerHandle | None = None
        self.overflowed: set[InboxRef] = set()
        self.dropped: set[InboxRef] = set()
        """Of which unread answers were dropped that upstream did not have: it may have them after all."""
        self._dropping: set[asyncio.Task[None]] = set()

    async def run[**P, R](self, store: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of the store in one of our few threads; LedgerUnavailable when the database is away."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: _with_connection(store, *args, **kwargs))
        except (OperationalError, InterfaceError, InternalError) as problem:
            raise errors.LedgerUnavailable(str(problem).strip()[:300]) from problem

    # -- writing ----------------------------------------------------------------------------------------------

    def record(self, inbox: InboxRef, message: Message, *, late_at: datetime | None = None) -> None:
        """Remember an answer. Repeating it is harmless; messages that don't count (D2) are left out.

        Unless they came late, handed out (`late_at`) after messages that stand behind them: a reader who resumes from
        history would not be shown them otherwise.
        """
        if late_at is not None or message.is_answer:
            self._queue(Record(inbox, message, late_at or datetime.now(UTC), late_at is not None))

    def move(self, inbox: InboxRef, message: Message) -> None:
        """A known answer was changed upstream, and may stand in another topic now: its receipt goes with it."""
        if message.is_answer:
            self._queue(Move(inbox, message))

    def read(self, change: Read) -> None:
        """Mark as read, after everything that was recorded before."""
        self._queue(change)

    def _queue(self, change: Change) -> None:
        if self._queued - self._written >= _MAX_WAITING:
            self.overflowed.add(change.inbox)
            return
        sheet = self._open
        if sheet is None or len(sheet.changes) >= _BATCH:
            sheet = self._open = Sheet()
            self._sheets.append(sheet)
        sheet.add(change, time.monotonic())
        self._queued += 1
        if self._rests_until is not None and self._queued - self._written >= _BATCH:
            self._hurry.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all(), name="ledger")

    def hurry(self) -> None:
        """Write what is queued now: somebody waits for it."""
        if self._sheets:
            self._hurry.set()

    async def flush(self, *, is_urgent: bool = True) -> None:
        """Return when everything queued so far is written; LedgerUnavailable when that takes too long.

        If it isn't urgent it is written in its time, which is less than a second.
        """
        goal = self._queued
        if self._written < goal and is_urgent:
            self._hurry.set()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._written < goal:
                    await self._progress.wait()
        except TimeoutError as problem:
            raise errors.LedgerUnavailable("receipts wait to be written") from problem

    async def _write_all(self) -> None:
        failures = 0
        while self._sheets:
            sheet = self._sheets[0]
            if sheet is self._open:
                self._open = None
            metrics.ledger_waiting.set(self._queued - self._written)
            started = time.monotonic()
            try:
                await self._write(sheet)
            except errors.LedgerUnavailable as problem:
                metrics.ledger_failures.inc()
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                if failures % 10 == 1:
                    log.warning("receipts could not be written (%s); trying again", problem.detail.partition("\n")[0])
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                continue
            was_late, failures = failures > 0, 0
            metrics.ledger_batch_seconds.observe(time.monotonic() - started)
            self._sheets.popleft()
            self._written += len(sheet.changes)
            self._progress.set()
            self._progress.clear()
            is_many = len(sheet.changes) >= _MANY
            self.changed(sheet.since, _patient(sheet) if is_many else _NOBODY)
            if self._queued - self._written < _BATCH and not (was_late and self._sheets):
                is_one = len(sheet.changes) == 1
                await asyncio.sleep(0 if is_one else min(time.monotonic() - started, _SHORTEST_PAUSE))
                await self._rest(_LONG_PAUSE_SECONDS if is_many else _PAUSE_SECONDS)
        metrics.ledger_waiting.set(0)

    async def _rest(self, seconds: float) -> None:
        self._rests_until = time.monotonic() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()
        self._rests_until = None

    async def _write(self, sheet: Sheet) -> None:
        try:
            await self.run(unread.write, sheet)
        except DatabaseError:
            # One of them can't be stored (its inbox was deleted, say): it must not hold up the others.
            log.exception("a batch of %s was refused; writing one by one", len(sheet.changes))
            for change in sheet.changes:
                try:
                    await self.run(unread.apply, [change])
                except DatabaseError:
                    log.exception("left out: %s of inbox %s", type(change).__name__, change.inbox.pk)

    async def settle(self, settlement: Settlement) -> None:
        """Remember a comparison whose messages are written; drop what upstream lacks. Raises LedgerUnavailable."""
        if await self._settling.get(settlement) is None:
            raise errors.LedgerUnavailable("a comparison was refused")

    async def _settle(self, settlements: list[Settlement]) -> dict[Settlement, bool]:
        settled: dict[Settlement, bool] = {}
        try:
            settled = await self.run(unread.settle, settlements)
        except DatabaseError:
            log.exception("%s comparisons were refused; writing one by one", len(settlements))
            for one in settlements:
                try:
                    settled |= await self.run(unread.settle, [one])
                except DatabaseError:
                    log.exception("left out: a comparison of inbox %s", one.inbox.pk)
        dropped = {one.inbox for one, is_dropped in settled.items() if is_dropped}
        self.dropped |= dropped
        self.changed(dropped, are_dropped=True)
        return settled

    async def drop_topics(self, inbox: InboxRef, floors: Mapping[str, str]) -> None:
        """Drop the receipts of topics up to these places; they were deleted upstream. LedgerUnavailable."""
        task = asyncio.create_task(self._drop_topics(inbox, floors))  # whoever asked may go meanwhile
        self._dropping.add(task)
        task.add_done_callback(self._dropped)
        await asyncio.shield(task)

    async def _drop_topics(self, inbox: InboxRef, floors: Mapping[str, str]) -> None:
        await self.run(unread.drop_topics, inbox, floors)
        self.changed([inbox])

    def _dropped(self, task: asyncio.Task[None]) -> None:
        self._dropping.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has been told

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

    async def known_before(self, question: KnownBefore) -> set[str]:
        return await self._recalling.get(question) or set()

    async def familiar(self, question: Familiar) -> set[str]:
        return await self._recognising.get(question) or set()

    async def learnt_after(self, question: LearntAfter) -> set[tuple[str, str]]:
        return await self._late.get(question) or set()

    # -- counts -----------------------------------------------------------------------------------------------

    async def counts(self, inbox: InboxRef) -> CountsByTopic:
        """Unread by topic, with everything that this process has queued taken into account."""
        await self.flush()
        return await self.stored_counts(inbox)

    def changed(
        self, inboxes: Collection[InboxRef], patient: Mapping[InboxRef, float] = _NOBODY, *, are_dropped: bool = False
    ) -> None:
        """These were changed in the database: show it here, and let the other processes look.

        `patient`: of which of them the new count may wait for company, and until when (monotonic).
        """
        self._hub.tell_of(inboxes, "dropped" if are_dropped else "unread")
        self.look_again(inboxes, patient)

    def look_again(self, inboxes: Collection[InboxRef], patient: Mapping[InboxRef, float] = _NOBODY) -> None:
        """Show the readers here what the database says of these now."""
        for inbox in inboxes:
            until = patient.get(inbox, _AT_ONCE)
            self._until[inbox] = min(until, self._until.get(inbox, until)) if inbox in self._until else until
        self._counting.ask(inboxes)

    async def _count(self, inboxes: list[InboxRef]) -> dict[InboxRef, CountsByTopic]:
        """Read counts and tell the readers in this process which have changed, few at once: messages must not wait."""
        asked = {inbox: self._until.pop(inbox, _AT_ONCE) for inbox in inboxes}
        try:
            found = await self.run(unread.counts, inboxes)
        except errors.LedgerUnavailable:
            self._unshown.update(inboxes)
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS[-1], self._try_again)
            raise
        company: list[_Waiting] = []
        try:
            for some in batched(found.items(), _SAID_AT_ONCE):
                self._hub.hold()
                try:
                    until: dict[str, float] = {}  # by person
                    for inbox, by_topic in some:
                        person = person_key(inbox.address.participant_id)
                        until[person] = min(asked[inbox], until.get(person, asked[inbox]))
                        self._show(person, inbox, by_topic)
                finally:
                    for reader in self._hub.let_go():
                        if until[reader.person] == _AT_ONCE:
                            reader.hurry()
                        else:
                            company.append(_Waiting(until[reader.person], reader, reader.oldest))
                await asyncio.sleep(0)
        finally:  # whatever happens, nobody is left with a count that nothing sends
            self._company += company
            self._company.sort(key=attrgetter("until"), reverse=True)
            self._tell_lonely()
        return found

    def take_turn(self) -> None:
        """Messages have just gone out: the moment for what is soon due anyway, a sheet or a count without company."""
        if self._company or self._rests_until is not None:
            soon = time.monotonic() + _EARLY_SECONDS
            if self._rests_until is not None and self._rests_until <= soon:
                self._hurry.set()
            else:
                self._tell_next(soon)

    def _tell_lonely(self) -> None:
        """Tell the counts that found no company, and for which no message came by, few at once."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        now = time.monotonic()
        try:
            for _ in range(_SAID_AT_ONCE):
                if not self._tell_next(now + _EARLY_SECONDS):
                    break
        finally:  # whatever happens with one of them, the others have their time
            if self._company:
                wait = max(self._company[-1].until - now, 0)
                self._telling = asyncio.get_running_loop().call_later(wait, self._tell_lonely)

    def _tell_next(self, until: float) -> bool:
        """Let the next reader look up whose count is due by then and found no company; whether there is one."""
        company = self._company
        while company and company[-1].until <= until:
            its = company.pop()
            if its.reader.oldest is its.oldest:
                its.reader.hurry()
                return True
        return False

    def _try_again(self) -> None:
        self._retry = None
        unshown, self._unshown = self._unshown, set()
        self.look_again(unshown)

    def _show(self, person: str, inbox: InboxRef, by_topic: CountsByTopic) -> None:
        shown = self._shown.get(person)
        if shown is None:
            if not self._hub.readers_of(person):
                return
            shown = self._shown[person] = {}
        before = shown.get(inbox)
        if before == by_topic:
            return
        shown[inbox] = by_topic
        total = sum(by_topic.values())
        for topic, count in _differences(before, by_topic):
            item = StreamItem("unread", address=inbox.address, topic=topic, unread_count=count, total=total)
            self._hub.publish_count(person, item, to_overviews_only=before is None)

    async def aclose(self) -> None:
        """Write what is left, within a few seconds, and stop."""
        try:
            await self.flush()
        except errors.LedgerUnavailable:
            log.error(
                "%s receipts were not written; they will be counted from upstream's history",
                self._queued - self._written,
            )
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        for timer in (self._retry, self._telling):
            if timer is not None:
                timer.cancel()
        self._pool.shutdown(wait=False)


def _differences(before: CountsByTopic | None, now: CountsByTopic) -> list[tuple[str, int]]:
    """The topics whose counts are news, by name, with these; all, or General's none, if nothing was told before."""
    if before is None:
        return sorted(now.items()) or [(GENERAL, 0)]
    changed = [(topic, count) for topic, count in now.items() if before.get(topic, 0) != count]
    return sorted(changed + [(topic, 0) for topic in before if topic not in now])


def _patient(sheet: Sheet) -> dict[InboxRef, float]:
    """The inboxes in which nothing but new messages is told, and how long that may wait for company (monotonic)."""
    return {inbox: since + _COMPANY_SECONDS for inbox, since in sheet.since.items() if inbox not in sheet.others}


def _with_connection[**P, R](store: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """As around a request: no connection that failed is used again, and none is kept by a thread that rests."""
    close_old_connections()
    try:
        return store(*args, **kwargs)
    finally:
        close_old_connections()
