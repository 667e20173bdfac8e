"""The unread store: what is known, what is read, how many are left. The only writer of those rows.

Plain synchronous functions, each one short transaction; `ledger` calls them from its own threads. Everything is a
set of message ids, so repeating a call, in any process and any order, changes nothing (interfaces.md D1, D5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import Count, Max, Min, Q

from messaging import statements
from messaging.changes import Change, InboxRef, Move, Read, Record, Sheet
from messaging.models import Inbox, Receipt, Topic
from messaging.statements import LockedTopic, NamedReceipt, NewReceipt, NewSurvey
from messaging.wire import Message, ThreadAddress, TopicSummary, order_at, topic_key

_BATCH = 500
_UNREAD = Q(receipts__isnull=False, receipts__read_at=None)
_EVER = datetime(9999, 1, 1, tzinfo=UTC)
PUT_OFF = timedelta(seconds=1)
"""More than the clocks of two processes differ."""
_END_OF_MOMENT = "~~~"
"""Sorts after every message id: the place behind all messages of one microsecond."""


class TopicState(msgspec.Struct, gc=False):  # made for every message
    """What upstream's topic list should show of a topic: its message count and newest time.

    `surveyed_at` is the newest time that the list did show (None: it was never seen there); `floor` as in the model;
    `heard_at`: the newest time of an unread answer that is known.
    """

    floor: str
    count: int
    last_at: datetime | None
    surveyed_at: datetime | None = None
    heard_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TopicUnread:
    topic: str
    unread_count: int
    oldest_unread_at: datetime


type CountsByTopic = dict[str, int]


@dataclass(frozen=True, slots=True)
class KnownBefore:
    """Which of these answers had a receipt at a moment?"""

    inbox: InboxRef
    message_ids: frozenset[str]
    moment: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """Which of these answers must a feed's readers have had?

    `start` and `began_at`: where and when the feed began. Of what stands before, a receipt that was made since then is
    another process' and says nothing about the readers here.
    """

    inbox: InboxRef
    messages: Sequence[Message]
    start: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class LearntAfter:
    """Which answers became known after a moment, although their place is behind `since` and not behind `up_to`?"""

    inbox: InboxRef
    moment: datetime
    up_to: str
    since: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """Everything behind `topics` has been fetched from upstream, which was asked at `asked_at`.

    `floors` are those of topics too long to fetch whole; `whole`: the ids and orders of all that a topic holds, for
    those of which that is known. Where a replica `may_lag`, what is newer than those is not taken for gone.
    """

    inbox: InboxRef
    asked_at: datetime
    topics: Sequence[TopicSummary] = ()
    floors: Mapping[str, str] = field(default_factory=dict)
    whole: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    may_lag: bool = True


def find(addresses: Iterable[ThreadAddress]) -> dict[ThreadAddress, InboxRef]:
    """The inboxes at these addresses, those that their participant has ever visited."""
    by_key = {address.key: address for address in addresses}
    rows = Inbox.objects.filter(key__in=by_key).values_list("pk", "key")
    return {by_key[key]: InboxRef(pk, by_key[key]) for pk, key in rows}


@transaction.atomic
def open_inbox(address: ThreadAddress, topics: Sequence[TopicSummary], settled: dict[str, str]) -> InboxRef:
    """The inbox at an address, made now if this is the first visit: what `topics` hold is then settled (D7).

    `settled` gives, for topics whose newest messages are known exactly, the order of the newest; for the others
    everything up to the topic's newest moment counts as settled.
    """
    inbox, is_new = Inbox.objects.get_or_create(
        key=address.key,
        defaults={
            "tenant_id": address.tenant_id,
            "participant_id": address.participant_id,
            "agent_name": address.agent_name,
            "activation_name": address.activation_name,
        },
    )
    if is_new:
        rows = [
            Topic(
                inbox=inbox,
                key=topic_key(topic.scope),
                scope=topic.scope,
                floor=settled.get(topic.scope) or behind(topic.last_message_at),
                upstream_count=topic.message_count,
                upstream_last_at=topic.last_message_at,
            )
            for topic in topics
        ]
        Topic.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_BATCH)
    return InboxRef(inbox.pk, address)


def behind(moment: datetime | None) -> str:
    """The place after every message of that microsecond."""
    return order_at(moment) + _END_OF_MOMENT if moment else ""


def write(sheet: Sheet) -> None:
    """Carry out a sheet's changes in order: in one statement where the database knows how, and the topics are there."""
    if connection.vendor == "postgresql":
        receipts = sheet.receipts()
        if receipts is not None and statements.insert_receipts_at_once(receipts) == len(sheet.topics):
            return
    _apply(sheet.changes)


