"""kill -9 in the middle of many messages: after the restart each is counted once, and each is shown once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from demo.world import INVOICES
from tests.faults.laboratory.books import Books, Inbox
from tests.faults.laboratory.tab import Tab
from tests.messaging.conftest import Site, alice, own_site, signed_in, site_env  # noqa: F401 - fixtures
from tests.messaging.people import Person
from tests.services.app import AppServer

_MESSAGES, _AT_ONCE = 1_000, 20
_KILLS = 4
_PATIENCE = 60.0


class Here:
    """The one process, as tabs find it."""

    def __init__(self, app: AppServer) -> None:
        self.name = "here"
        self.url = app.url


@pytest.mark.parametrize("listens", [True, False], ids=["a listener resumes", "nobody listens after"])
async def test_a_kill_in_the_middle_of_1000_messages_loses_none_and_counts_none_twice(
    own_site: Site,  # noqa: F811
    alice: Person,  # noqa: F811
    *,
    listens: bool,
) -> None:
    """F75: killed at random moments of the writing: the row is there or it is not, and is counted once in the end."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    assert await alice.unread() == {}
    inbox = Inbox(alice.email, INVOICES, own_site.activation)
    tab = Tab(0, inbox, alice.client, [Here(own_site.app)], Books(), seed)
    tab.wake()
    try:
        await _until(lambda: _is(tab.current is not None))
        ids = await _burst(own_site, dice, killing=tab if not listens else None)
        if listens:
            await _until(lambda: _is(len(tab.showings) >= _MESSAGES))
        await _until(lambda: _counts(alice, _MESSAGES))
    finally:
        await tab.sleep()
    assert _receipts(own_site.app) == Counter(ids)
    if listens:
        assert Counter(showing.id for showing in tab.showings) == Counter(ids)
        assert any(connection.last_id for connection in tab.connections)


async def _burst(site: Site, dice: random.Random, *, killing: Tab | None) -> list[str]:
    """1,000 messages, and the process killed four times meanwhile; `killing`: who leaves with the last one."""
    thread = {"tenant": "acme", "agent": INVOICES, "activation": site.activation}
    batches = _MESSAGES // _AT_ONCE
    moments = sorted(dice.sample(range(1, batches), _KILLS))
    ids: list[str] = []
    restarting: asyncio.Task[None] | None = None
    for number in range(batches):
        if number in moments:
            if restarting is not None:
                await restarting
            await asyncio.sleep(dice.uniform(0, 0.1))  # somewhere between arriving and being written
            site.app.kill()
            if killing is not None and number == moments[-1]:
                await killing.sleep()
            restarting = asyncio.create_task(asyncio.to_thread(site.app.start))
        told = await asyncio.to_thread(
            site.xians.control,
            "burst",
            **thread,
            participants=["alice@acme.example"],
            count=_AT_ONCE,
            topics=[None, "Orders", "Invoices"],
        )
        ids += told["ids"]
        await asyncio.sleep(dice.uniform(0, 0.05))
    if restarting is not None:
        await restarting
    return ids


async def _counts(person: Person, wanted: int) -> bool:
    answer = await person.get("unread")
    return answer.status_code == 200 and answer.json()["total"] == wanted


async def _is(value: bool) -> bool:  # noqa: FBT001 - so that plain conditions can be awaited like questions
    return value


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.1)


def _receipts(app: AppServer) -> Counter[str]:
    with psycopg.connect(app.database_url) as database:
        rows = database.execute("SELECT message_id FROM messaging_receipt WHERE read_at IS NULL").fetchall()
    return Counter(str(row[0]) for row in rows)
