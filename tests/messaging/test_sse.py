"""The SSE decoder against every case of sse-cases.json (S1..S138), however the bytes are cut, and the encoder."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.sse import Decoder, Event, EventTooLarge, encode

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "sse-cases.json").read_text())
RANDOM_CUTS = 20


def decode(chunks: list[bytes], decoder: Decoder | None = None) -> list[Event]:
    decoder = decoder or Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def cuts(whole: bytes, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    pieces, start = [], 0
    while start < len(whole):
        end = start + dice.randint(1, 9)
        pieces.append(whole[start:end])
        start = end
    return pieces


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]).split()[0])
def test_it_reads_the_case_however_it_is_cut(case: dict[str, Any]) -> None:
    chunks = [base64.b64decode(chunk) for chunk in case["chunks_base64"]]
    whole = b"".join(chunks)
    expected = [Event(event["event"], event["data"], event["id"]) for event in case["events"]]
    ways = [chunks, [whole], [whole[i : i + 1] for i in range(len(whole))]]
    ways += [cuts(whole, seed) for seed in range(RANDOM_CUTS)]
    for way in ways:
        decoder = Decoder()
        assert decode(way, decoder) == expected
        assert decoder.retry == case.get("retry")


def test_it_dispatches_on_a_cr_without_waiting_for_the_next_byte() -> None:
    decoder = Decoder()
    assert decode([b"data: x\r\r"], decoder) == [Event("message", "x", "")]
    assert decode([b"\ndata: y\n\n"], decoder) == [Event("message", "y", "")]


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_it_takes_a_line_of_the_limit_and_no_longer_one(size: int) -> None:
    """F31, F32"""
    line = b"data:" + b"x" * size
    assert decode([line, b"\n\n"], Decoder(size + 5))[0].data == "x" * size
    with pytest.raises(EventTooLarge):
        decode([line, b"y\n\n"], Decoder(size))


def test_it_refuses_an_event_of_endlessly_many_lines() -> None:
    """F31"""
    with pytest.raises(EventTooLarge):
        decode([b"data:\n" * 1000] * 2000)


@pytest.mark.parametrize("start", [b":", b"unknown: ", b"datax"])
def test_it_skips_an_endless_line_that_it_does_not_need_without_storing_it(start: bytes) -> None:
    """F33"""
    decoder = Decoder(1000)
    assert decode([start] + [b"x" * 65536] * 100, decoder) == []
    assert len(decoder._line) < 10
    assert decode([b"\ndata: y\n\n"], decoder) == [Event("message", "y", "")]


_names = st.text(min_size=1).filter(lambda name: not set(name) & set("\r\n\x00:") and name[0] != " ")
_texts = st.text(st.characters(codec="utf-8"))


@given(_names, _texts, st.none() | _texts.filter(lambda text: not set(text) & set("\r\n\x00") and text[:1] != " "))
@settings(max_examples=300, deadline=None)
def test_what_it_writes_it_reads(name: str, data: str, event_id: str | None) -> None:
    """F124: nothing in a name, an id or data makes another event."""
    try:
        written = encode(name, data, event_id)
    except UnicodeEncodeError:
        raise AssertionError("an encoder must not fail on text") from None
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    events = decode([written])
    assert [(event.data, event.id) for event in events] == [(lines, event_id or "")]


@pytest.mark.parametrize(
    ("name", "event_id"), [("a\nb", None), ("", None), ("a:b", None), ("a", "x\ny"), ("a", "\x00")]
)
def test_it_refuses_to_write_what_it_could_not_read(name: str, event_id: str | None) -> None:
    with pytest.raises(ValueError, match="event"):
        encode(name, "x", event_id)


@pytest.mark.parametrize("line", [b"data: " + b"x" * 94, b"data:" + b"x" * 95, b"id: " + b"x" * 96])
def test_its_limit_is_the_same_however_a_line_is_cut(line: bytes) -> None:
    """F31, F32: found by fuzzing: a line that came at once was allowed its field's name on top."""
    ways = [[line + b"\n"], [line, b"\n"], [line[:6], line[6:], b"\n"]]
    for way in ways:
        assert decode(way, Decoder(100)) == []
        with pytest.raises(EventTooLarge):
            decode(way, Decoder(99))
