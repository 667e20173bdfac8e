"""Where a feed's messages go out: to the readers, to the ledger, and into a short memory for those who come back.

An outlet hands out each message id once. It remembers the last messages in the order in which they went out (the
ring), and the ids of some more before them; both may be lost at any moment (docs/delivery.md).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from messaging import metrics
from messaging.cursors import Cursor, Sealer
from messaging.hub import Hub
from messaging.items import StreamItem
from messaging.ledger import Ledger
from messaging.unread import InboxRef
from messaging.upstream import UpstreamClient
from messaging.wire import Message

_RING_ITEMS = 256
_RING_BYTES = 1 << 18
_RING_SECONDS = 300
_IDS = 512
_SAME_MOMENT_MS = 1000
_NOWHERE = "0" * 17 + "-"
_OWN_EVENTS = frozenset({"connected", "heartbeat", "unread", "resync", "goodbye", "status"})
_LONGEST_EVENT_NAME = 64


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every feed of a process shares."""

    client: UpstreamClient
    ledger: Ledger
    hub: Hub
    secret: bytes
    grace_seconds: float


class Outlet:
    """The way out for the messages of one inbox.

    `start` is the order at which its feed began to listen, `head` the newest place that was handed out.
    """

    __slots__ = (
        "_around",
        "_forgotten",
        "_ids",
        "_ids_floor",
        "_inbox",
        "_last_sent_ms",
        "_ring",
        "_ring_bytes",
        "head",
        "sealer",
        "start",
    )

    def __init__(self, inbox: InboxRef, around: Surroundings) -> None:
        self.sealer = Sealer(around.secret, inbox.address.key)
        self.start = ""
        self.head = ""
        self._inbox = inbox
        self._around = around
        self._ring: deque[StreamItem] = deque()
        self._ring_bytes = 0
        self._forgotten = ""  # the newest place that the ring no longer holds
        self._ids: dict[str, tuple[int, str]] = {}
        self._ids_floor = ""  # up to here a message may have been handed out and its id forgotten
        self._last_sent_ms = 0

    # -- what is known ----------------------------------------------------------------------------------------

    def knows(self, message: Message) -> bool:
        return message.id in self._ids

    def is_old(self, message: Message) -> bool:
        """Whether our own memory can't tell if this message was handed out before: the ledger has to."""
        return message.order <= max(self.start, self._ids_floor)

    def remember(self, message: Message, fingerprint: int = 0) -> None:
        """Never hand this message out again."""
        self._ids[message.id] = (fingerprint, message.order)
        if len(self._ids) > _IDS:
            _, order = self._ids.pop(next(iter(self._ids)))
            self._ids_floor = max(self._ids_floor, order)

    def repeat(self, message: Message, json: str, event: str) -> None:
        """A message that was handed out before came once more: if it is another now, it was edited (U4)."""
        metrics.messages_dropped.labels("duplicate").inc()
        fingerprint, _ = self._ids[message.id]
        if fingerprint not in (hash(json), 0):
            self._ids[message.id] = (hash(json), message.order)
            self.edit(message, json, event)

    # -- handing out ------------------------------------------------------------------------------------------

    def hand_out(self, message: Message, json: str = "", event: str = "") -> None:
        """Give a message to every reader, put it into the ring and queue its receipt."""
        self.remember(message, hash(json) if json else 0)
        is_late = message.order < self.head
        self.head = max(self.head, message.order)
        item = self.item(message, self.head, json=json if "\n" not in json else "", event=event)
        self._ring.append(item)
        self._ring_bytes += len(item.json)
        self._trim()
        self._around.ledger.record(self._inbox, message, is_late=is_late)
        self._around.hub.publish(self._inbox.address, item)

    def edit(self, message: Message, json: str, event: str) -> None:
        """A message that was shown before, changed: pages replace it, and nobody counts it (U4)."""
        item = self.item(message, json=json if "\n" not in json else "", event=event)
        item.cursor, item.is_edit = "", True
        self._around.hub.publish(self._inbox.address, item)

    def item(self, message: Message, cursor_order: str | None = None, *, json: str = "", event: str = "") -> StreamItem:
        """A message as streams carry it. `cursor_order` is the place up to which its reader then has everything."""
        self._last_sent_ms = max(self._last_sent_ms + 1, time.time_ns() // 1_000_000)
        return StreamItem(
            "message",
            message=message,
            event=_event_name(event or message.kind),
            json=json or message.stream_json(),
            cursor=self.sealer.write(cursor_order or message.order, self._last_sent_ms),
            sent_ms=self._last_sent_ms,
        )

    # -- coming back ------------------------------------------------------------------------------------------

    def start_cursor(self) -> str:
        """A cursor for a reader who has everything that was handed out here."""
        self._last_sent_ms = max(self._last_sent_ms + 1, time.time_ns() // 1_000_000)
        return self.sealer.write(self.head or self.start or _NOWHERE, self._last_sent_ms)

    def replay(self, text: str, cursor: Cursor, *, is_complete: bool) -> list[StreamItem] | None:
        """What came after a cursor, in the order in which it was sent; None when memory doesn't reach back that far.

        `is_complete`: what came before this feed began has been compared with upstream.
        """
        items = list(self._ring)
        for position in range(len(items) - 1, -1, -1):
            if items[position].cursor == text:
                return items[position + 1 :]
        sent_ms = cursor.sent_at.timestamp() * 1000
        is_late = any(  # handed out after the cursor was written, with a place before it
            item.message is not None and item.message.order <= cursor.order and item.sent_ms > sent_ms + _SAME_MOMENT_MS
            for item in items
        )
        if is_complete and cursor.order >= max(self.start, self._forgotten) and not is_late:
            return self.after(cursor.order)
        return None

    def after(self, order: str) -> list[StreamItem]:
        """What is in memory behind a place."""
        return [item for item in self._ring if item.message is not None and item.message.order > order]

    def tidy(self) -> None:
        """Let go of what nobody is likely to come back for."""
        oldest_ms = time.time_ns() // 1_000_000 - _RING_SECONDS * 1000
        while self._ring and self._ring[0].sent_ms < oldest_ms:
            self._forget_oldest()

    def _trim(self) -> None:
        while len(self._ring) > _RING_ITEMS or self._ring_bytes > _RING_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        dropped = self._ring.popleft()
        self._ring_bytes -= len(dropped.json)
        if dropped.message is not None:
            self._forgotten = max(self._forgotten, dropped.message.order)


def _event_name(name: str) -> str:
    """The name under which a message type goes out: upstream's own, unless it could be taken for one of ours."""
    if name in _OWN_EVENTS or len(name) > _LONGEST_EVENT_NAME or not name.isprintable() or ":" in name:
        return "unknown"
    return name
