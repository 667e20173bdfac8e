"""`python -m benchmarks.growth`: what the measured costs mean for 10^4, 10^5 and 10^6 people; tables of docs/scale.md.

Three parts: what one stream, tab and message costs (from docs/benchmarks/latest.json), a simulated working day (who is
there, with how many browsers, writing how much), and a simulated herd (everybody comes back after a deploy). All is
seeded: the same measurements give the same tables. `--write` puts them into the document, `--check` compares.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LATEST = ROOT / "docs/benchmarks/latest.json"
DOCUMENT = ROOT / "docs/scale.md"
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
PEOPLE = (10_000, 100_000, 1_000_000)
_SEED = 4
_SAMPLE = 20_000
_MINUTES = 24 * 60
_FRAGMENT_US = 460
"""A message as a page's HTML, made once for a person's tabs in a process: `python -m benchmarks.choices fragments`."""

PRELIMINARY: dict[str, float] = {
    "memory_kb_many": 68,
    "memory_kb_further_tab": 36,
    "idle_cpu_percent": 10,
    "opening_cpu_ms": 22,
    "opening_calls": 4,
    "page_cpu_ms": 25,
    "cpu_us_per_message": 299,
    "most_per_second_1_tab": 3_000,
    "most_per_second_5_tabs": 8_000,
    "idle_streams": 600,
}
"""From the first runs on a busy machine, until there is a docs/benchmarks/latest.json."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one process pays. `source` says where the numbers are from."""

    source: str
    stream_kb: float
    tab_kb: float
    idle_us: float
    opening_us: float
    opening_calls: float
    page_us: float
    message_us: float
    delivery_us: float
    fragment_us: float = _FRAGMENT_US

    @classmethod
    def of(cls, medians: Mapping[str, float], idle_streams: float, source: str) -> Costs:
        """A message that one tab reads costs message + delivery, one that five read message + 5 x delivery.

        What a further delivery takes is told by the highest rates, where the process has no time left for either; what
        the first one takes with its message by the quiet rate, where more is paid for each.
        """
        single = medians["cpu_us_per_message"]
        one, five = 1e6 / medians["most_per_second_1_tab"], 5 * 1e6 / medians["most_per_second_5_tabs"]
        delivery = max((five - one) / 4, 0)
        return cls(
            source=source,
            stream_kb=medians["memory_kb_many"],
            tab_kb=medians["memory_kb_further_tab"],
            idle_us=medians["idle_cpu_percent"] * 1e4 / idle_streams,
            opening_us=medians["opening_cpu_ms"] * 1e3,
            opening_calls=medians["opening_calls"],
            page_us=medians["page_cpu_ms"] * 1e3,
            message_us=single - delivery,
            delivery_us=delivery,
        )

    @classmethod
    def read(cls, path: Path = LATEST) -> Costs:
        """Of the last full measurement; where there is none, of the preliminary one."""
        if not path.exists():
            return cls.of(PRELIMINARY, PRELIMINARY["idle_streams"], "preliminary numbers, from a busy machine")
        told = json.loads(path.read_text())
        source = f"the measurement of {told['at'][:10]}, {told['machine']}, {told['rounds']} rounds"
        return cls.of(told["medians"]["portal"], told["scale"]["idle"][1], source)


