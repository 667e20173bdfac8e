"""What was sent under which request id: a repeat within a day sends nothing (interfaces.md section 2, `send`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q

from messaging.changes import InboxRef
from messaging.models import Dispatch

REMEMBERED = timedelta(days=1)
_ABANDONED = timedelta(seconds=90)
"""Longer than any call to upstream may take: a dispatch that began before has lost its process."""
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a request id: `thread_id` if it arrived; else whether it `is_ours` to send now, and whether an
    earlier try `may_have_arrived`. Neither: another process is sending it."""

    thread_id: str = ""
    is_ours: bool = False
    may_have_arrived: bool = False


def claim(inbox: InboxRef, request_id: str) -> Claim:
    """Take a request id for sending, or learn what became of it."""
    for _ in range(_TRIES):
        with suppress(IntegrityError):  # another process held it, and has given it back in this very moment
            return _claim(inbox, request_id)
    return Claim()


@transaction.atomic
def _claim(inbox: InboxRef, request_id: str) -> Claim:
    now = datetime.now(UTC)
    row, is_new = Dispatch.objects.select_for_update().get_or_create(
        inbox_id=inbox.pk, request_id=request_id, defaults={"first_at": now, "busy_since": now}
    )
    if is_new:
        return Claim(is_ours=True)
    if now - row.first_at > REMEMBERED:
        row.first_at, row.busy_since, row.thread_id = now, now, ""
        row.save(update_fields=["first_at", "busy_since", "thread_id"])
        return Claim(is_ours=True)
    if row.thread_id:
        return Claim(thread_id=row.thread_id)
    if row.busy_since is not None and now - row.busy_since < _ABANDONED:
        return Claim()
    row.busy_since = now
    row.save(update_fields=["busy_since"])
    return Claim(is_ours=True, may_have_arrived=True)


def arrived(inbox: InboxRef, request_id: str, thread_id: str) -> None:
    """Upstream has it."""
    rows = Dispatch.objects.filter(inbox_id=inbox.pk, request_id=request_id)
    rows.update(thread_id=thread_id, busy_since=None)


def unsure(inbox: InboxRef, request_id: str) -> None:
    """Nobody knows whether upstream has it: the next try looks in history first."""
    Dispatch.objects.filter(inbox_id=inbox.pk, request_id=request_id).update(busy_since=None)


def refused(inbox: InboxRef, request_id: str) -> None:
    """Upstream certainly does not have it."""
    Dispatch.objects.filter(inbox_id=inbox.pk, request_id=request_id, thread_id="").delete()


def forget(*, is_dry_run: bool = False) -> int:
    """Delete what `claim` would no longer honour, and nothing that somebody is sending; how many those are."""
    now = datetime.now(UTC)
    is_idle = Q(busy_since=None) | Q(busy_since__lt=now - _ABANDONED)
    rows = Dispatch.objects.filter(is_idle, first_at__lt=now - REMEMBERED)
    return rows.count() if is_dry_run else rows.delete()[0]
