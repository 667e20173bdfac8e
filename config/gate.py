"""The short way in for streams: a signed-in GET goes to its view past Django's middleware.

Measured (docs/decisions): with the stock middleware opening a stream costs some twenty thread switches and as many
milliseconds as everything else together, and each open stream keeps tasks that it doesn't need. What the middleware
would decide is decided here for the usual case; everything unusual (no session, a token to renew, a strange host,
another site's request, an error) goes Django's whole way and is answered there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from config.patience import Patience, limited
from messaging import sessions
from messaging.batch import Batch
from messaging.errors import LedgerUnavailable
from messaging.runtime import Runtime, current
from messaging.sessions import Access, SignIn
from messaging.streams import EventStream

type Scope = dict[str, Any]
type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]

_OF_OTHER_SITES = ("cross-site", "same-site")
_patience: WeakKeyDictionary[asyncio.AbstractEventLoop, Patience] = WeakKeyDictionary()
_batches: WeakKeyDictionary[Runtime, Batch[str, SignIn]] = WeakKeyDictionary()


async def serve(scope: Scope, receive: Receive, send: Send) -> bool:
    """Answer the request for a stream, for as long as its reader stays; False when it should go Django's way."""
    response = await _answer(scope)
    if response is None:
        return False
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    stream = getattr(response, "stream", None)
    if isinstance(stream, EventStream):
        del response, headers  # they would stay for as long as the stream does
        await _deliver(stream, receive, send)
    else:
        await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined]
    return True


async def _answer(scope: Scope) -> HttpResponseBase | None:
    if scope["method"] != "GET":
        return None
    request = ASGIRequest(scope, BytesIO())
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not session_key or not _is_usual(request):
        return None
    try:
        match = resolve(request.path_info)
        sign_in = await _sign_ins().get(session_key)
    except (Resolver404, LedgerUnavailable):
        return None
    if sign_in is None or import_string(settings.ACCESS_TOKEN_DUE)(sign_in.session):
        return None
    request.access = _access(sign_in, session_key)  # type: ignore[attr-defined]
    response: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
    for name, value in _headers(request).items():
        response.headers.setdefault(name, value)
    return response


def _is_usual(request: HttpRequest) -> bool:
    try:
        request.get_host()
    except DisallowedHost:
        return False
    if settings.SECURE_SSL_REDIRECT and not request.is_secure():
        return False
    return request.headers.get("Sec-Fetch-Site") not in _OF_OTHER_SITES


def _sign_ins() -> Batch[str, SignIn]:
    runtime = current()
    batch = _batches.get(runtime)
    if batch is None:

        async def ask(session_keys: list[str]) -> dict[str, SignIn]:
            return await runtime.ledger.run(sessions.load, session_keys)

        batch = _batches[runtime] = Batch(ask)
    return batch


def _access(sign_in: SignIn, session_key: str) -> Access:
    # A stream lives for hours: it holds the person's token only where upstream is asked with it.
    token = None if settings.XIANS_API_KEY else import_string(settings.ACCESS_TOKEN_READER)(sign_in.session)
    return sessions.access_of(sign_in.user, session_key, token)


def _headers(request: HttpRequest) -> dict[str, str]:
    """What the middleware would add to an answer that is no page."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Vary": "Cookie",
    }
    if settings.SECURE_HSTS_SECONDS and request.is_secure():
        headers["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}; includeSubDomains; preload"
    return headers


async def _deliver(stream: EventStream, receive: Receive, send: Send) -> None:
    await receive()  # the request itself
    leaving = asyncio.ensure_future(receive())
    leaving.add_done_callback(lambda _: stream.leave())
    patience = _patience.setdefault(asyncio.get_running_loop(), Patience())
    line = _Line(send)
    stream.write_through(line.write)
    try:
        with limited():
            async for chunk in stream:
                if chunk:
                    await patience.wait(_send_piece(send, chunk))
                elif line.late is not None:
                    await patience.wait(line.late)
            await patience.wait(send({"type": "http.response.body", "body": b""}))
    finally:
        leaving.cancel()


class _Line:
    """The way to one reader for what can go out at once: as a rule a server takes it without waiting."""

    __slots__ = ("_send", "late")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.late: asyncio.Task[None] | None = None

    def write(self, chunk: bytes) -> bool:
        """Whether the chunk has gone out; if not, `late` ends when it has, or with what went wrong."""
        task = asyncio.Task(
            _send_piece(self._send, chunk), loop=asyncio.get_running_loop(), name="line", eager_start=True
        )
        if task.done() and not task.cancelled() and task.exception() is None:
            return True
        self.late = task
        return False


async def _send_piece(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
