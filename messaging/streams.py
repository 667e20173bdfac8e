"""Streams: one reader's messages as server-sent events, from a cursor on, with heartbeats, until a goodbye.

The stream is a small class and not a generator: Django always closes it (traps.md section 2). It holds no thread
and no database connection while it waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import orjson
from django.conf import settings
from django.http import StreamingHttpResponse

from messaging import errors, hub, metrics, sse
from messaging.changes import InboxRef, Read
from messaging.cursors import mark
from messaging.hub import Subscriber
from messaging.items import StreamItem
from messaging.resuming import Start, find_start
from messaging.runtime import Runtime, current
from messaging.sessions import Access
from messaging.unread import PUT_OFF, KnownBefore, LearntAfter
from messaging.visits import visit
from messaging.wire import ThreadAddress

log = logging.getLogger(__name__)

_OPEN_SECONDS = 45
_OPENING_AT_ONCE = 1_000
"""A herd that comes back at once is let in so many at a time; the others come again, spread over some seconds."""
opened: ContextVar[list[EventStream]] = ContextVar("opened")
"""The streams opened in this request: whoever ends the request closes them, since Django does so only when it is asked
for a body (a reader may go, or stall, before)."""
_BACKLOG_ITEMS = 64
_GOODBYES = {"shutdown": 1, "signed-out": 0, "forbidden": 0, "lagging": 0}
"""Why we end a stream on purpose, and after how many seconds its reader may come back."""
_HAD_SECONDS = 150
"""More than two comparisons: by then a new feed has handed out what it found of the past."""

type Encoder = Callable[[StreamItem], bytes]


def for_api(item: StreamItem) -> bytes:
    """What an API client reads: upstream's JSON under upstream's names, and our `unread` (interfaces.md section 3)."""
    if item.kind == "message" and not item.is_edit:
        return sse.encode(item.event, item.json, id=item.cursor)
    if item.kind == "unread":
        topic = _topic_json(item.topic)
        return sse.encode("unread", f'{{"topic":{topic},"unreadCount":{item.unread_count},"total":{item.total}}}')
    return b""


@lru_cache(1024)
def _topic_json(topic: str) -> str:
    return orjson.dumps(topic or None).decode()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a reader asked for. `shows`: the topic on its screen, whose answers are read as they are sent (D3);
    `overlap`: it knows messages by id and takes a minute twice rather than miss one; `wants_status`: it shows whether
    upstream is there."""

    last_event_id: str | None
    heartbeat_seconds: int
    encode: Encoder = for_api
    shows: str | None = None
    overlap: timedelta = timedelta(0)
    wants_status: bool = False


async def open_stream(address: ThreadAddress, access: Access, wishes: Wishes) -> StreamResponse:
    """Open a stream of one inbox. Whatever is wrong is raised (errors.MessagingError) before the first byte."""
    runtime = current()
    _admit(runtime, access)
    runtime.opening += 1
    try:
        return await _open(runtime, address, access, wishes)
    finally:
        runtime.opening -= 1


async def _open(runtime: Runtime, address: ThreadAddress, access: Access, wishes: Wishes) -> StreamResponse:
    inbox = await visit(runtime, address, access)
    person = _admit(runtime, access)  # once more: others came in, or we began to shut down, while we asked
    subscriber = Subscriber(person, shows=wishes.shows)
    feed = runtime.feeds.open(inbox, runtime.client.bearer(access.token))
    feed.attach(subscriber)
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            await feed.connected()
            start = await find_start(runtime, feed, subscriber, wishes.last_event_id, wishes.overlap)
        await runtime.hub.is_told(person)  # or a count that changes from here on would not be told
        start.counts = await runtime.ledger.stored_counts(inbox)
        if wishes.shows is not None:
            if not feed.is_complete:  # opening a topic reads all of it, what came while nobody listened included (D4)
                await feed.gaps.compare()
            runtime.ledger.read(Read(inbox, wishes.shows))
    except TimeoutError as problem:
        runtime.feeds.leave(address, subscriber)
        raise errors.UpstreamTimeout("no stream in time") from problem
    except BaseException:
        runtime.feeds.leave(address, subscriber)
        raise
    runtime.watch_over(subscriber, access, address.tenant_id)
    metrics.streams_opened.labels(start.resumed).inc()

    def leave() -> None:
        runtime.watch.remove(subscriber)
        runtime.feeds.leave(address, subscriber)

    return StreamResponse(EventStream(runtime, subscriber, inbox, wishes, start, leave, feed.thread_id))


