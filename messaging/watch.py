"""Watching over open streams: a stream ends within ten seconds of the sign-in, the account or the membership behind it.

A stream was let in once, and may live for hours. What it was let in by is looked at again and again here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from messaging import sessions
from messaging.errors import LedgerUnavailable, UpstreamError
from messaging.hub import Subscriber
from messaging.ledger import Ledger
from messaging.tenancy import Tenancy

log = logging.getLogger(__name__)

_SESSION_CHECK_SECONDS = 5
_TENANT_CHECK_SECONDS = 7
_SWEEP_SECONDS = 60


class Watch:
    """The open streams of a process with the sign-ins they hang on. `sweep` is called every minute while there are any.

    Where the database or upstream can't be asked, streams stay: an outage signs nobody out.
    """

    def __init__(self, ledger: Ledger, tenancy: Tenancy, sweep: Callable[[], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._tenancy = tenancy
        self._rounds = (
            (_SESSION_CHECK_SECONDS, self._end_signed_out),
            (_TENANT_CHECK_SECONDS, self._end_forbidden),
            (_SWEEP_SECONDS, sweep),
        )
        self._sign_ins: dict[Subscriber, tuple[sessions.Access, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, subscriber: Subscriber, access: sessions.Access, tenant_id: str) -> None:
        """Watch over a stream; `tenant_id` is "" for one that shows no tenant's messages."""
        self._sign_ins[subscriber] = (access, tenant_id)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._every(*of), name=of[1].__name__) for of in self._rounds]

    def remove(self, subscriber: Subscriber) -> None:
        self._sign_ins.pop(subscriber, None)

    def end_session(self, session_key: str) -> None:
        """A session is over: end its streams now."""
        for subscriber, (access, _) in list(self._sign_ins.items()):
            if access.session_key == session_key:
                subscriber.close("signed-out")

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, seconds: float, check: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds * random.uniform(0.9, 1.0))
            if self._sign_ins:
                try:
                    await check()
                except (LedgerUnavailable, UpstreamError) as problem:
                    log.warning("open streams could not be checked: %s", problem.detail)

    async def _end_signed_out(self) -> None:
        watched = {(access.session_key, access.user_id) for access, _ in self._sign_ins.values()}
        over = await self._ledger.run(sessions.ended, watched)
        for subscriber, (access, _) in list(self._sign_ins.items()):
            if (access.session_key, access.user_id) in over:
                subscriber.close("signed-out")

    async def _end_forbidden(self) -> None:
        watched = {
            (access.participant_id, tenant_id): access.token
            for access, tenant_id in self._sign_ins.values()
            if tenant_id
        }
        lost = await self._tenancy.lost(watched)
        for subscriber, (access, tenant_id) in list(self._sign_ins.items()):
            if (access.participant_id, tenant_id) in lost:
                subscriber.close("forbidden")
