"""Bars as SVG, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.note, .peer { fill: #59636e; }
.bar { fill: #9aa4ae; }
.ours { fill: #0969da; }
.track { fill: #eef1f4; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note, .peer { fill: #9198a1; }
  .bar { fill: #6e7681; }
  .ours { fill: #4493f8; }
  .track { fill: #21262d; }
}"""
_OURS = ("portal", "several")
_COLUMNS, _WIDTH, _GAP = 2, 470, 20
_LINE, _HEAD, _FOOT = 24, 30, 22
_NAME, _LENGTH = 58, 290


@dataclass(frozen=True, slots=True)
class Panel:
    """One number: `bars` are (whose, value, value as text)."""

    title: str
    note: str
    bars: Sequence[tuple[str, float, str]]


def draw(panels: Sequence[Panel]) -> str:
    rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    parts: list[str] = []
    top = 10
    for row in rows:
        for column, panel in enumerate(row):
            parts += _panel(panel, 10 + column * (_WIDTH + _GAP), top)
        top += _HEAD + _LINE * max(len(panel.bars) for panel in row) + _FOOT
    width = 20 + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" role="img" aria-label="Benchmarks">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>\n"])


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    title = f'<tspan class="title">{escape(panel.title)}</tspan> <tspan class="note">{escape(panel.note)}</tspan>'
    parts = [f'<text x="{left}" y="{top + 16}">{title}</text>']
    longest = max((value for _, value, _ in panel.bars), default=0) or 1
    for number, (whose, value, text) in enumerate(panel.bars):
        y = top + _HEAD + number * _LINE
        kind = "ours" if whose in _OURS else "bar"
        x, length = left + _NAME, max(round(_LENGTH * value / longest), 1)
        parts += [
            f'<text class="peer" x="{left}" y="{y + 13}">{escape(whose)}</text>',
            f'<rect class="track" x="{x}" y="{y}" width="{_LENGTH}" height="17" rx="3"/>',
            f'<rect class="{kind}" x="{x}" y="{y}" width="{length}" height="17" rx="3"/>',
            f'<text x="{x + _LENGTH + 8}" y="{y + 13}">{escape(text)}</text>',
        ]
    return parts