def apply(changes: Iterable[Change]) -> None:
    """Carry out changes in order."""
    sheet = Sheet()
    for change in changes:
        sheet.add(change, 0)
    write(sheet)


@transaction.atomic
def _apply(changes: Sequence[Change]) -> None:
    topics = _topics(
        {(c.inbox.pk, c.message.scope) for c in changes if not isinstance(c, Read)},
        {(c.inbox.pk, c.topic) for c in changes if isinstance(c, Read)},
    )
    records: list[Record] = []
    named: list[Read] = []  # reads of named messages: what is recorded later makes no difference to them
    for change in changes:
        if isinstance(change, Record):
            records.append(change)
        elif isinstance(change, Read) and change.message_ids is not None:
            named.append(change)
        else:
            _insert(records, topics)
            records = []
            _read_up_to(change, topics) if isinstance(change, Read) else _move(change, topics)
    _insert(records, topics)
    _read_named(named, topics)


def _move(change: Move, topics: dict[tuple[int, str], LockedTopic]) -> None:
    topic = topics[change.inbox.pk, topic_key(change.message.scope)]
    Receipt.objects.filter(inbox_id=change.inbox.pk, message_id=change.message.id).update(topic_id=topic.pk)


def _insert(records: Iterable[Record], topics: dict[tuple[int, str], LockedTopic]) -> None:
    rows: dict[tuple[int, str], NewReceipt] = {}
    for record in records:
        receipt = record.receipt()
        if receipt.order > topics[receipt.inbox_id, receipt.key].floor:  # else it may stand in another topic, too
            rows.setdefault((receipt.inbox_id, receipt.message_id), receipt)
    statements.insert_receipts(list(rows.values()))


def _topics(
    wanted: set[tuple[int, str]], besides: Iterable[tuple[int, str]] = ()
) -> dict[tuple[int, str], LockedTopic]:
    """The wanted topics, made where they are missing, and those `besides` that exist; all of them locked.

    They are locked in one order: nobody else moves their floors, or writes their receipts in another order (a
    deadlock), before this transaction ends.
    """
    keys = {(inbox, topic_key(scope)): scope for inbox, scope in wanted}
    to_lock = keys.keys() | {(inbox, topic_key(scope)) for inbox, scope in besides}
    found = statements.lock_topics(to_lock)
    missing = sorted(keys.keys() - found.keys())
    if missing:
        rows = [Topic(inbox_id=inbox, key=key, scope=keys[inbox, key]) for inbox, key in missing]
        Topic.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_BATCH)
        found = statements.lock_topics(to_lock)
    return found


def _read_up_to(change: Read, topics: dict[tuple[int, str], LockedTopic]) -> None:
    topic = topics.get((change.inbox.pk, topic_key(change.topic)))
    if topic is None:
        return
    rows = Receipt.objects.filter(topic_id=topic.pk, read_at=None).values_list("pk", "order")
    # In Python: text sorts otherwise in SQL.
    due = sorted(pk for pk, order in rows if change.up_to is None or order <= change.up_to)
    for start in range(0, len(due), _BATCH):
        Receipt.objects.filter(pk__in=due[start : start + _BATCH]).update(read_at=datetime.now(UTC))


def _read_named(reads: Sequence[Read], topics: dict[tuple[int, str], LockedTopic]) -> None:
    now = datetime.now(UTC)
    rows = set()
    for read in reads:
        topic = topics.get((read.inbox.pk, topic_key(read.topic)))
        if topic is not None and read.message_ids is not None:
            rows |= {NamedReceipt(read.inbox.pk, topic.pk, message_id, now) for message_id in read.message_ids}
    statements.mark_read(rows)


def counts(inboxes: Iterable[InboxRef]) -> dict[InboxRef, CountsByTopic]:
    """Unread counts by topic, for every inbox asked about; topics without unread are left out."""
    by_pk = {inbox.pk: inbox for inbox in inboxes}
    found: dict[InboxRef, CountsByTopic] = {inbox: {} for inbox in by_pk.values()}
    for pk, scope, count in statements.count_unread(by_pk):
        found[by_pk[pk]][scope] = count
    return found


def waiting(inbox: InboxRef) -> list[TopicUnread]:
    """The topics that have unread answers, the longest-waiting first."""
    rows = Receipt.objects.filter(inbox_id=inbox.pk, read_at=None).values_list("topic__scope")
    found = rows.annotate(count=Count("pk"), oldest=Min("created_at")).order_by("oldest")
    return [TopicUnread(scope, count, oldest) for scope, count, oldest in found]


