"""Opening a stream past Django's middleware (config/gate.py), and through all of it."""

from __future__ import annotations

from benchmarks.choices.rig import AT_ONCE, message_cost, rig, uvicorn
from benchmarks.choices.table import Table
from benchmarks.figures import Bench
from benchmarks.measure import usage

_STREAMS = 300
_RATE = 500
_SECONDS = 3


def main(rounds: int) -> None:
    table = Table(f"Opening {_STREAMS} streams", chosen="the gate")
    variants = {"the gate": uvicorn(), "through Django": uvicorn("benchmarks.choices.ungated:application")}
    with rig(_STREAMS) as bench:
        for _ in range(rounds):
            for name, command in variants.items():
                table.add(name, bench.measure(command, _figure))
    table.show()


async def _figure(bench: Bench) -> dict[str, float]:
    await bench.warm_up()
    await bench.rest()
    empty = usage(bench.peer.pid)
    load = bench.load()
    seconds = await load.open(bench.streams(load, range(_STREAMS)), at_once=AT_ONCE)
    opened = usage(bench.peer.pid)
    await bench.rest()
    full = usage(bench.peer.pid)
    found = {
        "CPU ms per opened stream": (opened.cpu_seconds - empty.cpu_seconds) / _STREAMS * 1e3,
        "KB per idle stream": (full.rss_kb - empty.rss_kb) / _STREAMS,
        "CPU us per message": await message_cost(bench, load, _STREAMS, rate=_RATE, seconds=_SECONDS),
        "opened/s": _STREAMS / seconds,
    }
    load.close()
    return found
