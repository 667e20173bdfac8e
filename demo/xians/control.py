"""Driving the stand-in: what agents would do, and everything that can go wrong.

Every method takes and returns plain JSON values, so that the same names work from the same process and
as `POST /_control/<name>`.
"""

import base64
import uuid

from demo.xians import conversation
from demo.xians.administration import Administration
from demo.xians.faults import Fault
from demo.xians.messages import Draft, Message, Thread
from demo.xians.notation import Json
from demo.xians.observation import Observation
from demo.xians.site import Site
from demo.xians.switchboard import Behaviour, frame, pascal


class ControlError(ValueError):
    """A control call that makes no sense; the HTTP surface answers it with a 400."""


class Control(Observation, Administration):
    """The switches of one stand-in. What only looks is in `Observation`, what changes the world beside it."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.site = site

    # What agents do

    def message(
        self,
        *,
        tenant: str,
        agent: str,
        activation: str,
        participant: str,
        text: str | None = None,
        type: str | None = "Chat",
        topic: str | None = None,
        data: Json = None,
        request_id: str | None = "new",
        direction: str = "Outgoing",
        hint: str | None = None,
        origin: str | None = None,
        created_at: str | None = None,
        created_by: str | None = None,
        id: str | None = None,
        workflow_type: str | None = None,
        withhold: bool = False,
    ) -> dict[str, Json]:
        """Store a message and stream it (`withhold`: only store it); returns it as history shows it."""
        thread = self.thread_of(tenant, agent, activation, participant, workflow_type)
        message = self.site.world.messages.add(
            thread,
            Draft(
                direction=direction,
                type=type,
                text=text,
                data=data,
                scope=topic,
                request_id=str(uuid.uuid4()) if request_id == "new" else request_id,
                hint=hint,
                origin=origin,
                created_by=created_by or self.site.world.agent_runner,
                id=id,
                created_at=created_at,
            ),
            is_published=not withhold,
        )
        return message.as_history(self.site.world.clock)

    def burst(
        self,
        *,
        count: int,
        tenant: str,
        agent: str,
        activation: str,
        participants: list[str],
        text: str = "message",
        topics: list[str | None] | None = None,
    ) -> dict[str, Json]:
        """Store and stream `count` messages at once for each participant, over the topics in turn."""
        scopes = topics or [None]
        ids: list[str] = []
        for participant in participants:
            thread = self.thread_of(tenant, agent, activation, participant)
            for number in range(count):
                draft = Draft(text=f"{text} {number + 1}", scope=scopes[number % len(scopes)])
                draft.request_id, draft.created_by = str(uuid.uuid4()), self.site.world.agent_runner
                ids.append(self.site.world.messages.add(thread, draft).id)
        return {"ids": ids}

    # What streams say

    def emit(
        self,
        *,
        raw: str | None = None,
        raw_base64: str | None = None,
        event: str | None = None,
        payload: Json = None,
        thread: dict[str, str] | None = None,
    ) -> dict[str, Json]:
        """Write to listeners what was never stored: raw bytes, or one event. No `thread`: to all of them."""
        if raw is not None:
            data = raw.encode("utf-8", "surrogatepass")
        elif raw_base64 is not None:
            data = base64.b64decode(raw_base64)
        elif event is not None:
            data = frame(event, payload)
        else:
            raise ControlError("emit needs raw, raw_base64 or event")
        return {"listeners": self.site.switchboard.deliver(self._thread_id(thread), data)}

    def again(
        self,
        *,
        id: str,
        changes: dict[str, Json] | None = None,
        to: dict[str, str] | None = None,
        pascal_case: bool = False,
    ) -> dict[str, Json]:
        """Stream a stored message once more, changed if wanted, or to another thread's listeners."""
        message = self._message(id)
        payload = {**message.as_event(self.site.world.clock), **(changes or {})}
        data = frame(str(payload["messageType"] or "unknown"), pascal(payload) if pascal_case else payload)
        thread_id = self._thread_id(to) if to else message.thread.id
        return {"listeners": self.site.switchboard.deliver(thread_id, data)}

    def edit(self, *, id: str, text: str | None) -> dict[str, Json]:
        """Change a stored message's text; the change stream delivers it again under its old id."""
        message = self._message(id)
        message.draft.text = text
        self.site.world.messages.keep(message)
        self.site.world.messages.publish(message)
        return message.as_history(self.site.world.clock)

    def cut(
        self, *, mode: str = "eof", after_bytes: int | None = None, thread: dict[str, str] | None = None
    ) -> dict[str, Json]:
        """End open streams: `eof` (clean), `truncate` (without the last chunk) or `reset`.

        With `after_bytes` each of them ends inside its next event, after so many bytes of it.
        """
        if mode not in ("eof", "truncate", "reset"):
            raise ControlError(f"unknown mode {mode}")
        count = 0
        for listener in self.site.switchboard.listeners(self._thread_id(thread)):
            listener.cut_after = after_bytes
            listener.finish(mode)
            count += 1
        return {"listeners": count}

    def change_stream_down(self, *, seconds: float) -> dict[str, Json]:
        """Store but never stream what is written from now on for so long; 0 ends it."""
        self.site.switchboard.break_change_stream(seconds)
        return {}

    def behave(
        self,
        *,
        blind_seconds: float | None = None,
        heartbeats: bool | None = None,
        connected: bool | None = None,
        pascal_case: bool | None = None,
        lag_seconds: float | None = None,
        clock_skew_seconds: float | None = None,
    ) -> dict[str, Json]:
        """Change how the server behaves; what is not named stays as it is."""
        behaviour, clock = self.site.behaviour, self.site.world.clock
        wanted = {
            "blind_seconds": blind_seconds,
            "sends_heartbeats": heartbeats,
            "sends_connected": connected,
            "is_pascal_case": pascal_case,
            "lag_seconds": lag_seconds,
        }
        for name, value in wanted.items():
            if value is not None:
                setattr(behaviour, name, value)
        if clock_skew_seconds is not None:
            clock.skew_seconds = clock_skew_seconds
        return {}

    def digits(self, *, count: int | None = None) -> dict[str, Json]:
        """Write every timestamp's fraction with so many digits (0 to 7); `null`: trimmed, as usual."""
        self.site.world.clock.digits = count
        return {}

    def freeze_reads(self, *, on: bool = True) -> dict[str, Json]:
        """Let topics and history stand still, as a lagging replica's would, until switched off."""
        self.site.behaviour.freeze(is_frozen=on)
        return {}

    def power(self, *, on: bool) -> dict[str, Json]:
        """Off: every stream is reset and so is every request, as if the server had crashed."""
        self.site.behaviour.is_up = on
        return {} if on else self.cut(mode="reset")

    # What routes answer

    def refuse(self, **rule: Json) -> dict[str, Json]:
        """Add a rule, see `faults.Fault` for its parts; returns its number."""
        try:
            return {"rule": self.site.faults.add(Fault(**rule))}
        except TypeError as error:
            raise ControlError(str(error)) from None

    def forgive(self, *, rule: int | None = None) -> dict[str, Json]:
        """Drop one rule, or all."""
        if rule is None:
            self.site.faults.rules.clear()
        else:
            self.site.faults.rules.pop(rule, None)
        return {}

    def reset(self, *, messages: bool = False) -> dict[str, Json]:
        """Back to good behaviour with empty logs; `messages`: forget those too."""
        behaviour = self.site.behaviour
        fresh = Behaviour()
        for name in Behaviour.__dataclass_fields__:
            setattr(behaviour, name, getattr(fresh, name))
        self.site.world.clock.skew_seconds, self.site.world.clock.digits = 0.0, None
        self.site.switchboard.break_change_stream(0)
        self.site.faults.rules.clear()
        self.site.log.records.clear()
        self.site.signals.clear()
        if messages:
            self.site.world.messages.clear()
        return {}

    def thread_of(self, tenant: str, agent: str, activation: str, participant: str, flow: str | None = None) -> Thread:
        """The thread of a conversation, made if it is missing; neither activation nor person are checked."""
        address = conversation.make_address(tenant, agent, activation, participant, flow)
        return conversation.ensure_thread(self.site.world, address)

    def _thread_id(self, selector: dict[str, str] | None) -> str | None:
        if selector is None:
            return None
        return self.thread_of(**selector).id

    def _message(self, message_id: str) -> Message:
        message = self.site.world.messages.get(message_id)
        if message is None:
            raise ControlError(f"no message {message_id}")
        return message
