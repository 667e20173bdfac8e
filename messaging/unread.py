"""The unread store: what is known, what is read, how many are left. The only writer of those rows.

Plain synchronous functions, each one short transaction; `ledger` calls them from its own threads. Everything is a
set of message ids, so repeating a call, in any process and any order, changes nothing (interfaces.md D1, D5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Case, Count, Min, OuterRef, Q, Subquery, When

from messaging import statements
from messaging.models import Inbox, Receipt, Topic
from messaging.statements import LockedTopic, NewReceipt
from messaging.wire import Message, ThreadAddress, TopicSummary, order_at, topic_key

_BATCH = 500
_UNREAD = Q(receipts__isnull=False, receipts__read_at=None)
_END_OF_MOMENT = "~~~"
"""Sorts after every message id: the place behind all messages of one microsecond."""


@dataclass(frozen=True, slots=True)
class InboxRef:
    """An inbox that exists: its row's number and its address."""

    pk: int
    address: ThreadAddress

    def __hash__(self) -> int:
        return self.pk  # the address follows from it, and its four names take long to hash

    def told(self) -> dict[str, Any]:
        """This reference in the words of a notice between processes."""
        return {"pk": self.pk, **asdict(self.address)}

    @classmethod
    def from_told(cls, told: dict[str, Any]) -> InboxRef:
        names = {field.name: told[field.name] for field in fields(ThreadAddress)}
        return cls(told["pk"], ThreadAddress(**names))


@dataclass(frozen=True, slots=True)
class Record:
    """Remember one answer; it is unread unless it is known already or settled. What is no answer counts as read."""

    inbox: InboxRef
    message: Message
    known_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """The receipt of an answer, if there is one, belongs to the topic in which the answer stands now."""

    inbox: InboxRef
    message: Message