@dataclass(frozen=True, slots=True)
class Habits:
    """What people do: assumptions, to be replaced by what your own /metrics say."""

    come_today: float = 0.7
    arrive_at: float = 9.0  # hours; all in one time zone, which is the worst case
    arrive_spread: float = 0.75
    stay_hours: float = 8.0
    second_browser: float = 0.2  # a phone, another computer
    further_tabs: float = 1.4  # beside the first; they share its stream
    without_sharing: float = 0.05  # browsers whose tabs each have a stream of their own
    conversations: float = 1.3  # open at once in a browser: an upstream stream each
    dashboards: float = 0.4  # open beside: a stream without an upstream
    openings_per_hour: float = 10  # pages, sleep, networks: how often a browser opens its streams anew
    pages_per_hour: float = 15
    sends_per_hour: float = 3
    answers_per_send: float = 1.3
    steps_per_answer: float = 4  # streamed, not counted as unread
    unprompted_per_hour: float = 0.5
    tenant_people: int = 2_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What we let one of each carry. Assumptions where nothing was measured here."""

    core_use: float = 0.5  # of a process' core at the peak: the rest is for a neighbour's restart
    process_streams: int = 4_000  # so that a restart sends no more than these through the door
    process_mb: float = 120
    machine_processes: int = 6  # of 8 cores; nginx and the system have the rest
    nginx_connections: int = 100_000
    postgres_rows: int = 10_000  # written a second, one server with good disks
    postgres_connections: int = 400
    pool: int = 8
    redis_messages: int = 80_000
    upstream_streams: int = 10_000
    upstream_calls: int = 1_000


@dataclass(slots=True)
class Peak:
    """The busiest minute of the day; rates are a second's."""

    people: float = 0
    browsers: float = 0
    streams: float = 0
    inboxes: float = 0  # (person, activation) that some stream shows
    tabs: float = 0
    openings: float = 0
    pages: float = 0
    sends: float = 0
    answers: float = 0
    messages: float = 0
    deliveries: float = 0


def day(people: int, habits: Habits) -> tuple[Peak, float]:
    """A simulated working day: the busiest minute, number by number, and the answers of the whole day.

    A sample stands for more people than itself.
    """
    dice = random.Random(_SEED)
    sample = min(people, _SAMPLE)
    minutes = {field.name: [0.0] * (_MINUTES + 1) for field in fields(Peak)}
    for _ in range(sample):
        if dice.random() < habits.come_today:
            _attend(dice, habits, minutes)
    scale = people / sample
    course = {name: [value * scale for value in accumulate(steps)] for name, steps in minutes.items()}
    busiest = Peak(**{name: max(values) for name, values in course.items()})
    for name in ("openings", "pages", "sends", "answers", "messages", "deliveries"):  # the busiest second of the minute
        mean = getattr(busiest, name)
        setattr(busiest, name, mean + 4 * math.sqrt(mean))
    return busiest, sum(course["answers"]) * 60


def _attend(dice: random.Random, habits: Habits, minutes: dict[str, list[float]]) -> None:
    """One person's day: what is there from their coming until their going."""
    first = round(60 * min(max(dice.gauss(habits.arrive_at, habits.arrive_spread), 0), 23))
    last = min(first + max(round(60 * dice.gauss(habits.stay_hours, 1)), 1), _MINUTES)
    browsers = 1 + (dice.random() < habits.second_browser)
    shown = 1 + _some(dice, habits.conversations - 1)
    streams = tabs = 0
    for _ in range(browsers):
        more = _some(dice, habits.further_tabs)
        tabs += 1 + more
        alone = more if dice.random() < habits.without_sharing else 0
        streams += shown + alone + (dice.random() < habits.dashboards)
    zeal = dice.lognormvariate(-0.5, 1)  # mean 1: most write little, a few a lot
    sends = zeal * habits.sends_per_hour / 3600
    answers = sends * habits.answers_per_send + habits.unprompted_per_hour / 3600
    messages = answers * (1 + habits.steps_per_answer)
    here = {
        "people": 1,
        "browsers": browsers,
        "streams": streams,
        "inboxes": shown,
        "tabs": tabs,
        "openings": streams * habits.openings_per_hour / 3600,
        "pages": browsers * habits.pages_per_hour / 3600,
        "sends": sends,
        "answers": answers,
        "messages": messages,
        "deliveries": messages * max(streams - browsers * habits.dashboards, browsers) / shown,
    }
    for name, value in here.items():
        minutes[name][first] += value
        minutes[name][last] -= value
    minutes["openings"][first] += streams / 60  # everybody's first page of the day
    minutes["openings"][min(first + 1, _MINUTES)] -= streams / 60


