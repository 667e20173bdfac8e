"""`manage.py prune`: the ledger doesn't grow for ever; what goes doesn't come back, and no count changes (F84)."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any, cast

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connections

from messaging import outbox, retention, unread, wire
from messaging.changes import InboxRef, Read, Record
from messaging.models import Dispatch, Receipt, Topic
from messaging.unread import Settlement
from messaging.wire import Message, ThreadAddress, TopicSummary
from tests.faults.rig import (  # noqa: F401 - fixtures
    PATIENCE,
    Rig,
    alice_at_both,
    both_say,
    counts,
    eventually,
    shared_parts,
    whole_rig,
)
from tests.messaging.people import Person
from tests.services.app import manage
from tests.services.postgres import Postgres

NOW = datetime.now(UTC)
MONTH = timedelta(days=30)
ADDRESS = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")
MANY = 100_000
SEEDS = range(25)

type Run = Callable[[str], psycopg.Cursor[Any]]


def message(number: int, topic: str = "t", *, days_old: float = 60) -> Message:
    moment = NOW - timedelta(days=days_old) + timedelta(seconds=number)
    raw = {"id": f"m{number:04d}", "createdAt": moment.isoformat(), "scope": topic}
    return wire.message({**raw, "messageType": "Chat", "direction": "Outgoing"})


def surveyed(inbox: InboxRef, messages: list[Message]) -> None:
    """As after a comparison with upstream, which lists these."""
    for topic in {one.scope for one in messages}:
        mine = [one for one in messages if one.scope == topic]
        newest = max(one.created_at for one in mine)
        unread.settle([Settlement(inbox, NOW, [TopicSummary(topic, len(mine), newest)])])


def read_long_ago(ids: set[str], *, days: float = 50) -> None:
    Receipt.objects.filter(message_id__in=ids).update(read_at=NOW - timedelta(days=days))


@pytest.fixture
def inbox(db: None) -> InboxRef:
    return unread.open_inbox(ADDRESS, [], {})


def replay(inbox: InboxRef, messages: list[Message]) -> dict[str, int]:
    """Upstream's history brings them all again."""
    unread.apply([Record(inbox, one, NOW) for one in messages])
    return unread.counts([inbox])[inbox]


def test_what_was_read_long_ago_collapses_into_the_floor(inbox: InboxRef) -> None:
    """F84"""
    messages = [message(number) for number in range(10)]
    replay(inbox, messages)
    surveyed(inbox, messages)
    read_long_ago({one.id for one in messages[:6]})
    before = unread.counts([inbox])
    assert retention.prune(older_than=MONTH, is_dry_run=True) == retention.Pruned(receipts=6, topics=1)
    assert Receipt.objects.count() == 10
    assert retention.prune(older_than=MONTH) == retention.Pruned(receipts=6, topics=1)
    assert Receipt.objects.count() == 4
    assert unread.counts([inbox]) == before == {inbox: {"t": 4}}
    assert replay(inbox, messages) == {"t": 4}
    call_command("prune", stdout=(said := StringIO()))
    assert said.getvalue().strip() == "Nothing to delete.", "the second time there is nothing to do"


def test_an_unread_answer_stops_the_collapse_at_its_place(inbox: InboxRef) -> None:
    """F84: what stands behind it stays, so that a message that nobody has heard of yet still counts."""
    messages = [message(number) for number in range(10)]
    replay(inbox, messages)
    surveyed(inbox, messages)
    read_long_ago({one.id for one in messages if one is not messages[4]})
    assert retention.prune(older_than=MONTH).receipts == 4
    assert replay(inbox, messages) == {"t": 1}
    unread.apply([Read(inbox, "t")])
    Receipt.objects.update(read_at=NOW - 2 * MONTH)
    assert retention.prune(older_than=MONTH).receipts == 6
    assert replay(inbox, messages) == {}


def test_what_upstream_was_not_compared_with_stays(inbox: InboxRef) -> None:
    """F84, D1: an older answer that the stream missed is found by the next comparison, and has to count then."""
    missed, heard = message(1), message(2)
    replay(inbox, [heard])
    read_long_ago({heard.id})
    assert not retention.prune(older_than=MONTH)
    assert replay(inbox, [missed, heard]) == {"t": 1}


