"""The unread store: sets of message ids, in any order, twice, as two processes write them (docs/delivery.md)."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from messaging import unread, wire
from messaging.unread import InboxRef, Read, Record
from messaging.wire import Message, ThreadAddress, TopicSummary

pytestmark = pytest.mark.django_db

START = datetime(2026, 7, 2, 9, 0, tzinfo=UTC)
ADDRESS = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")


def message(number: int, topic: str = "t", kind: str = "Chat", direction: str = "Outgoing") -> Message:
    moment = (START + timedelta(seconds=number)).isoformat()
    return wire.message(
        {"id": f"m{number:03d}", "createdAt": moment, "scope": topic, "messageType": kind, "direction": direction}
    )


def record(inbox: InboxRef, number: int, topic: str = "t") -> Record:
    return Record(inbox, message(number, topic), datetime.now(UTC))


@pytest.fixture
def inbox() -> InboxRef:
    return unread.open_inbox(ADDRESS, [], {})


def test_it_counts_a_message_once_however_often_it_is_recorded(inbox: InboxRef) -> None:
    assert unread.apply([record(inbox, 1), record(inbox, 1)])[inbox] == {"t": 1}
    assert unread.apply([record(inbox, 1)])[inbox] == {"t": 1}


def test_what_was_read_stays_read_when_it_is_recorded_again_in_the_same_batch(inbox: InboxRef) -> None:
    unread.apply([record(inbox, 1)])
    assert unread.apply([Read(inbox, "t"), record(inbox, 1)])[inbox] == {}
    assert unread.apply([record(inbox, 1)])[inbox] == {}


def test_what_comes_after_a_read_is_unread(inbox: InboxRef) -> None:
    assert unread.apply([record(inbox, 1), Read(inbox, "t"), record(inbox, 2)])[inbox] == {"t": 1}


def test_it_reads_up_to_a_place_and_named_messages_only(inbox: InboxRef) -> None:
    unread.apply([record(inbox, number) for number in range(5)])
    assert unread.apply([Read(inbox, "t", up_to=message(1).order)])[inbox] == {"t": 3}
    assert unread.apply([Read(inbox, "t", message_ids=frozenset({"m004", "m000", "nobody"}))])[inbox] == {"t": 2}
    assert unread.apply([Read(inbox, "other")])[inbox] == {"t": 2}


@pytest.mark.parametrize(("kind", "direction"), [("Data", "Outgoing"), ("Reasoning", "Outgoing"), ("Chat", "Incoming")])
def test_only_answers_count(inbox: InboxRef, kind: str, direction: str) -> None:
    """D2"""
    row = Record(inbox, message(1, kind=kind, direction=direction), datetime.now(UTC))
    assert unread.apply([row])[inbox] == {}


def test_the_first_visit_settles_what_is_there(inbox: InboxRef) -> None:
    """D7, F109"""
    address = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "bob@acme.example")
    newest = TopicSummary("t", 9, START + timedelta(seconds=3))
    his = unread.open_inbox(address, [newest], {})
    found = unread.apply([record(his, number) for number in range(6)])
    assert found[his] == {"t": 2}
    assert unread.open_inbox(address, [], {}) == his
    assert unread.topic_states([his])[his]["t"].count == 9


def test_a_deleted_topic_takes_what_was_seen_and_leaves_what_came_later(inbox: InboxRef) -> None:
    """F105"""
    unread.apply([record(inbox, 1), record(inbox, 2), record(inbox, 9)])
    assert unread.drop_topics(inbox, {"t": message(2).order}) == {"t": 1}
    assert unread.apply([record(inbox, 1), record(inbox, 2)])[inbox] == {"t": 1}


def test_an_id_of_another_topic_or_inbox_has_no_place_here(inbox: InboxRef) -> None:
    """F104, F125"""
    other = unread.open_inbox(ThreadAddress("acme", "Invoice Helper", "Nordic desk", "bob@acme.example"), [], {})
    unread.apply([record(inbox, 1)])
    assert unread.order_of(inbox, "t", "m001") == message(1).order
    assert unread.order_of(inbox, "u", "m001") is None
    assert unread.order_of(other, "t", "m001") is None


def test_topics_of_any_name_are_kept_apart(inbox: InboxRef) -> None:
    """F107"""
    names = ["", "general-discussions", "T", "t", " t ", "x" * 10_000, "é", "e\u0301", "a/b?c#d", "\u202ertl"]
    unread.apply([record(inbox, number, topic) for number, topic in enumerate(names)])
    assert unread.counts([inbox])[inbox] == dict.fromkeys(names, 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_the_same_records_and_reads_of_named_messages_ends_in_the_same_state(
    inbox: InboxRef, seed: int
) -> None:
    """D1, I1, I2: what two processes, replays and restarts amount to."""
    dice = random.Random(seed)
    changes: list[Record | Read] = []
    changes += [record(inbox, number, f"t{number % 3}") for number in range(30)] * 2
    read = {number for number in range(30) if dice.random() < 0.5}
    changes += [Read(inbox, f"t{n % 3}", message_ids=frozenset({f"m{n:03d}"})) for n in read]
    known: list[Record | Read] = [change for change in changes if isinstance(change, Record)]
    dice.shuffle(known)
    unread.apply(known[: dice.randrange(60)])
    dice.shuffle(known)
    unread.apply([*known, *(change for change in changes if isinstance(change, Read))])
    dice.shuffle(changes)
    for start in range(0, len(changes), 7):
        unread.apply(changes[start : start + 7])
    expected = {f"t{n}": sum(number % 3 == n and number not in read for number in range(30)) for n in range(3)}
    assert unread.counts([inbox])[inbox] == {topic: count for topic, count in expected.items() if count}