def _some(dice: random.Random, mean: float) -> int:
    """A number from 0 up, geometrically distributed."""
    if mean <= 0:
        return 0
    return int(math.log(1 - dice.random()) / math.log(mean / (1 + mean)))


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many people take at their peak."""

    people: int
    peak: Peak
    answers_a_day: float
    processes: int
    machines: int
    cores: float
    memory_gb: float
    feeds: float
    nginx_connections: float
    postgres_rows: float
    postgres_transactions: float
    postgres_connections: int
    receipts_gb: float
    redis_messages: float
    upstream_calls: float
    upstream_watch_calls: float


_PAUSE_SECONDS = 0.15  # between a process' batches of receipts
_RECEIPT_BYTES = 450  # row and indexes
_KEPT_DAYS = 30
_COMPARE_SECONDS = 60
_TENANT_CHECK_SECONDS = 7
_USERS_PAGE = 500
_SINGLY = 10


def needs(people: int, costs: Costs, habits: Habits, limits: Limits) -> Needs:
    """Processes first, since an inbox that two processes show has a feed in both."""
    peak, answers = day(people, habits)
    processes, feeds, cores = 1, peak.inboxes, 0.0
    while True:
        feeds = _feeds(peak, processes)
        cores = _cores(peak, feeds, costs)
        wanted = max(math.ceil(cores / limits.core_use), math.ceil(peak.streams / limits.process_streams), 2)
        if wanted <= processes:
            break
        processes = wanted
    spread = feeds / peak.inboxes
    reads = peak.answers
    rows = peak.answers * spread + reads + 2 * peak.sends
    notices = (peak.answers + reads) * spread + 2 * peak.openings + peak.people * spread / 60 + processes
    return Needs(
        people=people,
        peak=peak,
        answers_a_day=answers,
        processes=processes,
        machines=max(math.ceil(processes / limits.machine_processes), 1),
        cores=cores,
        memory_gb=(
            processes * limits.process_mb / 1024
            + (feeds * costs.stream_kb + max(peak.streams - feeds, 0) * costs.tab_kb) / 1024**2
        ),
        feeds=feeds,
        nginx_connections=peak.browsers + peak.streams,
        postgres_rows=rows,
        postgres_transactions=min(rows, processes / _PAUSE_SECONDS),
        postgres_connections=processes * limits.pool,
        receipts_gb=answers * _KEPT_DAYS * _RECEIPT_BYTES / 1024**3,
        redis_messages=notices * (1 + spread),  # published, and each heard wherever the person has a stream
        upstream_calls=feeds / _COMPARE_SECONDS + peak.openings * costs.opening_calls + 3 * peak.sends,
        upstream_watch_calls=_watch_calls(people, peak, processes, habits) / _TENANT_CHECK_SECONDS,
    )


def _feeds(peak: Peak, processes: int) -> float:
    """A person's second browser is mostly at another process, and has a feed of its own there."""
    return peak.inboxes * (1 + (peak.browsers / peak.people - 1) * (1 - 1 / processes))


def _watch_calls(people: int, peak: Peak, processes: int, habits: Habits) -> float:
    """Each process asks singly for up to ten people of a tenant; of more it reads the tenant's list, and asks once."""
    tenants = max(people / habits.tenant_people, 1)
    shown = peak.people / tenants / processes
    pages = math.ceil(min(people, habits.tenant_people) / _USERS_PAGE)
    return processes * tenants * (shown if shown <= _SINGLY else pages + 1)


def _cores(peak: Peak, feeds: float, costs: Costs) -> float:
    work = peak.streams * costs.idle_us + peak.openings * costs.opening_us + peak.pages * costs.page_us
    heard = peak.messages * feeds / peak.inboxes
    return (work + heard * (costs.message_us + costs.fragment_us) + peak.deliveries * costs.delivery_us) / 1e6


# -- the herd -------------------------------------------------------------------------------------------------

_BACK_OFF = (1, 2, 4, 8, 16)
_WAITING_ROOM_SECONDS = 15
_DOOR_RATE = 100  # streams a second that nginx lets in for each process, and how many wait in its line
_DOOR_LINE = 500


@dataclass(frozen=True, slots=True)
class Return:
    """How a herd came back: seconds until half, 99 % and all are, and how many were sent to the waiting room."""

    streams: int
    half: float
    most: float
    everybody: float
    gave_up: float


