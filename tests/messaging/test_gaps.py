"""Comparing when the database or whoever asked for it fails in the middle (docs/delivery.md): nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from messaging import errors, wire
from messaging.changes import InboxRef
from messaging.cursors import Cursor, mark
from messaging.gaps import Gaps
from messaging.items import StreamItem
from messaging.outlet import Outlet, Surroundings
from messaging.unread import Familiar, Settlement, TopicState
from messaging.wheel import Wheel
from messaging.wire import Message, ThreadAddress

PATIENCE = 10.0
ADDRESS = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")
INBOX = InboxRef(1, ADDRESS)
START = datetime.now(UTC)


def message(number: int) -> Message:
    moment = (START + timedelta(seconds=number)).isoformat()
    return wire.message({"id": f"m{number:03d}", "createdAt": moment, "direction": "Outgoing", "messageType": "Chat"})


class World:
    """Upstream, the ledger and the hub around one inbox's gaps; `fails` are the ledger's calls that fail."""

    def __init__(self) -> None:
        self.history_rows: list[Message] = []
        self.fails: set[str] = set()
        self.states: dict[str, TopicState] = {}
        self.was_known: set[str] = set()
        self.while_asking: Callable[[], None] = lambda: None
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.overflowed: set[InboxRef] = set()
        self.dropped: set[InboxRef] = set()
        self.recorded: list[str] = []
        self.shown: list[StreamItem] = []
        self.settled: list[Settlement] = []
        self.flushes: list[bool] = []  # whether they were urgent
        self.lists_read = 0
        self.is_crowded = False
        self.asked_for_crowd = asyncio.Event()
        around = Surroundings(
            client=self,  # type: ignore[arg-type]
            ledger=self,  # type: ignore[arg-type]
            hub=self,  # type: ignore[arg-type]
            wheel=Wheel(),
            secret=b"secret",
            grace_seconds=0,
            is_crowded=self._tell_crowd,
        )
        self.outlet = Outlet(INBOX, around)
        self.outlet.begin(wire.order_at(START))
        self.gaps = Gaps(INBOX, around, self.outlet, lambda: True, lambda: "", on_refused=self.refused)

    def refused(self, problem: errors.UpstreamRefused) -> None:
        raise AssertionError(problem)

    def _tell_crowd(self) -> bool:
        self.asked_for_crowd.set()
        return self.is_crowded

    def _try(self, call: str) -> None:
        if call in self.fails:
            raise errors.LedgerUnavailable(call)

    # -- upstream ---------------------------------------------------------------------------------------------

    async def topics(self, *_: object, **__: object) -> wire.TopicPage:
        self.lists_read += 1
        self.asked.set()
        await self.may_answer.wait()
        rows = self.history_rows
        listed = [wire.TopicSummary("", len(rows), max(row.created_at for row in rows))] if rows else []
        return wire.TopicPage(listed, 1, 200, len(listed), 1, has_more=False)

    async def history(self, *_: object, **__: object) -> wire.HistoryPage:
        return wire.HistoryPage(sorted(self.history_rows, key=lambda row: row.order, reverse=True), is_last=True)

    # -- the ledger -------------------------------------------------------------------------------------------

    async def topic_states(self, _: InboxRef) -> dict[str, TopicState]:
        return self.states

    async def flush(self, *, is_urgent: bool = True) -> None:
        self.flushes.append(is_urgent)
        self._try("flush")

    def hurry(self) -> None:
        self.flushes.append(True)

    async def familiar(self, question: Familiar) -> set[str]:
        self._try("familiar")
        self.while_asking()
        return self.was_known & {its.id for its in question.messages}

    async def settle(self, settlement: Settlement) -> None:
        self._try("settle")
        self.settled.append(settlement)

    def record(self, _: InboxRef, its: Message, *, late_at: datetime | None = None) -> None:
        self.recorded.append(its.id)

    def move(self, _: InboxRef, its: Message) -> None:
        raise AssertionError(f"{its.id} was taken for an edit")

    # -- the hub ----------------------------------------------------------------------------------------------

    def publish(self, _: ThreadAddress, item: StreamItem) -> None:
        self.shown.append(item)

    def cursor(self) -> Cursor:
        """Of a reader who has everything that was handed out."""
        cursor = self.outlet.sealer.read(self.outlet.cursor())
        assert cursor is not None
        return cursor

    def ids_shown(self) -> list[str]:
        return [item.message.id for item in self.shown if item.kind == "message" and item.message is not None]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> World:
    world = World()
    await world.gaps.prepare()
    return world


async def test_what_the_database_would_not_settle_is_settled_by_the_next_comparison(world: World) -> None:
    """F65: the list then looks as it did before, so only what we expect of it can tell that it is news."""
    world.history_rows = [message(1)]
    world.fails = {"settle"}
    assert await world.gaps.compare() is None
    assert not world.gaps.is_complete
    world.fails = set()
    assert await world.gaps.compare() is not None
    (settlement,) = world.settled
    assert [(topic.scope, topic.message_count) for topic in settlement.topics] == [("", 1)]
    assert world.ids_shown() == ["m001"], "shown once, however often it is compared"
    assert world.gaps.is_complete


@pytest.mark.parametrize("call", ["familiar", "flush"])
async def test_what_was_set_aside_waits_for_a_database_that_is_away(world: World, call: str) -> None:
    """F65: it came by the stream, and says that it is older than the stream; history may not have it for long."""
    late = structs.replace(message(1), id="late", order=wire.order_of(START - timedelta(seconds=5), "late"))
    world.gaps.set_aside(late, "{}", "Chat")
    world.fails = {call}
    assert await world.gaps.compare() is None
    assert world.ids_shown() == []
    world.fails = set()
    assert await world.gaps.compare() is not None
    assert world.ids_shown() == ["late"]
    assert world.recorded == ["late"]


async def test_the_first_comparison_names_what_was_there_just_before(world: World) -> None:
    """D1: cursors don't vouch for the seconds before the feed until nothing of them can still be on its way."""
    world.history_rows = [message(-60), message(-2), message(-1)]
    world.states = {"": TopicState("", 3, message(-1).created_at)}  # nothing of it is news to the database, either
    world.was_known = {its.id for its in world.history_rows}
    await world.gaps.prepare()
    world.outlet.hand_out(message(1))
    before = world.cursor()
    assert (before.order, before.sure_at) == (wire.order_at(START), world.outlet.began_at), "nobody has asked yet"
    await world.gaps.compare()
    assert world.cursor().sure_at is None
    assert world.ids_shown() == ["m001"]
    named = frozenset(mark(its.id) for its in (message(-2), message(-1), message(1)))
    assert (world.cursor().marks, before.marks) == (named, frozenset({mark("m001")}))
    assert world.cursor().order < message(-2).order
    world.history_rows += [message(-3), message(1)]  # stored late
    await world.gaps.compare()
    assert world.ids_shown() == ["m001", "m-03"], "a second comparison knows what is news"
    assert mark("m-03") in world.cursor().marks
    world.outlet.began -= 6
    await world.gaps.compare()
    assert world.cursor().order >= wire.order_at(START)


