"""What happened, as it is known for certain from outside: what was stored, shown, read, sent and deleted.

Times are `time.monotonic()`; what took a while has a beginning and an end, and happened somewhere between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from messaging import wire

NEVER = float("inf")
_UNSURE_SECONDS = 6
"""How long a request that failed here may still do its work there: a link is disturbed for 3 s at most."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """One person with one activation."""

    participant: str
    agent: str
    activation: str

    @property
    def names(self) -> dict[str, str]:
        """As API clients name it."""
        return {"agentName": self.agent, "activationName": self.activation}

    @property
    def thread(self) -> dict[str, str]:
        """As the stand-in's controls name it."""
        return {
            "tenant": "acme",
            "agent": self.agent,
            "activation": self.activation,
            "participant": self.participant,
        }

    def __str__(self) -> str:
        return f"{self.participant.partition('@')[0]}/{self.activation}"


@dataclass(slots=True)
class Stored:
    """One message from the agent, and what is known about its storing. `ways`: withheld, aged, ..."""

    id: str
    inbox: Inbox
    topic: str
    kind: str
    created_at: datetime
    begun: float
    done: float
    ways: tuple[str, ...] = ()

    @property
    def order(self) -> str:
        return wire.order_of(self.created_at, self.id)

    @property
    def is_answer(self) -> bool:
        return self.kind == "Chat"

    @property
    def is_plain(self) -> bool:
        """Streamed at once, under its own time."""
        return not self.ways


@dataclass(slots=True)
class Reading:
    """One wish to mark answers read: of a topic, all of it or up to an order. Written down: `is_sure`."""

    inbox: Inbox
    topic: str
    node: str
    begun: float
    up_to: str | None = None
    done: float = NEVER
    is_sure: bool = False

    @property
    def over(self) -> float:
        """After this it can't have covered anything."""
        return self.done if self.is_sure else self.done + _UNSURE_SECONDS


@dataclass(slots=True)
class Deletion:
    """A topic deleted upstream, through us or behind our back."""

    inbox: Inbox
    topic: str
    how: str
    begun: float
    done: float = NEVER


@dataclass(slots=True)
class Sending:
    """A request id, and how each try to send it was answered (0: not at all)."""

    inbox: Inbox
    topic: str
    request_id: str
    begun: float
    statuses: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Showing:
    """One message event that a tab received."""

    id: str
    kind: str
    at: float
    order: str
    node: str
    topic: str


@dataclass(slots=True)
class Connection:
    """One stream of a tab, as the tab saw it."""

    node: str
    shows: str | None
    begun: float
    last_id: str
    connected: float = NEVER
    ended: float = NEVER
    received: list[str] = field(default_factory=list)
    resyncs: list[float] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    total: int | None = None


class Books:
    """Everything that happened under one seed."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.inboxes: list[Inbox] = []
        self.stored: dict[str, Stored] = {}
        self.readings: list[Reading] = []
        self.deletions: list[Deletion] = []
        self.sendings: dict[str, Sending] = {}
        self.faults = 0
        self.unexpected: list[str] = []
        self._lines: list[tuple[float, str]] = []

    def say(self, line: str) -> None:
        """Keep a line of what happens, for whoever has to find out why."""
        self._lines.append((time.monotonic(), line))

    def lines(self, since: float, until: float) -> Iterator[str]:
        return (f"{at - self.start:8.3f} {line}" for at, line in self._lines if since <= at <= until)

    def last(self, count: int) -> list[str]:
        return [f"{at - self.start:8.3f} {line}" for at, line in self._lines[-count:]]

    def store(self, inbox: Inbox, told: dict[str, object], begun: float, *ways: str) -> Stored:
        """Enter a message as upstream's history shows it."""
        created_at = wire.timestamp(told["createdAt"])
        assert created_at is not None
        stored = Stored(
            id=str(told["id"]),
            inbox=inbox,
            topic=str(told["scope"] or ""),
            kind=str(told["messageType"]),
            created_at=created_at,
            begun=begun,
            done=time.monotonic(),
            ways=ways,
        )
        self.stored[stored.id] = stored
        self.say(f"stored {stored.id[-6:]} {inbox} {stored.topic[:20]!r} {stored.kind} {' '.join(ways)}")
        return stored
