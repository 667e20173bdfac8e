"""Alarms of one event loop, a quarter of a second coarse: thousands of them are one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_STEP_SECONDS = 0.25


class Alarm:
    """Rings once, unless it is cancelled before."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring: Callable[[], None] | None = ring

    def cancel(self) -> None:
        self._ring = None

    def ring(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            ring()


class Wheel:
    """Gives out alarms. A timer of the event loop's own costs half a kilobyte, and there is one for every stream."""

    def __init__(self) -> None:
        self._due: dict[int, list[Alarm]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seconds: float, ring: Callable[[], None]) -> Alarm:
        """An alarm that rings in so many seconds, or a quarter of one later."""
        alarm = Alarm(ring)
        loop = asyncio.get_running_loop()
        self._due.setdefault(int((loop.time() + seconds) / _STEP_SECONDS) + 1, []).append(alarm)
        if self._timer is None:
            self._timer = loop.call_later(_STEP_SECONDS, self._turn)
        return alarm

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        now = int(loop.time() / _STEP_SECONDS)
        for step in sorted(step for step in self._due if step <= now):
            for alarm in self._due.pop(step):
                alarm.ring()
        self._timer = loop.call_later(_STEP_SECONDS, self._turn) if self._due else None
