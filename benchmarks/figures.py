"""The figures: each takes a peer that has just been started and returns named numbers."""

from __future__ import annotations

import asyncio
import http
import http.client
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.load import Load, Stream, until
from benchmarks.measure import percentile, settle, usage
from benchmarks.peers.peer import Peer
from benchmarks.peers.portal import Portal
from benchmarks.threads import participant
from benchmarks.upstream import Pump, Upstream

type Numbers = dict[str, float]

_AT_ONCE = 50
_TABS = 5
_WARM_UP = 50
_WARM_PAGES = 20
_RETRY_SECONDS = 1.0
_P99_MS = 100.0
_DRAIN_SECONDS = 15.0
_NARROW_ENOUGH = 1.15


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; `seconds` is how long a rate is held."""

    idle: tuple[int, int] = (1000, 3000)
    tab_people: int = 500
    opening_base: int = 1000
    opening_more: int = 500
    latency_streams: int = 500
    latency_rate: int = 1000
    seconds: float = 8
    search_from: int = 2000
    search_to: int = 500_000
    search_step: float = 1.6
    search_seconds: float = 3
    restart_streams: int = 3000
    restart_rate: int = 500
    pages: int = 200
    rest: float = 6
    rest_at_most: float = 30

    @property
    def people(self) -> int:
        return max(*self.idle, self.tab_people, self.opening_base + self.opening_more, self.restart_streams) + _WARM_UP


FULL = Scale()
QUICK = Scale(
    idle=(200, 600),
    tab_people=100,
    opening_base=200,
    opening_more=200,
    latency_streams=200,
    latency_rate=500,
    seconds=3,
    search_step=2,
    search_seconds=2,
    restart_streams=600,
    restart_rate=200,
    pages=100,
    rest=5,
    rest_at_most=15,
)
TINY = Scale(
    idle=(10, 20),
    tab_people=5,
    opening_base=10,
    opening_more=10,
    latency_streams=10,
    latency_rate=100,
    seconds=0.5,
    search_from=100,
    search_to=200,
    search_step=2,
    search_seconds=0.5,
    restart_streams=20,
    restart_rate=40,
    pages=10,
    rest=0.2,
    rest_at_most=0.5,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a figure works with."""

    peer: Peer
    upstream: Upstream
    scale: Scale

    def load(self) -> Load:
        return Load(self.peer.port)

    def streams(self, load: Load, people: range, tabs: int = 1) -> list[Stream]:
        return [
            load.add(self.peer.request(person), self.upstream.thread(participant(person)))
            for person in people
            for _ in range(tabs)
        ]

    def cpu_seconds(self) -> float:
        """What the peer has used since it began; 0 where there is no process."""
        return usage(self.peer.pid).cpu_seconds if self.peer.is_process else 0.0

    async def rest(self) -> None:
        if self.peer.is_process:
            await settle(self.peer.pid, at_least=self.scale.rest, at_most=self.scale.rest_at_most)

    async def warm_up(self) -> None:
        """Open and close some streams, so that what is loaded once is loaded."""
        load = self.load()
        people = range(self.scale.people - _WARM_UP, self.scale.people)
        await load.open(self.streams(load, people), at_once=10)
        for person in people:
            self.upstream.write(participant(person))
        await until(lambda: not load.lost, seconds=_DRAIN_SECONDS)
        load.close()
        await asyncio.sleep(0.5)


async def memory(bench: Bench) -> Numbers:
    """Memory of idle streams, what else they hold, and what is left of them when the clients have gone."""
    found: Numbers = {}
    load = bench.load()
    await bench.warm_up()
    await bench.rest()
    empty = usage(bench.peer.pid)
    left = len(bench.upstream.streams)
    for name, count in zip(("memory_kb_few", "memory_kb_many"), bench.scale.idle, strict=True):
        await load.open(bench.streams(load, range(len(load.streams), count)), at_once=_AT_ONCE)
        await bench.rest()
        full = usage(bench.peer.pid)
        found[name] = (full.rss_kb - empty.rss_kb) / count
    found["threads"] = full.threads
    found["upstream_connections"] = len(bench.upstream.connections) - left
    found["upstream_streams"] = len(bench.upstream.streams) - left
    if isinstance(bench.peer, Portal):
        found["database_connections"] = await asyncio.to_thread(bench.peer.connection_count)
    await asyncio.sleep(bench.scale.seconds)
    found["idle_cpu_percent"] = (usage(bench.peer.pid).cpu_seconds - full.cpu_seconds) / bench.scale.seconds * 100
    load.close()
    await asyncio.sleep(2)
    found["left_after_2s"] = len(bench.upstream.streams) - left
    return found


