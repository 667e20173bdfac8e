"""What the stand-in upstream knows: one thread a participant, its messages kept as moments, written out when asked."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

TENANT, AGENT, ACTIVATION = "acme", "Order Bot", "Front Desk"
MARK = b"bench:"
"""A message's text begins with it: `bench:<number in its thread, 9 digits>:<moment of writing, 19 digits>:`."""

_FLOW = f"{AGENT}:Supervisor Workflow"
_WORKFLOW_ID = f"{TENANT}:{_FLOW}:{ACTIVATION}"
_WRITER = "agent-runner@acme.example"
_FILLER = "Your order has left the warehouse and should be with you on Thursday before noon. Shall I remind you?"
_EPOCH_NS = time.time_ns() - time.perf_counter_ns()


def participant(number: int) -> str:
    return f"person{number:05d}@acme.example"


def moment(ns: int) -> datetime:
    """When a message of that perf_counter moment was stored: whole milliseconds, as MongoDB keeps them."""
    micros = (_EPOCH_NS + ns) // 1_000_000 * 1000
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def stamp(at: datetime) -> str:
    """A timestamp as upstream writes it: trailing zeros of the fraction trimmed (xians-api.md 0.3)."""
    whole, _, fraction = at.strftime("%Y-%m-%dT%H:%M:%S.%f").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


class Stamps:
    """The stamp of now, made once a millisecond."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._text = b""

    def at(self, ns: int) -> bytes:
        millisecond = (_EPOCH_NS + ns) // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._text = stamp(moment(ns)).encode()
        return self._text


@dataclass(slots=True)
class Thread:
    """One participant's conversation, in General. `moments` holds when each message was written (nanoseconds)."""

    number: int
    participant_id: str
    moments: array[int] = field(default_factory=lambda: array("q"))
    said: dict[int, dict[str, Any]] = field(default_factory=dict)  # what the person sent, by number
    template: bytes = b""

    def __post_init__(self) -> None:
        row = self._streamed(self._id("%06x"), "bench:%09d:%019d: " + _FILLER, self._request("%012x"), "%b")
        self.template = b"event: Chat\ndata: " + orjson.dumps(row) + b"\n\n"

    @property
    def id(self) -> str:
        return f"68f0c0ffee{self.number:014x}"

    def write(self, ns: int, at: bytes) -> bytes:
        """Store one more answer, and that answer as an event; `at` is the stamp of `ns`."""
        number = len(self.moments)
        self.moments.append(ns)
        return self.template % (number, number, ns, number, at)

    def say(self, words: dict[str, Any]) -> None:
        """Store something that the person sent."""
        self.said[len(self.moments)] = words
        self.moments.append(time.perf_counter_ns())

    def topics(self) -> list[dict[str, Any]]:
        if not self.moments:
            return []
        newest = stamp(moment(self.moments[-1]))
        return [{"scope": None, "messageCount": len(self.moments), "lastMessageAt": newest}]

    def history(self, *, page: int, page_size: int, newest_first: bool) -> list[dict[str, Any]]:
        numbers = range(len(self.moments))
        ordered = numbers[::-1] if newest_first else numbers
        return [self._row(number) for number in ordered[(page - 1) * page_size : page * page_size]]

    def _row(self, number: int) -> dict[str, Any]:
        ns = self.moments[number]
        at = stamp(moment(ns))
        text = f"bench:{number:09d}:{ns:019d}: {_FILLER}"
        row = self._streamed(self._id(f"{number:06x}"), text, self._request(f"{number:012x}"), at)
        words = self.said.get(number)
        if words is not None:
            row |= {"direction": "Incoming", "text": words.get("text"), "requestId": words.get("requestId")}
        more = dict.fromkeys(("feedback", "status", "taskId", "origin", "expiresAt"))
        return {**more, **row, "tenantId": TENANT, "updatedAt": at}

    def _id(self, tail: str) -> str:
        return f"68f0{self.number:014x}{tail}"

    def _request(self, tail: str) -> str:
        return f"5b1f7c2e-0000-4000-8000-{tail}"

    def _streamed(self, message_id: str, text: str, request_id: str, at: str) -> dict[str, Any]:
        """The 14 keys of a message on the stream."""
        return {
            "id": message_id,
            "threadId": self.id,
            "workflowId": _WORKFLOW_ID,
            "workflowType": _FLOW,
            "participantId": self.participant_id,
            "direction": "Outgoing",
            "messageType": "Chat",
            "text": text,
            "data": None,
            "hint": None,
            "scope": None,
            "requestId": request_id,
            "createdAt": at,
            "createdBy": _WRITER,
        }