def totals(tenant_id: str, participant_id: str) -> dict[tuple[str, str], int]:
    """Unread per (agent, activation) of one participant in one tenant, for every inbox ever visited."""
    rows = Inbox.objects.filter(tenant_id=tenant_id, participant_id=participant_id).values_list(
        "agent_name", "activation_name"
    )
    unread = Count("receipts", filter=_UNREAD)
    return {(agent, activation): count for agent, activation, count in rows.annotate(count=unread)}


def order_of(inbox: InboxRef, topic: str, message_id: str) -> str | None:
    """The place of an answer that is known in this topic; None for any other id, whoever's it may be."""
    rows = Receipt.objects.filter(inbox_id=inbox.pk, topic__key=topic_key(topic), message_id=message_id)
    return rows.values_list("order", flat=True).first()


def known(inbox: InboxRef, message_ids: Iterable[str]) -> set[str]:
    """Which of these answers have a receipt."""
    rows = Receipt.objects.filter(inbox_id=inbox.pk, message_id__in=list(message_ids))
    return set(rows.values_list("message_id", flat=True))


def known_before(questions: Sequence[KnownBefore]) -> dict[KnownBefore, set[str]]:
    """The answer to each question: which of its messages had a receipt."""
    asked = [
        (number, question.inbox.pk, message_id, question.moment, question.moment)
        for number, question in enumerate(questions)
        for message_id in question.message_ids
    ]
    found: dict[KnownBefore, set[str]] = {question: set() for question in questions}
    for number, message_id in statements.known_by(asked):
        found[questions[number]].add(message_id)
    return found


def familiar(questions: Sequence[Familiar]) -> dict[Familiar, set[str]]:
    """The answer to each question: the ids of the answers that have a receipt, or had one before pruning."""
    floors = statements.floors({(q.inbox.pk, topic_key(m.scope)) for q in questions for m in q.messages if m.is_answer})
    found: dict[Familiar, set[str]] = {question: set() for question in questions}
    asked = []
    for number, question in enumerate(questions):
        pk = question.inbox.pk
        for message in question.messages:
            if not message.is_answer:
                continue
            if message.order <= floors.get((pk, topic_key(message.scope)), ""):
                found[question].add(message.id)
            else:
                until = question.began_at if message.order <= question.start else _EVER
                asked.append((number, pk, message.id, until, until + PUT_OFF if until < _EVER else _EVER))
    for number, message_id in statements.known_by(asked):
        found[questions[number]].add(message_id)
    return found


def topic_states(inboxes: Iterable[InboxRef]) -> dict[InboxRef, dict[str, TopicState]]:
    """What was known of each topic when upstream was last compared."""
    by_pk = {inbox.pk: inbox for inbox in inboxes}
    found: dict[InboxRef, dict[str, TopicState]] = {inbox: {} for inbox in by_pk.values()}
    unread = Receipt.objects.filter(inbox_id__in=by_pk, read_at=None).values_list("topic_id")
    heard_at = dict(unread.annotate(newest=Max("created_at")))
    rows = Topic.objects.filter(inbox_id__in=by_pk)
    for pk, topic, scope, floor, count, last_at in rows.values_list(
        "inbox_id", "pk", "scope", "floor", "upstream_count", "upstream_last_at"
    ):
        found[by_pk[pk]][scope] = TopicState(floor, count, last_at, last_at, heard_at.get(topic))
    return found


def learnt_after(questions: Sequence[LearntAfter]) -> dict[LearntAfter, set[tuple[str, str]]]:
    """The answer to each question: (topic, message id) of what became known late."""
    found: dict[LearntAfter, set[tuple[str, str]]] = {question: set() for question in questions}
    asked = [(number, question.inbox.pk, question.moment) for number, question in enumerate(questions)]
    for number, scope, message_id, order in statements.known_since(asked):
        if questions[number].since < order <= questions[number].up_to:
            found[questions[number]].add((scope, message_id))
    return found


@transaction.atomic
def settle(settlements: Sequence[Settlement]) -> dict[Settlement, bool]:
    """Remember what was compared; for each, whether unread answers were dropped that upstream no longer has.

    Of topics whose messages are all known, nobody could read those. What became known to us after upstream was asked
    stays, whatever its place: clocks differ.
    """
    topics = _topics(
        {(one.inbox.pk, topic.scope) for one in settlements for topic in one.topics},
        {(one.inbox.pk, scope) for one in settlements for scope in one.whole},
    )
    surveys: dict[int, NewSurvey] = {}
    for one in settlements:
        for listed in one.topics:
            topic = topics[one.inbox.pk, topic_key(listed.scope)]
            floor = max(surveys.get(topic.pk, topic).floor, one.floors.get(listed.scope, ""))
            surveys[topic.pk] = NewSurvey(topic.pk, listed.message_count, listed.last_message_at, floor)
    statements.update_surveys(list(surveys.values()))
    inboxes = Inbox.objects.filter(pk__in={one.inbox.pk for one in settlements})
    if connection.features.has_select_for_update:
        list(inboxes.order_by("pk").select_for_update(no_key=True).values_list("pk"))  # in one order, too
    inboxes.update(checked_at=datetime.now(UTC))
    return _drop_what_is_gone(settlements, topics)