async def tabs(bench: Bench) -> Numbers:
    """What each further tab of a participant costs."""
    people = range(bench.scale.tab_people)
    load = bench.load()
    await bench.warm_up()
    left = len(bench.upstream.streams)
    await load.open(bench.streams(load, people), at_once=_AT_ONCE)
    await bench.rest()
    one = usage(bench.peer.pid)
    first = len(bench.upstream.streams) - left
    more = bench.streams(load, people, tabs=_TABS - 1)
    await load.open(more, at_once=_AT_ONCE)
    await bench.rest()
    five = usage(bench.peer.pid)
    together = len(bench.upstream.streams) - left
    load.close()
    return {
        "memory_kb_further_tab": (five.rss_kb - one.rss_kb) / len(more),
        "upstream_streams_5_tabs": together / first,
    }


async def opening(bench: Bench) -> Numbers:
    """Streams opened a second while many are open already."""
    load = bench.load()
    base = bench.scale.opening_base
    await load.open(bench.streams(load, range(base)), at_once=_AT_ONCE)
    await bench.rest()
    more = bench.streams(load, range(base, base + bench.scale.opening_more))
    before, calls = bench.cpu_seconds(), bench.upstream.requests
    seconds = await load.open(more, at_once=_AT_ONCE)
    found = {"opened_per_second": len(more) / seconds}
    if bench.peer.is_process:
        found["opening_cpu_ms"] = (bench.cpu_seconds() - before) / len(more) * 1e3
        await bench.rest()  # upstream is blind just after `connected`, so it is asked once more some seconds later
        found["opening_calls"] = (bench.upstream.requests - calls) / len(more)
    load.close()
    return found


async def latency(bench: Bench) -> Numbers:
    """Latency and cost of messages at a modest rate."""
    scale = bench.scale
    load = bench.load()
    await load.open(bench.streams(load, range(scale.latency_streams)), at_once=_AT_ONCE)
    await bench.rest()
    people = [participant(person) for person in range(scale.latency_streams)]
    calls = bench.upstream.requests
    trial = await hold(bench, load, people, scale.latency_rate, scale.seconds)
    calls = bench.upstream.requests - calls
    wrong = load.lost + load.tally.duplicates + load.tally.disordered
    load.close()
    found = {
        "latency_p50_ms": trial.p50,
        "latency_p99_ms": trial.p99,
        "latency_lost": wrong,
    }
    if bench.peer.is_process:
        found["cpu_us_per_message"] = trial.cpu_seconds / trial.delivered * 1e6
        found["calls_per_1000_messages"] = calls / trial.delivered * 1e3
    return found


