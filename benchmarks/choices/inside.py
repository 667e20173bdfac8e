"""Measuring inside this process: Django set up as in production, CPU time of a piece of work."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

import django

from benchmarks.peers.portal import environment

_NOWHERE = "postgres://nobody@127.0.0.1:9/nowhere"
_NO_UPSTREAM = 9


def set_up() -> None:
    """Django, for work that asks no database."""
    os.environ.update(environment(_NOWHERE, _NO_UPSTREAM))
    django.setup()


def cpu_us(work: Callable[[], object], *, times: int) -> float:
    """CPU microseconds that a piece of work takes, done so many times with the collector off."""
    work()
    gc.collect()
    gc.disable()
    try:
        before = time.process_time()
        for _ in range(times):
            work()
        return (time.process_time() - before) / times * 1e6
    finally:
        gc.enable()