async def open_overview(access: Access, wishes: Wishes) -> StreamResponse:
    """Open a stream of a person's counts, of all inboxes, without any messages."""
    runtime = current()
    subscriber = Subscriber(_admit(runtime, access), is_overview=True)
    runtime.hub.attach(subscriber, None)
    runtime.watch_over(subscriber, access, "")

    def leave() -> None:
        runtime.watch.remove(subscriber)
        runtime.hub.detach(subscriber, None)

    try:
        await runtime.hub.is_told(subscriber.person)
    except BaseException:
        leave()
        raise
    subscriber.put(StreamItem("unread"))  # what changed since the page was made
    return StreamResponse(EventStream(runtime, subscriber, None, wishes, Start(), leave, ""))


def _admit(runtime: Runtime, access: Access) -> str:
    if runtime.draining.is_set():
        raise errors.Draining("shutting down")
    person = hub.person_key(access.participant_id)
    if len(runtime.hub.readers_of(person)) >= settings.STREAM_MAX_PER_PARTICIPANT:
        raise errors.TooManyStreams("at the limit of streams per participant")
    if runtime.opening > _OPENING_AT_ONCE or runtime.hub.count >= settings.STREAM_MAX_PER_PROCESS:
        raise errors.Crowded(f"{runtime.opening} streams are being opened, {runtime.hub.count} are open")
    return person


