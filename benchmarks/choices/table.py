"""Medians of several rounds, and what each is beside the chosen one, as a Markdown table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median

type Numbers = Mapping[str, float]


class Table:
    """Rows by name; `chosen` is the row that the others are compared with."""

    def __init__(self, title: str, *, chosen: str) -> None:
        self._title = title
        self._chosen = chosen
        self._rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, numbers: Numbers) -> None:
        """One more round of a row."""
        values = self._rows.setdefault(row, defaultdict(list))
        for column, value in numbers.items():
            values[column].append(value)

    def show(self) -> None:
        columns = list(dict.fromkeys(column for values in self._rows.values() for column in values))
        print(f"\n{self._title}\n")
        print("| | " + " | ".join(columns) + " |")
        print("|" + " --- |" * (len(columns) + 1))
        for row, values in self._rows.items():
            name = f"**{row}**" if row == self._chosen else row
            print(f"| {name} | " + " | ".join(self._cell(column, values) for column in columns) + " |", flush=True)

    def _cell(self, column: str, values: Mapping[str, list[float]]) -> str:
        if column not in values:
            return "-"
        value = median(values[column])
        beside = self._rows[self._chosen].get(column)
        ratio = f" ({value / median(beside):.2f} x)" if beside and median(beside) else ""
        return f"{value:,.0f}{ratio}" if value >= 100 else f"{value:,.3g}{ratio}"
