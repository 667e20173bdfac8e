"""New counts in company: where many are told, each goes with a message on the same way, or soon by itself (D5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from messaging import ledger as ledgers
from messaging import unread, wire
from messaging.bus import Bus
from messaging.changes import InboxRef, Read, Record
from messaging.hub import Hub, Subscriber, person_key
from messaging.items import StreamItem
from messaging.ledger import Ledger
from messaging.wire import ThreadAddress

PATIENCE = 10.0
MANY = 100
NEVER = 3600.0


class Remembering(Ledger):
    """A ledger with a dictionary for its database."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.unread: dict[InboxRef, int] = {}

    async def run(self, store: Callable[..., Any], /, *args: Any, **_: Any) -> Any:
        if store is unread.counts:
            return {inbox: {"t": self.unread[inbox]} if self.unread.get(inbox) else {} for inbox in args[0]}
        for change in args[0].changes:
            self.unread[change.inbox] = self.unread.get(change.inbox, 0) + 1 if isinstance(change, Record) else 0
        return None


class Reader:
    """A stream that waits: what it is given in one go is one of its `writes`."""

    def __init__(self, hub: Hub, inbox: InboxRef) -> None:
        self.writes: list[list[str]] = []
        self.news = asyncio.Event()
        self._subscriber = Subscriber(person_key(inbox.address.participant_id))
        self._subscriber.rush = self._write
        hub.attach(self._subscriber, inbox.address)
        self.waiting = asyncio.create_task(self._subscriber.wait())

    def _write(self) -> bool:
        items = self._subscriber.take()
        self.writes.append([f"{item.unread_count} unread" if item.kind == "unread" else item.kind for item in items])
        self.news.set()
        return True

    async def written(self) -> list[list[str]]:
        async with asyncio.timeout(PATIENCE):
            await self.news.wait()
        return self.writes


class World:
    """Many inboxes, a reader each; every one has been told its count once."""

    def __init__(self) -> None:
        self.hub = Hub(Bus(_nothing, lambda: None))
        self.ledger = Remembering(self.hub)
        self.inboxes = [InboxRef(n, ThreadAddress("acme", "a", "b", f"p{n}@acme.example")) for n in range(MANY)]
        self.readers = [Reader(self.hub, inbox) for inbox in self.inboxes]

    async def counted(self) -> None:
        """Return when what is unread has been handed to all readers, written or not."""
        for inbox in self.inboxes:
            await self.ledger.counts(inbox)

    def answer(self, inbox: InboxRef) -> None:
        told = {"id": f"m{inbox.pk}", "createdAt": "2026-07-02T09:00:00Z", "scope": "t", "direction": "Outgoing"}
        self.ledger.record(inbox, wire.message(told, event="Chat"), late_at=datetime.now(UTC))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.counted()
    yield world
    await world.ledger.aclose()
    for reader in world.readers:
        reader.waiting.cancel()


class Clock:
    """The ledger's clock, which stands still; lonely counts go when it is advanced."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        self._due: list[tuple[asyncio.TimerHandle, Callable[[], object]]] = []
        self._loop = loop
        self._call_later = loop.call_later

    def monotonic(self) -> float:
        return self.now

    def call_later(self, wait: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        if getattr(call, "__name__", "") != "_tell_lonely":
            return self._call_later(wait, call, *args)
        timer = asyncio.TimerHandle(self.now + wait, call, args, self._loop)
        self._due.append((timer, call))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and who waits look at the clock until nobody wants to look again at once."""
        self.now += seconds
        looks = 0
        while self._due and looks < 2 * MANY:
            timer, call = self._due.pop(0)
            if not timer.cancelled():
                call()
                looks += 1


@pytest.fixture
async def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    monkeypatch.setattr(ledgers, "time", clock)
    monkeypatch.setattr(loop, "call_later", clock.call_later)
    return clock


async def _nothing(_: Any) -> None: ...


async def test_many_new_counts_go_with_the_next_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_COMPANY_SECONDS", NEVER)
    for inbox in world.inboxes:
        world.answer(inbox)
    await world.counted()
    assert [reader.writes for reader in world.readers] == [[]] * MANY
    for inbox in world.inboxes[:3]:
        world.hub.publish(inbox.address, StreamItem("message"))
        assert await world.readers[inbox.pk].written() == [["1 unread", "message"]]


async def test_a_count_that_finds_no_company_goes_by_itself(world: World) -> None:
    for inbox in world.inboxes:
        world.answer(inbox)
    for reader in world.readers:
        assert await reader.written() == [["1 unread"]]


