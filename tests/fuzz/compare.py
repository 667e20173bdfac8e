"""Feeds a stream to the decoder, however it is cut, and says where it differs from the reference."""

from __future__ import annotations

from collections.abc import Sequence

from messaging.sse import Decoder, Event, EventTooLarge
from tests.fuzz import reference


def difference(chunks: Sequence[bytes], max_bytes: int) -> str:
    """What the decoder makes of these chunks other than the reference does of the same bytes; "" for nothing."""
    decoder = Decoder(max_bytes)
    events: list[Event] = []
    fed = b""
    for chunk in chunks:
        try:
            events += decoder.feed(chunk)
        except EventTooLarge:
            if not reference.read(fed + chunk, max_bytes).is_too_large:
                return f"refused as too large: {fed + chunk!r}"
            expected = reference.read(fed, max_bytes)
            return "" if events == expected.events else f"{events} before a refusal, expected {expected.events}"
        fed += chunk
        if held(decoder) > bound(max_bytes):
            return f"holds {held(decoder)} bytes, at a limit of {max_bytes}"
    expected = reference.read(fed, max_bytes)
    if expected.is_too_large:
        return f"took what is too large: {fed!r}"
    if (events, decoder.retry) != (expected.events, expected.retry):
        return f"{events}, retry {decoder.retry}; expected {expected.events}, retry {expected.retry}"
    return ""


def held(decoder: Decoder) -> int:
    """How many bytes a decoder keeps between two chunks."""
    values = [value for value in vars(decoder).values() if isinstance(value, bytes | bytearray | str | list)]
    return sum(len(value) for value in values)


def bound(max_bytes: int) -> int:
    """What a decoder may keep at most: an unfinished line, the data, the name and the id of the event before it."""
    return 4 * max_bytes + 1
