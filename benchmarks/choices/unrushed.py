"""The application in which each stream's task is woken for whatever comes: what writing at once saves."""

from __future__ import annotations

from collections.abc import Callable

from config.asgi import application
from messaging import streams

__all__ = ["application"]


def _leave_it_to_the_task(_stream: streams.EventStream, _write_now: Callable[[bytes], bool]) -> None:
    """As for a stream that goes Django's way."""


setattr(streams.EventStream, "write_through", _leave_it_to_the_task)  # noqa: B010 - mypy knows that this is not done
