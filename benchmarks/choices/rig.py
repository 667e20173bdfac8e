"""What measurements of the whole application share: PostgreSQL with signed-in people, and the portal in variants."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.figures import Bench, Scale
from benchmarks.load import Load, until
from benchmarks.peers.peer import CORE
from benchmarks.peers.portal import Portal, sign_everybody_in
from benchmarks.threads import participant
from benchmarks.upstream import Pump, Upstream
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.process import Process

type Command = Callable[[int], Sequence[str]]
"""How a variant is started, given its port."""
type Figure = Callable[[Bench], Awaitable[dict[str, float]]]

AT_ONCE = 50
_DRAIN_SECONDS = 20


@contextlib.contextmanager
def database() -> Iterator[Postgres]:
    """A cluster of its own, gone after the block; this process then stays off the core of what is measured."""
    take_the_other_core()
    postgres = Postgres(free_port())
    try:
        yield postgres
    finally:
        postgres.close()


def take_the_other_core() -> None:
    others = os.sched_getaffinity(0) - {CORE}
    if others:
        os.sched_setaffinity(0, {min(others)})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(frozen=True, slots=True)
class Rig:
    """Everybody is signed in; `measure` runs a figure against a fresh portal, started by a command."""

    postgres: Postgres
    sessions: Sequence[str]
    folder: Path
    scale: Scale

    def measure(self, command: Command, figure: Figure) -> dict[str, float]:
        return uvloop.run(self._measure(command, figure))

    async def _measure(self, command: Command, figure: Figure) -> dict[str, float]:
        upstream = Upstream(self.scale.people)
        await upstream.start()
        portal = _Variant(self.folder, upstream.port, self.postgres, self.sessions, command)
        gc.collect()
        gc.disable()
        try:
            await portal.start()
            return await figure(Bench(portal, upstream, self.scale))
        finally:
            gc.enable()
            await portal.kill()
            await upstream.aclose()


class _Variant(Portal):
    def __init__(
        self, folder: Path, upstream_port: int, postgres: Postgres, sessions: Sequence[str], command: Command
    ) -> None:
        super().__init__(folder, upstream_port, postgres, sessions)
        self._command = command

    def argv(self) -> Sequence[str | Path]:
        return self._command(self.port)

    def _is_up(self, process: Process) -> bool:
        """Granian listens in a child, so whose port it is can't be seen from the parent alone."""
        return self.ready()(process)


@contextlib.contextmanager
def rig(streams: int) -> Iterator[Rig]:
    """A rig for so many streams."""
    scale = Scale(
        idle=(streams, streams), tab_people=0, opening_base=0, opening_more=0, restart_streams=0, rest=3, rest_at_most=8
    )
    with database() as postgres, tempfile.TemporaryDirectory(prefix="choices-") as folder:
        yield Rig(postgres, sign_everybody_in(postgres, scale.people), Path(folder), scale)


def uvicorn(application: str = "config.asgi:application", *, loop: str = "uvloop") -> Command:
    def command(port: int) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port)),
            *("--loop", loop, "--http", "httptools", "--backlog", "4096", "--log-level", "warning", "--no-access-log"),
        ]

    return command


async def message_cost(bench: Bench, load: Load, people: int, *, rate: float, seconds: float) -> float:
    """CPU microseconds of the portal for a message, at a steady rate; all of it has arrived when this returns."""
    names = [participant(person) for person in range(people)]
    before, delivered = bench.cpu_seconds(), load.tally.delivered
    pump = Pump(bench.upstream, names, rate)
    await asyncio.sleep(seconds)
    pump.stop()
    if not await until(lambda: not load.lost, seconds=_DRAIN_SECONDS):
        raise RuntimeError(f"{load.lost} messages never came")
    return (bench.cpu_seconds() - before) / (load.tally.delivered - delivered) * 1e6
