"""The unread store: sets of message ids, in any order, twice, as two processes write them (docs/delivery.md).

Every test runs on PostgreSQL and on SQLite, except those of locks: SQLite has one writer at a time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from msgspec import structs
from pytest_django import DjangoDbBlocker

from messaging import unread, wire
from messaging.changes import InboxRef, Move, Read, Record, Sheet
from messaging.models import Receipt, Topic
from messaging.unread import Familiar, KnownBefore, LearntAfter, Settlement
from messaging.wire import Message, ThreadAddress, TopicSummary
from tests.services.postgres import Postgres

pytestmark = pytest.mark.django_db

type Counts = dict[InboxRef, dict[str, int]]

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

START = datetime(2026, 7, 2, 9, 0, tzinfo=UTC)
ADDRESS = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")


def message(number: int, topic: str = "t", kind: str = "Chat", direction: str = "Outgoing") -> Message:
    moment = (START + timedelta(seconds=number)).isoformat()
    return wire.message(
        {"id": f"m{number:03d}", "createdAt": moment, "scope": topic, "messageType": kind, "direction": direction}
    )


def record(inbox: InboxRef, number: int, topic: str = "t") -> Record:
    return Record(inbox, message(number, topic), datetime.now(UTC))


@pytest.fixture(scope="module")
def sqlite(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[BaseDatabaseWrapper]:
    """A database in a file, with our tables."""
    name = tmp_path_factory.mktemp("sqlite") / "db.sqlite3"
    one = {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {"transaction_mode": "IMMEDIATE"}}
    other = ConnectionHandler({"default": one})["default"]
    with django_db_blocker.unblock():
        ours, connections["default"] = connections["default"], other
        call_command("migrate", verbosity=0)
        connections["default"] = ours
        yield other
        other.close()


@pytest.fixture(autouse=True, params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, db: None) -> Iterator[str]:
    """What `django.db.connection` leads to in this test."""
    if request.param == "postgresql":
        yield "postgresql"
        return
    sqlite: BaseDatabaseWrapper = request.getfixturevalue("sqlite")
    ours, connections["default"] = connections["default"], sqlite
    with transaction.atomic():
        yield "sqlite"
        transaction.set_rollback(True)
    connections["default"] = ours


@pytest.fixture
def inbox(database: str) -> InboxRef:
    assert connection.vendor == database
    return unread.open_inbox(ADDRESS, [], {})


def another_inbox(number: int) -> InboxRef:
    return unread.open_inbox(structs.replace(ADDRESS, participant_id=f"p{number}@acme.example"), [], {})


def settlement(inbox: InboxRef, *topics: TopicSummary, **more: Any) -> Settlement:
    return Settlement(inbox, START + timedelta(hours=1), topics, **more)


def apply(changes: Sequence[Record | Move | Read]) -> Counts:
    """Carry out changes; the counts of the inboxes that they name."""
    unread.apply(changes)
    return unread.counts({change.inbox for change in changes})


def test_it_counts_a_message_once_however_often_it_is_recorded(inbox: InboxRef) -> None:
    assert apply([record(inbox, 1), record(inbox, 1)])[inbox] == {"t": 1}
    assert apply([record(inbox, 1)])[inbox] == {"t": 1}


def test_what_was_read_stays_read_when_it_is_recorded_again_in_the_same_batch(inbox: InboxRef) -> None:
    unread.apply([record(inbox, 1)])
    assert apply([Read(inbox, "t"), record(inbox, 1)])[inbox] == {}
    assert apply([record(inbox, 1)])[inbox] == {}


def test_what_comes_after_a_read_is_unread(inbox: InboxRef) -> None:
    assert apply([record(inbox, 1), Read(inbox, "t"), record(inbox, 2)])[inbox] == {"t": 1}


def test_it_reads_up_to_a_place_and_named_messages_only(inbox: InboxRef) -> None:
    unread.apply([record(inbox, number) for number in range(5)])
    assert apply([Read(inbox, "t", up_to=message(1).order)])[inbox] == {"t": 3}
    assert apply([Read(inbox, "t", message_ids=frozenset({"m004", "m000", "nobody"}))])[inbox] == {"t": 2}
    assert apply([Read(inbox, "other")])[inbox] == {"t": 2}


@pytest.mark.parametrize(("kind", "direction"), [("Data", "Outgoing"), ("Reasoning", "Outgoing"), ("Chat", "Incoming")])
def test_only_answers_count(inbox: InboxRef, kind: str, direction: str) -> None:
    """D2"""
    row = Record(inbox, message(1, kind=kind, direction=direction), datetime.now(UTC))
    assert apply([row])[inbox] == {}


def test_the_first_visit_settles_what_is_there(inbox: InboxRef) -> None:
    """D7, F109"""
    address = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "bob@acme.example")
    newest = TopicSummary("t", 9, START + timedelta(seconds=3))
    his = unread.open_inbox(address, [newest], {})
    found = apply([record(his, number) for number in range(6)])
    assert found[his] == {"t": 2}
    assert unread.open_inbox(address, [], {}) == his
    assert unread.topic_states([his])[his]["t"].count == 9


def test_a_topic_that_no_list_has_shown_is_known_by_its_newest_unread_answer(inbox: InboxRef) -> None:
    """Or its deletion upstream would never be missed (F105)."""
    unread.apply([record(inbox, 1), record(inbox, 3), record(inbox, 2), record(inbox, 9, "read"), Read(inbox, "read")])
    states = unread.topic_states([inbox])[inbox]
    assert (states["t"].last_at, states["t"].heard_at) == (None, message(3).created_at)
    assert states["read"].heard_at is None


def test_a_topic_that_a_list_has_shown_is_known_by_what_was_heard_since_too(inbox: InboxRef) -> None:
    """Another process may have heard an answer, and its deletion upstream shows here as a topic that is gone (F105)."""
    unread.settle([settlement(inbox, TopicSummary("t", 1, message(1).created_at))])
    unread.apply([record(inbox, 3)])
    state = unread.topic_states([inbox])[inbox]["t"]
    assert (state.surveyed_at, state.heard_at) == (message(1).created_at, message(3).created_at)


def test_a_deleted_topic_takes_what_was_seen_and_leaves_what_came_later(inbox: InboxRef) -> None:
    """F105"""
    unread.apply([record(inbox, 1), record(inbox, 2), record(inbox, 9)])
    unread.drop_topics(inbox, {"t": message(2).order})
    assert unread.counts([inbox]) == {inbox: {"t": 1}}
    assert apply([record(inbox, 1), record(inbox, 2)])[inbox] == {"t": 1}


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


def test_one_message_id_in_two_inboxes_is_two_receipts_and_in_two_topics_one(inbox: InboxRef) -> None:
    other = another_inbox(1)
    found = apply([record(inbox, 1, "t"), record(other, 1, "t"), record(inbox, 1, "u")])
    assert found == {inbox: {"t": 1}, other: {"t": 1}}
    assert apply([record(inbox, 1, "u"), record(other, 1, "u")]) == found


def test_a_message_that_is_settled_in_one_topic_counts_in_another_of_the_same_batch(inbox: InboxRef) -> None:
    unread.apply([record(inbox, 2, "t"), record(inbox, 3, "u")])
    unread.drop_topics(inbox, {"t": message(5).order})
    assert apply([record(inbox, 4, "t"), record(inbox, 4, "u")])[inbox] == {"u": 2}


def test_a_known_message_leaves_the_others_of_its_batch_alone(inbox: InboxRef) -> None:
    unread.apply([record(inbox, 2)])
    assert apply([record(inbox, number) for number in (3, 2, 1)])[inbox] == {"t": 3}


def test_a_large_batch_of_many_inboxes_is_counted_inbox_by_inbox() -> None:
    inboxes = [another_inbox(number) for number in range(40)]
    changes = [record(inbox, number, f"t{number % 3}") for number in range(45) for inbox in inboxes]
    assert apply(changes) == dict.fromkeys(inboxes, {"t0": 15, "t1": 15, "t2": 15})
    assert unread.counts(inboxes[:1]) == {inboxes[0]: {"t0": 15, "t1": 15, "t2": 15}}


def test_a_floor_is_compared_letter_by_letter(inbox: InboxRef) -> None:
    """Most databases of PostgreSQL sort text as people do: capitals beside small letters, signs nowhere."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute('ALTER TABLE messaging_topic ALTER floor TYPE varchar(64) COLLATE "und-x-icu"')
            cursor.execute('ALTER TABLE messaging_receipt ALTER "order" TYPE varchar(64) COLLATE "und-x-icu"')
    at_once = [
        structs.replace(message(1), id=name, order=wire.order_of(START, name)) for name in ("B", "a", "~", "_", "Z9")
    ]
    unread.apply([Record(inbox, at_once[0], START)])
    unread.drop_topics(inbox, {"t": wire.order_of(START, "Z")})
    unread.apply([Record(inbox, answer, START) for answer in at_once])
    assert unread.known(inbox, ["B", "a", "~", "_", "Z9"]) == {"a", "~", "_", "Z9"}
    assert apply([Read(inbox, "t", up_to=wire.order_of(START, "Z9"))]) == {inbox: {"t": 3}}


