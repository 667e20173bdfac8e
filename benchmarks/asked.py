"""What was asked of the portal, beside the plain Node proxy of the same run, and whether it is met."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

type Medians = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One demand: the number's name, what was asked for in words, and whether that is met."""

    name: str
    asked: str
    is_met: Callable[[float, float], bool]
    """Of the portal's number and Node's."""


LINES = (
    Line(
        "memory_kb_many", "KiB per idle stream: at most 50, below Node's", lambda ours, node: ours <= 50 and ours < node
    ),
    Line("memory_kb_further_tab", "KiB per further tab: at most 30", lambda ours, _: ours <= 30),
    Line("threads", "threads: at most 30", lambda ours, _: ours <= 30),
    Line("database_connections", "database connections: at most 20", lambda ours, _: ours <= 20),
    Line("upstream_streams_5_tabs", "upstream streams for 5 tabs: 1", lambda ours, _: ours == 1),
    Line("left_after_2s", "upstream streams left after 2 s: 0", lambda ours, _: ours == 0),
    Line(
        "opened_per_second",
        "streams opened a second: at least 300, and half of Node's",
        lambda ours, node: ours >= 300 and ours >= 0.5 * node,
    ),
    Line("latency_p99_ms", "p99 in ms: at most 5", lambda ours, _: ours <= 5),
    Line("latency_p99_ms", "p99 in ms: below Node's", lambda ours, node: ours < node),
    Line(
        "most_per_second_1_tab", "messages/s, 1 tab: at least a quarter of Node's", lambda ours, node: ours >= node / 4
    ),
    Line("most_per_second_5_tabs", "messages/s, 5 tabs: at least half of Node's", lambda ours, node: ours >= node / 2),
    Line("cpu_us_per_message", "CPU us per message: at most 1.5 x Node's", lambda ours, node: ours <= 1.5 * node),
    Line("restart_seconds", "s until all are back after a restart: at most 20", lambda ours, _: ours <= 20),
    Line("restart_lost", "messages lost over it: none", lambda ours, _: ours == 0),
    Line("restart_doubled", "messages twice or out of order over it: none", lambda ours, _: ours == 0),
)


def answers(portal: Medians, node: Medians) -> Iterator[tuple[Line, float, float | None, bool]]:
    """Each demand with the portal's number, Node's, and whether it is met; those not measured are left out."""
    for line in LINES:
        ours, theirs = portal.get(line.name), node.get(line.name)
        if ours is not None:
            yield line, ours, theirs, line.is_met(ours, math.nan if theirs is None else theirs)
