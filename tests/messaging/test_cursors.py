"""Cursors: only what an inbox gave out is read back, exactly as it was."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.cursors import LONGEST, MOST_MARKS, Sealer, Span, mark
from messaging.wire import order_at, order_of

SECRET = b"secret"
MOMENT = datetime(2026, 7, 2, 9, 15, 4, 412_000, tzinfo=UTC)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)), st.text(min_size=1))
def test_it_reads_what_it_wrote(moment: datetime, message_id: str) -> None:
    order = order_of(moment, message_id)
    cursor = Sealer(SECRET, "inbox").read(Sealer(SECRET, "inbox").write(order, 1_800_000_000_123))
    assert cursor is not None
    assert cursor.order == order
    assert cursor.sent_at == datetime.fromtimestamp(1_800_000_000.123, UTC)


def test_it_refuses_another_inbox_another_secret_and_every_changed_letter() -> None:
    written = Sealer(SECRET, "inbox").write(order_of(MOMENT, "6a462c1bc0ffee0000000013"), 1)
    assert len(written) <= 64
    assert Sealer(SECRET, "other").read(written) is None
    assert Sealer(b"other", "inbox").read(written) is None
    for position in range(len(written)):
        letter = "0" if written[position] != "0" else "1"
        changed = written[:position] + letter + written[position + 1 :]
        assert Sealer(SECRET, "inbox").read(changed) is None


@pytest.mark.parametrize("text", ["", "x", "\x00", "1" * 1_000_000, "..", "00000000000000001-a.1.", "é" * 50])
def test_it_refuses_what_is_not_a_cursor(text: str) -> None:
    assert Sealer(SECRET, "inbox").read(text) is None


def test_places_sort_by_time_then_id() -> None:
    later = MOMENT + timedelta(microseconds=1)
    places = [
        order_at(MOMENT),
        order_of(MOMENT, "6a462c1bc0ffee0000000013"),
        order_of(MOMENT, "6a462c1bc0ffee0000000014"),
        order_of(MOMENT, "an id that no cursor may carry as it is"),
        order_at(later),
        order_of(later, "0"),
    ]
    assert places == sorted(places)


@given(st.lists(st.text(min_size=1), unique=True, max_size=MOST_MARKS), st.text(min_size=1))
def test_it_names_what_its_holder_had_behind_its_place(ids: list[str], other: str) -> None:
    order = order_of(MOMENT, "6a462c1bc0ffee0000000013")
    cursor = Sealer(SECRET, "inbox").read(Sealer(SECRET, "inbox").write(order, 1, "".join(map(mark, ids))))
    assert cursor is not None
    assert all(mark(message_id) in cursor.marks for message_id in ids)
    assert (mark(other) in cursor.marks) == (mark(other) in {mark(each) for each in ids})


@given(st.lists(st.text(min_size=1), unique=True), st.randoms())
def test_a_span_knows_a_set_by_its_count_and_sum(ids: list[str], chance: random.Random) -> None:
    order = order_of(MOMENT, "6a462c1bc0ffee0000000013")
    whole = Span(order_at(MOMENT)).with_(ids)
    cursor = Sealer(SECRET, "inbox").read(Sealer(SECRET, "inbox").write(order, 1, "", str(whole)))
    assert cursor is not None
    assert cursor.span == whole
    shuffled = list(ids)
    chance.shuffle(shuffled)
    assert Span(whole.start).with_(shuffled) == whole
    if ids:
        assert Span(whole.start).with_(shuffled[1:]) != whole


def test_no_cursor_is_longer_than_what_is_read() -> None:
    order = order_of(MOMENT, "an id that no cursor may carry as it is")
    span = Span(order_of(MOMENT, "x" * 32)).with_(str(number) for number in range(100_000))
    longest = Sealer(SECRET, "inbox").write(order, 4_000_000_000_000, "abcd" * MOST_MARKS, str(span))
    assert len(longest) <= LONGEST
    assert Sealer(SECRET, "inbox").read(longest) is not None
