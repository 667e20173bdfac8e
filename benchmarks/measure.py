"""What a process and its children use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

_SETTLED_CPU = 0.15
_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Usage:
    """`rss_kb` in KiB, `cpu_seconds` since they began."""

    rss_kb: float
    cpu_seconds: float
    threads: int


def usage(pid: int) -> Usage:
    parent = psutil.Process(pid)
    rss, cpu, threads = 0.0, 0.0, 0
    for process in [parent, *parent.children(recursive=True)]:
        with process.oneshot():
            rss += process.memory_info().rss / 1024
            times = process.cpu_times()
            cpu += times.user + times.system
            threads += process.num_threads()
    return Usage(rss, cpu, threads)


async def settle(pid: int, *, at_least: float, at_most: float) -> None:
    """Wait until a process has come to rest: so many seconds, then until it uses little of its core."""
    started = time.perf_counter()
    await asyncio.sleep(at_least)
    before = usage(pid).cpu_seconds
    while time.perf_counter() - started < at_most:
        await asyncio.sleep(_SETTLE_SECONDS)
        now = usage(pid).cpu_seconds
        if now - before < _SETTLED_CPU * _SETTLE_SECONDS:
            return
        before = now


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")