async def test_what_a_replica_lists_late_is_named_although_it_is_news_to_nobody(world: World) -> None:
    """D1, F45: another process had shown it before this feed began."""
    await world.gaps.compare()
    world.history_rows, world.was_known = [message(-1)], {"m-01"}
    await world.gaps.compare()
    assert world.ids_shown() == []
    assert mark("m-01") in world.cursor().marks


async def test_no_cursor_names_what_no_stream_carries(world: World) -> None:
    """D1: the person's own words in the sum of a burst would make it disagree with history for ever."""
    await world.gaps.compare()
    world.history_rows = [structs.replace(message(number), direction="Incoming") for number in (-1, 1)]
    await world.gaps.compare()
    assert world.cursor().marks == frozenset()


async def test_what_the_stream_brings_while_history_is_looked_at_is_shown(world: World) -> None:
    """D1: the first comparison takes what is old for older than its readers; the stream knows better."""
    world.history_rows = [message(-1)]
    world.while_asking = lambda: world.gaps.set_aside(message(-1), "{}", "Chat")
    await world.gaps.compare()
    world.while_asking = lambda: None
    await world.gaps.compare()
    assert world.ids_shown() == ["m-01"]
    assert world.cursor().marks == {mark("m-01")}


async def test_a_message_that_claims_to_be_of_the_future_proves_nothing(world: World) -> None:
    """D1: what was made just before the feed began may be on its way all the same."""
    world.outlet.hand_out(message(3600))
    await world.gaps.compare()
    assert world.cursor().order < wire.order_at(START)


