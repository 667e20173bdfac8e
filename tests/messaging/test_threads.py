"""Threads that let the event loop have the processor first."""

from __future__ import annotations

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
_LONG_SLICE_NS = 50_000_000

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
def test_a_thread_that_gives_way_has_a_long_slice_and_nothing_else_changes() -> None:
    def give_way() -> tuple[threads.Attributes, bool, threads.Attributes]:
        return _attributes(), threads.give_way(), _attributes()

    before, is_told, after = _in_a_thread(give_way)
    assert is_told
    assert (after.policy, after.nice, after.flags) == (before.policy, before.nice, before.flags)
    assert not _has_slices() or before.runtime < after.runtime == _LONG_SLICE_NS


@linux
def test_a_thread_of_another_policy_stays_as_it_is() -> None:
    def give_way() -> tuple[bool, int]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return threads.give_way(), os.sched_getscheduler(0)

    assert _in_a_thread(give_way) == (False, os.SCHED_BATCH)


def test_where_the_system_knows_nothing_of_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "a machine of its own")
    assert not _in_a_thread(threads.give_way)


@linux
@pytest.mark.skipif(not _has_slices(), reason="this kernel has one length for all")
async def test_the_ledgers_threads_give_way() -> None:
    async def nothing(_: Any) -> None: ...

    ledger = Ledger(Hub(Bus(nothing, lambda: None)))
    try:
        assert (await ledger.run(_attributes)).runtime == _LONG_SLICE_NS
    finally:
        await ledger.aclose()