def test_what_was_read_lately_stays(inbox: InboxRef) -> None:
    """F84: a stream that comes back may still ask for it."""
    messages = [message(number) for number in range(4)]
    replay(inbox, messages)
    surveyed(inbox, messages)
    unread.apply([Read(inbox, "t")])
    assert not retention.prune(older_than=MONTH)
    assert Receipt.objects.count() == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_no_state_whatever_changes_its_counts(inbox: InboxRef, seed: int) -> None:
    """F84, I1, I2: any mixture of topics, ages, reads, surveys and repeated prunes; then all of history comes again."""
    dice = random.Random(seed)
    topics = ["", "t", "ü"]
    messages = [message(number, dice.choice(topics), days_old=dice.choice([90, 60, 31, 29, 1])) for number in range(60)]
    expected: dict[str, int] = {}
    heard: list[Message] = []
    for start in range(0, 60, 20):
        batch = messages[start : start + 20]
        dice.shuffle(batch)
        replay(inbox, batch)
        heard += batch
        if dice.random() < 0.7:
            surveyed(inbox, heard)
        for days in (80, 40, 3):
            ids = {one.id for one in heard if dice.random() < 0.3}
            Receipt.objects.filter(message_id__in=ids, read_at=None).update(read_at=NOW - timedelta(days=days))
        expected = unread.counts([inbox])[inbox]
        would = retention.prune(older_than=MONTH, is_dry_run=True)
        rows = Receipt.objects.count()
        assert retention.prune(older_than=MONTH) == would
        assert Receipt.objects.count() == rows - would.receipts
        assert unread.counts([inbox])[inbox] == expected
    dice.shuffle(messages)
    assert replay(inbox, messages) == expected
    assert unread.known(inbox, [one.id for one in messages if one.order > floor_of(one.scope)]) == {
        one.id for one in messages if one.order > floor_of(one.scope)
    }


def floor_of(topic: str) -> str:
    return Topic.objects.get(scope=topic).floor


@pytest.mark.django_db(transaction=True)
def test_a_replay_at_the_same_moment_brings_nothing_back() -> None:
    """F84, F69: another process records old history while receipts are pruned; floors only rise."""
    inbox = unread.open_inbox(ADDRESS, [], {})
    messages = [message(number, f"t{number % 4}") for number in range(400)]
    replay(inbox, messages)
    surveyed(inbox, messages)
    unread.apply([Read(inbox, f"t{number}") for number in range(4)])
    Receipt.objects.update(read_at=NOW - 2 * MONTH)
    over = threading.Event()
    problems: list[BaseException] = []

    def replay_again() -> None:
        try:
            while not over.is_set():
                replay(inbox, messages)
                surveyed(inbox, messages)
        except BaseException as problem:
            problems.append(problem)
            raise
        finally:
            connections.close_all()

    others = [threading.Thread(target=replay_again) for _ in range(2)]
    for other in others:
        other.start()
    try:
        pruned = retention.prune(older_than=MONTH)
    finally:
        over.set()
        for other in others:
            other.join(60)
    assert not problems
    assert pruned.receipts == 400
    assert unread.counts([inbox])[inbox] == {}
    assert Receipt.objects.count() == 0


def test_requests_to_send_and_ended_sessions_go(inbox: InboxRef) -> None:
    """F84: what is a day old; never what somebody is sending."""
    for name, hours, is_busy in (("old", 25, False), ("new", 23, False), ("busy", 25, True), ("lost", 40, True)):
        first_at = datetime.now(UTC) - timedelta(hours=hours)
        busy_since = (datetime.now(UTC) if name == "busy" else first_at) if is_busy else None
        Dispatch.objects.create(
            inbox_id=inbox.pk, request_id=name, thread_id="x", first_at=first_at, busy_since=busy_since
        )
    for name, days in (("ended", -1), ("going", 1)):
        Session.objects.create(session_key=name, session_data="", expire_date=NOW + timedelta(days=days))
    assert retention.prune(older_than=MONTH, is_dry_run=True) == retention.Pruned(dispatches=2, sessions=1)
    assert retention.prune(older_than=MONTH) == retention.Pruned(dispatches=2, sessions=1)
    assert set(Dispatch.objects.values_list("request_id", flat=True)) == {"new", "busy"}
    assert set(Session.objects.values_list("session_key", flat=True)) == {"going"}
    assert outbox.claim(inbox, "new").thread_id == "x", "a repeat within the day still sends nothing"


# -- the command ----------------------------------------------------------------------------------------------


