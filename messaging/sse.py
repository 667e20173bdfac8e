"""Server-sent events, sans I/O: bytes in -> events out, event in -> bytes out.

The decoder reads as the WHATWG standard says (https://html.spec.whatwg.org/multipage/server-sent-events.html,
cases S1.. in shared/sse-cases.json) and adds one policy: nothing is buffered beyond `max_bytes`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

MAX_EVENT_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_LONGEST_FIELD = 6
_USUAL_LINES = 3
_MAX_RETRY_DIGITS = 15
_EVENT_NAME = re.compile(r"[^\r\n\x00:]+")


class Event(NamedTuple):
    """One dispatched event; `event` is "message" when the stream named none."""

    event: str
    data: str
    id: str


class EventTooLarge(ValueError):
    """A line or an event is over the limit. The decoder is spent: drop the connection."""


class Decoder:
    """Turns chunks of one response into events, however the bytes were cut.

    `feed` raises EventTooLarge when one line, its field's name included, or one event's data passes `max_bytes`;
    comments and unknown fields may be of any length, they are skipped unread. What is unfinished when the response
    ends is dropped, as the standard asks: just forget the decoder.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self.retry: int | None = None
        self._max_bytes = max_bytes
        self._start: bytes | None = b""  # bytes held back until we know whether they are a byte order mark
        self._line = bytearray()  # the unfinished line
        self._skipping = False  # the unfinished line is a comment or an unknown field
        self._after_cr = False  # a LF that comes now belongs to the CR before it
        self._data: bytes | bytearray | None = None  # of the event so far; bytes while it is one line
        self._event = b""
        self._id = ""
        self._events: list[Event] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with this chunk."""
        if self._start is not None:
            chunk = self._without_mark(self._start + chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            rest = self._finish_lines_of_any_kind(chunk)
        else:
            *lines, rest = chunk.split(b"\n")
            if len(lines) == _USUAL_LINES and self._is_usual(lines, rest):
                name, data, _ = lines
                return [self._event_of(name[7:], data[6:])]
            for line in lines:
                self._finish_line(line)
        if rest:
            self._hold(rest)
        events, self._events = self._events, []
        return events

    def _is_usual(self, lines: list[bytes], rest: bytes) -> bool:
        """Whether this is a name, a line of data and an end, and nothing before or behind: most chunks are."""
        name, data, end = lines
        return (
            not (end or rest or self._line or self._skipping or self._event)
            and self._data is None
            and name.startswith(b"event: ")
            and data.startswith(b"data: ")
            and len(name) <= self._max_bytes
            and len(data) <= self._max_bytes
        )

    def _without_mark(self, chunk: bytes) -> bytes:
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            self._start = chunk
            return b""
        self._start = None
        return chunk.removeprefix(_BOM)

    def _finish_lines_of_any_kind(self, chunk: bytes) -> bytes:
        position = 0
        for end in _LINE_END.finditer(chunk):
            self._finish_line(chunk[position : end.start()])
            position = end.end()
        self._after_cr = chunk.endswith(b"\r")
        return chunk[position:]

    def _hold(self, part: bytes) -> None:
        if self._skipping:
            return
        self._line += part
        if len(self._line) >= _LONGEST_FIELD and not self._line.startswith(_FIELDS):
            self._skipping = True
            self._line.clear()
        elif len(self._line) > self._max_bytes:
            raise EventTooLarge(f"a line of more than {self._max_bytes} bytes")

    def _finish_line(self, rest: bytes) -> None:
        if self._skipping:
            self._skipping = False
            return
        if self._line:
            rest = bytes(self._line) + rest
            self._line.clear()
        if not rest:
            self._dispatch()
            return
        name, _, value = rest.partition(b":")
        if name in (b"data", b"event", b"id", b"retry"):
            if len(rest) > self._max_bytes:
                raise EventTooLarge(f"a line of more than {self._max_bytes} bytes")
            self._set(name, value.removeprefix(b" "))

    def _set(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            if self._data is None:
                self._data = value
            else:
                self._data = self._data if isinstance(self._data, bytearray) else bytearray(self._data)
                self._data += b"\n"
                self._data += value
            if len(self._data) > self._max_bytes:
                raise EventTooLarge(f"an event of more than {self._max_bytes} bytes")
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\x00" not in value:
                self._id = value.decode("utf-8", "replace")
        elif value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)

    def _dispatch(self) -> None:
        event, self._event = self._event, b""
        if self._data is None:
            return
        data, self._data = self._data, None
        self._events.append(self._event_of(event, data))

    def _event_of(self, name: bytes, data: bytes | bytearray) -> Event:
        return Event(name.decode("utf-8", "replace") or "message", data.decode("utf-8", "replace"), self._id)


@lru_cache(maxsize=64)
def _is_event_name(text: str) -> bool:
    return _EVENT_NAME.fullmatch(text) is not None


def encode(event: str, data: str, id: str | None = None) -> bytes:
    """One event as bytes. Raises ValueError for a name or an id that could not come back as it was."""
    if not _is_event_name(event):
        raise ValueError("an event name must be one non-empty line")
    head = f"event: {event}\n"
    if id is not None:
        if "\n" in id or "\r" in id or "\x00" in id:
            raise ValueError("an event id must be one line without NUL")
        head = f"id: {id}\n{head}"
    if "\n" in data or "\r" in data:
        data = re.sub(r"\r\n|\r|\n", "\ndata: ", data)
    return f"{head}data: {data}\n\n".encode("utf-8", "replace")
