"""Listeners and the change stream: who gets which event, and every way in which that can go wrong."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from demo.xians import notation
from demo.xians.bell import Bell
from demo.xians.messages import Message, Thread
from demo.xians.notation import Json
from demo.xians.world import World

QUEUE_LIMIT = 100_000


@dataclass(slots=True)
class Behaviour:
    """How the server behaves at the moment; the defaults are the real server's."""

    blind_seconds: float = 0.02
    """Between the flushed `connected` and the subscription: what is stored then is never streamed."""
    sends_heartbeats: bool = True
    sends_connected: bool = True
    is_pascal_case: bool = False
    lag_seconds: float = 0.0
    """Topics and history don't show what was stored less than this ago."""
    is_up: bool = True
    """False: every request is reset and no stream is open, as after a crash."""
    frozen_at: float = float("inf")
    """Topics and history don't show what was stored later than this (monotonic time)."""

    def sees(self, message: Message) -> bool:
        """Whether reads show this message yet."""
        return message.stored_at <= min(time.monotonic() - self.lag_seconds, self.frozen_at)

    def freeze(self, *, is_frozen: bool) -> None:
        self.frozen_at = time.monotonic() if is_frozen else float("inf")


def frame(event: str, payload: Json) -> bytes:
    """One event, byte for byte as the real server writes it."""
    return f"event: {event}\ndata: {notation.strict(payload)}\n\n".encode()


def pascal(payload: dict[str, Json]) -> dict[str, Json]:
    return {name[:1].upper() + name[1:]: value for name, value in payload.items()}


class Listener:
    """One open `listen` response. Frames pushed here are written by the response's own task."""

    def __init__(self, thread: Thread, heartbeat_seconds: int) -> None:
        self.thread = thread
        self.heartbeat_seconds = heartbeat_seconds
        self.is_attached = False
        self.queue: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.end: str | None = None
        """How to end after the queue: `eof`, `truncate`, `reset`; `gone` when the client left."""
        self.cut_after: int | None = None
        """Write only so many bytes of the next frame, then end."""
        self.beat: asyncio.TimerHandle | None = None

    def push(self, data: bytes) -> None:
        self.queue.append(data)
        if len(self.queue) > QUEUE_LIMIT:
            self.finish("reset")
        self.wake.set()

    def finish(self, end: str) -> None:
        if self.end is None:
            self.end = end
        self.wake.set()


class Switchboard:
    """The in-memory subscribers of this process, and the change stream that feeds them."""

    def __init__(self, world: World, behaviour: Behaviour, bell: Bell) -> None:
        self.world = world
        self.behaviour = behaviour
        self._bell = bell
        self.opened = 0
        """Streams opened since the start, the closed ones included."""
        self._listeners: dict[str, set[Listener]] = {}
        self._open: set[Listener] = set()
        self._down_until = 0.0
        world.messages.changes.message_published.append(self._message_published)

    @property
    def subscriber_count(self) -> int:
        """All attached listeners and the one internal subscriber that the real server has."""
        return 1 + sum(len(group) for group in self._listeners.values())

    def open(self, listener: Listener) -> None:
        """The response has begun; the listener hears nothing yet."""
        self.opened += 1
        self._open.add(listener)
        self._bell.ring()
        self._schedule_beat(listener)

    def attach(self, listener: Listener) -> None:
        listener.is_attached = True
        self._listeners.setdefault(listener.thread.id, set()).add(listener)
        self._bell.ring()

    def close(self, listener: Listener) -> None:
        if listener.beat is not None:
            listener.beat.cancel()
        self._open.discard(listener)
        group = self._listeners.get(listener.thread.id, set())
        group.discard(listener)
        if not group:
            self._listeners.pop(listener.thread.id, None)
        self._bell.ring()

    def listeners(self, thread_id: str | None = None) -> Iterator[Listener]:
        """The open streams, of one thread or of all; also those still in their blind window."""
        return (one for one in list(self._open) if thread_id is None or one.thread.id == thread_id)

    def is_listened_to(self, thread: Thread) -> bool:
        return thread.id in self._listeners

    def break_change_stream(self, seconds: float) -> None:
        """Lose everything stored from now on for so long; zero repairs it at once."""
        self._down_until = time.monotonic() + seconds

    def event_of(self, message: Message, changes: dict[str, Json] | None = None) -> bytes:
        payload = {**message.as_event(self.world.clock), **(changes or {})}
        event = payload["messageType"] or "unknown"
        return frame(str(event), pascal(payload) if self.behaviour.is_pascal_case else payload)

    def deliver(self, thread_id: str | None, data: bytes) -> int:
        """Write bytes to the attached listeners of a thread, or of all; returns how many there were."""
        groups = self._listeners.values() if thread_id is None else [self._listeners.get(thread_id, set())]
        listeners = [listener for group in groups for listener in group]
        for listener in listeners:
            listener.push(data)
        return len(listeners)

    def _message_published(self, message: Message) -> None:
        if message.draft.direction != "Outgoing" and message.draft.type != "Handoff":
            return
        if time.monotonic() < self._down_until or message.thread.id not in self._listeners:
            return
        self.deliver(message.thread.id, self.event_of(message))

    def _schedule_beat(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        listener.beat = loop.call_later(listener.heartbeat_seconds, self._beat, listener)

    def _beat(self, listener: Listener) -> None:
        if self.behaviour.sends_heartbeats:
            listener.push(
                frame(
                    "heartbeat",
                    {
                        "timestamp": self.world.clock.written(self.world.clock.precise()),
                        "subscriberCount": self.subscriber_count,
                    },
                )
            )
        self._schedule_beat(listener)