async def test_a_look_that_was_due_with_a_comparison_comes_although_the_asker_has_gone(world: World) -> None:
    """It waits while many streams are being opened, one of them compares in its place, and its reader goes (U2)."""
    world.is_crowded = True
    world.gaps.look_again()
    await asyncio.wait_for(world.asked_for_crowd.wait(), PATIENCE)  # it is due, and put off
    world.may_answer.clear()
    asking = asyncio.create_task(world.gaps.compare())
    await asyncio.wait_for(world.asked.wait(), PATIENCE)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    world.gaps.look_again(600)
    world.is_crowded = False
    world.history_rows = [message(1)]
    world.may_answer.set()
    await world.until(lambda: world.ids_shown() == ["m001"])
    world.gaps.end()


async def test_those_who_want_a_comparison_at_one_time_share_one(world: World) -> None:
    """What one of them reads was begun after all of them asked; who asks later is given a newer one."""
    world.may_answer.clear()
    first = asyncio.create_task(world.gaps.compare())
    await asyncio.wait_for(world.asked.wait(), PATIENCE)
    others = [asyncio.create_task(world.gaps.compare()) for _ in range(5)]
    await asyncio.sleep(0)
    world.may_answer.set()
    found = await asyncio.gather(first, *others)
    assert world.lists_read == 2
    assert found[0] is not found[1]
    assert all(pages is found[1] for pages in found[1:])


async def _heard_something(world: World) -> None:
    """The stream brought a message, which the database has not been told of."""
    await world.gaps.prepare()
    world.history_rows = [message(1)]
    world.gaps.expect(message(1))
    world.outlet.hand_out(message(1))


@pytest.mark.parametrize(
    ("is_awaited", "is_back", "is_urgent"), [(False, False, False), (True, False, True), (False, True, True)]
)
async def test_only_a_comparison_that_somebody_waits_for_has_receipts_written_early(
    world: World, *, is_awaited: bool, is_back: bool, is_urgent: bool
) -> None:
    """There are many of them a second; after a break all readers wait."""
    await _heard_something(world)
    world.gaps.away_since = START if is_back else None
    await world.gaps.compare(is_awaited=is_awaited)
    assert world.settled
    assert world.flushes[0] == is_urgent


@pytest.mark.parametrize("wish", [lambda gaps: gaps.compare(), lambda gaps: gaps.bring_in([message(2)])])
async def test_whoever_comes_to_wait_for_a_comparison_hurries_it(
    world: World, wish: Callable[[Gaps], Coroutine[Any, Any, object]]
) -> None:
    await _heard_something(world)
    world.may_answer.clear()
    by_the_clock = asyncio.create_task(world.gaps.compare(is_awaited=False))
    await asyncio.wait_for(world.asked.wait(), PATIENCE)
    awaited = asyncio.create_task(wish(world.gaps))
    await asyncio.sleep(0)
    assert world.flushes == [True]
    world.may_answer.set()
    await asyncio.gather(by_the_clock, awaited)
    assert set(world.flushes) == {True}
