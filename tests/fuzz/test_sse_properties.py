"""Whatever bytes come, however they are cut: the decoder reads them as the reference does, and keeps little."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging import sse
from messaging.sse import Decoder, Event, EventTooLarge, encode
from tests.fuzz.cases import ENDS, EXAMPLES, FIELDS, PIECES, Case, all_cases, cut, random_cuts
from tests.fuzz.compare import difference
from tests.fuzz.reference import read

LIMIT = 1 << 20
RANDOM_CUTS = 20

often = settings(max_examples=EXAMPLES, deadline=None)
lines = st.tuples(st.sampled_from(FIELDS), st.sampled_from(PIECES) | st.just(b""), st.sampled_from(ENDS)).map(b"".join)
streams = st.lists(lines | st.sampled_from(PIECES) | st.binary(max_size=12), max_size=40).map(b"".join)
sizes = st.lists(st.integers(0, 9), max_size=60)
limits = st.integers(8, 60) | st.just(LIMIT)


@given(streams, sizes, limits)
@often
def test_it_reads_any_bytes_cut_anywhere_as_the_standard_does(stream: bytes, sizes: list[int], limit: int) -> None:
    assert difference(list(cut(stream, sizes)), limit) == ""


@given(st.binary(max_size=300), sizes)
@often
def test_it_reads_noise_as_the_standard_does(stream: bytes, sizes: list[int]) -> None:
    assert difference(list(cut(stream, sizes)), LIMIT) == ""


@given(streams)
@often
def test_it_says_the_same_byte_by_byte(stream: bytes) -> None:
    """An event is complete with the line end that dispatches it: nothing waits for the byte behind."""
    decoder = Decoder()
    events: list[Event] = []
    for end in range(1, len(stream) + 1):
        events += decoder.feed(stream[end - 1 : end])
        assert events == read(stream[:end], LIMIT).events


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name.split()[0])
def test_the_reference_agrees_on_every_known_case(case: Case) -> None:
    dice = random.Random(case.name)
    stream = b"".join(case.chunks)
    ways = [list(case.chunks), [stream], [stream[i : i + 1] for i in range(len(stream))]]
    ways += [random_cuts(dice, stream) for _ in range(RANDOM_CUTS)]
    assert [difference(way, LIMIT) for way in ways] == [""] * len(ways)


names = st.text(min_size=1).filter(lambda name: not set(name) & set("\r\n\x00:"))
ids = st.text().filter(lambda text: not set(text) & set("\r\n\x00"))


@given(st.lists(st.tuples(names, st.text(), ids), max_size=5), sizes)
@often
def test_what_is_written_is_read_and_nothing_else(said: list[tuple[str, str, str]], sizes: list[int]) -> None:
    """F124: whatever stands in a name, an id or data, one event written is one event read, the same one.

    A line end of any kind comes back as LF, and half a surrogate pair as a question mark: neither can be sent.
    """
    written = b"".join(encode(name, data, event_id) for name, data, event_id in said)
    expected = [Event(_sendable(name), _lines(_sendable(data)), _sendable(event_id)) for name, data, event_id in said]
    decoder = Decoder()
    assert [event for chunk in cut(written, sizes) for event in decoder.feed(chunk)] == expected
    assert decoder.retry is None


@given(st.text(), st.text(), st.none() | st.text())
@often
def test_it_writes_one_event_or_refuses(name: str, data: str, event_id: str | None) -> None:
    """F124"""
    try:
        written = encode(name, data, event_id)
    except ValueError:
        assert not name or set(name + (event_id or "")) & set("\r\n\x00:")
        return
    assert len(Decoder().feed(written)) == 1
    assert len(read(written, LIMIT).events) == 1


def _sendable(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "?", text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _endless(unit: bytes, chunk_bytes: int, total: int) -> Iterator[bytes]:
    chunk = unit * (chunk_bytes // len(unit))
    for _ in range(total // len(chunk)):
        yield chunk


ENDLESS = [
    *(b"x", b":", b"data", b"data:", b"data: x\n", b"data\r", b"event: x", b"id: y\n", b"retry: 1", b"unknown: x\n"),
    *(b": keep-alive\n\n", b"\n", b"\xef\xbb", b"\xff", b"id: 5\ndata: x\nevent: y\n\n", b"event: x\n\n", b" "),
]


@pytest.mark.parametrize("unit", ENDLESS, ids=repr)
@pytest.mark.parametrize("start", [b"", b"data: ", b"event: ", b"id: ", b": ", b"retry: "], ids=repr)
def test_it_never_holds_more_than_its_limit(start: bytes, unit: bytes) -> None:
    """F31, F32, F33: whatever never ends is refused or skipped; the memory of a decoder stays within small bounds."""
    limit, chunk_bytes = 4_000, 2_048
    decoder = Decoder(limit)
    tracemalloc.start()
    try:
        with suppress(EventTooLarge):
            decoder.feed(start)
            for chunk in _endless(unit, chunk_bytes, 120_000):
                decoder.feed(chunk)
        held = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=True, filename_pattern=sse.__file__)]
        )
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in held.traces) < 4 * limit + 20 * chunk_bytes
