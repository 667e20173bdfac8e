"""The application with a wall clock that jumps: SIGUSR1 puts it an hour forward, SIGUSR2 an hour back.

Python's own clocks are replaced before anything else takes hold of them. The monotonic clock stays as it is, as it does
when a real clock is set.
"""

from __future__ import annotations

import datetime
import signal
import time
from types import FrameType
from typing import Self

HOUR = 3600
_time, _time_ns = time.time, time.time_ns
offset = 0


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(time.time(), tz)


def jump(number: int, _frame: FrameType | None) -> None:
    global offset
    offset += HOUR if number == signal.SIGUSR1 else -HOUR
    print(f"the clock is {offset} s off", flush=True)


time.time = lambda: _time() + offset
time.time_ns = lambda: _time_ns() + offset * 1_000_000_000
datetime.datetime = Shifted  # type: ignore[misc]  # what a test may do to a class, and nobody else
signal.signal(signal.SIGUSR1, jump)
signal.signal(signal.SIGUSR2, jump)

from config.asgi import application  # noqa: E402 - the clocks come first

__all__ = ["application"]
