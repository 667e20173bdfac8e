"""A reader who moves from one process' feed to another's, as far as memory can tell (docs/delivery.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from messaging import wire
from messaging.catchup import Pages
from messaging.changes import InboxRef
from messaging.cursors import Span, mark
from messaging.hub import Subscriber
from messaging.items import StreamItem
from messaging.outlet import Outlet, Surroundings
from messaging.resuming import find_start, from_memory
from messaging.unread import Familiar, LearntAfter
from messaging.wire import Message, ThreadAddress

ADDRESS = ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")
START = datetime.now(UTC)


class Elsewhere:
    """What an outlet tells the ledger and the hub."""

    def __init__(self) -> None:
        self.late_at: dict[str, datetime | None] = {}

    def record(self, _inbox: object, its: Message, *, late_at: datetime | None = None) -> None:
        self.late_at[its.id] = late_at

    def publish(self, *_item: object) -> None: ...


def outlet(elsewhere: Elsewhere | None = None) -> Outlet:
    """One that began some time ago: everything before is proven."""
    made = young_outlet(elsewhere)
    made.look_back([])
    made.prove(made.start)
    return made


def young_outlet(elsewhere: Elsewhere | None = None, *, began_at: datetime = START) -> Outlet:
    elsewhere = elsewhere or Elsewhere()
    around = Surroundings(
        client=elsewhere,  # type: ignore[arg-type]
        ledger=elsewhere,  # type: ignore[arg-type]
        hub=elsewhere,  # type: ignore[arg-type]
        wheel=elsewhere,  # type: ignore[arg-type]
        secret=b"secret",
        grace_seconds=0,
        is_crowded=lambda: False,
    )
    made = Outlet(InboxRef(1, ADDRESS), around)
    made.begin(wire.order_at(began_at))
    return made


def message(number: int) -> Message:
    moment = (START + timedelta(seconds=number)).isoformat()
    return wire.message({"id": f"m{number:03d}", "createdAt": moment, "direction": "Outgoing", "messageType": "Chat"})


def handing_out(*numbers: int, at: Outlet) -> str:
    """The cursor of somebody who has just been handed these there."""
    for number in numbers:
        at.hand_out(message(number))
    return at.cursor()


def missed(there: Outlet, text: str) -> list[StreamItem]:
    cursor = there.sealer.read(text)
    assert cursor is not None
    assert there.reaches(cursor)
    return from_memory(there, cursor)


def names(items: list[StreamItem]) -> list[str]:
    return [item.message.id for item in items if item.message is not None]


def test_it_is_given_what_it_has_not_had_in_order_however_that_came() -> None:
    here, there = outlet(), outlet()
    had = handing_out(2, 4, at=here)
    handing_out(5, 4, 1, 3, 2, at=there)
    assert names(missed(there, had)) == ["m001", "m003", "m005"]


def test_each_cursor_names_what_its_holder_was_given_and_no_more() -> None:
    """Whoever goes in the middle of a replay gets the rest of it elsewhere."""
    here, there = outlet(), outlet()
    had = handing_out(2, at=here)
    handing_out(1, 2, 3, 4, at=there)
    replay = missed(there, had)
    assert names(replay) == ["m001", "m003", "m004"]
    handing_out(1, 3, 4, at=here)
    assert [names(missed(here, item.cursor)) for item in replay] == [["m003", "m004"], ["m004"], []]


def test_no_cursor_vouches_for_what_nobody_has_compared() -> None:
    """D1: this feed's stream left out a message; whoever is given a later one first comes back for it."""
    here, there = outlet(), outlet()
    there.began -= 60
    had = handing_out(1, at=here)
    handing_out(1, 3, at=there)
    (item,) = missed(there, had)
    handing_out(2, at=there)
    assert names(missed(there, item.cursor)) == ["m002"]


def test_a_young_feed_vouches_for_nothing_that_may_still_be_on_its_way() -> None:
    """D1: an answer that claims to be older than the feed was stored later, and only the other process heard of it."""
    here, there = young_outlet(), young_outlet(began_at=START - timedelta(seconds=10))
    here.look_back([])
    had = handing_out(1, at=here)
    handing_out(-1, 1, at=there)
    assert names(missed(there, had)) == ["m-01"]


def test_what_was_there_before_a_young_feed_is_named() -> None:
    """D1: its readers had that elsewhere, or came later: it is news to nobody."""
    here, there = young_outlet(), young_outlet(began_at=START - timedelta(seconds=10))
    here.look_back([message(-1), message(1)])
    had = handing_out(1, at=here)
    handing_out(-1, 1, at=there)
    assert missed(there, had) == []
    assert here.proven < message(-1).order, "more may come"
    here.began -= 6
    here.prove(here.provable())
    assert here.proven == here.start
    assert missed(there, here.cursor()) == []


@pytest.mark.parametrize("asked", [0, 1, 199])
def test_a_burst_counts_what_was_there_before_a_young_feed_once(asked: int) -> None:
    """D1: else the sum disagrees with history, and a whole burst is told as one with a hole."""
    here = young_outlet()
    handing_out(*range(1, asked), at=here)
    here.look_back([message(-1)])
    handing_out(*range(asked or 1, 200), at=here)
    here.pass_over(message(-1))
    cursor = here.sealer.read(here.cursor())
    assert cursor is not None
    assert cursor.span is not None
    summed_up = [m.id for m in map(message, (-1, *range(1, 200))) if m.order <= cursor.order]
    assert Span(cursor.span.start).with_(summed_up) == cursor.span


