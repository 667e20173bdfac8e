"""Sending: a person's message to the agent, exactly once for each request id.

After a time-out or a 5xx nobody knows whether upstream stored it, and its `send` is not idempotent: a repeat of the
request id looks into the history first (xians-api.md 1.2, 10.34).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from messaging import catchup, errors, outbox, wire
from messaging.changes import InboxRef
from messaging.runtime import Runtime, current
from messaging.sessions import Access
from messaging.visits import visit
from messaging.wire import Message, ThreadAddress


@dataclass(frozen=True, slots=True)
class Sent:
    thread_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to the agent."""

    text: str | None
    topic: str
    request_id: str
    extras: Mapping[str, Any]


async def send(
    address: ThreadAddress,
    *,
    text: str | None,
    topic: str,
    request_id: str | None = None,
    extras: Mapping[str, Any] | None = None,
    access: Access,
) -> Sent:
    """Hand a message to the agent, once for each request id. `extras`: data, type, hint, origin as upstream takes them.

    After a time-out or a 5xx nobody knows whether upstream stored it: a repeat of the request id looks there first.
    """
    runtime = current()
    inbox = await visit(runtime, address, access)
    request_id = request_id or str(uuid.uuid4())
    key = (inbox, request_id)
    task = runtime.sending.get(key)
    if task is None:
        work = _send(runtime, inbox, access, Outgoing(text, topic, request_id, extras or {}))
        task = runtime.sending[key] = asyncio.create_task(work)
        task.add_done_callback(lambda done: _over(runtime, key, done))
    # A person who leaves doesn't take back what was sent; and a repeat waits for the first and hears the same.
    return Sent(await asyncio.shield(task), request_id)


def _over(runtime: Runtime, key: tuple[InboxRef, str], task: asyncio.Task[str]) -> None:
    runtime.sending.pop(key, None)
    if not task.cancelled():
        task.exception()  # whoever is still there has been told


async def _send(runtime: Runtime, inbox: InboxRef, access: Access, outgoing: Outgoing) -> str:
    claim = await runtime.ledger.run(outbox.claim, inbox, outgoing.request_id)
    if claim.thread_id:
        return claim.thread_id
    if not claim.is_ours:
        raise errors.UpstreamUnavailable("another process is sending this request id", retry_after=2)
    try:
        thread_id = await _deliver(runtime, inbox, access, outgoing, may_have_arrived=claim.may_have_arrived)
    except (errors.UpstreamRefused, errors.UpstreamUnconnected):
        # Of this try upstream certainly has nothing; of an earlier one it may.
        undone = outbox.unsure if claim.may_have_arrived else outbox.refused
        await runtime.ledger.run(undone, inbox, outgoing.request_id)
        raise
    except BaseException:
        await runtime.ledger.run(outbox.unsure, inbox, outgoing.request_id)
        raise
    await _sent(runtime, inbox, Sent(thread_id, outgoing.request_id), outgoing.topic, outgoing.text)
    return thread_id


async def _deliver(
    runtime: Runtime, inbox: InboxRef, access: Access, outgoing: Outgoing, *, may_have_arrived: bool
) -> str:
    bearer = runtime.client.bearer(access.token)
    if may_have_arrived:
        stored = await catchup.sent_before(
            runtime.client, inbox.address, outgoing.topic, outgoing.request_id, bearer=bearer
        )
        if stored is not None:
            return str(wire.field(stored.raw, "threadId") or "") or "unknown"
    thread_id = await runtime.client.send(
        inbox.address,
        text=outgoing.text,
        extras={**outgoing.extras, "topic": outgoing.topic or None, "requestId": outgoing.request_id},
        authorization=runtime.client.authorization(access.token),
        bearer=bearer,
    )
    return thread_id or "unknown"


async def _sent(runtime: Runtime, inbox: InboxRef, sent: Sent, topic: str, text: str | None) -> None:
    await runtime.ledger.run(outbox.arrived, inbox, sent.request_id, sent.thread_id)
    now = datetime.now(UTC)
    message = Message(
        id="",
        created_at=now,
        order=wire.order_of(now, sent.request_id),
        scope=topic,
        direction="Incoming",
        kind="Chat",
        text=text,
        data=None,
        request_id=sent.request_id,
        created_by=None,
        raw={},
    )
    feed = runtime.feeds.get(inbox.address)
    if feed is not None:
        feed.sent(message)
    runtime.hub.tell_of([inbox], "sent")
