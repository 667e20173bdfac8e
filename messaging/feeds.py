"""A feed: our one connection to upstream for a thread, kept up by backoff.

    connecting --connected--> live --lost--> reconnecting --connected--> live
         |                                        |
         +--refused or no answer--> ended <-------+  (refused, or the fifth retry failed)

A feed reads without ever waiting for a browser or the database: each message is checked, placed and handed to its
outlet. What the stream left out is found by its gaps.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from messaging import backoff, errors, metrics, sse, wire
from messaging.changes import InboxRef
from messaging.gaps import Gaps
from messaging.hub import Subscriber
from messaging.items import StreamItem
from messaging.outlet import Outlet, Surroundings
from messaging.wire import Message, ThreadAddress

log = logging.getLogger(__name__)

_BLIND_SECONDS = (0.25, 5.5)
"""When to compare after `connected`: upstream attaches its listener only after announcing it (U2), and stores for five
seconds what was made before."""
_AFTER_SENDING = 3.0
_MUCH = 500
_CROWDED_SECONDS = (0.0, 40.0, 10.0)
_COMPLAIN_SECONDS = 10.0


class Feed:
    """One thread's upstream stream. Made and ended by Feeds only."""

    def __init__(self, inbox: InboxRef, around: Surroundings, bearer: str, on_end: Callable[[Feed], None]) -> None:
        self.inbox = inbox
        self.address = inbox.address
        self.bearer = bearer
        self.thread_id = ""
        self.state = "connecting"
        self.failure: errors.UpstreamError | None = None
        self.retry_at = 0.0
        self.outlet = Outlet(inbox, around)
        self.gaps = Gaps(
            inbox, around, self.outlet, lambda: self.state == "live", lambda: self.bearer, on_refused=self.end
        )
        self._around = around
        self._on_end = on_end
        self._first = asyncio.get_running_loop().create_future()
        self._complained_at = float("-inf")
        self._summed_up, self._urgency = 0, 0  # as of the last message
        self._checked: wire.Names | None = None  # the names that were no stranger's on this connection
        self._is_proven = False  # a heartbeat or a message came since `connected`
        self._grace: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._listen(), name=f"feed {inbox.pk}")
        self._task.add_done_callback(self._task_done)
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
        return self.state == "live" and self.gaps.is_complete

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

    def sent(self, message: Message) -> None:
        """Show the person's own message to all their tabs, and look whether the answer comes."""
        self.gaps.expect(message)
        self._around.hub.publish(self.address, StreamItem("sent", message=message))
        self.gaps.look_again(_AFTER_SENDING)

    # -- the stream -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        with suppress(errors.LedgerUnavailable):  # then the first comparison does it
            await self.gaps.prepare()
        failures = 0
        while True:
            problem = await self._listen_once()
            if isinstance(problem, errors.UpstreamRefused) or not self._first.done():
                self.end(problem)
                return
            if self._is_proven:
                failures = 0
            self._is_proven = False
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
            await self._around.client.listen(self.address, bearer=self.bearer, hear=self._take)
        except errors.UpstreamError as problem:
            metrics.upstream_connects.labels(type(problem).__name__).inc()
            return problem

    def _lost(self, problem: errors.UpstreamError, failures: int, wait: float) -> None:
        log.warning(
            "upstream stream of inbox %s lost (try %s, next in %.1f s): %s",
            self.inbox.pk,
            failures,
            wait,
            problem.detail,
        )
        if self.state == "live":
            self.gaps.away_since = datetime.now(UTC)
        self.state = "reconnecting"
        self.retry_at = time.monotonic() + wait
        self._around.hub.publish(
            self.address, StreamItem("status", state="reconnecting", attempt=failures, retry_in_seconds=wait)
        )

    def _take(self, events: list[sse.Event]) -> None:
        hub = self._around.hub
        hub.hold()
        try:
            for event in events:
                if event.event == "connected":
                    self._connected(event)
                elif event.event != "heartbeat":
                    self._is_proven = True
                    self._take_message(event)
                elif not self._is_proven:
                    self._is_proven = True
                    self.gaps.look_again()
        finally:
            hub.release()
        self._around.ledger.take_turn()

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
        self._checked = None
        self.outlet.begin(wire.order_at(wire.timestamp(wire.field(told, "timestamp")) or datetime.now(UTC)))
        self.state = "live"
        metrics.upstream_connects.labels("connected").inc()
        if not self._first.done():
            self._first.set_result(None)
        self._around.hub.publish(self.address, StreamItem("status", state="live"))
        for seconds in _BLIND_SECONDS:
            self.gaps.look_again(seconds)

    # -- messages ---------------------------------------------------------------------------------------------

    def _take_message(self, event: sse.Event) -> None:
        try:
            message, names = wire.streamed(event.data, event.event)
        except errors.UpstreamMisbehaved as problem:
            self._unreadable(problem)
            return
        if names != self._checked:
            stranger = wire.stranger(names, self.address, self.thread_id)
            if stranger:
                metrics.messages_dropped.labels("isolation").inc()
                log.error("an event on inbox %s names another %s; dropped", self.inbox.pk, stranger)
                return
            self._checked = names
        if not message.is_streamed:
            # The person's own words, echoed: known from `send` or found by comparing.
            self.gaps.look_again(1)
            return
        json = event.data
        if "\n" in json:  # ours has to be one line
            json = wire.stream_json(wire.load_json(json))
        self._hear(message, json, event.event)

    def _unreadable(self, problem: errors.UpstreamMisbehaved) -> None:
        """An event that can't be read may have been a message: history knows."""
        metrics.messages_dropped.labels("unreadable").inc()
        now = time.monotonic()
        if now - self._complained_at > _COMPLAIN_SECONDS:
            self._complained_at = now
            log.warning("unreadable event on inbox %s: %s", self.inbox.pk, problem.detail)
        self.gaps.look_again(1)

    def _hear(self, message: Message, json: str, event: str) -> None:
        if self.outlet.knows(message):
            self.outlet.repeat(message, json, event)
        elif self.outlet.is_old(message):
            self.gaps.set_aside(message, json, event)
        else:
            metrics.messages_received["stream"] += 1
            self.gaps.expect(message)
            self.outlet.hand_out(message, json, event)
            self._compare_if_crowded()

    def _compare_if_crowded(self) -> None:
        """While readers have had more than a cursor can name, whoever comes back needs all that history."""
        summed_up = self.outlet.summed_up
        urgency = 0 if not summed_up else 1 if summed_up < _MUCH else 2
        if urgency and (urgency > self._urgency or summed_up < self._summed_up):  # or there was a comparison
            self.gaps.look_again(_CROWDED_SECONDS[urgency] * random.uniform(0.1, 1))  # not all feeds in a burst at once
        self._summed_up, self._urgency = summed_up, urgency

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
        self.gaps.end()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        metrics.feeds_open.dec()
        self._on_end(self)
        self.outlet.clear()

    async def aclose(self) -> None:
        task = self._task
        self.end(None)
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._task = None  # with how it ended it knows of us: nobody should wait for the next collection
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
