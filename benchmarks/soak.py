"""`python -m benchmarks.soak`: a steady load with people who come and go, and a memory that has to stay where it is."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.load import Load, NotOpened, Stream, until
from benchmarks.measure import percentile, usage
from benchmarks.peers.peer import Peer
from benchmarks.run import rig
from benchmarks.threads import participant
from benchmarks.upstream import Pump, Upstream

_TABS = 5
_PRESENT = 60
_POOL = 140
_RECONNECTS = 10
_WARM_UP_SHARE = 0.4
_WARM_UP_ROUNDS = _POOL - _PRESENT + 40
"""Until everybody has been there once, and what the first of them left behind has been collected."""
_ROUNDS_TO_JUDGE = 40
_MOST_GROWTH = 0.05
_DRAIN_SECONDS = 30


@dataclass
class Soak:
    """A load in which each second one person goes and another comes, and some tabs reconnect."""

    peer: Peer
    upstream: Upstream
    per_second: int
    present: deque[int] = field(default_factory=deque)
    absent: deque[int] = field(default_factory=deque)
    tabs: dict[int, list[Stream]] = field(default_factory=dict)
    rss: list[float] = field(default_factory=list)

    async def run(self, seconds: float) -> list[str]:
        """What was wrong: nothing, if all is well."""
        load = Load(self.peer.port)
        load.tally.latencies = array("q")
        for person in range(_POOL):
            thread = self.upstream.thread(participant(person))
            self.tabs[person] = [load.add(self.peer.request(person), thread) for _ in range(_TABS)]
        self.present, self.absent = deque(range(_PRESENT)), deque(range(_PRESENT, _POOL))
        await load.open([tab for person in self.present for tab in self.tabs[person]], at_once=20)
        pump = Pump(self.upstream, self._names(), self.per_second)
        until_then = time.perf_counter() + seconds
        while time.perf_counter() < until_then:
            shut_out: list[str] = []
            try:
                await asyncio.gather(self._churn(load, pump), asyncio.sleep(1))
            except* NotOpened as problems:
                shut_out = [f"a stream was not opened: {problem}" for problem in problems.exceptions]
            if shut_out:
                pump.stop()
                return shut_out
            self.rss.append(usage(self.peer.pid).rss_kb)
            _say_how_it_goes(load, self.rss)
        written = pump.stop()
        await until(lambda: not load.lost, seconds=_DRAIN_SECONDS)
        print(f"{written:,.0f} messages/s, {load.tally.delivered:,} delivered, p99 {_p99(load):.1f} ms", flush=True)
        return self._complaints(load)

    async def _churn(self, load: Load, pump: Pump) -> None:
        goes = self.present.popleft()
        pump.retarget(self._names())
        load.close(self.tabs[goes])
        self.absent.append(goes)
        again = [tab for person in self.present for tab in self.tabs[person] if tab.has_cursor]
        again = random.sample(again, min(_RECONNECTS, len(again)))
        load.close(again)
        await asyncio.sleep(0.1)
        comes = self.absent.popleft()
        await load.open([*again, *self.tabs[comes]], at_once=20)
        self.present.append(comes)
        pump.retarget(self._names())

    def _names(self) -> list[str]:
        return [participant(person) for person in self.present]

    def _complaints(self, load: Load) -> list[str]:
        found = []
        steady = self.rss[max(int(len(self.rss) * _WARM_UP_SHARE), _WARM_UP_ROUNDS) :]
        if len(steady) < _ROUNDS_TO_JUDGE:
            found.append(f"too short to judge memory by: {len(self.rss)} rounds of a second or more")
        elif (growth := growth_of(steady)) > _MOST_GROWTH:
            found.append(f"memory grew by {growth:.1%}")
        wrong = {
            "messages lost": load.lost,
            "messages twice": load.tally.duplicates,
            "messages out of order": load.tally.disordered,
            "streams that ended by themselves": sum(load.tally.endings.values()),
        }
        return found + [f"{count:,} {what}" for what, count in wrong.items() if count]


def growth_of(steady: Sequence[float]) -> float:
    """From the first to the last quarter."""
    quarter = max(len(steady) // 4, 1)
    return statistics.mean(steady[-quarter:]) / statistics.mean(steady[:quarter]) - 1


def _say_how_it_goes(load: Load, rss: Sequence[float]) -> None:
    if len(rss) % 15 == 1:
        print(f"{len(rss):>5} rounds  {rss[-1] / 1024:6.1f} MiB  {load.open_count} open", file=sys.stderr, flush=True)


def _p99(load: Load) -> float:
    return percentile(sorted(load.tally.latencies or []), 0.99) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=500, help="messages a second, each to five tabs (default 500)")
    parser.add_argument("--logs", type=Path, help="a folder for the processes' logs")
    options = parser.parse_args(argv)
    with rig(_POOL, ["portal"], logs=options.logs) as runner:
        complaints = uvloop.run(
            runner.measure(
                "portal", lambda peer, upstream: Soak(peer, upstream, options.rate).run(options.minutes * 60)
            )
        )
    print("\n".join(f"WRONG {complaint}" for complaint in complaints) or "memory is flat; nothing lost, nothing twice")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