class Site:
    """A runtime and a feed whose process has just begun; upstream's history holds what it is given."""

    def __init__(self, outlet: Outlet, history: list[Message], *, meanwhile: Callable[[], None]) -> None:
        self.outlet, self.address, self.inbox, self.bearer = outlet, ADDRESS, InboxRef(1, ADDRESS), ""
        self.client = self.ledger = self.gaps = self
        self.is_complete = False
        self.compared_at = START + timedelta(days=1)
        self.is_flushed = False
        self.late: set[str] = set()
        self.late_since: datetime | None = None
        self.was_known: set[str] = set()
        self._history = history
        self._meanwhile = meanwhile

    async def compare(self) -> Pages:
        return Pages(self, ADDRESS, "")  # type: ignore[arg-type]

    async def topics(self, *_: object, **__: object) -> wire.TopicPage:
        newest = max(message.created_at for message in self._history)
        return wire.TopicPage([wire.TopicSummary("", len(self._history), newest)], 1, 200, 1, 1, has_more=False)

    async def history(self, *_: object, **__: object) -> wire.HistoryPage:
        return wire.HistoryPage(self._history, is_last=True)

    async def learnt_after(self, question: LearntAfter) -> set[tuple[str, str]]:
        assert self.is_flushed, "what was handed out just now has no receipt yet"
        late = self.late if question.moment == self.late_since else set()
        places = {message.id: message.order for message in self._history}
        return {("", name) for name in late if question.since < places[name] <= question.up_to}

    async def flush(self) -> None:
        self.is_flushed = True

    async def familiar(self, question: Familiar) -> set[str]:
        return self.was_known & {message.id for message in question.messages}

    async def bring_in(self, messages: list[Message]) -> None:
        self._meanwhile()
        for message in messages:
            if not self.outlet.knows(message):
                self.outlet.hand_out(message)


async def test_a_reader_who_moves_takes_along_what_it_had() -> None:
    """D1: the other feed handed out message 9 when it had not heard of the others; its reader has them."""
    here, there = outlet(), outlet()
    had = handing_out(1, 2, 3, at=here)
    handing_out(9, at=there)
    handing_out(1, 2, 3, at=there)  # a comparison has found them
    site = Site(there, [], meanwhile=lambda: None)
    site.is_complete = True
    start = await find_start(site, site, Subscriber("alice"), had, timedelta(0))  # type: ignore[arg-type]
    assert (start.resumed, names(start.backlog)) == ("memory", ["m009"])
    handing_out(9, at=here)
    assert missed(here, start.backlog[0].cursor) == []


async def test_what_the_stream_brings_during_a_replay_names_what_the_replay_gave() -> None:
    """D1: its own cursor was written before: whoever went on with that one would be given the replay again."""
    reader = Subscriber("alice")
    elsewhere = Elsewhere()
    elsewhere.publish = lambda _address, item: reader.put(item)  # type: ignore[assignment,misc]
    here, there = outlet(), outlet(elsewhere)
    had = handing_out(1, at=here)
    site = Site(there, [message(1), message(2)], meanwhile=lambda: there.hand_out(message(3)))
    start = await find_start(site, site, reader, had, timedelta(0))  # type: ignore[arg-type]
    assert names(start.backlog) == ["m002", "m003"]
    handing_out(2, 3, at=here)
    assert missed(here, start.backlog[-1].cursor) == []


async def test_what_a_feed_was_not_sure_of_is_replayed_unless_it_was_known_when_that_began() -> None:
    """D1: it had asked nobody yet. Nothing of what is older than five seconds can have been on its way."""
    here, there = young_outlet(), outlet()
    had = handing_out(1, at=here)
    site = Site(there, [message(number) for number in (-9, -3, -2, -1, 1, 2)], meanwhile=lambda: None)
    site.late, site.was_known = {"m-09", "m-03", "m-02", "m-01"}, {"m-02"}
    site.late_since = here.began_at
    start = await find_start(site, site, Subscriber("alice"), had, timedelta(0))  # type: ignore[arg-type]
    assert names(start.backlog) == ["m-03", "m-01", "m002"]
    given = [here.sealer.read(item.cursor) for item in start.backlog]
    assert [its.sure_at for its in given if its] == [here.began_at, here.began_at, None]
    assert [mark("m-01") in its.marks for its in given if its] == [False, True, False]


def test_what_is_old_when_it_comes_is_late_whoever_has_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: a process that began after it was made, and never heard of it, wrote cursors that stand behind it."""
    elsewhere = Elsewhere()
    now = START
    monkeypatch.setattr("messaging.outlet.time.time_ns", lambda: int(now.timestamp() * 1e9))
    here = outlet(elsewhere)
    now += timedelta(seconds=10)
    handing_out(9, 10, at=here)
    here.hand_out(structs.replace(message(8), kind="Data"))
    assert elsewhere.late_at["m008"] is elsewhere.late_at["m010"] is None, "no receipt tells when another had the first"
    assert elsewhere.late_at["m009"] == now.replace(microsecond=now.microsecond // 1000 * 1000) + timedelta(seconds=1)
    its = here.sealer.write(wire.order_at(now), int(now.timestamp() * 1000) - 1)
    cursor = here.sealer.read(its)
    assert cursor is not None
    assert not here.reaches(cursor), "written just before, it says nothing of the late one"


def test_what_comes_late_is_known_later_than_every_cursor_before_it_and_no_later_than_its_own() -> None:
    """What became known a second or more after a cursor was written is replayed to its holder (`learnt_after`)."""
    elsewhere = Elsewhere()
    here = outlet(elsewhere)
    before = here.sealer.read(handing_out(1, at=here))
    own = here.sealer.read(handing_out(-3, at=here))
    late_at = elsewhere.late_at["m-03"]
    assert before is not None
    assert own is not None
    assert late_at is not None
    assert elsewhere.late_at["m001"] is None
    assert before.sent_at + timedelta(seconds=1) < late_at <= own.sent_at + timedelta(seconds=1)
