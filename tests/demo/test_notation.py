"""JSON and timestamps as the real server writes them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from demo.xians import notation
from demo.xians.switchboard import frame, pascal
from tests.demo.contract import EXAMPLES

EVENTS: dict[str, Any] = {name: event for name, event in EXAMPLES["sse"]["events"].items() if "raw" in event}


@pytest.mark.parametrize("name", EVENTS)
def test_it_writes_every_example_event_byte_for_byte(name: str) -> None:
    event = EVENTS[name]
    assert frame(event["event"], event["data"]) == event["raw"].encode()


@pytest.mark.parametrize("pair", EXAMPLES["dataRoundTrips"], ids=lambda pair: json.dumps(pair["sent"]))
def test_it_returns_data_as_the_server_does(pair: dict[str, Any]) -> None:
    stored = notation.stored_form(pair["sent"])
    assert json.dumps(notation.data_in_history(stored)) == json.dumps(pair["history"])
    assert json.dumps(notation.data_in_event(stored)) == json.dumps(pair["sse"])


@pytest.mark.parametrize("text", [one for one in EXAMPLES["timestamps"] if not one.startswith("0001")])
def test_it_reads_and_writes_the_example_timestamps(text: str) -> None:
    if len(text) > len("2026-07-02T09:15:00.183450Z"):
        assert notation.timestamp(notation.moment(text), digits=7)[:-2] == text[:-2]
    else:
        assert notation.timestamp(notation.moment(text)) == text


@pytest.mark.parametrize(
    ("digits", "text"),
    [
        (0, "09:15:04Z"),
        (1, "09:15:04.4Z"),
        (3, "09:15:04.412Z"),
        (6, "09:15:04.412000Z"),
        (7, "09:15:04.4120002Z"),
    ],
)
def test_it_writes_as_many_digits_as_wanted(digits: int, text: str) -> None:
    moment = datetime(2026, 7, 2, 9, 15, 4, 412_000, tzinfo=UTC)
    assert notation.timestamp(moment, digits=digits) == f"2026-07-02T{text}"


def test_it_takes_a_timestamp_without_a_zone_as_utc() -> None:
    assert notation.moment("0001-01-01T00:00:00") == datetime(1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "strict", "relaxed"),
    [
        ('a"b', r"a\u0022b", r"a\"b"),
        ("it's <b>&+`", r"it\u0027s \u003Cb\u003E\u0026\u002B\u0060", "it's <b>&+`"),
        ("€ Å", r"\u20AC \u00C5", "€ Å"),
        ("👍", r"\uD83D\uDC4D", r"\uD83D\uDC4D"),
        ("a\nb\t\\u00e5", r"a\nb\t\\u00e5", r"a\nb\t\\u00e5"),
        ("\x01\x1f\x7f", r"\u0001\u001F\u007F", r"\u0001\u001F\u007F"),
        ("\u2028\u00a0", r"\u2028\u00A0", r"\u2028\u00A0"),
        ("\ud800", r"\uFFFD", "\ufffd"),
    ],
)
def test_it_escapes_like_the_two_escapers(text: str, strict: str, relaxed: str) -> None:
    assert notation.strict(text) == f'"{strict}"'
    assert notation.relaxed(text) == f'"{relaxed}"'


def test_it_keeps_the_scale_of_decimals() -> None:
    value = notation.parse(b'{"amount": 120.50, "many": 12345678901234567890}')
    assert value["amount"] == Decimal("120.50")
    assert notation.relaxed(value) == '{"amount":120.50,"many":12345678901234567890}'


@pytest.mark.parametrize("text", ["{", "NaN", "[" * 100_000])
def test_it_calls_everything_unreadable_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        notation.parse(text)


def test_it_turns_only_top_level_keys_to_pascal_case() -> None:
    assert pascal({"messageType": "Data", "data": {"aKey": 1}}) == {
        "MessageType": "Data",
        "Data": {"aKey": 1},
    }