@dataclass(frozen=True, slots=True)
class Read:
    """Mark a topic read: those of `message_ids`, else all up to `up_to` (a message's order), else all that is known."""

    inbox: InboxRef
    topic: str
    up_to: str | None = None
    message_ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class TopicState:
    """What upstream's topic list should show of a topic: its message count and newest time.

    `surveyed_at` is the newest time that the list did show (None: it was never seen there); `floor` as in the model;
    `heard_at`: where it was never seen there, the newest time of an unread answer that is known.
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


@transaction.atomic
def apply(changes: Sequence[Record | Move | Read]) -> dict[InboxRef, CountsByTopic]:
    """Carry out changes in order; the unread counts of every inbox they touch, by topic (zeros left out)."""
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
            _mark_read(change) if isinstance(change, Read) else _move(change, topics)
    _insert(records, topics)
    for change in named:
        _mark_read(change)
    return counts({change.inbox for change in changes})


def _move(change: Move, topics: dict[tuple[int, str], LockedTopic]) -> None:
    topic = topics[change.inbox.pk, topic_key(change.message.scope)]
    Receipt.objects.filter(inbox_id=change.inbox.pk, message_id=change.message.id).update(topic_id=topic.pk)


def _insert(records: Sequence[Record], topics: dict[tuple[int, str], LockedTopic]) -> None:
    rows: dict[tuple[int, str], NewReceipt] = {}
    for record in records:
        message = record.message
        topic = topics[record.inbox.pk, topic_key(message.scope)]
        if message.order > topic.floor:
            rows.setdefault(
                (record.inbox.pk, message.id),
                NewReceipt(
                    inbox_id=record.inbox.pk,
                    topic_id=topic.pk,
                    message_id=message.id,
                    order=message.order,
                    created_at=message.created_at,
                    known_at=record.known_at,
                    read_at=None if message.is_answer else record.known_at,
                ),
            )
    statements.insert_receipts([rows[key] for key in sorted(rows)])  # as topics: in one order, so no deadlocks


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


def _mark_read(change: Read) -> None:
    rows = Receipt.objects.filter(inbox_id=change.inbox.pk, topic__key=topic_key(change.topic), read_at=None)
    if change.message_ids is not None:
        rows = rows.filter(message_id__in=change.message_ids)
    due = sorted(pk for pk, order in rows.values_list("pk", "order") if change.up_to is None or order <= change.up_to)
    for start in range(0, len(due), _BATCH):
        Receipt.objects.filter(pk__in=due[start : start + _BATCH], read_at=None).update(read_at=datetime.now(UTC))


def counts(inboxes: Iterable[InboxRef]) -> dict[InboxRef, CountsByTopic]:
    """Unread counts by topic, for every inbox asked about; topics without unread are left out."""
    by_pk = {inbox.pk: inbox for inbox in inboxes}
    found: dict[int, CountsByTopic] = {pk: {} for pk in by_pk}
    for pk, scope, count in statements.count_unread(by_pk):
        found[pk][scope] = count
    return {by_pk[pk]: by_topic for pk, by_topic in found.items()}


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


def known_before(inbox: InboxRef, message_ids: Iterable[str], moment: datetime) -> set[str]:
    """Which of these answers had a receipt at a moment."""
    rows = Receipt.objects.filter(inbox_id=inbox.pk, message_id__in=list(message_ids), known_at__lte=moment)
    return set(rows.values_list("message_id", flat=True))


def familiar(inbox: InboxRef, messages: Iterable[Message], *, start: str, began_at: datetime) -> set[str]:
    """The ids of those answers that a feed's readers must have had: they have a receipt, or had one before pruning.

    `start` and `began_at`: where and when the feed began. Of what stands before, a receipt that was made since then is
    another process' and says nothing about the readers here.
    """
    answers = {message.id: message for message in messages if message.is_answer}
    floors = dict(Topic.objects.filter(inbox_id=inbox.pk).values_list("scope", "floor"))
    settled = {message.id for message in answers.values() if message.order <= floors.get(message.scope, "")}
    old = {message.id for message in answers.values() if message.order <= start} - settled
    return settled | known(inbox, answers.keys() - settled - old) | known_before(inbox, old, began_at)


def topic_states(inboxes: Iterable[InboxRef]) -> dict[InboxRef, dict[str, TopicState]]:
    """What was known of each topic when upstream was last compared."""
    by_pk = {inbox.pk: inbox for inbox in inboxes}
    found: dict[InboxRef, dict[str, TopicState]] = {inbox: {} for inbox in by_pk.values()}
    unread = Receipt.objects.filter(inbox=OuterRef("inbox"), topic=OuterRef("pk"), read_at=None)
    newest = Subquery(unread.order_by("-created_at").values("created_at")[:1])
    rows = Topic.objects.filter(inbox_id__in=by_pk).annotate(heard_at=Case(When(upstream_last_at=None, then=newest)))
    for pk, scope, floor, count, last_at, heard_at in rows.values_list(
        "inbox_id", "scope", "floor", "upstream_count", "upstream_last_at", "heard_at"
    ):
        found[by_pk[pk]][scope] = TopicState(floor, count, last_at, last_at, heard_at)
    return found


def learnt_after(inbox: InboxRef, moment: datetime, *, up_to: str) -> set[tuple[str, str]]:
    """(topic, message id) of answers that became known after `moment` although their place is at or before `up_to`."""
    rows = Receipt.objects.filter(inbox_id=inbox.pk, known_at__gt=moment).values_list(
        "topic__scope", "message_id", "order"
    )
    return {(scope, message_id) for scope, message_id, order in rows if order <= up_to}


@transaction.atomic
def settle(inbox: InboxRef, topics: Sequence[TopicSummary], floors: dict[str, str]) -> None:
    """Remember that everything behind `topics` has been fetched; `floors` are topics too long to fetch whole."""
    rows = _topics({(inbox.pk, topic.scope) for topic in topics})
    states = topic_states([inbox])[inbox]
    for topic in topics:
        state = states[topic.scope]
        floor = max(state.floor, floors.get(topic.scope, ""))
        if (state.count, state.last_at, state.floor) != (topic.message_count, topic.last_message_at, floor):
            Topic.objects.filter(pk=rows[inbox.pk, topic_key(topic.scope)].pk).update(
                upstream_count=topic.message_count, upstream_last_at=topic.last_message_at, floor=floor
            )
    Inbox.objects.filter(pk=inbox.pk).update(checked_at=datetime.now(UTC))


@transaction.atomic
def drop_topics(inbox: InboxRef, floors: Mapping[str, str]) -> CountsByTopic:
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
    return counts([inbox])[inbox]


@transaction.atomic
def keep_only(
    inbox: InboxRef, wanted: Mapping[str, Mapping[str, str]], *, known_until: datetime, may_lag: bool
) -> CountsByTopic:
    """Of topics whose messages are all known, drop unread answers that upstream no longer has: nobody can read them.

    `wanted` gives the ids and orders of all that it has. What became known to us after `known_until`, when upstream was
    asked, stays, whatever its place: clocks differ. Where a replica `may_lag`, what is newer than those stays, too.
    """
    statements.lock_topics({(inbox.pk, topic_key(scope)) for scope in wanted})
    for scope, messages in wanted.items():
        rows = Receipt.objects.filter(inbox_id=inbox.pk, topic__key=topic_key(scope), known_at__lte=known_until)
        newest = max(messages.values(), default="") if may_lag else "~"
        unread = rows.filter(read_at=None).values_list("pk", "message_id", "order")  # text sorts otherwise in SQL
        gone = sorted(pk for pk, message_id, order in unread if message_id not in messages and order <= newest)
        for start in range(0, len(gone), _BATCH):
            Receipt.objects.filter(pk__in=gone[start : start + _BATCH]).delete()
    return counts([inbox])[inbox]


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