def herd(streams: int, processes: int, busy: float, costs: Costs) -> Return:
    """Streams that all end at once, and come to so many processes whose core is `busy` with other things.

    nginx lets them in at a pace and sends away what doesn't fit into its line; a page tries five times, then waits in
    the waiting room. A sample stands for more streams than itself.
    """
    dice = random.Random(_SEED)
    sample = min(streams, _SAMPLE)
    share = sample / streams
    door = _Line(_DOOR_RATE * processes * share, max(_DOOR_LINE * processes * share, 1))
    inside = _Line(processes * (1 - busy) * 1e6 / costs.opening_us * share, math.inf)
    coming = [(_jittered(dice, 1), 0) for _ in range(sample)]
    heapq.heapify(coming)
    back: list[float] = []
    gave_up = 0
    while coming:
        now, failures = heapq.heappop(coming)
        through = door.pass_at(now)
        if through is not None:
            back.append(inside.pass_at(through) or through)
        elif failures < len(_BACK_OFF):
            heapq.heappush(coming, (now + _jittered(dice, _BACK_OFF[failures]), failures + 1))
        else:
            gave_up += failures == len(_BACK_OFF)
            heapq.heappush(coming, (now + _jittered(dice, _WAITING_ROOM_SECONDS), failures + 1))
    back.sort()
    return Return(streams, back[sample // 2], back[int(sample * 0.99)], back[-1], gave_up / sample)


class _Line:
    """Serves so many a second, one after the other; who would be behind `length` others is sent away."""

    def __init__(self, rate: float, length: float) -> None:
        self._seconds = 1 / rate
        self._length = length
        self._ends: deque[float] = deque()
        self._free_at = 0.0

    def pass_at(self, now: float) -> float | None:
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        if len(self._ends) >= self._length:
            return None
        self._free_at = max(self._free_at, now) + self._seconds
        self._ends.append(self._free_at)
        return self._free_at


def _jittered(dice: random.Random, seconds: float) -> float:
    return seconds * (1 + 0.2 * dice.random())


# -- tables ---------------------------------------------------------------------------------------------------


def tables(costs: Costs, habits: Habits | None = None, limits: Limits | None = None) -> str:
    """Everything that the document shows, as Markdown."""
    habits, limits = habits or Habits(), limits or Limits()
    found = [needs(people, costs, habits, limits) for people in PEOPLE]
    return "\n".join(
        [
            f"Written by `python -m benchmarks.growth --write` from {costs.source}.",
            "",
            "**What one costs** (one process)",
            "",
            *_table(["", "symbol", "value"], _costs(costs)),
            "",
            "**At the busiest moment of a simulated working day**",
            "",
            *_table(["", *(f"{people:,} people" for people in PEOPLE)], _sizes(found)),
            "",
            "**What breaks first**: use of what one of each carries; above 100 % there has to be more than one",
            "",
            *_table(["", "one carries", *(f"{people:,}" for people in PEOPLE)], _strains(found, limits)),
            "",
            "**After a deploy**: seconds until streams are back, at the busiest moment",
            "",
            *_table(["", "streams", "half", "99 %", "all", "saw the waiting room"], _herds(found, costs, limits)),
            "",
        ]
    )


def _costs(costs: Costs) -> Iterator[list[str]]:
    yield ["memory of a stream with its upstream stream", "`s`", f"{costs.stream_kb:.0f} KiB"]
    yield ["memory of each further stream of the same inbox", "`t`", f"{costs.tab_kb:.0f} KiB"]
    yield ["CPU of a stream that is only open", "`i`", f"{costs.idle_us:.0f} us a second"]
    yield ["CPU of opening one", "`o`", f"{costs.opening_us / 1e3:.1f} ms"]
    yield ["calls to the Xians server for it", "`c`", f"{costs.opening_calls:.1f}"]
    yield ["CPU of a page", "`p`", f"{costs.page_us / 1e3:.0f} ms"]
    yield ["CPU of a message: reading, checking, counting", "`m`", f"{costs.message_us:.0f} us"]
    yield ["CPU of making it HTML, once for a person's pages", "`f`", f"{costs.fragment_us:.0f} us"]
    yield ["CPU of each delivery of it", "`d`", f"{costs.delivery_us:.0f} us"]


def _sizes(found: Sequence[Needs]) -> Iterator[list[str]]:
    rows: list[tuple[str, Callable[[Needs], float]]] = [
        ("people there", lambda n: n.peak.people),
        ("tabs", lambda n: n.peak.tabs),
        ("streams (tabs of a browser share)", lambda n: n.peak.streams),
        ("streams opened a second", lambda n: n.peak.openings),
        ("messages a second from upstream", lambda n: n.peak.messages),
        ("deliveries a second", lambda n: n.peak.deliveries),
        ("cores busy", lambda n: n.cores),
        ("processes", lambda n: n.processes),
        ("machines of 8 cores for them", lambda n: n.machines),
        ("memory of all processes, GiB", lambda n: n.memory_gb),
        ("connections at nginx", lambda n: n.nginx_connections),
        ("PostgreSQL: rows written a second", lambda n: n.postgres_rows),
        ("PostgreSQL: transactions a second for them", lambda n: n.postgres_transactions),
        ("PostgreSQL: connections", lambda n: n.postgres_connections),
        ("PostgreSQL: receipts of 30 days, GiB", lambda n: n.receipts_gb),
        ("Redis: messages a second", lambda n: n.redis_messages),
        ("Xians: open streams", lambda n: n.feeds),
        ("Xians: calls a second", lambda n: n.upstream_calls),
        ("Xians: further calls a second to watch memberships", lambda n: n.upstream_watch_calls),
    ]
    for title, ask in rows:
        yield [title, *(_number(ask(each)) for each in found)]


def _strains(found: Sequence[Needs], limits: Limits) -> list[list[str]]:
    rows: list[tuple[str, float, Callable[[Needs], float]]] = [
        ("a process: streams", limits.process_streams, lambda n: n.peak.streams),
        ("nginx: connections", limits.nginx_connections, lambda n: n.nginx_connections),
        ("PostgreSQL: rows written a second", limits.postgres_rows, lambda n: n.postgres_rows),
        ("PostgreSQL: connections", limits.postgres_connections, lambda n: n.postgres_connections),
        ("Redis: messages a second", limits.redis_messages, lambda n: n.redis_messages),
        ("a Xians server: streams", limits.upstream_streams, lambda n: n.feeds),
        (
            "a Xians server: calls a second",
            limits.upstream_calls,
            lambda n: n.upstream_calls + n.upstream_watch_calls,
        ),
    ]
    rows.sort(key=lambda row: -row[2](found[-1]) / row[1])
    return [
        [title, _number(limit), *(f"{100 * ask(each) / limit:,.0f} %" for each in found)] for title, limit, ask in rows
    ]


def _herds(found: Sequence[Needs], costs: Costs, limits: Limits) -> Iterator[list[str]]:
    for each in found:
        streams, busy = round(each.peak.streams), min(each.cores / each.processes, 0.9)
        moved = max(streams // each.processes, 1)
        yield _herd(
            f"{each.people:,} people: one process of {each.processes}", herd(moved, each.processes - 1, busy, costs)
        )
        yield _herd(f"{each.people:,} people: all at once", herd(streams, each.processes, 0.1, costs))


def _herd(title: str, back: Return) -> list[str]:
    times = (f"{seconds:,.1f}" for seconds in (back.half, back.most, back.everybody))
    return [title, f"{back.streams:,}", *times, f"{100 * back.gave_up:.0f} %"]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    lines = [list(head), ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def written(document: str, text: str) -> str:
    """The document with these tables between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--check", action="store_true", help="end with 1 where docs/scale.md shows other tables")
    options = parser.parse_args(argv)
    text = tables(Costs.read())
    if not (options.write or options.check):
        print(text)
        return 0
    document = DOCUMENT.read_text()
    if options.write:
        DOCUMENT.write_text(written(document, text))
        return 0
    is_current = document == written(document, text)
    if not is_current:
        print("docs/scale.md is not of the last measurement: python -m benchmarks.growth --write", file=sys.stderr)
    return 0 if is_current else 1


if __name__ == "__main__":
    sys.exit(main())
