"""Word between processes over a real Redis: two buses stand for two processes (D5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from channels.layers import channel_layers

from messaging import hub
from messaging.bus import Bus, Notice
from messaging.changes import InboxRef
from messaging.hub import Hub, Subscriber, person_key
from messaging.wire import ThreadAddress
from tests.services.redis import Redis

PATIENCE = 10.0
MANY = [InboxRef(n, ThreadAddress("acme", "a", "b", f"p{n}@acme.example")) for n in range(1_200)]


class Process:
    """The hub of a process, and the notices that it hears."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self._news = asyncio.Event()
        self.bus = Bus(self._hear, lambda: None)
        self.hub = Hub(self.bus)

    async def _hear(self, notice: Notice) -> None:
        if notice["what"] == "streams":
            self.hub.told_counts(notice)
        elif notice["what"] == "unread":
            self.hub.told_of(notice)
        self.heard.append(notice)
        self._news.set()

    async def watch(self, inbox: InboxRef) -> None:
        """Somebody opens a stream of this inbox."""
        self.bus.listen()
        person = person_key(inbox.address.participant_id)
        self.hub.attach(Subscriber(person), inbox.address)
        await self.hub.is_told(person)

    async def counts(self, person: str, streams: int) -> None:
        """Return once it knows of so many streams of a person."""
        async with asyncio.timeout(PATIENCE):
            while self.hub.streams_of(person) != streams:
                self._news.clear()
                await self._news.wait()

    async def hears(self, what: str, count: int) -> list[Notice]:
        """The notices of that kind, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [notice for notice in self.heard if notice["what"] == what]) < count:
                self._news.clear()
                await self._news.wait()
        return found


@pytest_asyncio.fixture
async def two(redis: Redis, settings: object) -> AsyncIterator[tuple[Process, Process]]:
    layer = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis.url]}}
    settings.CHANNEL_LAYERS = {"default": layer}  # type: ignore[attr-defined]
    channel_layers.backends.clear()
    here, there = Process(), Process()
    yield here, there
    for process in (here, there):
        await process.hub.aclose()
        await process.bus.aclose()
    await channel_layers["default"].flush()
    channel_layers.backends.clear()


async def test_of_many_inboxes_it_tells_in_few_notices(two: tuple[Process, Process]) -> None:
    """A notice takes a quarter of a millisecond: with one for each of them a busy process did little else."""
    here, there = two
    await there.watch(MANY[3])
    await there.watch(MANY[1_100])
    here.hub.tell_of(MANY, "unread")
    here.hub.tell_of([MANY[3]], "sent")
    await there.hears("sent", 1)
    heard = await there.hears("unread", 3)
    assert len(heard) == 3
    assert [inbox for notice in heard for inbox in there.hub.told_of(notice)] == [MANY[3], MANY[1_100]]


@pytest.mark.parametrize("count", [1, 16])
async def test_of_few_only_those_who_show_them_are_told(two: tuple[Process, Process], count: int) -> None:
    here, there = two
    await there.watch(MANY[count - 1])
    here.hub.tell_of(MANY[:count], "gone", topic="t")
    here.hub.tell_of([MANY[count - 1]], "sent")
    await there.hears("sent", 1)
    heard = await there.hears("gone", 1)
    assert [there.hub.told_of(notice) for notice in heard] == [[MANY[count - 1]]]
    assert heard[0]["topic"] == "t"


@pytest.mark.parametrize("count", [1, 16, 40])
async def test_who_shows_a_person_knows_how_many_streams_they_have_elsewhere(
    two: tuple[Process, Process], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are told one by one, many in a notice to everybody."""
    monkeypatch.setattr(hub, "_TELLING_SECONDS", 0.4)
    here, there = two
    for inbox in MANY[:count]:
        await here.watch(inbox)
    last = MANY[count - 1]
    await there.watch(last)
    person = person_key(last.address.participant_id)
    await there.counts(person, 2)  # it has asked
    second = Subscriber(person)
    here.hub.attach(second, None)
    await there.counts(person, 3)
    here.hub.detach(second, None)
    await there.counts(person, 2)
    assert here.hub.streams_of(person) == 2
    before = len(there.heard)
    here.hub.tell_counts()
    await there.hears("streams", before + 1)


@pytest.mark.parametrize(
    "notice",
    [
        {"what": "unread", "inboxes": [[1, "acme", "a", "b", None]]},
        {"what": "unread", "inboxes": [[1, "acme"]]},
        {"what": "unread", "inboxes": 1},
        {"what": "unread"},
        {"what": "streams", "people": [["p", float("inf"), False]]},
        {"what": "streams", "person": "p"},
        {},
    ],
)
async def test_a_notice_that_it_does_not_understand_leaves_it_listening(
    two: tuple[Process, Process], notice: Notice
) -> None:
    """Another version of us sent it, or a stranger."""
    here, there = two
    await there.watch(MANY[0])
    there.hub.attach(Subscriber("p"), None)
    here.bus.tell_everybody(notice)
    here.hub.tell_of([MANY[0]], "sent")
    await there.hears("sent", 1)
    assert len(there.heard) == 1


async def test_after_a_reconnect_everybody_is_told_at_once(two: tuple[Process, Process]) -> None:
    here, there = two
    for inbox in MANY[:40]:
        await here.watch(inbox)
    await there.watch(MANY[39])
    await there.counts(person_key(MANY[39].address.participant_id), 2)
    here.hub.tell_counts()  # takes its time
    before = len(there.heard)
    here.hub.tell_counts_now()
    told = (await there.hears("streams", before + 1))[-1]
    assert len(told["people"]) == 40
