"""`python -m benchmarks`: every peer, figure by figure, round by round, in one run on one machine."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import uvloop

from benchmarks import figures, report
from benchmarks.figures import Bench, Numbers, Scale
from benchmarks.load import NotOpened
from benchmarks.peers.direct import Direct
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.node import Node
from benchmarks.peers.peer import CORE, Peer
from benchmarks.peers.portal import OneOfSeveral, Portal, sign_everybody_in
from benchmarks.report import Values
from benchmarks.upstream import Upstream
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.process import ProcessFailed
from tests.services.redis import Redis

PEERS = ("direct", "nginx", "node", "portal", "several")
_PORTALS = {"portal", "several"}
_NEEDS = {"node": "node", "several": "redis-server"}
_LEFT_OUT = {
    "direct": {"memory", "tabs", "restart", "pages"},
    "nginx": {"pages"},
    "node": {"pages"},
    "several": {"memory", "tabs", "capacity", "pages"},
}
"""Figures that a peer doesn't have, or that are the portal's."""


class Runner:
    """Holds what all figures share: the database in which everybody is signed in, and the folder for logs."""

    def __init__(self, people: int, folder: Path, postgres: Postgres | None, redis: Redis | None) -> None:
        self._people = people
        self._folder = folder
        self._postgres = postgres
        self._redis = redis
        self._sessions = sign_everybody_in(postgres, people) if postgres else []

    async def measure[T](self, peer_name: str, figure: Callable[[Peer, Upstream], Awaitable[T]]) -> T:
        """One figure of one peer, with an upstream and a process of its own."""
        upstream = Upstream(self._people)
        await upstream.start()
        peer = self._peer(peer_name, upstream.port)
        gc.collect()
        gc.disable()
        try:
            await peer.start()
            return await figure(peer, upstream)
        finally:
            gc.enable()
            await peer.kill()
            await upstream.aclose()

    def _peer(self, name: str, upstream_port: int) -> Peer:
        if name in _PORTALS:
            assert self._postgres is not None
            if name == "portal":
                return Portal(self._folder, upstream_port, self._postgres, self._sessions)
            assert self._redis is not None
            return OneOfSeveral(self._folder, upstream_port, self._postgres, self._sessions, self._redis)
        kinds: dict[str, type[Peer]] = {"direct": Direct, "nginx": Nginx, "node": Node}
        return kinds[name](self._folder, upstream_port)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    scale = figures.TINY if options.tiny else figures.QUICK if options.quick else figures.FULL
    rounds = options.rounds or (1 if options.tiny or options.quick else 3)
    with rig(scale.people, options.peers, logs=options.logs) as runner:
        found, failures = uvloop.run(_run(runner, scale, options.peers, options.only, rounds))
    result = report.Result(scale=scale, rounds=rounds, peers=options.peers, values=found, failures=failures)
    print(report.table(result))
    if options.output:
        report.write(result, options.output)
    return 1 if failures else 0


@contextlib.contextmanager
def rig(people: int, peers: Sequence[str], *, logs: Path | None) -> Iterator[Runner]:
    """A runner on a core of its own, with what these peers need; what it starts is gone after the block, its logs too
    unless `logs` is given."""
    _take_the_other_core()
    with contextlib.ExitStack() as stack:
        folder = logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        postgres = redis = None
        if _PORTALS & set(peers):
            postgres = Postgres(free_port())
            stack.callback(postgres.close)
        if "several" in peers:
            redis = Redis(free_port())
            stack.callback(redis.close)
        yield Runner(people, folder.resolve(), postgres, redis)


async def _run(
    runner: Runner, scale: Scale, peers: Sequence[str], only: Sequence[str], rounds: int
) -> tuple[dict[str, Values], list[str]]:
    """All values of every number of every peer. Peers take turns, so that what else the machine does hits all alike."""
    found: dict[str, Values] = {peer: defaultdict(list) for peer in peers}
    failures: list[str] = []
    for number in range(1, rounds + 1):
        for figure in only:
            for peer in peers:
                if figure in _LEFT_OUT.get(peer, ()):
                    continue
                started = time.perf_counter()
                try:
                    numbers = await runner.measure(peer, _on(scale, figure))
                except* (NotOpened, ProcessFailed, OSError) as problems:
                    numbers = {}
                    told = "; ".join(sorted({f"{type(p).__name__}: {p}" for p in problems.exceptions}))
                    failures.append(f"round {number}, {figure}, {peer}: {told}")
                for name, value in numbers.items():
                    found[peer][name].append(value)
                _say(f"round {number} {figure} {peer} ({time.perf_counter() - started:.0f} s)", numbers)
    return found, failures


def _on(scale: Scale, figure: str) -> Callable[[Peer, Upstream], Awaitable[Numbers]]:
    return lambda peer, upstream: figures.FIGURES[figure](Bench(peer, upstream, scale))


def _say(what: str, numbers: Numbers) -> None:
    told = "  ".join(f"{name}={value:,.2f}" for name, value in numbers.items()) or "FAILED"
    print(f"{what}: {told}", file=sys.stderr, flush=True)


def _take_the_other_core() -> None:
    """The harness and its database stay off the core of what is measured, with as many open files as are allowed."""
    others = os.sched_getaffinity(0) - {CORE}
    if others:
        os.sched_setaffinity(0, {min(others)})
    else:
        print("This machine has one core: the harness shares it, and no number means much.", file=sys.stderr)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="smaller, one round: a few minutes")
    size.add_argument("--tiny", action="store_true", help="so small that the numbers mean nothing: does it all run?")
    parser.add_argument("--rounds", type=int, help="3 unless --quick")
    names = tuple(figures.FIGURES)
    parser.add_argument("--only", type=_among(names), default=names, help=f"some of: {','.join(names)}")
    here = [name for name in PEERS if name not in _NEEDS or shutil.which(_NEEDS[name])]
    parser.add_argument("--peers", type=_among(PEERS), default=here, help=f"some of: {','.join(PEERS)}")
    parser.add_argument("--output", type=Path, help="a folder for latest.json and latest.svg")
    parser.add_argument("--logs", type=Path, help="a folder for the processes' logs")
    return parser.parse_args(argv)


def _among(names: Sequence[str]) -> Callable[[str], list[str]]:
    def choose(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
        return [name for name in names if name in chosen]

    return choose
