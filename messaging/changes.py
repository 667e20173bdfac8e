"""What the ledger writes: changes of unread state, and sheets of them.

A sheet is written by a thread beside the event loop, which has to wait for the interpreter while that thread works; at
1,000 messages a second that is what makes the slowest hundredth slow. So what can be made ready for each change by
itself is, when it is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from messaging.statements import NewReceipt, as_json
from messaging.wire import Message, ThreadAddress, topic_key


class InboxRef(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """An inbox that exists: its row's number and its address."""

    pk: int
    address: ThreadAddress

    def told(self) -> tuple[Any, ...]:
        """This reference as notices between processes carry it."""
        return self.pk, *msgspec.structs.astuple(self.address)

    @classmethod
    def from_told(cls, told: Iterable[Any]) -> InboxRef:
        """Raises TypeError or ValueError for what is no such reference."""
        pk, tenant_id, agent_name, activation_name, participant_id = told
        return cls(pk, ThreadAddress(tenant_id, agent_name, activation_name, participant_id))


class Record(msgspec.Struct, gc=False):
    """Remember one answer; it is unread unless it is known already or settled. What is no answer counts as read.

    Where it `came_late`, with a place before what was handed out already, `known_at` is PUT_OFF after the moment.
    """

    inbox: InboxRef
    message: Message
    known_at: datetime
    came_late: bool = False

    def receipt(self) -> NewReceipt:
        """The row that remembers it."""
        message = self.message
        return NewReceipt(
            inbox_id=self.inbox.pk,
            key=topic_key(message.scope),
            message_id=message.id,
            order=message.order,
            created_at=message.created_at,
            known_at=self.known_at,
            came_late=self.came_late,
            read_at=None if message.is_answer else self.known_at,
        )


class Move(msgspec.Struct, frozen=True):
    """The receipt of an answer, if there is one, belongs to the topic in which the answer stands now."""

    inbox: InboxRef
    message: Message


class Read(msgspec.Struct, frozen=True):
    """Mark a topic read: those of `message_ids`, else all up to `up_to` (a message's order), else all that is known."""

    inbox: InboxRef
    topic: str
    up_to: str | None = None
    message_ids: frozenset[str] | None = None


type Change = Record | Move | Read


class Sheet:
    """Changes that are written together, in order.

    `topics`: those (inbox, key) in which something is recorded; `others`: inboxes in which not only that happens;
    `since`: when the first change of each inbox was added (monotonic).
    """

    __slots__ = ("_messages", "_receipts", "changes", "others", "since", "topics")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.topics: set[tuple[int, str]] = set()
        self.others: set[InboxRef] = set()
        self.since: dict[InboxRef, float] = {}
        self._messages: set[tuple[int, str]] = set()
        self._receipts: list[bytes] = []

    def add(self, change: Change, at: float) -> None:
        if isinstance(change, Record):
            receipt = change.receipt()
            self._receipts.append(as_json(receipt))  # first of all: what can't be written is not added
            self.topics.add((receipt.inbox_id, receipt.key))
            self._messages.add((receipt.inbox_id, receipt.message_id))
        else:
            self.others.add(change.inbox)
        self.changes.append(change)
        self.since.setdefault(change.inbox, at)

    def receipts(self) -> bytes | None:
        """The rows of all records as JSON; None where something else is to be done, or a message comes twice."""
        if self.others or len(self._messages) < len(self.changes):
            return None
        return b"[%b]" % b",".join(self._receipts)
