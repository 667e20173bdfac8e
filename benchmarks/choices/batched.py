"""Writes and questions to PostgreSQL, together and one by one: CPU of this process and of the database's.

`python -m benchmarks.choices.batched ROUNDS PEOPLE` in the portal's environment: a process of its own, since settings
that see pytest leave the pool of connections out.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import django
import psutil
import psycopg
import uvloop

from benchmarks.choices.table import Table
from benchmarks.threads import ACTIVATION, AGENT, TENANT, participant

if TYPE_CHECKING:
    from messaging.changes import InboxRef, Record
    from messaging.ledger import Ledger

_RECEIPTS = 1_000
_SIZES = (1, 10, 100, 1_000)
_CHOSEN = 1_000
_OPENINGS = 300
_AT_ONCE = 50


def main(rounds: int, people: int) -> None:
    django.setup()
    inboxes = _inboxes(people)
    meter = Meter(os.environ["DATABASE_URL"])
    _writes(meter, inboxes, rounds)
    _questions(meter, inboxes[:_OPENINGS], rounds)


def _writes(meter: Meter, inboxes: Sequence[InboxRef], rounds: int) -> None:
    from messaging import unread

    table = Table(f"{_RECEIPTS} receipts for {len(inboxes)} inboxes", chosen=f"batches of {_CHOSEN}")
    unread.apply(_records(inboxes, rounds + 1))  # every topic has its row now
    for number in range(rounds):
        for size in _SIZES:
            records = _records(inboxes, number)
            with meter:
                for start in range(0, len(records), size):
                    unread.apply(records[start : start + size])
                    unread.counts({record.inbox for record in records[start : start + size]})
            name = f"batches of {size:,}".replace(",", "") if size > 1 else "one by one"
            table.add(name, meter.found(per=len(records)))
    table.show()


_ids = itertools.count()


def _records(inboxes: Sequence[InboxRef], number: int) -> list[Record]:
    """As many receipts as a second of 1,000 messages brings, of messages that were never seen before."""
    from messaging import wire
    from messaging.changes import Record

    now = datetime.now(UTC) + timedelta(seconds=number)
    found = []
    for place in range(_RECEIPTS):
        raw = {"id": f"68f0{next(_ids):020x}", "createdAt": now.isoformat(), "direction": "Outgoing"}
        message = wire.message({**raw, "messageType": "Chat", "scope": None, "text": "hello"})
        found.append(Record(inboxes[place % len(inboxes)], message, now))
    return found


def _inboxes(people: int) -> list[InboxRef]:
    from messaging import unread
    from messaging.wire import ThreadAddress

    addresses = [ThreadAddress(TENANT, AGENT, ACTIVATION, participant(number)) for number in range(people)]
    found = unread.find(addresses)
    return [found[address] for address in addresses]


# -- questions ----------------------------------------------------------------------------------------------------


def _questions(meter: Meter, inboxes: Sequence[InboxRef], rounds: int) -> None:
    from messaging.runtime import current

    table = Table(
        f"What the opening of {len(inboxes)} streams asks, {_AT_ONCE} at once (sign-in, inbox, topics, counts)",
        chosen="together",
    )
    sessions = _session_keys(len(inboxes))

    async def measure() -> None:
        ledger = current().ledger
        ways = {"together": _together(ledger), "one by one": _one_by_one(ledger)}
        for way in ways.values():
            await _ask(way, sessions, inboxes)
        for _ in range(rounds):
            for name, way in ways.items():
                with meter:
                    await _ask(way, sessions, inboxes)
                table.add(name, meter.found(per=len(sessions)))
        await current().aclose()

    uvloop.run(measure())
    table.show()


def _session_keys(count: int) -> list[str]:
    from django.contrib.sessions.models import Session

    return list(Session.objects.order_by("pk").values_list("pk", flat=True)[:count])


type Way = Callable[[str, InboxRef], Awaitable[None]]


async def _ask(way: Way, sessions: Sequence[str], inboxes: Sequence[InboxRef]) -> None:
    waiting = iter(zip(sessions, inboxes, strict=True))

    async def ask() -> None:
        for session, inbox in waiting:
            await way(session, inbox)

    await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))


def _together(ledger: Ledger) -> Way:
    from messaging import sessions
    from messaging.batch import Batch

    sign_ins = Batch(lambda keys: ledger.run(sessions.load, keys))

    async def ask(session: str, inbox: InboxRef) -> None:
        await sign_ins.get(session)
        await ledger.find(inbox.address)
        await ledger.topic_states(inbox)
        await ledger.stored_counts(inbox)

    return ask


def _one_by_one(ledger: Ledger) -> Way:
    from messaging import sessions, unread

    async def ask(session: str, inbox: InboxRef) -> None:
        await ledger.run(sessions.load, [session])
        await ledger.run(unread.find, [inbox.address])
        await ledger.run(unread.topic_states, [inbox])
        await ledger.run(unread.counts, [inbox])

    return ask


# -- measuring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Moment:
    ours: float
    theirs: float
    wall: float


class Meter:
    """CPU of this process and of the database's processes that serve it, while in the `with` block."""

    def __init__(self, url: str) -> None:
        self._watcher = psycopg.connect(url, autocommit=True)
        self._before = self._after = _Moment(0, 0, 0)

    def __enter__(self) -> Meter:
        self._before = self._now()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._after = self._now()

    def _now(self) -> _Moment:
        theirs = 0.0
        for pid in self._backends():
            times = psutil.Process(pid).cpu_times()
            theirs += times.user + times.system
        return _Moment(time.process_time(), theirs, time.perf_counter())

    def found(self, *, per: int) -> dict[str, float]:
        before, after = self._before, self._after
        return {
            "CPU us here": (after.ours - before.ours) / per * 1e6,
            "CPU us in PostgreSQL": (after.theirs - before.theirs) / per * 1e6,
            "us on the clock": (after.wall - before.wall) / per * 1e6,
        }

    def _backends(self) -> list[int]:
        """The processes that serve the application's connections, which stay (the pool keeps them)."""
        mine = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return [pid for (pid,) in self._watcher.execute(mine).fetchall()]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
