"""Results as a table, as JSON, and as a picture."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import Numbers, Scale


@dataclass(frozen=True, slots=True)
class Result:
    """Medians by peer and name."""

    scale: Scale
    rounds: int
    peers: Sequence[str]
    numbers: dict[str, Numbers]
    failures: list[str]


def table(result: Result) -> str:
    names = list(dict.fromkeys(name for numbers in result.numbers.values() for name in numbers))
    width = max([len(name) for name in names], default=4)
    lines = [" | ".join(["".ljust(width), *(peer.rjust(10) for peer in result.peers)])]
    for name in names:
        cells = [_cell(result.numbers[peer].get(name)) for peer in result.peers]
        lines.append(" | ".join([name.ljust(width), *(cell.rjust(10) for cell in cells)]))
    return "\n".join([*lines, *(f"FAILED {failure}" for failure in result.failures)])


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def write(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "scale": asdict(result.scale),
        "rounds": result.rounds,
        "numbers": result.numbers,
        "failures": result.failures,
    }
    (folder / "latest.json").write_text(json.dumps(told, indent=2) + "\n")
