"""Word between the processes of one site. The only user of the channel layer.

The layer is at most once and says nothing of what it lost (traps.md section 6). So what goes over it is "look
again" and never the fact itself; and each process sends itself an echo every second: when one fails to come back the
layer was away, and once they come again everybody looks at everything.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer
from redis.exceptions import RedisError

from messaging import metrics

log = logging.getLogger(__name__)

_ECHO_SECONDS = 1.0
_LOST_ECHOES = 3
_RENEW_ECHOES = 15
"""After so many echoes without an answer the connection is thrown away: it may be dead without knowing it."""
_RETRY_SECONDS = (0.5, 1, 2, 5)
_SEND_SECONDS = 5
_JOIN_SECONDS = 1.0
_EVERYBODY = "portal.everybody"
AWAY = (OSError, TimeoutError, RedisError)
"""What the channel layer raises when it can't be reached."""
_BROKEN = (*AWAY, RuntimeError)
"""What it raises besides, under uvloop: its connection was closed under its hands."""

_NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

type Notice = dict[str, Any]


class Bus:
    """Sends notices to groups of processes and hears those of the groups it has joined, its own left out.

    Without a shared layer (one process) every method does nothing. `on_reconnect` is called when notices may have
    been missed.
    """

    def __init__(self, on_notice: Callable[[Notice], Awaitable[None]], on_reconnect: Callable[[], None]) -> None:
        self.is_alone = isinstance(get_channel_layer(), InMemoryChannelLayer)
        self.is_away = False
        self._origin = uuid.uuid4().hex
        self._on_notice = on_notice
        self._on_reconnect = on_reconnect
        self._groups: set[str] = set()
        self._channel = ""
        self._errands: set[asyncio.Task[None]] = set()
        self._entering: dict[str, asyncio.Task[None]] = {}
        self._hears = asyncio.Event()  # the channel is there, and in all groups that were joined before it
        self._tasks: list[asyncio.Task[None]] = []
        self._sent = 0
        self._heard = 0

    # -- speaking ---------------------------------------------------------------------------------------------

    def tell(self, group: str, notice: Notice) -> None:
        """Send a notice to every other process that joined the group. Never waits, never fails."""
        if not self.is_alone:
            self._errand(self._send(group, notice))

    def tell_everybody(self, notice: Notice) -> None:
        self.tell(_EVERYBODY, notice)

    async def ping(self) -> None:
        """Raise what the channel layer raises when it can't carry a message (for /readyz)."""
        async with asyncio.timeout(2):
            await get_channel_layer().group_send("portal.ping", {"type": "ping"})

    # -- hearing ----------------------------------------------------------------------------------------------

    def join(self, group: str) -> None:
        """Hear the notices of a group from now on."""
        if group not in self._groups and not self.is_alone:
            self._groups.add(group)
            self.listen()
            self._entering[group] = self._errand(self._enter(group))

    async def joined(self, group: str) -> None:
        """Return when notices of a group that was joined are heard; soon, too, when the layer is away."""
        if self.is_alone or self.is_away:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_SECONDS):
                await self._hears.wait()
                if group in self._entering:
                    await asyncio.shield(self._entering[group])

    def leave(self, group: str) -> None:
        if group in self._groups:
            self._groups.discard(group)
            self._errand(self._exit(group))

    def listen(self) -> None:
        """Start hearing the other processes; harmless when repeated."""
        if not self._tasks and not self.is_alone:
            self._groups.add(_EVERYBODY)
            self._tasks = [
                asyncio.create_task(self._hear(), name="bus"),
                asyncio.create_task(self._watch(), name="bus echo"),
            ]

    async def aclose(self) -> None:
        """Let notices that are on their way arrive (each has 5 s), then stop listening."""
        await asyncio.gather(*self._errands, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside -----------------------------------------------------------------------------------------------

    def _errand(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="errand")
        self._errands.add(task)  # a task that nobody holds may be collected half-way
        task.add_done_callback(self._errands.discard)
        return task

    async def _enter(self, group: str) -> None:
        try:
            if self._channel:
                with suppress(*_BROKEN):
                    await get_channel_layer().group_add(group, self._channel)
        finally:
            self._entering.pop(group, None)

    async def _exit(self, group: str) -> None:
        if self._channel and group not in self._groups:
            with suppress(*_BROKEN):
                await get_channel_layer().group_discard(group, self._channel)

    async def _send(self, group: str, notice: Notice) -> None:
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await get_channel_layer().group_send(group, {"type": "look.again", "origin": self._origin, **notice})
        except _BROKEN as problem:
            # The other processes look at everything when the layer is back (D5).
            self._lost(type(problem).__name__)

    async def _hear(self) -> None:
        failures = 0
        while True:
            try:
                layer = get_channel_layer()
                self._channel = await layer.new_channel("portal")
                for group in tuple(self._groups):
                    await layer.group_add(group, self._channel)
                failures = 0
                self._hears.set()
                while True:
                    await self._take(await layer.receive(self._channel))
            except _BROKEN as problem:
                self._channel = ""
                self._hears.clear()
                self._lost(type(problem).__name__)
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                await asyncio.sleep(delay)

    async def _take(self, notice: Notice) -> None:
        if "echo" in notice:
            self._echoed(int(notice["echo"]))
        elif notice.get("origin") != self._origin:
            try:
                await self._on_notice(notice)
            except _NOT_UNDERSTOOD as problem:  # of another version of us, or of a stranger
                log.warning("a notice was not understood: %s", type(problem).__name__)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_ECHO_SECONDS)
            if self._sent - self._heard >= _LOST_ECHOES:
                self._lost("no echo")
            if self._sent - self._heard >= _RENEW_ECHOES:
                await self._renew()
            self._sent += 1
            if self._channel:
                with suppress(*_BROKEN):
                    async with asyncio.timeout(_ECHO_SECONDS):
                        await get_channel_layer().send(self._channel, {"type": "echo", "echo": self._sent})

    async def _renew(self) -> None:
        """Begin again with new connections."""
        self._heard = self._sent
        hearing, *others = self._tasks
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        self._channel = ""
        self._hears.clear()
        with suppress(*_BROKEN):
            async with asyncio.timeout(_SEND_SECONDS):
                await get_channel_layer().flush()
        self._tasks = [asyncio.create_task(self._hear(), name="bus"), *others]

    def _lost(self, why: str) -> None:
        if not self.is_away:
            self.is_away = True
            metrics.bus_away.set(1)
            log.warning("the channel layer is away (%s): other processes hear of changes when it is back", why)

    def _echoed(self, number: int) -> None:
        is_gap = number != self._heard + 1 and self._heard > 0
        self._heard = max(self._heard, number)
        if self.is_away or is_gap:
            self.is_away = False
            metrics.bus_away.set(0)
            log.warning("the channel layer may have lost notices: looking at everything again")
            self._on_reconnect()
