"""The JSON library for a message of 600 bytes, and passing its text on against writing it anew."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Callable
from functools import partial

import orjson

from benchmarks.choices.inside import cpu_us
from benchmarks.choices.table import Table
from benchmarks.threads import Stamps, Thread, participant
from messaging import sse, wire

_TIMES = 20_000
_CURSOR = "1.00001795381234567-0123456789abcdef.5f1c0d2e4b6a"


def main(rounds: int) -> None:
    event = _event()
    reading = Table(f"Reading a message of {len(event.data)} characters", chosen="orjson")
    passing = Table("From upstream's event to ours, the message's reading included", chosen="text as it came")
    decoders = _decoders()
    ways = _ways(event)
    for _ in range(max(rounds, 5)):
        for name, decode in decoders.items():
            reading.add(name, {"CPU us": cpu_us(partial(decode, event.data), times=_TIMES)})
        for name, way in ways.items():
            passing.add(name, {"CPU us": cpu_us(way, times=_TIMES)})
    reading.show()
    passing.show()


def _event() -> sse.Event:
    now = time.perf_counter_ns()
    chunk = Thread(1, participant(1)).write(now, Stamps().at(now))
    [event] = sse.Decoder().feed(chunk)
    return event


def _decoders() -> dict[str, Callable[[str], object]]:
    found: dict[str, Callable[[str], object]] = {"orjson": orjson.loads, "json": json.loads}
    for module, function in (("ujson", "loads"), ("msgspec.json", "decode")):
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            found[module] = getattr(importlib.import_module(module), function)
    return found


def _ways(event: sse.Event) -> dict[str, Callable[[], bytes]]:
    def passed() -> bytes:
        wire.streamed(event.data, event.event)
        return sse.encode(event.event, event.data, _CURSOR)

    def by_an_object() -> bytes:
        wire.message(wire.load_json(event.data), event=event.event, keeps_raw=False)
        return sse.encode(event.event, event.data, _CURSOR)

    def with_json() -> bytes:
        raw = wire.load_json(event.data)
        wire.message(raw, event=event.event, keeps_raw=False)
        return sse.encode(event.event, wire.stream_json(raw), _CURSOR)

    def with_orjson() -> bytes:
        raw = wire.load_json(event.data)
        wire.message(raw, event=event.event, keeps_raw=False)
        return sse.encode(event.event, orjson.dumps(raw).decode(), _CURSOR)

    return {
        "text as it came": passed,
        "text as it came, read by way of an object": by_an_object,
        "written anew by json": with_json,
        "written anew by orjson": with_orjson,
    }
