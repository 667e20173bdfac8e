"""A limit for sending: a reader who takes nothing for so long has gone, whatever its connection says.

A time-out around every send costs more than most sends. So each only notes when it began, and every few seconds
somebody looks for those that began too long ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Final

SECONDS: Final = 15
_LOOK_SECONDS = 2.5
_GIVEN_UP = "took nothing"


class Stalled(Exception):
    """A reader has not taken what was sent to it."""


class Patience:
    """The sends of one event loop that are under way."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, sending: Awaitable[None]) -> None:
        """Wait for a send, in the task whose end the reader's stalling shall be (see `limited`)."""
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        try:
            await sending
        finally:
            del self._since[task]

    def _look(self) -> None:
        long_ago = time.monotonic() - SECONDS
        for task, since in list(self._since.items()):
            if since < long_ago:
                task.cancel(_GIVEN_UP)
        self._timer = None
        if self._since:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)


@contextmanager
def limited() -> Iterator[None]:
    """Around everything that waits with patience: raises Stalled when that was lost."""
    try:
        yield
    except asyncio.CancelledError as problem:
        task = asyncio.current_task()
        if problem.args != (_GIVEN_UP,) or task is None:
            raise
        task.uncancel()
        raise Stalled from problem
