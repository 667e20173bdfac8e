"""Where a feed's messages go out: to the readers, to the ledger, and into a short memory for those who come back.

An outlet hands out each message id once. It remembers the last messages in the order in which they went out (the
ring), and the ids of some more before them; both may be lost at any moment (docs/delivery.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from messaging import metrics
from messaging.changes import InboxRef
from messaging.cursors import MARK_LENGTH, MOST_MARKS, Cursor, Sealer, Span, mark
from messaging.hub import Hub
from messaging.items import StreamItem
from messaging.ledger import Ledger
from messaging.unread import PUT_OFF
from messaging.upstream import UpstreamClient
from messaging.wheel import Wheel
from messaging.wire import PLACE_DIGITS, Message, order_at, stream_json

_RING_ITEMS = 256
_RING_BYTES = 1 << 18
_RING_SECONDS = 300
_IDS = 2_048
_duplicates = metrics.messages_dropped.labels("duplicate")
_OLD_IDS = 2_000
_NOTED = -1  # no hash is -1
_SAME_MOMENT_MS = PUT_OFF // timedelta(milliseconds=1)
_AGED_US = 300_000
"""A message that is handed out so long after it was made may have been stored long after it, too."""
SETTLING = timedelta(seconds=5)
"""How long after its creation time a message may be stored at the latest, as far as we rely on it."""
_NOWHERE = "0" * 17 + "-"
_OWN_EVENTS = frozenset({"connected", "heartbeat", "unread", "resync", "goodbye", "status"})
_LONGEST_EVENT_NAME = 64


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every feed of a process shares. `is_crowded`: many streams are just being opened."""

    client: UpstreamClient
    ledger: Ledger
    hub: Hub
    wheel: Wheel
    secret: bytes
    grace_seconds: float
    is_crowded: Callable[[], bool]


class _Handed(msgspec.Struct, gc=False):  # one for each message that is remembered: no collection looks at them
    fingerprint: int
    order: str


