"""The one entry point of every ASGI server: `config.asgi:application`.

Around Django's handler stand three things that it can't do itself (traps.md sections 1 and 2): streams share a few
threads instead of holding one each, no `send` waits for ever, and SIGTERM ends open streams with a goodbye.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.checks import Error, run_checks

from config import patience
from config.database import LimitedConnection
from config.silence import watch_connections
from messaging.threads import give_way, go_first

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)

_STREAM_THREADS = 4
_COLLECT_AFTER = (10_000, 4, 500)
_SWITCH_SECONDS = 0.00005  # how long a thread that writes receipts may keep the event loop waiting
_LONGEST_BODY = 4 << 20
_LONGEST_HEAD = 64 << 10


class Portal:
    """The ASGI application."""

    def __init__(self) -> None:
        self._django = get_asgi_application()
        LimitedConnection.limit_seconds = settings.DATABASE_TIMEOUT_SECONDS
        self._threads = itertools.cycle(
            ThreadPoolExecutor(1, thread_name_prefix=f"stream-{n}", initializer=give_way)
            for n in range(_STREAM_THREADS)
        )
        self._is_watching = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        _stop_if_misconfigured()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._watch()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and (status := _too_long(scope)):
            await _refuse(status, send)
        elif scope["type"] == "http" and _is_stream(scope["path"]):
            await self._stream(scope, receive, send)
        elif scope["type"] == "http":
            await self._django(scope, _bounded(receive), send)  # type: ignore[arg-type]
        else:
            raise ValueError(f"this application speaks HTTP only, not {scope['type']}")

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        from config import gate
        from messaging import streams

        mine: list[streams.EventStream] = []
        streams.opened.set(mine)
        try:
            if not await gate.serve(scope, receive, send):
                async with ThreadSensitiveContext(executor=next(self._threads)):
                    await self._django(scope, _bounded(receive), _impatient(send))  # type: ignore[arg-type]
        except patience.Stalled:
            log.warning("a reader took nothing for %s s: its stream is closed", patience.SECONDS)
        finally:
            for stream in mine:
                stream.close()
            mine.clear()  # what began in this request, and lasts, remembers its context

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        from messaging import runtime

        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await runtime.current().drain()
                await runtime.current().aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _watch(self) -> None:
        """From the first call on: the event loop, the connections, and the signals that end us."""
        if self._is_watching:
            return
        from messaging.loopwatch import LoopWatch

        self._is_watching = True
        self._loop = asyncio.get_running_loop()
        _keep_pauses_short()
        LoopWatch()
        watch_connections()  # by now the server listens, as at its start it need not
        self._watch_signals()

    def _watch_signals(self) -> None:
        """On SIGTERM let open streams end first, and only then the server do what it does: some cut what is open."""
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                before = signal.getsignal(number)
                signal.signal(number, self._chain(before))
            except ValueError:  # not the main thread: the server ends its workers in its own way
                return

    def _chain(self, before: Any) -> Callable[[int, FrameType | None], None]:
        def pass_on(number: int, frame: FrameType | None) -> None:
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        def terminate(number: int, frame: FrameType | None) -> None:
            if self._draining is None and self._loop is not None and self._loop.is_running():
                self._loop.call_soon_threadsafe(self._drain, lambda: pass_on(number, frame))
            else:  # the second time it is meant
                pass_on(number, frame)

        return terminate

    def _drain(self, then: Callable[[], None]) -> None:
        from messaging import runtime

        self._draining = asyncio.ensure_future(runtime.current().drain())
        self._draining.add_done_callback(lambda _: then())


def _keep_pauses_short() -> None:
    """Leave what was made at the start, which stays, out of every garbage collection, and collect less often.

    A full collection stops all streams, and takes longer the more of them there are (docs/decisions). And no other
    thread keeps the interpreter for long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCH_SECONDS)
    go_first()


def _is_stream(path: str) -> bool:
    return path.endswith(("/messaging/listen", "/stream/"))


def _too_long(scope: Scope) -> int:
    """413 or 431 for more than any request of ours has; Django would keep a whole body before it looks at it."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced[:19]) > _LONGEST_BODY:
        return 413
    head = len(scope["path"]) + len(scope["query_string"]) + sum(len(n) + len(value) for n, value in scope["headers"])
    return 431 if head > _LONGEST_HEAD else 0


async def _refuse(status: int, send: Send) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _bounded(receive: Receive) -> Receive:
    """`receive` with a limit for a body whose length was not announced: past it the client is as good as gone."""
    length = 0

    async def receive_some() -> dict[str, Any]:
        nonlocal length
        event = await receive()
        length += len(event.get("body", b""))
        return event if length <= _LONGEST_BODY else {"type": "http.disconnect"}

    return receive_some


def _impatient(send: Send) -> Send:
    """`send` with a limit (config.patience), for the streams that go Django's way, in tasks of its own."""

    async def send_soon(event: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(patience.SECONDS):
                await send(event)
        except TimeoutError as problem:
            raise patience.Stalled from problem

    return send_soon


def _stop_if_misconfigured() -> None:
    """A wrong setting ends the start with one sentence, under every server."""
    problems = [found for found in run_checks() if isinstance(found, Error)]
    if problems:
        for problem in problems:
            print(f"{problem.id}: {problem.msg}", file=sys.stderr)
        sys.exit(1)


application = Portal()
