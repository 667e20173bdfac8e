"""A feed: our one connection to upstream for a thread, kept up by backoff and completed from history.

    connecting --connected--> live --lost--> reconnecting --connected--> live
         |                                        |
         +--refused or no answer--> ended <-------+  (refused, or the fifth retry failed)

A feed reads without ever waiting for a browser or the database: each message is placed, given a cursor, kept in the
ring, handed to the hub and queued in the ledger. What the stream missed is found by `_compare` (reliability.md U2-U5).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from messaging import backoff, catchup, errors, metrics, sse, unread, wire
from messaging.cursors import Cursor, Sealer
from messaging.hub import Hub, Subscriber
from messaging.ledger import Ledger
from messaging.unread import InboxRef, TopicState
from messaging.upstream import UpstreamClient
from messaging.wire import Message, StreamItem, ThreadAddress

log = logging.getLogger(__name__)

_RING_ITEMS = 256
_RING_BYTES = 1 << 20
_SEEN = 2_000
_BLIND_SECONDS = (0.0, 0.1, 1.0, 4.0)
"""When to compare after `connected`: upstream attaches its listener only after announcing it (U2)."""
_COMPARE_SECONDS = 60
_AFTER_SENDING = 3.0
_SAME_LOOK = 0.05
_SAME_MOMENT_MS = 1000
_AT_ONCE = 64
"""After so many messages the readers get their turn: a burst must not look like a slow reader."""
_OWN_EVENTS = frozenset({"connected", "heartbeat", "unread", "resync", "goodbye", "status"})
_LONGEST_EVENT_NAME = 64


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every feed of a process shares."""

    client: UpstreamClient
    ledger: Ledger
    hub: Hub
    secret: bytes
    grace_seconds: float


