"""The event-stream rules of the WHATWG standard (section 9.2.6), read naively over all the bytes at once.

This is what messaging.sse is compared with: slow, and meant to be seen to be right. Sentences in quotes are the
standard's. Ours are the limits: a field's line and an event's data are refused over `max_bytes`, and a `retry` of
more than 15 digits is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from messaging.sse import Event


@dataclass
class Reading:
    """What a stream says. `is_too_large`: a limit was passed; the events are then those before it."""

    events: list[Event] = field(default_factory=list)
    retry: int | None = None
    is_too_large: bool = False


@dataclass
class _Buffers:
    data: str = ""
    event: str = ""
    last_id: str = ""


def read(stream: bytes, max_bytes: int) -> Reading:
    """Everything that these bytes say, up to the first thing that is too large."""
    # One leading byte order mark is stripped, as "UTF-8 decode" does.
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    # "Streams must be decoded using the UTF-8 decode algorithm", which replaces what is not UTF-8.
    lines = re.split("\r\n|\n|\r", stream.decode("utf-8", "replace"))
    raw_lines = re.split(b"\r\n|\n|\r", stream)  # the same lines as they came: limits are in bytes
    assert len(lines) == len(raw_lines)

    reading, buffers, data_bytes = Reading(), _Buffers(), 0
    for line, raw in zip(lines[:-1], raw_lines[:-1], strict=True):
        data_bytes = data_bytes + _data_bytes(raw) if raw else 0
        if (_is_field(raw) and len(raw) > max_bytes) or data_bytes - 1 > max_bytes:
            reading.is_too_large = True
            return reading
        _process(line, buffers, reading)
    # "Once the end of the file is reached, any pending data must be discarded." But it had to be held until then.
    reading.is_too_large = _is_field(raw_lines[-1]) and len(raw_lines[-1]) > max_bytes
    return reading


def _process(line: str, buffers: _Buffers, reading: Reading) -> None:
    if line == "":  # "If the line is empty (a blank line): dispatch the event"
        _dispatch(buffers, reading)
    elif line.startswith(":"):  # "If the line starts with a U+003A COLON character (:): ignore the line."
        pass
    elif ":" in line:  # "Collect the characters on the line before the first colon; if value starts with a space, …"
        name, _, value = line.partition(":")
        _field(name, value[1:] if value[:1] == " " else value, buffers, reading)
    else:  # "using the whole line as the field name, and the empty string as the field value"
        _field(line, "", buffers, reading)


def _field(name: str, value: str, buffers: _Buffers, reading: Reading) -> None:
    if name == "event":
        buffers.event = value
    elif name == "data":
        buffers.data += value + "\n"
    elif name == "id" and "\x00" not in value:
        buffers.last_id = value
    elif name == "retry" and re.fullmatch("[0-9]{1,15}", value):
        reading.retry = int(value)


def _dispatch(buffers: _Buffers, reading: Reading) -> None:
    # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
    # return. If the data buffer's last character is LF, then remove [it]."
    if buffers.data != "":
        reading.events.append(Event(buffers.event or "message", buffers.data[:-1], buffers.last_id))
    buffers.data = buffers.event = ""


def _is_field(raw: bytes) -> bool:
    return raw.startswith((b"data:", b"event:", b"id:", b"retry:"))


def _data_bytes(raw: bytes) -> int:
    if raw == b"data":
        return 1
    return len(raw.removeprefix(b"data:").removeprefix(b" ")) + 1 if raw.startswith(b"data:") else 0
