"""Results as a table and as JSON; `picture` draws them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks import asked, picture
from benchmarks.figures import Scale

type Values = dict[str, list[float]]
"""What every round found, by the number's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number: its name in the figures, its title (which may name the scale), and which way is better."""

    name: str
    title: str
    better: Literal["lower", "higher", ""] = "lower"
    is_drawn: bool = False


ROWS = (
    Row("memory_kb_few", "KiB per idle stream at {idle[0]:,}"),
    Row("memory_kb_many", "KiB per idle stream at {idle[1]:,}", is_drawn=True),
    Row("memory_kb_further_tab", "KiB per further tab of a person", is_drawn=True),
    Row("idle_cpu_percent", "% of a core with {idle[1]:,} idle streams"),
    Row("threads", "threads at {idle[1]:,}"),
    Row("database_connections", "database connections at {idle[1]:,}"),
    Row("upstream_connections", "upstream connections at {idle[1]:,}"),
    Row("upstream_streams_5_tabs", "upstream streams for 5 tabs of a person", is_drawn=True),
    Row("left_after_2s", "upstream streams left 2 s after all have gone", is_drawn=True),
    Row("opened_per_second", "streams opened a second at {opening_base:,} open", "higher", is_drawn=True),
    Row("opening_cpu_ms", "CPU ms per opened stream"),
    Row("opening_calls", "other calls to upstream per opened stream", ""),
    Row("latency_p50_ms", "p50 ms at {latency_rate:,} messages/s, {latency_streams:,} streams"),
    Row("latency_p99_ms", "p99 ms at {latency_rate:,} messages/s, {latency_streams:,} streams", is_drawn=True),
    Row("latency_lost", "messages lost or twice meanwhile"),
    Row("cpu_us_per_message", "CPU us per delivered message", is_drawn=True),
    Row("calls_per_1000_messages", "other calls to upstream per 1,000 messages", ""),
    Row("most_per_second_1_tab", "most messages/s, p99 under 100 ms, 1 tab each", "higher", is_drawn=True),
    Row("most_per_second_5_tabs", "most messages/s, p99 under 100 ms, 5 tabs each", "higher", is_drawn=True),
    Row("page_cpu_ms", "CPU ms per page of a conversation"),
    Row("restart_seconds", "s until all {restart_streams:,} clients are back after a restart"),
    Row("restart_down_seconds", "s of which the process was away", ""),
    Row("restart_not_back", "clients that never came back"),
    Row("restart_lost", "messages lost over the restart", is_drawn=True),
    Row("restart_doubled", "messages twice or out of order over the restart"),
)


_NOT_OTHERS = ("direct", "portal", "several")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found: all rounds' values by peer."""

    scale: Scale
    rounds: int
    peers: Sequence[str]
    values: dict[str, Values]
    failures: list[str]

    def median(self, peer: str, name: str) -> float | None:
        found = self.values[peer].get(name)
        return statistics.median(found) if found else None

    def rows(self) -> list[tuple[Row, str]]:
        """The rows that somebody has a value for, with their titles."""
        scale = asdict(self.scale)
        known = {name for values in self.values.values() for name in values}
        return [(row, row.title.format(**scale)) for row in ROWS if row.name in known]


def table(result: Result) -> str:
    """Markdown, one row a number: medians, and how the portal stands to the others (above 1: better)."""
    others = [peer for peer in result.peers if peer not in _NOT_OTHERS and "portal" in result.peers]
    lines = [["", *result.peers, *(f"vs {peer}" for peer in others)]]
    for row, title in result.rows():
        cells = [_cell(result.median(peer, row.name)) for peer in result.peers]
        lines.append([title, *cells, *(_ratio(result, row, peer) for peer in others)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    told = [f"| {line[0]:<{widths[0]}} | " + " | ".join(_right(line[1:], widths[1:])) + " |" for line in lines]
    return "\n".join([*told, *(f"FAILED {failure}" for failure in result.failures)])


def asked_table(portal: asked.Medians, node: asked.Medians) -> Iterator[str]:
    """Markdown: what was asked for, each line met or missed."""
    yield "| asked for | portal | Node | |"
    yield "| --- | ---: | ---: | --- |"
    for line, ours, theirs, is_met in asked.answers(portal, node):
        said = "met" if is_met else "**missed**"
        yield f"| {line.asked} | {_cell(ours)} | {_cell(theirs)} | {said} |"


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _ratio(result: Result, row: Row, peer: str) -> str:
    ours, theirs = result.median("portal", row.name), result.median(peer, row.name)
    if not row.better or not ours or not theirs:
        return ""
    ratio = ours / theirs if row.better == "higher" else theirs / ours
    return f"{ratio:.2f}x"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def write(result: Result, folder: Path) -> None:
    """latest.json with every value, latest.md with the table, latest.svg with the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "scale": asdict(result.scale),
        "rounds": result.rounds,
        "medians": {peer: {name: result.median(peer, name) for name in found} for peer, found in result.values.items()},
        "values": result.values,
        "failures": result.failures,
    }
    (folder / "latest.json").write_text(json.dumps(told, indent=1) + "\n")
    medians: dict[str, dict[str, float]] = told["medians"]
    both = asked_table(medians.get("portal", {}), medians.get("node", {}))
    (folder / "latest.md").write_text("\n".join([_head(told), "", table(result), "", *both, ""]))
    panels = [_panel(result, row, title) for row, title in result.rows() if row.is_drawn]
    (folder / "latest.svg").write_text(picture.draw(panels))


def _head(told: Mapping[str, Any]) -> str:
    where = f"{told['machine']}, Python {told['python']}, rounds: {told['rounds']}; medians"
    meaning = "In the last columns the portal beside that peer: above 1 the portal is better."
    return f"# Measured on {str(told['at'])[:10]}\n\n{where}. {meaning}"


def _panel(result: Result, row: Row, title: str) -> picture.Panel:
    medians = [(peer, result.median(peer, row.name)) for peer in result.peers]
    bars = [(peer, value, _cell(value)) for peer, value in medians if value is not None]
    return picture.Panel(title, f"{row.better} is better" if row.better else "", bars)