async def capacity(bench: Bench) -> Numbers:
    """The most messages delivered a second with a p99 under 100 ms, for 1 and for 5 tabs a participant."""
    found: Numbers = {}
    for name, tabs in (("most_per_second_1_tab", 1), ("most_per_second_5_tabs", _TABS)):
        load = bench.load()
        people = range(bench.scale.latency_streams // tabs)
        await load.open(bench.streams(load, people, tabs), at_once=_AT_ONCE)
        await bench.rest()
        found[name] = await _search(bench, load, people, tabs)
        load.close()
        await asyncio.sleep(1)
    return found


async def _search(bench: Bench, load: Load, people: range, tabs: int) -> float:
    """Raise the rate until it fails, then narrow it down to 15 %; what was delivered a second at the best."""
    scale = bench.scale
    names = [participant(person) for person in people]
    load.comes_back_after = _RETRY_SECONDS  # whoever could not follow and was cut off
    rate, best, works, fails = float(scale.search_from), 0.0, 0.0, 0.0
    while scale.search_from / 20 < rate <= scale.search_to:
        trial = await hold(bench, load, names, rate / tabs, scale.search_seconds)
        if trial.p99 < _P99_MS and trial.rate > 0.9 * rate / tabs and not trial.is_stuck:
            works, best = rate, trial.delivered / trial.seconds
        else:
            fails = rate
            await until(lambda: load.open_count == len(load.streams), seconds=_DRAIN_SECONDS)
            load.forgive()
        if works and fails:
            if fails / works < _NARROW_ENOUGH:
                break
            rate = (works * fails) ** 0.5
        else:
            rate = rate * scale.search_step if works else rate / scale.search_step
    return best


@dataclass(frozen=True, slots=True)
class Trial:
    """A rate that was held for a while: what arrived of it, how long that took (ms), what the peer used."""

    rate: float
    seconds: float
    delivered: int
    p50: float
    p99: float
    cpu_seconds: float
    is_stuck: bool


async def hold(bench: Bench, load: Load, people: list[str], rate: float, seconds: float) -> Trial:
    """Write at a rate for a while; what arrived of it, until all has (or no more does)."""
    warm = Pump(bench.upstream, people, rate)
    await asyncio.sleep(min(seconds / 4, 1))
    warm.stop()
    await until(lambda: not load.lost, seconds=_DRAIN_SECONDS)
    before = bench.cpu_seconds()
    load.tally.latencies = array("q")
    delivered = load.tally.delivered
    started = time.perf_counter()
    pump = Pump(bench.upstream, people, rate)
    await asyncio.sleep(seconds)
    written_rate = pump.stop()
    is_all_there = await until(lambda: not load.lost, seconds=_DRAIN_SECONDS)
    took = time.perf_counter() - started
    cpu = bench.cpu_seconds() - before
    values = sorted(load.tally.latencies)
    load.tally.latencies = None
    return Trial(
        rate=written_rate,
        seconds=took,
        delivered=load.tally.delivered - delivered,
        p50=percentile(values, 0.5) / 1e6,
        p99=percentile(values, 0.99) / 1e6,
        cpu_seconds=cpu,
        is_stuck=not is_all_there,
    )


async def pages(bench: Bench) -> Numbers:
    """What a conversation's page costs, asked for one after the other, each by another person."""
    assert isinstance(bench.peer, Portal)
    await bench.warm_up()
    connection = http.client.HTTPConnection("127.0.0.1", bench.peer.port, timeout=30)
    peer, before = bench.peer, 0.0
    for number in range(-_WARM_PAGES, bench.scale.pages):
        if number == 0:
            before = bench.cpu_seconds()
        await asyncio.to_thread(_fetch, connection, *peer.page(number % bench.scale.people))
    connection.close()
    return {"page_cpu_ms": (bench.cpu_seconds() - before) / bench.scale.pages * 1e3}


def _fetch(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> None:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise OSError(f"a page was answered {answer.status}")


async def restart(bench: Bench) -> Numbers:
    """From SIGTERM until every client is back and has every message, while messages go on being written."""
    scale = bench.scale
    load = bench.load()
    people = range(scale.restart_streams)
    streams = bench.streams(load, people)
    await load.open(streams, at_once=_AT_ONCE)
    await bench.rest()
    for person in people:  # a client that has never seen an id could not say where it was
        bench.upstream.write(participant(person))
    await until(lambda: not load.lost, seconds=_DRAIN_SECONDS)
    load.comes_back_after = _RETRY_SECONDS
    pump = Pump(bench.upstream, [participant(person) for person in people], scale.restart_rate)
    await asyncio.sleep(scale.seconds / 2)
    started = time.perf_counter()
    await bench.peer.stop()
    await bench.peer.start()
    running = time.perf_counter() - started
    await until(lambda: load.open_count == len(streams), seconds=120)
    back = time.perf_counter() - started
    await asyncio.sleep(scale.seconds / 2)
    pump.stop()
    await until(lambda: not load.lost, seconds=_DRAIN_SECONDS if bench.peer.keeps_cursors else 2)
    found = {
        "restart_seconds": back,
        "restart_down_seconds": running,
        "restart_not_back": len(streams) - load.open_count,
        "restart_lost": load.lost,
        "restart_doubled": load.tally.duplicates + load.tally.disordered,
    }
    load.close()
    return found


FIGURES: dict[str, Callable[[Bench], Awaitable[Numbers]]] = {
    "memory": memory,
    "tabs": tabs,
    "opening": opening,
    "latency": latency,
    "capacity": capacity,
    "restart": restart,
    "pages": pages,
}