async def test_what_somebody_read_is_told_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_COMPANY_SECONDS", NEVER)
    for inbox in world.inboxes:
        world.answer(inbox)
    await world.counted()
    for inbox in world.inboxes[1:]:
        world.answer(inbox)
    world.ledger.read(Read(world.inboxes[0], "t"))
    assert await world.readers[0].written() == [["1 unread", "0 unread"]]
    assert world.readers[1].writes == []


async def test_a_count_that_another_process_tells_of_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows here how old it is."""
    monkeypatch.setattr(ledgers, "_COMPANY_SECONDS", NEVER)
    world.ledger.unread = dict.fromkeys(world.inboxes, 1)
    world.ledger.look_again(world.inboxes)
    for reader in world.readers:
        assert await reader.written() == [["1 unread"]]


async def test_a_few_new_counts_are_told_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_COMPANY_SECONDS", NEVER)
    for inbox in world.inboxes[1:]:
        world.answer(inbox)
    for reader in world.readers[1:]:
        assert await reader.written() == [["1 unread"]]


async def test_a_count_waits_from_its_own_answer_on(world: World, clock: Clock) -> None:
    """Of one batch the older goes, the younger waits on."""
    for inbox in world.inboxes:
        world.answer(inbox)
        clock.now += 0.005
    await world.counted()
    assert [reader.writes for reader in world.readers] == [[]] * MANY
    clock.advance(0.648)  # to 1.148 s after the first, to 0.653 s after the last
    assert [len(reader.writes) for reader in world.readers] == [1] * 60 + [0] * 40


async def test_a_count_that_found_company_leaves_the_next_one_its_time(world: World, clock: Clock) -> None:
    """The moment of the first passes while the next waits for a message of its own."""
    for inbox in world.inboxes:
        world.answer(inbox)
    await world.counted()
    clock.now += 0.6
    for inbox in world.inboxes:
        world.hub.publish(inbox.address, StreamItem("message"))
        await world.readers[inbox.pk].written()
    for inbox in world.inboxes:
        world.answer(inbox)
    await world.counted()
    clock.advance(0.35)
    assert [reader.writes for reader in world.readers] == [[["1 unread", "message"]]] * MANY
    clock.advance(0.6)
    assert [reader.writes[1:] for reader in world.readers] == [[["2 unread"]]] * MANY


async def test_a_count_whose_time_is_nearly_up_goes_when_somebody_else_gets_a_message(
    world: World, clock: Clock
) -> None:
    """The oldest first, one for each message; the others have their time."""
    for inbox in world.inboxes:
        world.answer(inbox)
        clock.now += 0.005
    await world.counted()
    clock.now += 0.362  # 0.852 s after the third, 0.847 after the fourth: 0.85 is the limit
    for _ in range(4):
        world.ledger.take_turn()
    assert [len(reader.writes) for reader in world.readers] == [1] * 3 + [0] * 97


async def test_receipts_that_nobody_waits_for_are_not_hurried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_PAUSE_SECONDS", NEVER)
    world.answer(world.inboxes[0])
    await world.ledger.flush(is_urgent=False)  # the first is written at once
    world.answer(world.inboxes[1])
    patient = asyncio.create_task(world.ledger.flush(is_urgent=False))
    world.ledger.take_turn()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not patient.done()
    world.ledger.hurry()
    async with asyncio.timeout(PATIENCE):
        await patient


async def test_receipts_that_are_due_soon_are_written_just_after_a_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes while they are being written has to wait for the thread that writes them."""
    monkeypatch.setattr(ledgers, "_PAUSE_SECONDS", NEVER)
    monkeypatch.setattr(ledgers, "_EARLY_SECONDS", NEVER)
    world.answer(world.inboxes[0])
    await world.ledger.flush(is_urgent=False)
    world.answer(world.inboxes[1])
    patient = asyncio.create_task(world.ledger.flush(is_urgent=False))
    while not patient.done():  # it gives up after seconds
        world.ledger.take_turn()
        await asyncio.sleep(0)
    await patient


async def test_a_full_sheet_is_not_left_lying_while_the_ledger_rests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_PAUSE_SECONDS", NEVER)
    monkeypatch.setattr(ledgers, "_BATCH", 10)
    world.answer(world.inboxes[0])
    await world.ledger.flush(is_urgent=False)
    for inbox in world.inboxes[:10]:  # before it rests
        world.answer(inbox)
    patient = asyncio.create_task(world.ledger.flush(is_urgent=False))
    for _ in range(10):
        await asyncio.sleep(0)
    world.answer(world.inboxes[10])
    await patient
