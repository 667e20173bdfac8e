"""Coming back: what the holder of a cursor missed, from memory if it is there, else from upstream's history.

All or nothing: a gap that can't be filled is told as `resync`, never filled in part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from messaging import catchup, errors
from messaging.catchup import Pages
from messaging.cursors import MARK_LENGTH, MOST_MARKS, Cursor, Sealer, Span, mark
from messaging.feeds import Feed
from messaging.hub import Subscriber
from messaging.items import StreamItem
from messaging.outlet import SETTLING, Outlet, earlier, item_of
from messaging.runtime import Runtime
from messaging.unread import PUT_OFF, CountsByTopic, Familiar, LearntAfter
from messaging.wire import Message


@dataclass(slots=True)
class Start:
    """Where a stream begins: what its reader missed, or why that can't be told (`resync`).

    `had`: what the reader was handed by another feed, which this one may still hand out; `summed_up`: the ids of those
    messages that its cursor knew only as a sum.
    """

    backlog: list[StreamItem] = field(default_factory=list)
    resync: str | None = None
    resumed: str = "fresh"
    had: Cursor | None = None
    summed_up: frozenset[str] = frozenset()
    counts: CountsByTopic = field(default_factory=dict)


async def find_start(runtime: Runtime, feed: Feed, reader: Subscriber, text: str | None, overlap: timedelta) -> Start:
    """Where the stream of a reader begins who brings this cursor. Raises UpstreamError's subclasses.

    The feed hands out what comes to the reader already.
    `overlap`: the reader knows messages by id and takes so much twice rather than miss one.
    """
    if not text:
        return Start()
    cursor = feed.outlet.sealer.read(text)
    if cursor is None:
        return Start(resync="unknown-position", resumed="refused")
    backlog = feed.outlet.since(text)
    if backlog is not None:
        return Start(backlog, resumed="memory", had=None if overlap else cursor)
    now, pages = datetime.now(UTC), None
    if not feed.is_complete or feed.gaps.compared_at < cursor.sent_at + PUT_OFF:
        pages = (
            await feed.gaps.compare()
        )  # or what the reader had elsewhere and nobody here is not named by the next cursors
        if feed.gaps.compared_at < now and not overlap:
            raise errors.UpstreamUnavailable("not compared yet")
    if feed.is_complete and cursor.span is None and feed.outlet.reaches(cursor):
        return Start(from_memory(feed.outlet, cursor), resumed="memory", had=cursor)
    pages = pages or Pages(runtime.client, feed.address, feed.bearer)
    return await _from_history(runtime, feed, reader, cursor, overlap, pages)


def from_memory(outlet: Outlet, cursor: Cursor) -> list[StreamItem]:
    """What the holder of another feed's cursor hasn't had, in order.

    With cursors of its own: those that the messages went out with here say nothing of what this reader has from there.
    """
    heard = {item.message.id: item for item in outlet.after(cursor.order) if item.message is not None}
    messages = [item.message for item in heard.values() if item.message is not None]
    messages.sort(key=lambda message: message.order)
    return _items(_backlog(outlet.sealer, cursor, messages, outlet.vouched(), repeats=False), heard)


def _items(backlog: list[tuple[Message, str]], heard: dict[str, StreamItem]) -> list[StreamItem]:
    """Messages with their cursors, as the stream brought them where it did."""
    return [item_of(message, *_as_heard(heard.get(message.id)), cursor=written) for message, written in backlog]


async def _from_history(
    runtime: Runtime, feed: Feed, reader: Subscriber, cursor: Cursor, overlap: timedelta, pages: Pages
) -> Start:
    """What came after a cursor that memory doesn't reach: upstream's history merged with memory.

    `pages` are no older than the reader's place among those to whom the feed hands out what comes. `resync`: too much,
    or nobody knows what.
    """
    order, limit = earlier(cursor.order, overlap), feed.outlet.moment_ago(time.monotonic() - pages.begun_at)
    read = await _behind(pages, cursor, order, repeats=bool(overlap))
    if read is None:
        return Start(resync="too-much-missed", resumed="refused")
    messages, summed_up = read
    messages += [message for message in await _late(runtime, feed, cursor, order) if message.id not in summed_up]
    ordered = sorted(messages, key=lambda message: message.order)
    for message in ordered:
        feed.outlet.name(message)
    await feed.gaps.bring_in(ordered)  # the others want it, too; and cursors vouch only for what the database knows
    # What came meanwhile went out with cursors that don't name all of these: it is part of the replay, with its own.
    lately = [*feed.outlet.after(order), *reader.messages()]
    heard = {its.message.id: its for its in lately if its.message is not None and its.message.order > order}
    found = {message_id: its.message for message_id, its in heard.items() if its.message is not None}
    found |= {message.id: message for message in messages}
    ordered = sorted(found.values(), key=lambda message: message.order)
    for message in ordered:
        feed.outlet.gave(message)
    backlog = _backlog(feed.outlet.sealer, cursor, ordered, limit, repeats=bool(overlap))
    return Start(_items(backlog, heard), resumed="history", had=None if overlap else cursor, summed_up=summed_up)


async def _behind(
    pages: Pages, cursor: Cursor, order: str, *, repeats: bool
) -> tuple[list[Message], frozenset[str]] | None:
    """Everything behind an order, if it is sure that the cursor's holder had everything before; and the ids of those
    messages before that the cursor names by their sum only."""
    start = order if cursor.span is None else min(order, cursor.span.start)
    messages, is_all = await catchup.after(pages, start)
    if not is_all:
        return None
    had = frozenset(message.id for message in messages if message.order <= cursor.order)
    if cursor.span is not None and not repeats and Span(start).with_(had) != cursor.span:
        return None  # something was left out in the middle of a burst
    return [message for message in messages if message.order > order or repeats], had


async def _late(runtime: Runtime, feed: Feed, cursor: Cursor, order: str) -> list[Message]:
    """What became known only after the cursor was written, though its place is before the order.

    Or, where the feed that wrote it wasn't sure, after that had begun: what may have been on its way then.
    """
    await runtime.ledger.flush()
    if cursor.sure_at is None:
        moment = cursor.sent_at + PUT_OFF
        return await _found(runtime, feed, await runtime.ledger.learnt_after(LearntAfter(feed.inbox, moment, order)))
    question = LearntAfter(feed.inbox, cursor.sure_at, order, since=earlier(cursor.order, SETTLING))
    late = await _found(runtime, feed, await runtime.ledger.learnt_after(question))
    familiar = await runtime.ledger.familiar(Familiar(feed.inbox, late, cursor.order, cursor.sure_at))
    return [message for message in late if message.id not in familiar]


async def _found(runtime: Runtime, feed: Feed, known: set[tuple[str, str]]) -> list[Message]:
    """The messages with these topics and ids, from history."""
    messages = []
    for topic in {topic for topic, _ in known}:
        wanted = {message_id for its_topic, message_id in known if its_topic == topic}
        messages += await catchup.find(runtime.client, feed.address, topic, wanted, bearer=feed.bearer)
    return messages


def _as_heard(item: StreamItem | None) -> tuple[str, str]:
    """A message's JSON and event as the stream brought it; "" for what came from history."""
    return (item.json, item.event) if item is not None else ("", "")