def test_a_receipt_holds_what_the_message_says(inbox: InboxRef) -> None:
    odd = "q\"uote \\ back\\slash, %s {x} '; -- \u2028 \U0001f600"
    for number, moment in enumerate((START, START + timedelta(microseconds=1), datetime(9999, 12, 31, tzinfo=UTC))):
        answer = structs.replace(message(number), id=f"{odd}{number}", created_at=moment, scope=odd)
        unread.apply([Record(inbox, answer, START + timedelta(microseconds=5))])
        row = Receipt.objects.get(message_id=answer.id)
        assert (row.inbox_id, row.topic.scope, row.order) == (inbox.pk, odd, answer.order)
        assert (row.created_at, row.known_at, row.read_at) == (moment, START + timedelta(microseconds=5), None)
        question = KnownBefore(inbox, frozenset({answer.id, "another"}), START + timedelta(microseconds=5))
        earlier = replace(question, moment=START)
        assert unread.known_before([earlier, question]) == {earlier: set(), question: {answer.id}}


def test_a_batch_of_records_moves_and_reads_means_what_it_means_in_order(inbox: InboxRef) -> None:
    moved = Move(inbox, message(1, "u"))
    assert apply([record(inbox, 1), moved])[inbox] == {"u": 1}
    assert apply([moved, Read(inbox, "t"), record(inbox, 2)])[inbox] == {"u": 1, "t": 1}
    named = Read(inbox, "t", message_ids=frozenset({"m003"}))
    assert apply([named, record(inbox, 3), Read(inbox, "u")])[inbox] == {"t": 1}


