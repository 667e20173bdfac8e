"""How late an event loop wakes while a thread, as the ledger's do, works some milliseconds on the same core.

Each round of each is a process of its own on one core (`python -m benchmarks.choices.threads_choice WORD`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.choices.table import Table
from benchmarks.measure import percentile
from messaging.threads import go_first
from tests.services.process import ROOT

_SECONDS = 5.0
_SLEEP_SECONDS = 0.0003
_STEPS = 120_000  # of work without a pause; some milliseconds
_PAUSE_SECONDS = 0.05
_SWITCH_SECONDS = 0.00005  # as config/asgi.py sets it


def _by(policy: int) -> Callable[[], object]:
    return lambda: os.sched_setscheduler(0, policy, os.sched_param(0))


_CHOSEN = "slice"
_WAYS: dict[str, tuple[str, Callable[[], object]]] = {
    _CHOSEN: ("the loop has a short slice", lambda: None),
    "none": ("as threads are", lambda: None),
    "nice": ("nicer by 10", lambda: os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)),
    "batch": ("SCHED_BATCH", _by(os.SCHED_BATCH)),
    "idle": ("SCHED_IDLE", _by(os.SCHED_IDLE)),
}


def main(rounds: int) -> None:
    chosen = _WAYS[_CHOSEN][0]
    table = Table(
        "a loop that wakes every 0.3 ms, a thread that works some milliseconds at a time, one core", chosen=chosen
    )
    for _ in range(rounds):
        for word, (name, _way) in _WAYS.items():
            command = (sys.executable, "-m", "benchmarks.choices.threads_choice", word)
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
            table.add(name, json.loads(done.stdout.splitlines()[-1]))
    table.show()


# -- in the child -------------------------------------------------------------------------------------------------


def _child(give_way: Callable[[], object], *, goes_first: bool) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.setswitchinterval(_SWITCH_SECONDS)
    is_over = threading.Event()
    stretches: list[tuple[float, float]] = []

    def work() -> None:
        give_way()
        while not is_over.wait(_PAUSE_SECONDS):
            began = time.perf_counter()
            for _ in range(_STEPS):
                pass
            stretches.append((began, time.perf_counter()))

    thread = threading.Thread(target=work)
    thread.start()
    if goes_first:
        go_first()
    wakes: list[tuple[float, float]] = []
    end = time.perf_counter() + _SECONDS
    while (now := time.perf_counter()) < end:
        time.sleep(_SLEEP_SECONDS)
        wakes.append((now + _SLEEP_SECONDS, time.perf_counter()))
    is_over.set()
    thread.join()
    late = sorted(woke - due for due, woke in wakes if any(began < due < ended for began, ended in stretches))
    told = {
        "late, ms": percentile(late, 0.5) * 1e3,
        "95 %": percentile(late, 0.95) * 1e3,
        "99 %": percentile(late, 0.99) * 1e3,
        "the thread's work, ms": percentile(sorted(ended - began for began, ended in stretches), 0.5) * 1e3,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _child(_WAYS[sys.argv[1]][1], goes_first=sys.argv[1] == _CHOSEN)
