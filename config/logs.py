"""Log lines that stay one line, whatever a stranger wrote into them (reliability.md F133)."""

from __future__ import annotations

import logging

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029) if code != 9}
_LONGEST = 8_000
_UNDER = "\n    "


class OneLine(logging.Formatter):
    """One event, one line: control characters are escaped, and what is endless is cut.

    A traceback keeps its lines, indented, so that every line that begins at the margin is an event of its own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return _shown(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… ({len(line)} characters)")

    def format(self, record: logging.LogRecord) -> str:
        event, *traceback = super().format(record).split("\n")
        return _UNDER.join([event, *map(_shown, traceback)])


def _shown(text: str) -> str:
    return text.translate(_ESCAPES)
