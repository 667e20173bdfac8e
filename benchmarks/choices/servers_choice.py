"""ASGI servers under the real application: memory of idle streams, CPU of opening one, CPU of a message."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.choices.rig import AT_ONCE, Command, message_cost, rig, uvicorn
from benchmarks.choices.table import Table
from benchmarks.figures import Bench
from benchmarks.measure import usage

_STREAMS = 300
_TALKING = 100
_RATE = 500
_SECONDS = 5
_APPLICATION = "config.asgi:application"


def main(rounds: int) -> None:
    table = Table(f"{_STREAMS} streams, then {_RATE} messages/s over {_TALKING} of them", chosen="uvicorn, uvloop")
    with rig(_STREAMS) as bench:
        for _ in range(rounds):
            for name, command in _SERVERS.items():
                table.add(name, bench.measure(command, _figure))
    table.show()


async def _figure(bench: Bench) -> dict[str, float]:
    await bench.warm_up()
    await bench.rest()
    empty = usage(bench.peer.pid)
    load = bench.load()
    await load.open(bench.streams(load, range(_STREAMS)), at_once=AT_ONCE)
    opened = usage(bench.peer.pid)
    await bench.rest()
    full = usage(bench.peer.pid)
    found = {
        "KB per idle stream": (full.rss_kb - empty.rss_kb) / _STREAMS,
        "CPU ms per opened stream": (opened.cpu_seconds - empty.cpu_seconds) / _STREAMS * 1e3,
        "CPU us per message": await message_cost(bench, load, _TALKING, rate=_RATE, seconds=_SECONDS),
        "threads": full.threads,
        "MB without streams": empty.rss_kb / 1024,
    }
    load.close()
    return found


def _daphne(port: int) -> Sequence[str]:
    return [sys.executable, "-m", "daphne", _APPLICATION, "--bind", "127.0.0.1", "--port", str(port), "-v", "0"]


def _granian(port: int) -> Sequence[str]:
    # The default back-pressure stops at 1,024 open streams (performance.md).
    where = ("--host", "127.0.0.1", "--port", str(port))
    return [
        *(sys.executable, "-m", "granian", _APPLICATION, "--interface", "asgi", *where),
        *("--loop", "uvloop", "--backpressure", "8192", "--log-level", "warning"),
    ]


_SERVERS: dict[str, Command] = {
    "uvicorn, uvloop": uvicorn(),
    "uvicorn, asyncio": uvicorn(loop="asyncio"),
    "daphne": _daphne,
    "granian": _granian,
}