class Feed:
    """One thread's upstream stream and what was lately heard on it. Made and ended by Feeds only."""

    def __init__(self, inbox: InboxRef, around: Surroundings, bearer: str, on_end: Callable[[Feed], None]) -> None:
        self.inbox = inbox
        self.address = inbox.address
        self.bearer = bearer
        self.thread_id = ""
        self.state = "connecting"
        self.failure: errors.UpstreamError | None = None
        self.retry_at = 0.0
        self.sealer = Sealer(around.secret, self.address.key)
        self._around = around
        self._on_end = on_end
        self._first = asyncio.get_running_loop().create_future()
        self._ring: deque[StreamItem] = deque()
        self._ring_bytes = 0
        self._forgotten = ""  # the newest place that the ring no longer holds
        self._seen: dict[str, tuple[int, str]] = {}
        self._seen_floor = ""  # up to here a message may have been handed out and its id forgotten
        self._expected: dict[str, TopicState] | None = None
        self._start = ""  # the order at which this feed began to listen
        self._head = ""  # the newest place that was handed out
        self._last_sent_ms = 0
        self._proven = False  # a heartbeat or a message came since `connected`
        self._away_since: datetime | None = None
        self._comparing = asyncio.Lock()
        self._due: deque[float] = deque()
        self._compare_soon = asyncio.Event()
        self._late: deque[tuple[Message, str, str]] = deque(maxlen=_RING_ITEMS)
        self._grace: asyncio.TimerHandle | None = None
        self._compared_once = False
        self._tasks = [
            asyncio.create_task(self._listen(), name=f"feed {inbox.pk}"),
            asyncio.create_task(self._keep_comparing(), name=f"compare {inbox.pk}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_done)
        metrics.feeds_open.inc()

    # -- readers ----------------------------------------------------------------------------------------------

    async def connected(self) -> None:
        """Return once upstream has let us in; raise the UpstreamError with which it did not."""
        await asyncio.shield(self._first)
        if self.failure is not None:
            raise self.failure
        if self.state == "reconnecting":
            wait = max(1, round(self.retry_at - time.monotonic()))
            raise errors.UpstreamUnavailable("reconnecting", retry_after=wait)

    @property
    def is_complete(self) -> bool:
        """Whether the stream is up and everything before it has been compared with upstream."""
        return self.state == "live" and self._compared_once

    def attach(self, subscriber: Subscriber) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._around.hub.attach(subscriber, self.address)

    def rest_if_idle(self) -> None:
        """After the last reader has gone the feed stays for the grace period."""
        if self._grace is None and not self._around.hub.readers(self.address):
            self._grace = asyncio.get_running_loop().call_later(self._around.grace_seconds, self._leave)

    def _leave(self) -> None:
        if not self._around.hub.readers(self.address):
            self.end(None)

    def replay(self, text: str, cursor: Cursor) -> list[StreamItem] | None:
        """What came after a cursor, in the order in which it was sent; None when memory doesn't reach back that far."""
        items = list(self._ring)
        for position in range(len(items) - 1, -1, -1):
            if items[position].cursor == text:
                return items[position + 1 :]
        sent_ms = cursor.sent_at.timestamp() * 1000
        is_late = any(  # handed out after the cursor was written, with a place before it
            item.message is not None and item.message.order <= cursor.order and item.sent_ms > sent_ms + _SAME_MOMENT_MS
            for item in items
        )
        if self.is_complete and cursor.order >= max(self._start, self._forgotten) and not is_late:
            return self.after(cursor.order)
        return None

    def after(self, order: str) -> list[StreamItem]:
        """What is in memory behind a place."""
        return [item for item in self._ring if item.message is not None and item.message.order > order]

    def item(self, message: Message, cursor_order: str | None = None, *, json: str = "", event: str = "") -> StreamItem:
        """A message as streams carry it. `cursor_order` is the place up to which its reader then has everything."""
        self._last_sent_ms = max(self._last_sent_ms + 1, time.time_ns() // 1_000_000)
        return StreamItem(
            "message",
            message=message,
            event=_event_name(event or message.kind),
            json=json or message.stream_json(),
            cursor=self.sealer.write(cursor_order or message.order, self._last_sent_ms),
            sent_ms=self._last_sent_ms,
        )

    def start_cursor(self) -> str:
        """A cursor for a reader who has everything that this feed has handed out."""
        self._last_sent_ms = max(self._last_sent_ms + 1, time.time_ns() // 1_000_000)
        return self.sealer.write(self._head or self._start or "0" * 17 + "-", self._last_sent_ms)

    def sent(self, message: Message) -> None:
        """Show the person's own message to all their tabs, and look whether the answer comes."""
        self._expect(message)
        self._around.hub.publish(self.address, StreamItem("sent", message=message))
        self.look_again(_AFTER_SENDING)

    def look_again(self, seconds: float = 0) -> None:
        """Compare with upstream in so many seconds at the latest."""
        due = time.monotonic() + seconds
        if any(abs(due - other) < _SAME_LOOK for other in self._due):
            return
        self._due.append(due)
        self._compare_soon.set()

    def forget_topic(self, topic: str) -> None:
        """The topic's messages were deleted: upstream's list will no longer show it."""
        if self._expected is not None:
            self._expected.pop(topic, None)

    # -- the stream -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        failures = 0
        while True:
            problem = await self._listen_once()
            if isinstance(problem, errors.UpstreamRefused) or not self._first.done():
                self.end(problem)
                return
            if self._proven:
                failures = 0
            self._proven = False
            throttled = isinstance(problem, errors.UpstreamUnavailable) and problem.throttled
            failures += not throttled
            wait = backoff.delay(max(failures, 1))
            if wait is None:
                self.end(problem)
                return
            if throttled:
                wait = max(wait, problem.retry_after or 1)
            self._lost(problem, failures, wait)
            await asyncio.sleep(wait)

    async def _listen_once(self) -> errors.UpstreamError:
        try:
            async with self._around.client.listen(self.address, bearer=self.bearer) as reads:
                async for events in reads:
                    for count, event in enumerate(events, start=1):
                        self._take(event)
                        if count % _AT_ONCE == 0:
                            await asyncio.sleep(0)
                    await asyncio.sleep(0)  # a read of what is there already doesn't let anybody else run
        except errors.UpstreamError as problem:
            metrics.upstream_connects.labels(type(problem).__name__).inc()
            return problem
        return errors.UpstreamUnavailable("the stream ended")

    def _lost(self, problem: errors.UpstreamError, failures: int, wait: float) -> None:
        log.warning(
            "upstream stream of inbox %s lost (try %s, next in %.1f s): %s",
            self.inbox.pk,
            failures,
            wait,
            problem.detail,
        )
        if self.state == "live":
            self._away_since = datetime.now(UTC)
        self.state = "reconnecting"
        self.retry_at = time.monotonic() + wait
        self._around.hub.publish(
            self.address, StreamItem("status", state="reconnecting", attempt=failures, retry_in_seconds=wait)
        )

    def _take(self, event: sse.Event) -> None:
        if event.event == "connected":
            self._connected(event)
        elif event.event == "heartbeat":
            if not self._proven:
                self._proven = True
                self.look_again()
        else:
            self._proven = True
            self._take_message(event)

    def _connected(self, event: sse.Event) -> None:
        try:
            told = wire.load_json(event.data)
        except errors.UpstreamMisbehaved:
            told = {}
        told = told if isinstance(told, dict) else {}
        tenant_id = wire.field(told, "tenantId")
        if tenant_id is not None and tenant_id != self.address.tenant_id:
            metrics.messages_dropped.labels("isolation").inc()
            raise errors.UpstreamMisbehaved("the stream greets another tenant")
        self.thread_id = str(wire.field(told, "threadId") or "")
        if not self._start:
            self._start = wire.order_at(wire.timestamp(wire.field(told, "timestamp")) or datetime.now(UTC))
        self.state = "live"
        metrics.upstream_connects.labels("connected").inc()
        if not self._first.done():
            self._first.set_result(None)
        self._around.hub.publish(self.address, StreamItem("status", state="live"))
        for seconds in _BLIND_SECONDS:
            self.look_again(seconds)

    def _take_message(self, event: sse.Event) -> None:
        try:
            message = wire.message(wire.load_json(event.data), event=event.event)
        except errors.UpstreamMisbehaved as problem:
            metrics.messages_dropped.labels("unreadable").inc()
            log.warning("unreadable event on inbox %s: %s", self.inbox.pk, problem.detail)
            self.look_again(1)
            return
        stranger = self._stranger(message)
        if stranger:
            metrics.messages_dropped.labels("isolation").inc()
            log.error("an event on inbox %s names another %s; dropped", self.inbox.pk, stranger)
            return
        if not message.is_streamed:
            # The person's own words, echoed: known from `send` or found by comparing.
            self.look_again(1)
            return
        self._hear(message, event.data, event.event)

    def _stranger(self, message: Message) -> str:
        """Which part of the address a message contradicts, "" for none. Absent parts contradict nothing."""
        ours = self.address
        raw = message.raw
        tenant_id, workflow = wire.field(raw, "tenantId"), wire.field(raw, "workflowId")
        participant, thread = wire.field(raw, "participantId"), wire.field(raw, "threadId")
        if isinstance(tenant_id, str) and tenant_id != ours.tenant_id:
            return "tenant"
        if isinstance(participant, str) and participant.lower() != ours.participant_id:
            return "participant"
        if isinstance(thread, str) and self.thread_id and thread != self.thread_id:
            return "thread"
        if isinstance(workflow, str) and workflow.count(":") >= 3:
            if not workflow.startswith(f"{ours.tenant_id}:"):
                return "tenant"
            if not workflow.endswith(f":{ours.activation_name}"):
                return "activation"
        return ""

    # -- messages ---------------------------------------------------------------------------------------------

    def _hear(self, message: Message, json: str, event: str) -> None:
        fingerprint = hash(json)
        seen = self._seen.get(message.id)
        if seen is not None:
            metrics.messages_dropped.labels("duplicate").inc()
            if seen[0] not in (fingerprint, 0):
                self._seen[message.id] = (fingerprint, message.order)
                self._edit(message, json, event)
            return
        if message.order <= max(self._start, self._seen_floor):
            self._late.append((message, json, event))  # a full one forgets its oldest: the comparison finds it
            self.look_again()
            return
        self._remember(message, fingerprint)
        metrics.messages_received.labels("stream").inc()
        self._expect(message)
        self._hand_out(message, json, event)

    def _hand_out(self, message: Message, json: str = "", event: str = "") -> None:
        self._head = max(self._head, message.order)
        item = self.item(message, self._head, json=json if "\n" not in json else "", event=event)
        self._ring.append(item)
        self._ring_bytes += len(item.json)
        while len(self._ring) > _RING_ITEMS or self._ring_bytes > _RING_BYTES:
            dropped = self._ring.popleft()
            self._ring_bytes -= len(dropped.json)
            if dropped.message is not None:
                self._forgotten = max(self._forgotten, dropped.message.order)
        self._around.ledger.record(self.inbox, message)
        self._around.hub.publish(self.address, item)

    def _edit(self, message: Message, json: str, event: str) -> None:
        """A message that was shown before, changed: pages replace it, and nobody counts it (U4)."""
        item = self.item(message, json=json if "\n" not in json else "", event=event)
        item.cursor, item.is_edit = "", True
        self._around.hub.publish(self.address, item)

    def _remember(self, message: Message, fingerprint: int = 0) -> None:
        self._seen[message.id] = (fingerprint, message.order)
        if len(self._seen) > _SEEN:
            _, order = self._seen.pop(next(iter(self._seen)))
            self._seen_floor = max(self._seen_floor, order)

    def _expect(self, message: Message) -> None:
        """Count a message that upstream's topic list will show, so that an even list needs no look at history."""
        if self._expected is None:
            return
        state = self._expected.get(message.scope, catchup.NOTHING_KNOWN)
        newest = message.created_at if state.last_at is None else max(state.last_at, message.created_at)
        self._expected[message.scope] = replace(state, count=state.count + 1, last_at=newest)

    # -- comparing with upstream ------------------------------------------------------------------------------

    async def _keep_comparing(self) -> None:
        await self._first
        while True:
            self._compare_soon.clear()
            rest = _COMPARE_SECONDS * random.uniform(0.85, 1.15)
            next_due = min([time.monotonic() + rest, *self._due])
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_due - time.monotonic())):
                    await self._compare_soon.wait()
                    continue  # somebody wants it sooner
            now = time.monotonic()
            self._due = deque(due for due in self._due if due > now)
            if self.state == "live":
                await self.compare()

    async def compare(self) -> None:
        """Close every gap that can be seen from upstream's topic list. Failures are logged: the next look is soon."""
        async with self._comparing:
            try:
                await self._compare()
            except errors.UpstreamRefused as problem:  # switched off, or our credential is no good: a person must act
                self.end(problem)
            except (errors.UpstreamError, errors.LedgerUnavailable) as problem:
                log.warning("inbox %s could not be compared: %s", self.inbox.pk, problem.detail)
                self.look_again(5)

    async def _compare(self) -> None:
        ledger = self._around.ledger
        if self.inbox in ledger.overflowed:  # what the ledger could not keep is found anew
            ledger.overflowed.discard(self.inbox)
            await ledger.run(unread.forget_survey, self.inbox)
            self._expected = None
        if self._expected is None:
            self._expected = await ledger.run(unread.topic_states, self.inbox)
        known = dict(self._expected)
        difference = await catchup.compare(self._around.client, self.address, known, bearer=self.bearer)
        found = {m.id: m for m in (*difference.messages, *(message for message, _, _ in self._late))}
        old_answers = [m.id for m in found.values() if m.is_answer and m.id not in self._seen and self._is_old(m)]
        familiar = await ledger.run(unread.known, self.inbox, old_answers) if old_answers else set()
        while self._late:
            message, json, event = self._late.popleft()
            self._hear_late(message, json, event, known, familiar)
        recovered = 0
        for count, message in enumerate(sorted(found.values(), key=lambda m: m.order), start=1):
            if message.id in self._seen:
                self._around.ledger.record(self.inbox, message)
            else:
                recovered += self._find(message, known, familiar)
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._expected |= {
            t.scope: TopicState(_floor(known, t.scope), t.message_count, t.last_message_at, t.last_message_at)
            for t in difference.topics
        }
        await self._settle(difference)
        if self._away_since is not None:
            self._back(recovered)
        self._compared_once = True

    def _is_old(self, message: Message) -> bool:
        """Whether our own memory can't tell if this message was handed out before: the ledger has to."""
        return message.order <= max(self._start, self._seen_floor)

    def _hear_late(
        self, message: Message, json: str, event: str, known: dict[str, TopicState], familiar: set[str]
    ) -> None:
        """A message from the stream that claims to be old: an edit of an old one, or a slow clock somewhere."""
        if message.id in self._seen:
            return
        self._remember(message, hash(json))
        state = known.get(message.scope, catchup.NOTHING_KNOWN)
        surveyed = unread.behind(state.surveyed_at)
        is_known = message.id in familiar if message.is_answer else message.order <= surveyed
        if is_known or message.order <= state.floor:
            self._edit(message, json, event)
        else:
            self._hand_out(message, json, event)

    def _find(self, message: Message, known: dict[str, TopicState], familiar: set[str]) -> int:
        """Place one message that history has and the stream did not bring; 1 if readers were shown an answer."""
        self._remember(message)
        is_news = not self._is_old(message)
        if message.is_answer and not is_news:
            is_new_to_ledger = message.id not in familiar and message.order > _floor(known, message.scope)
            is_news = self._compared_once and is_new_to_ledger
        if not message.is_streamed:
            if is_news:
                self._around.hub.publish(self.address, StreamItem("sent", message=message))
            return 0
        if is_news:
            metrics.messages_received.labels("history").inc()
            self._hand_out(message)
            return 1
        self._around.ledger.record(self.inbox, message)
        return 0

    async def _settle(self, difference: catchup.Difference) -> None:
        ledger = self._around.ledger
        await ledger.flush()
        await ledger.run(unread.settle, self.inbox, difference.topics, difference.floors)
        if difference.floors:
            self._around.hub.publish(self.address, StreamItem("resync", reason="too-much-missed"))
        if difference.gone:
            await ledger.run(unread.drop_topics, self.inbox, difference.gone)
            for scope in difference.gone:
                self.forget_topic(scope)
        await ledger.look_again(self.inbox)  # another process may have told us in vain

    def _back(self, recovered: int) -> None:
        since, self._away_since = self._away_since, None
        self._around.hub.publish(
            self.address, StreamItem("recovered", count=recovered, since=since, until=datetime.now(UTC))
        )

    # -- the end ----------------------------------------------------------------------------------------------

    def end(self, problem: errors.UpstreamError | None) -> None:
        """Stop for good; readers' streams end. `problem` is what new readers are told."""
        if self.state == "ended":
            return
        self.state = "ended"
        self.failure = problem or errors.UpstreamUnavailable("the feed has ended")
        if not self._first.done():
            self._first.set_result(None)
        if problem is not None:
            log.warning("feed of inbox %s ends: %s", self.inbox.pk, problem.detail)
        for subscriber in tuple(self._around.hub.readers(self.address)):
            subscriber.close("upstream")
        if self._grace is not None:
            self._grace.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        metrics.feeds_open.dec()
        self._on_end(self)

    async def aclose(self) -> None:
        self.end(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())
            self.end(errors.UpstreamUnavailable("an error of ours"))


class Feeds:
    """The feeds of one event loop, one for each thread that somebody in this process listens to."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._feeds: dict[ThreadAddress, Feed] = {}

    def get(self, address: ThreadAddress) -> Feed | None:
        return self._feeds.get(address)

    def open(self, inbox: InboxRef, bearer: str) -> Feed:
        """The thread's feed, started now if there is none. The newest reader's credential is the one it uses next."""
        feed = self._feeds.get(inbox.address)
        if feed is None:
            feed = self._feeds[inbox.address] = Feed(inbox, self._around, bearer, self._ended)
        feed.bearer = bearer
        return feed

    def _ended(self, feed: Feed) -> None:
        if self._feeds.get(feed.address) is feed:
            del self._feeds[feed.address]

    def all(self) -> list[Feed]:
        return list(self._feeds.values())

    def leave(self, address: ThreadAddress, subscriber: Subscriber) -> None:
        """Forget a reader, whichever feed it came to."""
        self._around.hub.detach(subscriber, address)
        feed = self._feeds.get(address)
        if feed is not None:
            feed.rest_if_idle()

    async def aclose(self) -> None:
        await asyncio.gather(*(feed.aclose() for feed in self.all()))


def _floor(known: dict[str, TopicState], scope: str) -> str:
    return known.get(scope, catchup.NOTHING_KNOWN).floor


def _event_name(name: str) -> str:
    """The name under which a message type goes out: upstream's own, unless it could be taken for one of ours."""
    if name in _OWN_EVENTS or len(name) > _LONGEST_EVENT_NAME or not name.isprintable() or ":" in name:
        return "unknown"
    return name