@on_postgresql
def test_what_is_too_long_is_refused_and_not_cut(inbox: InboxRef) -> None:
    """Cut short, two ids could be one. The ledger then writes the others of the batch."""
    with pytest.raises(DatabaseError), transaction.atomic():
        unread.apply([record(inbox, 1), Record(inbox, structs.replace(message(2), id="x" * 256), START)])
    assert unread.counts([inbox]) == {inbox: {}}


# -- for many inboxes -----------------------------------------------------------------------------------------


def test_comparisons_of_many_inboxes_are_remembered_together() -> None:
    inboxes = [another_inbox(number) for number in range(3)]
    unread.apply([record(inbox, number) for inbox in inboxes for number in range(4)])
    listed = TopicSummary("t", 4, message(3).created_at)
    made = [
        settlement(inboxes[0], listed),
        settlement(inboxes[1], listed, TopicSummary("new", 1, START), floors={"t": message(1).order}),
        settlement(inboxes[1], TopicSummary("t", 3, None)),
        settlement(inboxes[2], TopicSummary("", 0, None)),
    ]
    assert unread.settle(made) == dict.fromkeys(made, False)
    states = unread.topic_states(inboxes)
    surveys = {inbox: {scope: (s.count, s.last_at, s.floor) for scope, s in states[inbox].items()} for inbox in inboxes}
    assert surveys == {
        inboxes[0]: {"t": (4, listed.last_message_at, "")},
        inboxes[1]: {"t": (3, None, message(1).order), "new": (1, START, "")},
        inboxes[2]: {"t": (0, None, ""), "": (0, None, "")},
    }
    unread.settle([settlement(inboxes[1], listed)])
    state = unread.topic_states(inboxes)[inboxes[1]]["t"]
    assert (state.count, state.last_at, state.floor) == (4, listed.last_message_at, message(1).order)


