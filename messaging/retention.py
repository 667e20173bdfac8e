"""What need not be kept: read receipts collapse into their topic's floor, and what was sent is forgotten in time.

Nothing here changes a count: receipts that were read go, once their topic's floor says of each of them, and of every
message that history might bring again, that it is settled. Inboxes and topics stay, since they hold the floors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Min, Q
from django.utils import timezone

from messaging import outbox, sessions, unread
from messaging.models import Receipt, Topic

_TOPICS = 500
_ROWS = 5_000


@dataclass(slots=True)
class Pruned:
    """How many rows went, or would go."""

    receipts: int = 0
    topics: int = 0
    dispatches: int = 0
    sessions: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def prune(*, older_than: timedelta, is_dry_run: bool = False) -> Pruned:
    """Delete what nobody will ask for again: receipts that were read longer ago than `older_than`, requests to send
    that are a day old, sessions that have ended. Works in short transactions while the application runs."""
    cutoff = datetime.now(UTC) - older_than
    pruned = Pruned()
    for topics in _batches():
        floors, settled = _collapsible(topics, cutoff)
        if not is_dry_run:
            _raise_floors(floors)
            _in_batches(settled, lambda pks: Receipt.objects.filter(pk__in=pks, read_at__lt=cutoff).delete())
        pruned.receipts += len(settled)
        pruned.topics += len(floors)
    pruned.dispatches = outbox.forget(is_dry_run=is_dry_run)
    pruned.sessions = _end_sessions(is_dry_run=is_dry_run)
    return pruned


def _batches() -> Iterator[dict[int, Topic]]:
    last = 0
    while topics := {topic.pk: topic for topic in Topic.objects.filter(pk__gt=last).order_by("pk")[:_TOPICS]}:
        yield topics
        last = max(topics)


def _collapsible(topics: dict[int, Topic], cutoff: datetime) -> tuple[dict[int, str], list[int]]:
    """New floors of these topics, and the receipts that are at or below their topic's floor then.

    A floor rises past receipts that were read before the cutoff, as long as none that has to stay stands before them,
    and never past what was compared with upstream: an answer that nobody here has heard of yet must still count.
    """
    stays = Q(read_at=None) | Q(read_at__gte=cutoff)
    staying = Receipt.objects.filter(stays, topic__in=topics).order_by().values_list("topic")
    first_staying: dict[int, datetime] = dict(staying.annotate(first=Min("created_at")))
    old = Receipt.objects.filter(topic__in=topics, read_at__lt=cutoff).values_list("pk", "topic", "order", "created_at")
    floors: dict[int, str] = {}
    settled: list[int] = []
    for pk, topic_pk, order, created_at in old.iterator(chunk_size=_ROWS):
        topic = topics[topic_pk]
        if order <= topic.floor:
            settled.append(pk)
        elif order <= unread.behind(topic.upstream_last_at) and (
            topic_pk not in first_staying or created_at < first_staying[topic_pk]
        ):
            settled.append(pk)
            floors[topic_pk] = max(order, floors.get(topic_pk, ""))
    return floors, settled


@transaction.atomic
def _raise_floors(floors: dict[int, str]) -> None:
    """From here on nobody records anything at or below these places again."""
    for topic in Topic.objects.filter(pk__in=floors).order_by("pk").select_for_update(no_key=True):
        if topic.floor < floors[topic.pk]:
            topic.floor = floors[topic.pk]
            topic.save(update_fields=["floor"])


def _in_batches(pks: list[int], act: Callable[[list[int]], object]) -> None:
    for start in range(0, len(pks), _ROWS):
        act(pks[start : start + _ROWS])


def _end_sessions(*, is_dry_run: bool) -> int:
    """Django's `clearsessions`, counted."""
    store = sessions.session_store()
    if not hasattr(store, "get_model_class"):  # sessions that end by themselves, in a cache
        return 0
    count: int = store.get_model_class().objects.filter(expire_date__lt=timezone.now()).count()
    if not is_dry_run:
        store.clear_expired()
    return count
