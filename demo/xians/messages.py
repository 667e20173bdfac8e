"""Threads and messages: what the real server keeps in its database."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from demo.xians import notation
from demo.xians.clock import Clock
from demo.xians.notation import Json

TYPES = ("Chat", "Data", "File", "Handoff", "Webhook", "Reasoning", "Tool", "Heartbeat")


@dataclass(frozen=True, slots=True)
class Thread:
    """One participant with one activation; `workflow_type` is the two-part form `agent:flow`."""

    id: str
    tenant_id: str
    workflow_id: str
    workflow_type: str
    participant_id: str

    @property
    def agent_name(self) -> str:
        return self.workflow_type.partition(":")[0]

    @property
    def activation_name(self) -> str:
        return self.workflow_id.rpartition(":")[2]


@dataclass(slots=True)
class Draft:
    """What the writer of a message decides; the rest is the server's."""

    direction: str = "Outgoing"
    type: str | None = "Chat"
    text: str | None = None
    data: Json = None
    scope: str | None = None
    request_id: str | None = None
    hint: str | None = None
    origin: str | None = None
    created_by: str = ""
    id: str | None = None
    created_at: str | None = None
    """Written out as given, and sorted by what it reads as; absent: the server's clock."""


@dataclass(slots=True)
class Message:
    id: str
    thread: Thread
    draft: Draft
    data: dict[str, Json] | None
    created_at: datetime
    number: int
    stored_at: float
    feedback: dict[str, Json] | None = None
    feedback_id: str | None = None

    def written_at(self, clock: Clock) -> str:
        return self.draft.created_at or clock.written(self.created_at)

    def as_event(self, clock: Clock) -> dict[str, Json]:
        """The 14 keys that listeners get."""
        draft, thread = self.draft, self.thread
        return {
            "id": self.id,
            "threadId": thread.id,
            "workflowId": thread.workflow_id,
            "workflowType": thread.workflow_type,
            "participantId": thread.participant_id,
            "direction": draft.direction,
            "messageType": draft.type,
            "text": draft.text,
            "data": notation.data_in_event(self.data),
            "hint": draft.hint,
            "scope": draft.scope,
            "requestId": draft.request_id,
            "createdAt": self.written_at(clock),
            "createdBy": draft.created_by,
        }

    def as_history(self, clock: Clock) -> dict[str, Json]:
        """The 21 keys of an element of `/history`, `feedback` first."""
        draft, thread, written_at = self.draft, self.thread, self.written_at(clock)
        return {
            "feedback": self.feedback,
            "id": self.id,
            "threadId": thread.id,
            "requestId": draft.request_id,
            "tenantId": thread.tenant_id,
            "createdAt": written_at,
            "updatedAt": written_at,
            "createdBy": draft.created_by,
            "direction": draft.direction,
            "text": draft.text,
            "status": None,
            "data": notation.data_in_history(self.data),
            "participantId": thread.participant_id,
            "scope": draft.scope,
            "hint": draft.hint,
            "taskId": None,
            "workflowId": thread.workflow_id,
            "workflowType": thread.workflow_type,
            "messageType": draft.type,
            "origin": draft.origin,
            "expiresAt": None,
        }


type Topics = dict[str | None, list[Message]]
type Observer = Callable[[Message], None]


@dataclass(slots=True)
class Changes:
    """Who is told what; set by whoever wants to know."""

    thread_made: list[Callable[[Thread], None]] = field(default_factory=list)
    message_stored: list[Observer] = field(default_factory=list)
    """Every stored message; for keeping."""
    message_published: list[Observer] = field(default_factory=list)
    """The stored messages that the change stream sees; for listeners and agents."""
    topic_deleted: list[Callable[[Thread, str | None], None]] = field(default_factory=list)
    message_rated: list[Observer] = field(default_factory=list)
    all_cleared: list[Callable[[], None]] = field(default_factory=list)


class MessageStore:
    """All threads with their messages. Threads are unique per tenant, workflow and participant."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changes = Changes()
        self._threads: dict[tuple[str, str, str], Thread] = {}
        self._topics: dict[str, Topics] = {}
        self._by_id: dict[str, Message] = {}
        self._second = 0
        self._count = 0

    def new_id(self) -> str:
        """A 24-hex id, greater than every id given out before."""
        self._second = max(self._second, int(self.clock.precise().timestamp()))
        self._count += 1
        return f"{self._second & 0xFFFFFFFF:08x}c0ffee0000{self._count & 0xFFFFFF:06x}"

    def learn_id(self, seen: str) -> None:
        """Make later ids greater than one that was read back from disk."""
        if len(seen) == 24:
            self._second = max(self._second, int(seen[:8], 16))
            self._count = max(self._count, int(seen[-6:], 16))

    def find_thread(self, tenant_id: str, workflow_id: str, participant_id: str) -> Thread | None:
        return self._threads.get((tenant_id, workflow_id, participant_id))

    def ensure_thread(self, tenant_id: str, workflow_id: str, workflow_type: str, participant_id: str) -> Thread:
        found = self.find_thread(tenant_id, workflow_id, participant_id)
        if found is not None:
            return found
        return self.keep_thread(Thread(self.new_id(), tenant_id, workflow_id, workflow_type, participant_id))

    def keep_thread(self, thread: Thread) -> Thread:
        self._threads[thread.tenant_id, thread.workflow_id, thread.participant_id] = thread
        self._topics.setdefault(thread.id, {})
        for tell in self.changes.thread_made:
            tell(thread)
        return thread

    def add(self, thread: Thread, draft: Draft, *, is_published: bool = True) -> Message:
        """Store a message and tell everyone; unpublished ones are only stored, as in a change-stream gap."""
        message = Message(
            id=draft.id or self.new_id(),
            thread=thread,
            draft=draft,
            data=notation.stored_form(draft.data),
            created_at=notation.moment(draft.created_at) if draft.created_at else self.clock.now(),
            number=len(self._by_id),
            stored_at=time.monotonic(),
        )
        self.keep(message)
        if is_published:
            self.publish(message)
        return message

    def keep(self, message: Message) -> None:
        """Put a message in its place, replacing what had its id."""
        known = self._by_id.get(message.id)
        if known is not None:
            self._topics[known.thread.id][known.draft.scope].remove(known)
        self._by_id[message.id] = message
        self._topics[message.thread.id].setdefault(message.draft.scope, []).append(message)
        for tell in self.changes.message_stored:
            tell(message)

    def publish(self, message: Message) -> None:
        for tell in self.changes.message_published:
            tell(message)

    def get(self, message_id: str) -> Message | None:
        return self._by_id.get(message_id)

    def threads(self) -> Iterator[Thread]:
        return iter(list(self._threads.values()))

    def topics(self, thread: Thread) -> Topics:
        """The messages of a thread by topic, in the order in which they were stored."""
        return self._topics[thread.id]

    def all(self) -> list[Message]:
        return list(self._by_id.values())

    def delete_topic(self, thread: Thread, scope: str | None) -> None:
        for message in self._topics[thread.id].pop(scope, []):
            del self._by_id[message.id]
        for tell in self.changes.topic_deleted:
            tell(thread, scope)

    def rate(self, message: Message, feedback_id: str, given: dict[str, Json]) -> None:
        message.feedback, message.feedback_id = given, feedback_id
        for tell in self.changes.message_rated:
            tell(message)

    def clear(self) -> None:
        """Forget every thread and message."""
        self._threads.clear()
        self._topics.clear()
        self._by_id.clear()
        for tell in self.changes.all_cleared:
            tell()
