"""Log lines that stay one line, whatever a stranger wrote into them (reliability.md F133)."""

from __future__ import annotations

import logging

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160)) if code != 9}


class OneLine(logging.Filter):
    """Escapes control characters in a record's message; tracebacks keep their lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = record.getMessage().translate(_ESCAPES)
        record.args = None
        return True
