"""Unread state as administrators and operators see it: whole tables, clearing, counting again from upstream."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from messaging import unread, visits
from messaging.changes import InboxRef, Read
from messaging.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which inboxes: exact values, None for any."""

    tenant: str | None = None
    participant: str | None = None
    agent: str | None = None


def table(wanted: Filter) -> list[dict[str, Any]]:
    """A row for every topic with unread answers, the longest-waiting first."""
    return unread.overview(**asdict(wanted))


def inboxes(wanted: Filter) -> list[InboxRef]:
    return unread.select(**asdict(wanted))


async def clear(runtime: Runtime, wanted: Filter) -> int:
    """Mark everything as read, as if the person had looked; open pages hear of it. Returns how many answers."""
    cleared = 0
    for inbox in await runtime.ledger.run(inboxes, wanted):
        cleared += await clear_inbox(runtime, inbox)
    return cleared


async def clear_inbox(runtime: Runtime, inbox: InboxRef, *, only: frozenset[str] | None = None) -> int:
    """As clear, for one inbox, or for the message ids in `only`."""
    before = await runtime.ledger.counts(inbox)
    for topic in before:
        runtime.ledger.read(Read(inbox, topic, message_ids=only))
    after = await runtime.ledger.counts(inbox)
    return sum(before.values()) - sum(after.values())


async def resync(runtime: Runtime, inbox: InboxRef) -> int:
    """Compare with upstream's whole history, not only with what has changed; the unread total afterwards.

    What is read stays read. Needs the service's key, since nobody is signed in; raises UpstreamError's subclasses.
    """
    await runtime.ledger.run(unread.forget_survey, inbox)
    if (
        runtime.feeds.get(inbox.address) is not None
    ):  # which remembers what it has handed out, and would write none of it
        runtime.ledger.overflowed.add(inbox)
    await visits.compare(runtime, inbox, runtime.client.bearer(None))
    runtime.hub.tell_of([inbox], "unread")
    return sum((await runtime.ledger.counts(inbox)).values())
