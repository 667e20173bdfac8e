"""What the fuzzers begin with: the cases of sse-cases.json, the pieces that streams are made of, and ways to cut."""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
"""How often a property is tried; `make fuzz` asks for more than `make test`."""

_FILE = Path(__file__).parent.parent / "messaging" / "sse-cases.json"

PIECES = (
    *(b"data", b"event", b"id", b"retry", b"data:", b"data: ", b"event:", b"event: ", b"id:", b"id: ", b"retry:"),
    *(b":", b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\x00", b"\xef\xbb\xbf", b"\xef\xbb"),
    *(
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f",
        b"\x80",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x0b\x0c\x1c",
    ),
    *(b"x", b"7", b"1500", b"0" * 16, b"x" * 40, b"Data", b"datax", b"heartbeat", b"message", '{"a":"ä"}'.encode()),
)
"""Joined at random they make every rule of the standard matter; purely random bytes hardly ever do."""


FIELDS = (b"data:", b"data: ", b"data", b"event:", b"event: ", b"id:", b"id: ", b"id", b"retry:", b":", b"x: ", b"")
ENDS = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"")
"""A line is a field, a piece and an end."""


@dataclass(frozen=True)
class Case:
    name: str
    chunks: tuple[bytes, ...]


def all_cases() -> list[Case]:
    """The cases of sse-cases.json, as they are cut there."""
    return [
        Case(case["name"], tuple(base64.b64decode(chunk) for chunk in case["chunks_base64"]))
        for case in json.loads(_FILE.read_text())
    ]


def cut(stream: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`stream` in pieces of these sizes (0: an empty chunk), and what is left in one."""
    start = 0
    for size in sizes:
        if start >= len(stream):
            break
        yield stream[start : start + size]
        start += size
    yield stream[start:]


def random_stream(dice: random.Random) -> bytes:
    pieces = []
    for _ in range(dice.randint(1, 20)):
        is_line = dice.random() < 0.7
        pieces += [dice.choice(FIELDS), dice.choice(PIECES), dice.choice(ENDS)] if is_line else [dice.choice(PIECES)]
    return b"".join(pieces)


def random_cuts(dice: random.Random, stream: bytes) -> list[bytes]:
    longest = max(6, len(stream) // 50)
    return list(cut(stream, [dice.randint(0, longest) for _ in range(dice.randint(0, min(len(stream), 200)))]))
