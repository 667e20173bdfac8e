"""One process's moving parts, built once for each event loop and closed with it.

Request handlers, commands and admin actions ask for `current()`; nothing here is module state but the table of loops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from django.conf import settings

from messaging import hub, sessions, upstream
from messaging.errors import LedgerUnavailable, UpstreamError
from messaging.feeds import Feeds
from messaging.hub import Hub, Notice, Subscriber
from messaging.items import StreamItem
from messaging.ledger import Ledger
from messaging.outlet import Surroundings
from messaging.tenancy import Tenancy
from messaging.unread import InboxRef
from messaging.wire import ThreadAddress

log = logging.getLogger(__name__)

_SESSION_CHECK_SECONDS = 5
_TENANT_CHECK_SECONDS = 60
_DRAIN_SECONDS = 8


class Runtime:
    """Client, hub, ledger, feeds and tenancy of one event loop."""

    channel_layer_errors = hub.AWAY

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
        self.hub = Hub(self._noticed, self._look_everywhere)
        self.ledger = Ledger(self.hub)
        self.tenancy = Tenancy(self.client)
        self.feeds = Feeds(
            Surroundings(
                client=self.client,
                ledger=self.ledger,
                hub=self.hub,
                secret=self.secret,
                grace_seconds=settings.XIANS_FEED_GRACE_SECONDS,
            )
        )
        self.draining = asyncio.Event()
        self.visited: dict[ThreadAddress, InboxRef] = {}
        self.refreshed: dict[ThreadAddress, float] = {}
        self.refreshing: dict[ThreadAddress, asyncio.Task[None]] = {}
        self.sign_ins: dict[Subscriber, sessions.Access] = {}
        self.tenants_shown: dict[Subscriber, str] = {}
        self._sentinels: list[asyncio.Task[None]] = []
        self.sending: dict[tuple[InboxRef, str], asyncio.Task[str]] = {}

    # -- streams and their sign-ins ---------------------------------------------------------------------------

    def admit(self, subscriber: Subscriber, access: sessions.Access, tenant_id: str) -> None:
        """Watch over the sign-in behind an open stream; it ends when that does."""
        self.sign_ins[subscriber] = access
        self.tenants_shown[subscriber] = tenant_id
        self.hub.listen()
        if not self._sentinels or any(task.done() for task in self._sentinels):
            for task in self._sentinels:
                task.cancel()
            self._sentinels = [
                asyncio.create_task(self._every(_SESSION_CHECK_SECONDS, self._end_signed_out), name="sign-ins"),
                asyncio.create_task(self._every(_TENANT_CHECK_SECONDS, self._end_forbidden), name="tenants"),
            ]

    def dismiss(self, subscriber: Subscriber) -> None:
        self.sign_ins.pop(subscriber, None)
        self.tenants_shown.pop(subscriber, None)

    def end_session(self, session_key: str) -> None:
        """End every stream of a sign-in that was just ended, here and in the other processes."""
        self._close_session(session_key)
        self.hub.tell_everybody({"what": "signed-out", "session": session_key})

    def _close_session(self, session_key: str) -> None:
        for subscriber, access in list(self.sign_ins.items()):
            if access.session_key == session_key:
                subscriber.close("signed-out")

    async def _every(self, seconds: float, check: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await check()
            except LedgerUnavailable as problem:
                log.warning("sign-ins could not be checked: %s", problem.detail)

    async def _end_signed_out(self) -> None:
        watched = {(access.session_key, access.user_id) for access in self.sign_ins.values()}
        if not watched:
            return
        over = await self.ledger.run(sessions.ended, watched)
        for subscriber, access in list(self.sign_ins.items()):
            if (access.session_key, access.user_id) in over:
                subscriber.close("signed-out")

    async def _end_forbidden(self) -> None:
        for subscriber, access in list(self.sign_ins.items()):
            tenant_id = self.tenants_shown.get(subscriber)
            if not tenant_id:  # an overview; notices that were lost are made good by looking again
                subscriber.put(StreamItem("unread"))
                continue
            try:
                is_member = await self.tenancy.is_member(
                    access.participant_id, tenant_id, access.token, max_age=_TENANT_CHECK_SECONDS
                )
            except UpstreamError as problem:
                log.warning("a membership could not be checked: %s", problem.detail)
            else:
                if not is_member:
                    subscriber.close("forbidden")

    # -- other processes --------------------------------------------------------------------------------------

    async def _noticed(self, notice: Notice) -> None:
        if notice.get("what") == "signed-out":
            self._close_session(str(notice.get("session")))
            return
        inbox = InboxRef.from_told(notice["inbox"])
        if notice.get("what") == "sent":
            feed = self.feeds.get(inbox.address)
            if feed is not None:
                feed.gaps.look_again()
            return
        try:
            await self.ledger.look_again(inbox)
        except LedgerUnavailable as problem:
            log.warning("counts could not be read again: %s", problem.detail)

    def _look_everywhere(self) -> None:
        """Notices may have been lost: look at every inbox that somebody here is watching."""
        for feed in self.feeds.all():
            feed.gaps.look_again()
            task = asyncio.ensure_future(self._noticed({"what": "unread", "inbox": feed.inbox.told()}))
            task.add_done_callback(lambda done: done.exception())

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
        for task in self._sentinels:
            task.cancel()
        await asyncio.gather(*self._sentinels, return_exceptions=True)
        await self.feeds.aclose()
        await self.ledger.aclose()
        await self.hub.aclose()
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
