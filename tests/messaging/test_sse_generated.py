"""The decoder's obligations beyond the table (reliability.md section 4): sizes that no file of cases should hold."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from messaging.sse import MAX_EVENT_BYTES, Decoder, Event, EventTooLarge

MIB = 1 << 20
CHUNK = 16 * 1024
ENOUGH_SECONDS = 30  # each takes well under two; what is quadratic takes hours


def feed(decoder: Decoder, start: bytes, filling: bytes, size: int) -> int:
    """Feed `start` and then `size` bytes of `filling`, a read at a time; how many bytes were taken until it refused."""
    decoder.feed(start)
    piece = filling * (CHUNK // len(filling))
    taken = 0
    while taken < size:
        decoder.feed(piece)
        taken += len(piece)
    return taken


@pytest.mark.parametrize(
    ("start", "filling"),
    [
        pytest.param(b"data: ", b"x", id="5 MiB in one data line"),
        pytest.param(b"event: Chat\ndata:", b"x", id="64 MiB without a line end"),
        pytest.param(b"event: ", b"x", id="a name without an end"),
        pytest.param(b"", b"data: xxxxxxxxxxxxxxxxxxxxxxxxx\r", id="endless lines"),
    ],
)
def test_it_refuses_before_it_buffers(start: bytes, filling: bytes) -> None:
    """F31, F32: it raises as soon as the limit is passed, with no more than about the limit in memory."""
    decoder = Decoder()
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(EventTooLarge, match=str(MAX_EVENT_BYTES)):
        feed(decoder, start, filling, 64 * MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB
    assert time.monotonic() - began < ENOUGH_SECONDS


def test_it_refuses_more_than_a_million_empty_data_lines() -> None:
    """F31: each of them is a line end of the data."""
    decoder = Decoder()
    began = time.monotonic()
    decoder.feed(b"data:\n" * 1_000_000)
    with pytest.raises(EventTooLarge, match=str(MAX_EVENT_BYTES)):
        decoder.feed(b"data:\n" * 100_000)
    assert time.monotonic() - began < ENOUGH_SECONDS


def test_it_takes_an_event_just_under_the_limit() -> None:
    """F31: a line may be as long as the limit, and so may the data of many lines."""
    text = b"x" * (MAX_EVENT_BYTES - len(b"data: "))
    decoder = Decoder()
    events = [*decoder.feed(b"data: " + text[: MIB // 2]), *decoder.feed(text[MIB // 2 :]), *decoder.feed(b"\n\n")]
    assert [len(event.data) for event in events] == [len(text)]
    lines = MAX_EVENT_BYTES
    (event,) = [e for part in (b"data:\n" * lines, b"\n") for e in decoder.feed(part)]
    assert event.data == "\n" * (lines - 1)


@pytest.mark.parametrize("start", [b":", b"unknown: "])
def test_it_skips_64_mib_that_it_does_not_need(start: bytes) -> None:
    """F33: without storing them and without losing what follows."""
    decoder = Decoder()
    tracemalloc.start()
    began = time.monotonic()
    assert feed(decoder, start, b"x", 64 * MIB) >= 64 * MIB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB
    assert decoder.feed(b"\ndata: y\n\n") == [Event("message", "y", "")]
    assert time.monotonic() - began < ENOUGH_SECONDS


def test_it_reads_a_hundred_thousand_events_of_one_chunk_in_order() -> None:
    """F43: 10⁵ events in one chunk."""
    count = 100_000
    began = time.monotonic()
    events = Decoder().feed(b"".join(b"event: Chat\nid: %d\ndata: message %d\n\n" % (n, n) for n in range(count)))
    assert [event.data for event in events] == [f"message {n}" for n in range(count)]
    assert events[-1] == Event("Chat", f"message {count - 1}", str(count - 1))
    assert time.monotonic() - began < ENOUGH_SECONDS