def test_a_year_of_a_company_is_pruned_in_one_go(postgres: Postgres, fresh_database: Callable[[], str]) -> None:
    """F84: a hundred thousand receipts in hundreds of topics; the command says how much, and counts stay."""
    url = fresh_database()
    name = url.rpartition("/")[2]
    with postgres.connect(name) as database:
        run = cast(Run, database.execute)
        fill(run, rows=MANY, topics=400)
        unread_before = unread_by_topic(run)
        said = manage("prune", "--dry-run", env={"DATABASE_URL": url})
        would = int(re.findall(r"(\d+) receipts", said)[0])
        assert said.startswith("Would delete:")
        assert rows_of(run) == MANY
        said = manage("prune", env={"DATABASE_URL": url})
        assert int(re.findall(r"(\d+) receipts", said)[0]) == would > MANY // 2
        assert rows_of(run) == MANY - would
        assert unread_by_topic(run) == unread_before


def fill(run: Run, *, rows: int, topics: int) -> None:
    """Answers of a year: every topic's newest tenth is unread, in every third topic."""
    run(
        "INSERT INTO messaging_inbox (key, tenant_id, participant_id, agent_name, activation_name, first_visit_at,"
        " checked_at) VALUES ('k', 'acme', 'alice@acme.example', 'Helper', 'Desk', now(), now())"
    )
    run(
        "INSERT INTO messaging_topic (inbox_id, key, scope, floor, upstream_count, upstream_last_at)"
        " SELECT (SELECT max(id) FROM messaging_inbox), 't' || n, 't' || n, '', 1, now()"
        f" FROM generate_series(1, {topics}) n"
    )
    run(
        'INSERT INTO messaging_receipt (inbox_id, topic_id, message_id, "order", created_at, known_at, read_at)'
        " SELECT t.inbox_id, t.id, 'm' || t.id || '-' || n,"
        " lpad((extract(epoch FROM made) * 1000000)::bigint::text, 17, '0') || '-m' || n, made, made,"
        f" CASE WHEN n > {rows // topics} * 0.9 AND t.id % 3 = 0 THEN NULL ELSE made + interval '1 hour' END"
        f" FROM messaging_topic t CROSS JOIN generate_series(1, {rows // topics}) n"
        f" CROSS JOIN LATERAL (SELECT now() - interval '365 days' * (1 - n / {rows // topics}.0) AS made) x"
    )


def rows_of(run: Run) -> int:
    ((count,),) = run("SELECT count(*) FROM messaging_receipt").fetchall()
    return int(count)


def unread_by_topic(run: Run) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = run(
        "SELECT topic_id, count(*) FROM messaging_receipt WHERE read_at IS NULL GROUP BY topic_id ORDER BY topic_id"
    ).fetchall()
    return rows


@pytest.mark.parametrize("days", ["0", "-1", "soon", "40000"])
def test_it_refuses_nonsense(days: str) -> None:
    with pytest.raises(CommandError, match="must be"):
        call_command("prune", f"--days={days}")


async def test_open_streams_and_later_comparisons_dont_bring_pruned_answers_back(rig: Rig, alice: Person) -> None:
    """F84, D1: neither as unread nor as news, in processes that run on while the command works."""
    old = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    for number in range(8):
        rig.answer(f"old {number}", topic="t", created_at=old, withhold=True)
    await eventually(lambda: counts(alice, at=rig.one), {"t": 8})
    assert (await alice.post("read", topic="t")).json()["total"] == 0
    ours = "inbox_id IN (SELECT id FROM messaging_inbox WHERE activation_name = %s)"
    rig.sql(f"UPDATE messaging_receipt SET read_at = now() - interval '35 days' WHERE {ours}", rig.activation)
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.answer("news", topic="t")
        for stream in (here, there):
            await stream.next("Chat", within=PATIENCE)
        assert "8 receipts" in manage("prune", env={"DATABASE_URL": rig.postgres.url(rig.database)})
        rig.answer("withheld", topic="t", withhold=True)
        rig.xians.control("emit", raw="event: Chat\ndata: {\n\n")  # what can't be read makes both compare
        for stream in (here, there):
            await stream.next("Chat", 2, within=PATIENCE)
        await both_say(rig, alice, {"t": 2})
        for stream in (here, there):
            assert stream.texts() == ["news", "withheld"]
    manage("unread", "resync", env={**rig.one.env, "REDIS_URL": ""})
    await both_say(rig, alice, {"t": 2})
    assert len(rig.receipts()) == 2