@pytest.mark.parametrize("may_lag", [True, False])
def test_what_upstream_no_longer_has_is_dropped_unless_it_may_only_be_late(inbox: InboxRef, *, may_lag: bool) -> None:
    """F105, F45"""
    other, asked_at = another_inbox(1), START + timedelta(hours=1)
    for number, known_at in ((0, START), (1, START), (2, asked_at + timedelta(seconds=1)), (3, START), (4, START)):
        unread.apply([Record(each, message(number), known_at) for each in (inbox, other)])
    unread.apply([Read(inbox, "t", message_ids=frozenset({"m000"}))])
    whole = {"t": {"m003": message(3).order}, "of no receipts": {}}
    one, two = settlement(inbox, whole=whole, may_lag=may_lag), settlement(other)
    assert unread.settle([one, two]) == {one: True, two: False}
    kept = {"m000", "m002", "m003"} | ({"m004"} if may_lag else set())  # read; known since; there; perhaps too young
    assert unread.known(inbox, [f"m{number:03d}" for number in range(5)]) == kept
    assert unread.counts([other]) == {other: {"t": 5}}


def test_what_readers_must_have_had_is_told_question_by_question(inbox: InboxRef) -> None:
    """F16, F84"""
    other, began_at = another_inbox(1), START + timedelta(minutes=1)
    unread.apply([Record(inbox, message(number), START + timedelta(minutes=number)) for number in (1, 2, 4)])
    unread.settle([settlement(other, TopicSummary("t", 9, START), floors={"t": message(2).order})])
    messages = [message(number) for number in range(5)] + [message(4, kind="Data")]
    mine = Familiar(inbox, messages, message(3).order, began_at)
    his = Familiar(other, messages, message(3).order, began_at)
    nobodys = Familiar(inbox, [], "", began_at)
    assert unread.familiar([mine, his, nobodys]) == {
        mine: {"m001", "m004"},  # the second became known to another process after this feed had begun behind it
        his: {"m000", "m001", "m002"},
        nobodys: set(),
    }


def test_of_two_processes_that_heard_an_answer_late_the_quicker_one_counts(inbox: InboxRef) -> None:
    """D1: its readers' cursors were written at that moment; but what was heard in time stays so."""
    for number, known in ((1, [(2, True), (1, True)]), (2, [(1, True), (2, True)]), (3, [(2, False), (1, True)])):
        for seconds, came_late in known:
            unread.apply([Record(inbox, message(number), START + timedelta(seconds=seconds), came_late)])
    unread.apply([Record(inbox, message(1), START)])
    rows = Receipt.objects.order_by("message_id").values_list("message_id", "known_at")
    assert {message_id: (known_at - START).seconds for message_id, known_at in rows} == {
        "m001": 1,
        "m002": 1,
        "m003": 2,
    }


def test_what_another_process_handed_out_late_before_a_feed_began_is_what_its_readers_have_had(inbox: InboxRef) -> None:
    """D1: its receipt is dated a second later; taken for a newer one, it would be shown again when it is repeated."""
    began_at = START + timedelta(minutes=1)
    for number, seconds, came_late in ((1, -0.5, True), (2, 0.5, True), (3, 0.5, False)):
        known_at = began_at + timedelta(seconds=seconds) + came_late * unread.PUT_OFF
        unread.apply([Record(inbox, message(number), known_at, came_late)])
    question = Familiar(inbox, [message(number) for number in (1, 2, 3)], message(9).order, began_at)
    assert unread.familiar([question]) == {question: {"m001"}}


def test_what_became_known_late_is_told_question_by_question(inbox: InboxRef) -> None:
    other = another_inbox(1)
    unread.apply([Record(inbox, message(number), START + timedelta(minutes=number)) for number in range(5)])
    late = LearntAfter(inbox, START + timedelta(minutes=1), message(3).order)
    later, his = replace(late, moment=START + timedelta(minutes=2)), replace(late, inbox=other)
    assert unread.learnt_after([late, later, his]) == {
        late: {("t", "m002"), ("t", "m003")},
        later: {("t", "m003")},
        his: set(),
    }


# -- two at once ----------------------------------------------------------------------------------------------


@pytest.fixture
def somebody_else(transactional_db: None, postgres: Postgres) -> Iterator[psycopg.Connection]:
    """Another process' connection, in a transaction."""
    with postgres.connect(connection.settings_dict["NAME"]) as other:
        other.autocommit = False
        yield other


@pytest.fixture
def observer(transactional_db: None, postgres: Postgres) -> Iterator[psycopg.Connection]:
    with postgres.connect(connection.settings_dict["NAME"]) as other:
        yield other


def apply_elsewhere(pool: ThreadPoolExecutor, changes: list[Record | Move | Read]) -> Future[Counts]:
    def apply_and_close() -> Counts:
        try:
            return apply(changes)
        finally:
            connection.close()

    return pool.submit(apply_and_close)