class StreamResponse(StreamingHttpResponse):
    """An event stream as Django answers it; `stream` is its content as it is."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        super().__init__(
            stream,
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
        )


class EventStream:
    """Bytes for one reader, until the reader goes or we end it. `close` may be called from any thread, repeatedly."""

    def __init__(
        self,
        runtime: Runtime,
        subscriber: Subscriber,
        inbox: InboxRef | None,
        wishes: Wishes,
        start: Start,
        leave: Callable[[], None],
        thread_id: str,
    ) -> None:
        self._runtime = runtime
        self._subscriber = subscriber
        self._inbox = inbox
        self._wishes = wishes
        self._on_close = leave
        self._loop = asyncio.get_running_loop()
        self._backlog = start.backlog
        self._sent_already = {item.message.id for item in start.backlog if item.message is not None} | start.summed_up
        self._had = start.had
        self._had_until = time.monotonic() + _HAD_SECONDS if start.backlog or start.had else 0
        self._unconfirmed: list[str] = []
        self._greeting = self._connected(thread_id) + (_resync(start.resync) if start.resync else b"")
        self._greeting += wishes.encode(StreamItem("counts", counts=start.counts))
        self._is_heartbeat_due = False
        self._alarm = runtime.wheel.after(wishes.heartbeat_seconds, self._ring)
        self._is_over = False
        self._is_late = False  # something was given to `write_through` that has not gone out yet
        self._write_now: Callable[[bytes], bool] | None = None
        opened.get([]).append(self)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        self._confirm()  # Django asks for more only when what we gave it has been sent
        while not self._is_over:
            if self._is_heartbeat_due:
                return self._heartbeat()
            if self._subscriber.closed_because in hub.DROPS_QUEUE:
                self._backlog, self._greeting = [], b""
            chunk = await self._take()
            if chunk:
                return chunk
            if self._subscriber.closed_because is not None:
                self._is_over = True
                farewell = self._goodbye(self._subscriber.closed_because)
                if farewell:
                    return farewell
                break
            await self._subscriber.wait()
            if self._is_late:
                self._is_late = False
                return b""
        self.close()
        raise StopAsyncIteration

    def write_through(self, write_now: Callable[[bytes], bool]) -> None:
        """Write what comes while this stream waits at once, without waking the task that waits.

        `write_now` says whether the bytes have gone out; if not, the iteration goes on with b"", and whoever iterates
        waits for them before asking for more.
        """
        self._write_now = write_now
        self._subscriber.rush = self._rush

    def _rush(self) -> bool:
        if self._write_now is None or self._had_until or self._is_heartbeat_due or self._is_over:
            return False
        items = self._subscriber.take()
        try:
            chunk = b"".join([self._write(item) for item in items])
        except Exception:  # noqa: BLE001 - it happens again, and is told, where this stream is read
            self._subscriber.put_back(items)
            return False
        if chunk and not self._write_now(chunk):
            self._is_late = True
            return False
        self._confirm()
        return True

    def leave(self) -> None:
        """The reader has gone."""
        self._subscriber.close("client")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._alarm.cancel()
        self._subscriber.rush = self._write_now = None
        self._on_close()

    async def _take(self) -> bytes:
        if self._greeting:
            greeting, self._greeting = self._greeting, b""
            return greeting
        if self._backlog:
            items, self._backlog = self._backlog[:_BACKLOG_ITEMS], self._backlog[_BACKLOG_ITEMS:]
        else:
            items = self._subscriber.take()
            if self._had_until:
                items = await self._without_had(items)
        return b"".join(self._write(item) for item in items)

    async def _without_had(self, items: list[StreamItem]) -> list[StreamItem]:
        """Leave out what this reader was sent at the start, or by another feed before; a while later all is new."""
        if time.monotonic() > self._had_until:
            self._had, self._had_until, self._sent_already = None, 0, set()
            return items
        had = self._had
        messages = [item.message for item in items if item.message is not None and item.kind == "message"]
        known = {message.id for message in messages if message.id in self._sent_already}
        if had is not None and self._inbox is not None:
            known |= {m.id for m in messages if m.order > had.order and mark(m.id) in had.marks}
            doubtful = {m.id for m in messages if m.order <= had.order}
            if doubtful:
                # They were handed out by the other feed, unless they came late: then the ledger learnt of them later.
                store = self._runtime.ledger
                moment = had.sure_at or had.sent_at + PUT_OFF
                known |= await store.known_before(KnownBefore(self._inbox, frozenset(doubtful), moment))
                others = {m.id for m in messages if m.id in doubtful and not m.is_answer}
                if others:  # they have a receipt only if they came late
                    await store.flush()
                    late = await store.learnt_after(LearntAfter(self._inbox, moment, had.order))
                    known |= others - {message_id for _, message_id in late}
        return [item for item in items if item.is_edit or item.message is None or item.message.id not in known]

    def _write(self, item: StreamItem) -> bytes:
        if item.kind == "status":
            return _status(item) if self._wishes.wants_status else b""
        if item.kind == "resync":
            return _resync(item.reason)
        message = item.message
        if message is not None and message.is_answer and message.scope == self._wishes.shows:
            self._unconfirmed.append(message.id)
        return item.bytes_for(self._wishes.encode)

    def _confirm(self) -> None:
        """What was sent to a reader that shows its topic has been read (D3)."""
        if self._unconfirmed and self._inbox is not None and self._wishes.shows is not None:
            ids, self._unconfirmed = frozenset(self._unconfirmed), []
            self._runtime.ledger.read(Read(self._inbox, self._wishes.shows, message_ids=ids))

    def _connected(self, thread_id: str) -> bytes:
        told = {
            "message": "Connected to thread message stream",
            "threadId": thread_id,
            "tenantId": self._inbox.address.tenant_id if self._inbox else None,
            "timestamp": _now(),
        }
        return sse.encode("connected", json.dumps(told))

    def _ring(self) -> None:
        self._is_heartbeat_due = True
        self._subscriber.wake()

    def _heartbeat(self) -> bytes:
        self._is_heartbeat_due = False
        self._alarm = self._runtime.wheel.after(self._wishes.heartbeat_seconds, self._ring)
        mine = self._runtime.hub.streams_of(self._subscriber.person)
        return sse.encode("heartbeat", json.dumps({"timestamp": _now(), "subscriberCount": mine}))

    def _goodbye(self, reason: str) -> bytes:
        if reason not in _GOODBYES:
            return b""
        return sse.encode("goodbye", json.dumps({"reason": reason, "retryInSeconds": _GOODBYES[reason]}))


def _resync(reason: str) -> bytes:
    return sse.encode("resync", json.dumps({"reason": reason}))


def _status(item: StreamItem) -> bytes:
    told = {"state": item.state, "attempt": item.attempt, "retryInSeconds": round(item.retry_in_seconds, 1)}
    return sse.encode("status", json.dumps(told))


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