def _drop_what_is_gone(
    settlements: Sequence[Settlement], topics: dict[tuple[int, str], LockedTopic]
) -> dict[Settlement, bool]:
    gone: dict[int, Settlement] = {}
    for wanted in _in_rounds(settlements, topics):
        asked = [(pk, one.asked_at) for pk, (one, _) in wanted.items()]
        for pk, receipt, message_id, order in statements.unread_of(asked):
            one, messages = wanted[pk]
            newest = max(messages.values(), default="") if one.may_lag else "~"
            if message_id not in messages and order <= newest:
                gone[receipt] = one
    due = sorted(gone)
    for start in range(0, len(due), _BATCH):
        Receipt.objects.filter(pk__in=due[start : start + _BATCH]).delete()
    dropped = set(gone.values())
    return {one: one in dropped for one in settlements}


def _in_rounds(
    settlements: Sequence[Settlement], topics: dict[tuple[int, str], LockedTopic]
) -> list[dict[int, tuple[Settlement, Mapping[str, str]]]]:
    """What is wanted of whole topics; in each round a topic stands once."""
    rounds: list[dict[int, tuple[Settlement, Mapping[str, str]]]] = [{}]
    for one in settlements:
        for scope, messages in one.whole.items():
            topic = topics.get((one.inbox.pk, topic_key(scope)))
            if topic is not None:
                if topic.pk in rounds[-1]:
                    rounds.append({})
                rounds[-1][topic.pk] = (one, messages)
    return rounds


@transaction.atomic
def drop_topics(inbox: InboxRef, floors: Mapping[str, str]) -> None:
    """Topics whose messages up to a floor are gone upstream: their receipts go, and are never made again.

    What came after the floor stays as it is.
    """
    by_key = {(inbox.pk, topic_key(scope)): floor for scope, floor in floors.items()}
    for key, topic in statements.lock_topics(by_key).items():
        floor = by_key[key]
        receipts = Receipt.objects.filter(topic_id=topic.pk).values_list("pk", "order")
        gone = [pk for pk, order in receipts if order <= floor]
        for start in range(0, len(gone), _BATCH):
            Receipt.objects.filter(pk__in=gone[start : start + _BATCH]).delete()
        Topic.objects.filter(pk=topic.pk).update(floor=max(topic.floor, floor), upstream_count=0, upstream_last_at=None)


def forget_survey(inbox: InboxRef) -> None:
    """Let the next comparison look at every topic, changed or not."""
    Topic.objects.filter(inbox_id=inbox.pk).update(upstream_count=0, upstream_last_at=None)


def select(*, tenant: str | None, participant: str | None, agent: str | None) -> list[InboxRef]:
    """The inboxes of a tenant, a participant, an agent; None for any."""
    wanted = {"tenant_id": tenant, "participant_id": participant.lower() if participant else None, "agent_name": agent}
    rows = Inbox.objects.filter(**{name: value for name, value in wanted.items() if value is not None})
    return [reference(row) for row in rows.order_by("pk")]


def reference(row: Inbox) -> InboxRef:
    address = ThreadAddress(row.tenant_id, row.agent_name, row.activation_name, row.participant_id)
    return InboxRef(row.pk, address)


def overview(*, tenant: str | None, participant: str | None, agent: str | None) -> list[dict[str, Any]]:
    """A row for every topic with unread answers, the longest-waiting first."""
    by_pk = {ref.pk: ref for ref in select(tenant=tenant, participant=participant, agent=agent)}
    rows = Receipt.objects.filter(inbox_id__in=by_pk, read_at=None).values_list("inbox_id", "topic__scope")
    found = rows.annotate(count=Count("pk"), oldest=Min("created_at")).order_by("oldest")
    return [
        {
            "tenant": by_pk[pk].address.tenant_id,
            "participant": by_pk[pk].address.participant_id,
            "agent": by_pk[pk].address.agent_name,
            "activation": by_pk[pk].address.activation_name,
            "topic": scope or None,
            "unreadCount": count,
            "oldestUnreadAt": oldest.isoformat(),
        }
        for pk, scope, count, oldest in found
    ]