def until_somebody_waits(observer: psycopg.Connection) -> None:
    deadline = time.monotonic() + 10
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while observer.execute(waiting).fetchone() is None:
        assert time.monotonic() < deadline, "nobody waits for a lock"


@on_postgresql
def test_topics_are_locked_in_one_order_before_anything_is_written(
    somebody_else: psycopg.Connection, observer: psycopg.Connection
) -> None:
    """Whoever waits for a topic holds those before it and none behind it, whatever the order of the changes."""
    inboxes = [another_inbox(number) for number in range(9)]
    unread.apply([record(inbox, 0) for inbox in inboxes])
    pks = list(Topic.objects.order_by("pk").values_list("pk", flat=True))
    Topic.objects.filter(pk=pks[0]).update(upstream_count=1)  # its row stands behind the others now
    somebody_else.execute("SELECT FROM messaging_topic WHERE id = %s FOR NO KEY UPDATE", [pks[4]])
    changes: list[Record | Move | Read] = [Read(inbox, "t") for inbox in inboxes[:2]]
    changes += [Move(inbox, message(0)) for inbox in inboxes[2:4]] + [record(inbox, 1) for inbox in inboxes[4:]]
    with ThreadPoolExecutor(1) as pool:
        applied = apply_elsewhere(pool, changes[::-1])
        until_somebody_waits(observer)
        free = observer.execute("SELECT id FROM messaging_topic ORDER BY id FOR NO KEY UPDATE SKIP LOCKED").fetchall()
        somebody_else.commit()
        counts = applied.result(10)
    assert [pk for (pk,) in free] == pks[5:]
    assert [counts[inbox] for inbox in inboxes] == [{}] * 2 + [{"t": 1}] * 2 + [{"t": 2}] * 5


@on_postgresql
def test_a_topic_of_another_inbox_is_not_waited_for(somebody_else: psycopg.Connection) -> None:
    one, two = another_inbox(1), another_inbox(2)
    unread.apply([record(inbox, number, topic) for inbox in (one, two) for number, topic in enumerate("tu")])
    statement = "SELECT FROM messaging_topic WHERE (inbox_id, scope) IN ((%s, 'u'), (%s, 't')) FOR NO KEY UPDATE"
    somebody_else.execute(statement, [one.pk, two.pk])
    with ThreadPoolExecutor(1) as pool:
        found = apply_elsewhere(pool, [record(one, 2, "t"), record(two, 2, "u")]).result(10)
    assert found == {one: {"t": 2, "u": 1}, two: {"t": 1, "u": 2}}


@on_postgresql
def test_a_floor_that_rises_while_a_batch_waits_for_it_is_heeded(
    somebody_else: psycopg.Connection, observer: psycopg.Connection
) -> None:
    """Invariant 7"""
    inbox = another_inbox(1)
    unread.apply([record(inbox, 1)])
    somebody_else.execute("UPDATE messaging_topic SET floor = %s", [message(3).order])
    with ThreadPoolExecutor(1) as pool:
        applied = apply_elsewhere(pool, [record(inbox, number) for number in (2, 3, 4)])
        until_somebody_waits(observer)
        somebody_else.commit()
        assert applied.result(10) == {inbox: {"t": 2}}
    assert unread.known(inbox, ["m001", "m002", "m003", "m004"]) == {"m001", "m004"}


@on_postgresql
def test_topics_that_two_make_at_once_are_made_once(
    somebody_else: psycopg.Connection, observer: psycopg.Connection
) -> None:
    inbox = another_inbox(1)
    made = "INSERT INTO messaging_topic (inbox_id, key, scope, floor, upstream_count) VALUES (%s, %s, 't', %s, 0)"
    somebody_else.execute(made, [inbox.pk, wire.topic_key("t"), message(1).order])
    with ThreadPoolExecutor(1) as pool:
        applied = apply_elsewhere(pool, [record(inbox, 1), record(inbox, 2)])
        until_somebody_waits(observer)
        somebody_else.commit()
        assert applied.result(10) == {inbox: {"t": 1}}
    assert Topic.objects.count() == 1


def test_what_cannot_be_written_is_not_added_to_a_sheet(inbox: InboxRef) -> None:
    sheet = Sheet()
    sheet.add(record(inbox, 1), 0)
    before = sheet.receipts()
    with pytest.raises(TypeError):
        sheet.add(Record(inbox, message(2), object()), 0)  # type: ignore[arg-type]
    assert (len(sheet.changes), sheet.receipts()) == (1, before)