class Outlet:
    """The way out for the messages of one inbox.

    `start` is the order at which its feed began to listen, `head` the newest place that was handed out, `proven` the
    place up to which nothing is missing: upstream has been compared since (in a burst that is taken on credit, and the
    span says so). Cursors say "everything up to `proven`, and
    these few behind it", so that no cursor promises what its holder never saw. What was made just before `start` may be
    stored after it, and never be heard of: for those seconds no cursor vouches before a comparison that is later. Until
    upstream has been asked at all nobody knows what to name of them, and cursors say that they aren't sure.
    """

    __slots__ = (
        "_around",
        "_behind",
        "_early",
        "_forgotten",
        "_head_since",
        "_ids",
        "_ids_floor",
        "_inbox",
        "_last_sent_ms",
        "_marks",
        "_old_ids",
        "_ring",
        "_ring_bytes",
        "_span",
        "_span_text",
        "_sure_at_ms",
        "_their_lead_us",
        "began",
        "began_at",
        "head",
        "proven",
        "sealer",
        "start",
    )

    def __init__(self, inbox: InboxRef, around: Surroundings) -> None:
        self.sealer = Sealer(around.secret, inbox.address.key)
        self.start = ""
        self.head = ""
        self.proven = _NOWHERE
        self.began_at = datetime.now(UTC)
        self.began = time.monotonic()
        self._their_lead_us = 0  # how much upstream's clock is before ours
        self._behind: dict[str, str] = {}  # what was handed out behind `proven`: place to id
        self._early: set[str] = set()  # the places between `proven` and `start` that were ever put behind
        self._span: Span | None = None  # before `proven`, but not yet compared: more than cursors can name
        self._old_ids: set[str] = set()  # of what was handed out or noted with a place before `start`
        self._marks = ""  # theirs, in that order
        self._span_text = ""
        self._head_since = 0.0
        self._inbox = inbox
        self._around = around
        self._ring: list[StreamItem] = []
        self._ring_bytes = 0
        self._forgotten = ""  # the newest place that the ring no longer holds
        self._ids: dict[str, _Handed] = {}
        self._ids_floor = ""  # up to here a message may have been handed out and its id forgotten
        self._last_sent_ms = 0
        self._sure_at_ms = 0

    def begin(self, start: str) -> None:
        """The feed has begun to listen; what was before is not news to anybody who comes now."""
        if not self.start:
            self.start = start
            self.proven = start
            self._sure_at_ms = time.time_ns() // 1_000_000
            self.began_at = datetime.fromtimestamp(self._sure_at_ms / 1000, UTC)
            self.began = time.monotonic()
            self._their_lead_us = int(start.partition("-")[0]) - time.time_ns() // 1000

    def moment_ago(self, seconds: float = 0) -> str:
        """A place, by upstream's clock, before which nothing was on its way any more so many seconds ago."""
        if not self.start:
            return _NOWHERE
        now = int(self.start.partition("-")[0]) + int((time.monotonic() - self.began) * 1_000_000)
        return order_at(datetime.fromtimestamp(now / 1_000_000, UTC) - SETTLING - timedelta(seconds=seconds))

    def vouched(self) -> str:
        """A place up to which memory alone vouches for what was handed out: upstream was compared since."""
        return min(self.moment_ago(), self.compared)

    @property
    def compared(self) -> str:
        """The place up to which upstream was compared since: `proven`, without what was taken on credit."""
        return self._span.start if self._span is not None else self.proven

    # -- what is known ----------------------------------------------------------------------------------------

    @property
    def summed_up(self) -> int:
        """How many messages cursors know only as a sum, since the last comparison; 0 while they name them all."""
        return self._span.count if self._span is not None else 0

    def knows(self, message: Message) -> bool:
        return message.id in self._ids or message.id in self._old_ids

    def is_old(self, message: Message) -> bool:
        """Whether our own memory can't tell if this message was handed out before: the ledger has to."""
        return message.order <= max(self.start, self._ids_floor)

    def remember(self, message: Message, fingerprint: int = 0) -> None:
        """Never hand this message out again."""
        if message.order <= self.start and len(self._old_ids) < _OLD_IDS:
            self._old_ids.add(message.id)
        self._ids[message.id] = _Handed(fingerprint, message.order)
        if len(self._ids) > _IDS:
            forgotten = self._ids.pop(next(iter(self._ids)))
            self._ids_floor = max(self._ids_floor, forgotten.order)

    def note(self, message: Message) -> None:
        """A message is known and counted, but readers are shown it only if the stream brings it, too."""
        self.remember(message, _NOTED)

    def name(self, message: Message) -> None:
        """A reader is about to be given it from history: every cursor from now on has to name it.

        Only for what our memory can't tell: whoever else reads here has had it, or is handed it by the comparison.
        """
        if message.order > max(self.proven, self.start) and (self.knows(message) or self.is_old(message)):
            self._put_behind(message)

    def pass_over(self, message: Message) -> None:
        """It was there before the feed, and is news to no reader: where cursors don't vouch for it they name it."""
        if message.order <= self.start and message.is_streamed:
            self._put_behind(message)

    def gave(self, message: Message) -> None:
        """A reader was given it from history: should the stream bring it, too, it is news to nobody."""
        handed = self._ids.get(message.id)
        if handed is None or handed.fingerprint == _NOTED:
            self.remember(message)

    def repeat(self, message: Message, json: str, event: str) -> None:
        """A message that is known came once more: if it is another now, it was edited (U4)."""
        handed = self._ids.get(message.id)
        fingerprint = handed.fingerprint if handed is not None else 0
        if fingerprint == _NOTED:
            self.hand_out(message, json, event)
            return
        _duplicates.inc()
        if fingerprint not in (hash(json), 0):
            self._ids[message.id] = _Handed(hash(json), message.order)
            self.edit(message, json, event)

    # -- handing out ------------------------------------------------------------------------------------------

    def hand_out(self, message: Message, json: str = "", event: str = "") -> None:
        """Give a message to every reader, put it into the ring and queue its receipt."""
        self.remember(message, hash(json) if json else 0)
        item = item_of(message, json, event, sent_ms=self._now_ms())
        item.came_late = self._is_late(message, item.sent_ms)
        if message.order >= self.head:
            self.head, self._head_since = message.order, time.monotonic()
        self._put_behind(message)
        item.cursor = self.cursor(item.sent_ms)
        self._ring.append(item)
        self._ring_bytes += len(item.json)
        if len(self._ring) > _RING_ITEMS or self._ring_bytes > _RING_BYTES:
            self._trim()
        self._around.ledger.record(self._inbox, message, late_at=self._late_at() if item.came_late else None)
        self._around.hub.publish(self._inbox.address, item)

    def _is_late(self, message: Message, now_ms: int) -> bool:
        """Whether cursors that went out before may vouch for its place: ours, or those of a process that began after it
        was made and before it was stored."""
        if not message.is_answer:  # no receipt tells what others did
            return message.order <= max(self.compared, self.start)
        if message.order <= self.compared:
            return True
        made_us = int(message.order[:PLACE_DIGITS])
        return now_ms * 1000 + self._their_lead_us - made_us > _AGED_US

    def edit(self, message: Message, json: str, event: str) -> None:
        """A message that was shown before, changed: pages replace it, and nobody counts it (U4)."""
        item = item_of(message, json, event, sent_ms=self._now_ms())
        item.is_edit = True
        self._around.ledger.move(self._inbox, message)
        self._around.hub.publish(self._inbox.address, item)

    # -- cursors ----------------------------------------------------------------------------------------------

    def cursor(self, sent_ms: int = 0) -> str:
        """A cursor, written at a moment (0: now), for a reader who has everything that was handed out here."""
        sent_ms, sure_ms = sent_ms or self._now_ms(), self._sure_at_ms if self._span is None else 0
        return self.sealer.write(self.proven, sent_ms, self._marks, self._span_text, sure_at_ms=sure_ms)

    def _now_ms(self) -> int:
        self._last_sent_ms = max(self._last_sent_ms + 1, time.time_ns() // 1_000_000)  # no two cursors are the same
        return self._last_sent_ms

    def _late_at(self) -> datetime:
        """When a message that was handed out now, with a place before all cursors, became known.

        To be told from what was known when a cursor was written, allowing for a second between clocks: it is later than
        every cursor that went out before, and no later than this message's own.
        """
        return datetime.fromtimestamp((self._last_sent_ms + _SAME_MOMENT_MS) / 1000, UTC)

    def provable(self) -> str:
        """How far a comparison that begins now will prove that nothing is missing."""
        settled = self.moment_ago()
        if settled < self.start:
            return settled
        is_settled = time.monotonic() - self._head_since > SETTLING.total_seconds()
        return max(self.start, self.head if is_settled or not self.head else earlier(self.head, SETTLING))

    def look_back(self, messages: Iterable[Message]) -> None:
        """Vouch no longer for the last seconds before the feed began; but name those that were there."""
        since = earlier(self.start, SETTLING)
        if self._sure_at_ms:
            self._sure_at_ms = 0
            if self._span is None:
                self.proven = since
            else:
                self._set_span(replace(self._span, start=since))
        for message in messages:
            self.pass_over(message)

    def prove(self, order: str) -> None:
        """Nothing up to `order` is missing any more, and the database knows all of it."""
        if order >= self.proven:
            self._set_span(None)
            self._move_to(order)
            if order >= self.start:
                self._early.clear()

    def _put_behind(self, message: Message) -> None:
        if message.order in self._behind:
            return
        if message.order <= self.start:
            if message.order in self._early:
                return
            if message.order > self.compared:
                self._early.add(message.order)
        if message.order > self.proven:
            self._behind[message.order] = message.id
            self._marks += mark(message.id)
            if len(self._behind) > MOST_MARKS:
                self._sum_up()
        elif self._span is not None and message.order > self._span.start:
            self._set_span(self._span.with_([message.id]))

    def _sum_up(self) -> None:
        """No comparison came in time: of the older half only count and sum are kept."""
        places = sorted(self._behind)[: MOST_MARKS // 2]
        span = self._span or Span(self.proven)
        self._set_span(span.with_(self._behind[place] for place in places))
        self._move_to(places[-1])

    def _set_span(self, span: Span | None) -> None:
        self._span, self._span_text = span, str(span or "")

    def _move_to(self, order: str) -> None:
        self.proven = order
        marks = [self._marks[at : at + MARK_LENGTH] for at in range(0, len(self._marks), MARK_LENGTH)]
        self._marks = "".join([its for place, its in zip(self._behind, marks, strict=True) if place > order])
        self._behind = {place: message_id for place, message_id in self._behind.items() if place > order}

    # -- coming back ------------------------------------------------------------------------------------------

    def since(self, text: str) -> list[StreamItem] | None:
        """What was handed out after the message with this cursor; None when the ring doesn't hold that one."""
        items = self._ring
        for position in range(len(items) - 1, -1, -1):
            if items[position].cursor == text:
                return items[position + 1 :]
        return None

    def reaches(self, cursor: Cursor) -> bool:
        """Whether memory holds everything that the holder of another feed's cursor hasn't had.

        Ask only when everything before this feed has been compared with upstream.
        """
        if cursor.sure_at is not None:
            return False
        sent_ms = cursor.sent_at.timestamp() * 1000 + _SAME_MOMENT_MS
        for item in self._ring:
            assert item.message is not None
            put_off = _SAME_MOMENT_MS if item.came_late else 0
            if item.message.order <= cursor.order and item.sent_ms + put_off > sent_ms:
                return False  # it came late, with a place before the cursor's: the ledger knows more
        return cursor.order >= max(self.start, self._forgotten)

    def after(self, order: str) -> list[StreamItem]:
        """What is in memory behind a place."""
        return [item for item in self._ring if item.message is not None and item.message.order > order]

    def clear(self) -> None:
        """The feed has ended: let go of everything now, not when its objects are collected."""
        self._ring.clear()
        self._ids.clear()
        self._old_ids.clear()
        self._behind.clear()
        self._marks = ""
        self._early.clear()

    def tidy(self) -> None:
        """Let go of what nobody is likely to come back for."""
        oldest_ms = time.time_ns() // 1_000_000 - _RING_SECONDS * 1000
        while self._ring and self._ring[0].sent_ms < oldest_ms:
            self._forget_oldest()

    def _trim(self) -> None:
        while len(self._ring) > _RING_ITEMS or self._ring_bytes > _RING_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        dropped = self._ring.pop(0)
        self._ring_bytes -= len(dropped.json)
        if dropped.message is not None:
            self._forgotten = max(self._forgotten, dropped.message.order)


def item_of(message: Message, json: str = "", event: str = "", *, cursor: str = "", sent_ms: int = 0) -> StreamItem:
    """A message as streams carry it."""
    return StreamItem(
        "message",
        message=message,
        event=_event_name(event or message.kind),
        json=json or stream_json(message.raw),
        cursor=cursor,
        sent_ms=sent_ms,
    )


def earlier(order: str, by: timedelta) -> str:
    """The place so much before an order."""
    if not by:
        return order
    micros = int(order.partition("-")[0]) - by // timedelta(microseconds=1)
    return order_at(datetime.fromtimestamp(max(micros, 0) / 1_000_000, UTC))


@lru_cache(maxsize=64)
def _event_name(name: str) -> str:
    """The name under which a message type goes out: upstream's own, unless it could be taken for one of ours."""
    if name in _OWN_EVENTS or len(name) > _LONGEST_EVENT_NAME or not name.isprintable() or ":" in name:
        return "unknown"
    return name
