"""One process's moving parts, built once for each event loop and closed with it.

Request handlers, commands and admin actions ask for `current()`; nothing here is module state but the table of loops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from django.conf import settings

from messaging import bus, upstream
from messaging.bus import Bus, Notice
from messaging.changes import InboxRef
from messaging.errors import LedgerUnavailable
from messaging.feeds import Feeds
from messaging.hub import Hub, Subscriber
from messaging.items import StreamItem
from messaging.ledger import Ledger
from messaging.outlet import Surroundings
from messaging.sessions import Access
from messaging.tenancy import Tenancy
from messaging.watch import Watch
from messaging.wheel import Wheel
from messaging.wire import ThreadAddress

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 8
_MANY_AT_ONCE = 50


class Runtime:
    """Client, bus, hub, ledger, feeds, tenancy and watch of one event loop."""

    channel_layer_errors = bus.AWAY

    def __init__(self) -> None:
        self.secret = settings.SECRET_KEY.encode()
        self.client = upstream.UpstreamClient(
            upstream.Settings(
                base_url=settings.XIANS_SERVER_URL,
                api_key=settings.XIANS_API_KEY,
                connect_timeout=settings.XIANS_CONNECT_TIMEOUT,
                read_timeout=settings.XIANS_READ_TIMEOUT,
                heartbeat_seconds=settings.XIANS_HEARTBEAT_SECONDS,
            )
        )
        self.wheel = Wheel()
        self.bus = Bus(self._noticed, self._look_everywhere)
        self.hub = Hub(self.bus)
        self.ledger = Ledger(self.hub)
        self.tenancy = Tenancy(self.client)
        self.watch = Watch(self.ledger, self.tenancy, self._sweep)
        self.feeds = Feeds(
            Surroundings(
                client=self.client,
                ledger=self.ledger,
                hub=self.hub,
                wheel=self.wheel,
                secret=self.secret,
                grace_seconds=settings.XIANS_FEED_GRACE_SECONDS,
                is_crowded=lambda: self.opening > _MANY_AT_ONCE,
            )
        )
        self.draining = asyncio.Event()
        self.opening = 0  # streams that are just being opened
        self.visited: dict[ThreadAddress, InboxRef] = {}
        self.arriving: dict[ThreadAddress, asyncio.Task[InboxRef]] = {}
        self.refreshed: dict[ThreadAddress, float] = {}
        self.refreshing: dict[ThreadAddress, asyncio.Task[None]] = {}
        self._sweeping: asyncio.Future[None] | None = None
        self.sending: dict[tuple[InboxRef, str], asyncio.Task[str]] = {}

    def watch_over(self, subscriber: Subscriber, access: Access, tenant_id: str) -> None:
        """End a stream when the sign-in behind it does, or the membership in the tenant ("": none) that it shows."""
        self.bus.listen()
        self.watch.add(subscriber, access, tenant_id)

    def end_session(self, session_key: str) -> None:
        """End every stream of a sign-in that was just ended, here and in the other processes."""
        self.watch.end_session(session_key)
        self.bus.tell_everybody({"what": "signed-out", "session": session_key})

    # -- other processes --------------------------------------------------------------------------------------

    async def _noticed(self, notice: Notice) -> None:
        """A notice of another process: what has happened, and to which inboxes."""
        what = notice.get("what")
        if what == "signed-out":
            self.watch.end_session(str(notice.get("session")))
        elif what == "streams":
            self.hub.told_counts(notice)
        else:
            inboxes = self.hub.told_of(notice)
            if what == "dropped":
                self.ledger.dropped.update(inboxes)
            for feed in filter(None, [self.feeds.get(inbox.address) for inbox in inboxes]):
                if what == "sent":
                    feed.gaps.look_again()
                elif what == "gone":
                    feed.gaps.forget_topic(str(notice["topic"]))
            if what != "sent":
                self.ledger.look_again(inboxes)

    def _look_everywhere(self) -> None:
        """Notices were lost: look at everything that somebody here is watching."""
        for feed in self.feeds.all():
            feed.gaps.look_again()
        self.hub.tell_counts_now()
        self._sweeping = asyncio.ensure_future(self._sweep())
        self._sweeping.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _sweep(self) -> None:
        """Notices may have been lost without a sign of it: show what the database says."""
        self.hub.tell_counts()
        for subscriber in self.hub.everybody():
            if subscriber.is_overview:
                subscriber.put(StreamItem("unread"))
        self.ledger.look_again([feed.inbox for feed in self.feeds.all()])

    # -- the end ----------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Tell every stream to come back elsewhere, wait until they have gone, write what is left."""
        if self.draining.is_set():
            return
        self.draining.set()
        for subscriber in self.hub.everybody():
            subscriber.close("shutdown")
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self.hub.deserted()
        except TimeoutError:
            log.warning("%s streams did not end in time", len(self.hub.everybody()))
        try:
            await self.ledger.flush()
        except LedgerUnavailable as problem:
            log.error("not everything was written before the end: %s", problem.detail)

    async def aclose(self) -> None:
        await self.watch.aclose()
        await self.feeds.aclose()
        await self.ledger.aclose()
        await self.hub.aclose()
        await self.bus.aclose()
        await self.client.aclose()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


def current() -> Runtime:
    """The runtime of the running event loop."""
    loop = asyncio.get_running_loop()
    runtime = _by_loop.get(loop)
    if runtime is None:
        runtime = _by_loop[loop] = Runtime()
    return runtime


@asynccontextmanager
async def short_lived() -> AsyncIterator[Runtime]:
    """A runtime for a command: closed, with its work written, at the end of the block."""
    runtime = current()
    try:
        yield runtime
    finally:
        del _by_loop[asyncio.get_running_loop()]
        await runtime.aclose()
