"""The event loop's thread goes first, and the others give way."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import sys
import threading
from typing import Any

import pytest

from messaging import threads
from messaging.bus import Bus
from messaging.hub import Hub
from messaging.ledger import Ledger

_GET_ATTRIBUTES = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
_SHORTEST_SLICE_NS = 100_000

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in _GET_ATTRIBUTES, reason="there is no such call"
)


def _attributes() -> threads.Attributes:
    """The calling thread's, as the kernel has them."""
    found = threads.Attributes()
    size = ctypes.sizeof(found)
    number = _GET_ATTRIBUTES[platform.machine()]
    assert ctypes.CDLL(None, use_errno=True).syscall(number, 0, ctypes.byref(found), size, 0) == 0
    return found


def _in_a_thread(of: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(of()))
    thread.start()
    thread.join()
    return found[0]


def _has_slices() -> bool:
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor)) >= (6, 12)


@linux
def test_a_thread_that_goes_first_has_a_short_slice_until_it_gives_way_and_nothing_else_changes() -> None:
    def change() -> tuple[threads.Attributes, bool, threads.Attributes, bool, threads.Attributes]:
        return _attributes(), threads.go_first(), _attributes(), threads.give_way(), _attributes()

    before, is_first, first, is_usual, usual = _in_a_thread(change)
    assert is_first
    assert is_usual
    for after in (first, usual):
        assert (after.policy, after.nice, after.flags) == (before.policy, before.nice, before.flags)
    if _has_slices():
        assert before.runtime > first.runtime == _SHORTEST_SLICE_NS
        assert usual.runtime == before.runtime


@linux
def test_a_thread_of_another_policy_stays_as_it_is() -> None:
    def change() -> tuple[bool, int]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return threads.go_first(), os.sched_getscheduler(0)

    assert _in_a_thread(change) == (False, os.SCHED_BATCH)


def test_where_the_system_knows_nothing_of_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "a machine of its own")
    assert not _in_a_thread(threads.go_first)


@linux
@pytest.mark.skipif(not _has_slices(), reason="this kernel has one length for all")
def test_the_ledgers_threads_give_way_to_the_loop_that_made_them() -> None:
    async def nothing(_: Any) -> None: ...

    async def both() -> tuple[int, int]:
        threads.go_first()
        ledger = Ledger(Hub(Bus(nothing, lambda: None)))
        try:
            return _attributes().runtime, (await ledger.run(_attributes)).runtime
        finally:
            await ledger.aclose()

    loops, ledgers = _in_a_thread(lambda: asyncio.run(both()))
    assert ledgers > loops == _SHORTEST_SLICE_NS
