"""What comes while a stream waits: written at once by whoever brings it, or by the stream's own task."""

from __future__ import annotations

from benchmarks.choices.rig import AT_ONCE, rig, uvicorn
from benchmarks.choices.table import Table
from benchmarks.figures import Bench, hold
from benchmarks.threads import participant

_STREAMS = 300
_RATE = 1_000
_SECONDS = 4


def main(rounds: int) -> None:
    table = Table(f"{_STREAMS} streams, {_RATE} messages/s", chosen="at once")
    variants = {"at once": uvicorn(), "by the stream's task": uvicorn("benchmarks.choices.unrushed:application")}
    with rig(_STREAMS) as bench:
        for _ in range(rounds):
            for name, command in variants.items():
                table.add(name, bench.measure(command, _figure))
    table.show()


async def _figure(bench: Bench) -> dict[str, float]:
    load = bench.load()
    await load.open(bench.streams(load, range(_STREAMS)), at_once=AT_ONCE)
    await bench.rest()
    trial = await hold(bench, load, [participant(person) for person in range(_STREAMS)], _RATE, _SECONDS)
    load.close()
    return {
        "CPU us per message": trial.cpu_seconds / trial.delivered * 1e6,
        "p50 ms": trial.p50,
        "p99 ms": trial.p99,
    }
