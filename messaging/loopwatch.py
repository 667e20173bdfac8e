"""Notices when the event loop is held up, and says by what: every stream of the process stands still meanwhile.

Two clocks: the loop stamps its own at every beat, and a thread looks how old the stamp is. That costs ten wake-ups a
second of each, and nothing per message.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from types import FrameType

from messaging import metrics

log = logging.getLogger(__name__)

_BEAT_SECONDS = 0.1
_BLOCKED_SECONDS = 0.25
_SAY_AGAIN_SECONDS = 10.0
_FRAMES = 12


class LoopWatch:
    """Watches the event loop in which it is made, until that is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._due = time.monotonic() + _BEAT_SECONDS
        self._said_at = float("-inf")
        self._loop.call_later(_BEAT_SECONDS, self._beat)
        threading.Thread(target=self._watch, name="loopwatch", daemon=True).start()

    def _beat(self) -> None:
        now = time.monotonic()
        metrics.loop_lag_seconds.observe(max(0.0, now - self._due))
        self._due = now + _BEAT_SECONDS
        self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        reported = 0.0
        while not self._loop.is_closed():
            slept_from = time.monotonic()
            time.sleep(_BEAT_SECONDS)
            now, due = time.monotonic(), self._due
            # Where this thread overslept, too, the machine or the whole process stood still: no fault of the loop's.
            is_awake = now - slept_from < _BEAT_SECONDS + _BLOCKED_SECONDS
            if is_awake and now - due > _BLOCKED_SECONDS and due != reported:
                reported = due
                self._report(now - due)

    def _report(self, seconds: float) -> None:
        metrics.loop_blocked.inc()
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None or time.monotonic() - self._said_at < _SAY_AGAIN_SECONDS:
            return
        self._said_at = time.monotonic()
        log.error("the event loop has been held up for %.2f s, in: %s", seconds, _path(frame))


def _path(frame: FrameType | None) -> str:
    """Where a thread is, the innermost call first, in one line."""
    places: list[str] = []
    while frame is not None and len(places) < _FRAMES:
        places.append(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(places)