def _backlog(
    sealer: Sealer, cursor: Cursor, messages: list[Message], limit: str, *, repeats: bool
) -> list[tuple[Message, str]]:
    """Messages, in order, for the holder of a cursor, each with the cursor that is right after it.

    Those that the holder had are left out unless it `repeats`.
    """
    had = [message for message in messages if message.order > cursor.order and mark(message.id) in cursor.marks]
    trail = _Trail(sealer, cursor, had, limit)
    return [
        (message, trail.with_(message, is_late=message.order <= cursor.order and not repeats))
        for message in messages
        if repeats or mark(message.id) not in cursor.marks
    ]


class _Trail:
    """The cursors of a reader who is given message after message.

    Nobody knows whether something behind the `limit` was still on its way when history was read: what the reader has
    of that is named, and of a burst summed up.
    """

    def __init__(self, sealer: Sealer, cursor: Cursor, had: list[Message], limit: str) -> None:
        self._sealer = sealer
        self._order = cursor.order
        self._limit = limit
        self._named = list(had)
        self._unplaced = cursor.marks - {mark(message.id) for message in had}
        self._late = ""  # marks of messages that came late, with a place before the cursor's
        self._sent_ms = int(cursor.sent_at.timestamp() * 1000)
        self._sure_ms = round(cursor.sure_at.timestamp() * 1000) if cursor.sure_at is not None else 0
        self._span: Span | None = None

    def with_(self, message: Message, *, is_late: bool) -> str:
        """The cursor of a reader who has been given this message, too."""
        if is_late:
            self._late += mark(message.id)
            return self._write(self._sent_ms, self._late, self._sure_ms)
        self._order = max(self._order, min(message.order, self._limit))
        self._named = [each for each in (*self._named, message) if each.order > self._order]
        if len(self._named) + len(self._unplaced) > MOST_MARKS:
            self._sum_up(message.order)
        return self._write(time.time_ns() // 1_000_000, "")

    def _sum_up(self, order: str) -> None:
        span = self._span or Span(self._order)
        self._span = span.with_(each.id for each in self._named if each.order <= order)
        self._order = max(self._order, order)
        self._named = [each for each in self._named if each.order > order]

    def _write(self, sent_ms: int, late: str, sure_ms: int = 0) -> str:
        marks = "".join([late, *self._unplaced, *(mark(each.id) for each in self._named)])
        marks = marks[: MARK_LENGTH * MOST_MARKS]
        return self._sealer.write(self._order, sent_ms, marks, str(self._span or ""), sure_at_ms=sure_ms)
