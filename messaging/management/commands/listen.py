"""`manage.py listen <tenant> <agent> <activation> <participant>`: the stream of an inbox in a terminal."""

from __future__ import annotations

import asyncio
import json
import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from messaging import errors
from messaging.hub import Subscriber, person_key
from messaging.items import StreamItem
from messaging.runtime import Runtime, short_lived
from messaging.sessions import Access
from messaging.visits import visit
from messaging.wire import ThreadAddress

_LINE = 100


class Command(BaseCommand):
    help = "Show the stream of one inbox, a line an event, until Ctrl-C. Counts what it hears, as a page would."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("agent")
        parser.add_argument("activation")
        parser.add_argument("participant", help="e-mail address")
        parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
        parser.add_argument("--seconds", type=float, help="stop after so long")

    def handle(self, *args: Any, **options: Any) -> None:
        participant = options["participant"].strip().lower()
        address = ThreadAddress(options["tenant"], options["agent"], options["activation"], participant)
        try:
            asyncio.run(self._listen(address, is_json=options["json"], seconds=options["seconds"]))
        except KeyboardInterrupt:
            self.stderr.write("")
        except errors.MessagingError as problem:
            raise CommandError(f"{problem.sentence} ({problem.detail})") from problem

    async def _listen(self, address: ThreadAddress, *, is_json: bool, seconds: float | None) -> None:
        async with short_lived() as runtime:
            subscriber = Subscriber(person_key(address.participant_id))
            access = Access(address.participant_id, address.participant_id, None, "", 0)
            inbox = await visit(runtime, address, access)
            feed = runtime.feeds.open(inbox, runtime.client.bearer(None))
            feed.attach(subscriber)
            await feed.connected()
            await runtime.ledger.stored_counts(inbox)  # what changes from here on is told
            self._say({"event": "connected", "threadId": feed.thread_id}, is_json=is_json)
            await self._follow(runtime, subscriber, is_json=is_json, seconds=seconds)

    async def _follow(self, runtime: Runtime, subscriber: Subscriber, *, is_json: bool, seconds: float | None) -> None:
        end = time.monotonic() + seconds if seconds is not None else float("inf")
        while time.monotonic() < end and subscriber.closed_because is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if end == float("inf") else end - time.monotonic()):
                    await subscriber.wait()
            for item in subscriber.take():
                told = _told(item)
                if told:
                    self._say(told, is_json=is_json)
        if subscriber.closed_because is not None:
            raise errors.UpstreamUnavailable(subscriber.closed_because)

    def _say(self, told: dict[str, Any], *, is_json: bool) -> None:
        if is_json:
            self.stdout.write(json.dumps(told, ensure_ascii=False))
        else:
            event, *rest = told.values()
            words = " ".join(str(word).replace("\n", " ") for word in rest if word not in (None, ""))
            self.stdout.write(f"{time.strftime('%H:%M:%S')} {event:<12} {words}"[:_LINE])
        self.stdout.flush()


def _told(item: StreamItem) -> dict[str, Any]:
    message = item.message
    if item.kind == "message" and message is not None:
        return {
            "event": item.event,
            "topic": message.scope or None,
            "text": message.text,
            "id": message.id,
            "createdAt": message.created_at.isoformat(),
            "isEdit": item.is_edit,
        }
    if item.kind == "unread":
        return {"event": "unread", "topic": item.topic or None, "unreadCount": item.unread_count, "total": item.total}
    if item.kind == "status":
        return {"event": "status", "state": item.state, "attempt": item.attempt}
    if item.kind in ("recovered", "resync"):
        return {"event": item.kind, "count": item.count, "reason": item.reason}
    return {}
