"""A tap: one connection to upstream for one event stream, whose bytes are handed on where they arrive.

An httpx transport for answers that don't end. A general HTTP client has a buffer, a task to wake and a timer for each
read, and keeps the heads of request and answer for as long as the stream lasts: with thousands of streams those are
what a stream costs (docs/decisions). Here the connection is the reader, and one timer watches over all of them.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httptools
import httpx
from aiohappyeyeballs import AddrInfoType, start_connection

_HELD_BYTES = 1 << 16
_HEAD_BYTES = 64 << 10
_LOOK_SECONDS = 1.0
_INTERIM = 200
_NEXT_SECONDS = 0.25
_KNOWN_SECONDS = 10
_CHUNK_SIZE = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,5})\r\n")


class Truncated(httpx.ReadError):
    """The connection ended in the middle of an answer."""


class TapTransport(httpx.AsyncBaseTransport):
    """Sends each request to one server over a connection of its own, which ends with the answer; requests have no body.

    Of a request's `timeout` extension `connect` is the limit for everything until the connection stands, `read` how
    long it may be silent, also while the answer is poured; seconds. Raises httpx's exceptions.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._open: set[Tap] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._found: list[AddrInfoType] | None = None
        self._found_at = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions["timeout"]
        tap = Tap(self, _head(request), limits["read"])
        try:
            await self._connect(tap, request.url, limits["connect"])
            await tap.head()
        except BaseException:
            tap.close()
            raise
        return httpx.Response(tap.status, headers=tap.headers, stream=_Body(tap), request=request)

    async def _connect(self, tap: Tap, url: httpx.URL, seconds: float) -> None:
        is_tls = url.scheme == "https"
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": url.host} if is_tls else {}
        try:
            async with asyncio.timeout(seconds):
                found = await self._addresses(url.host, url.port or (443 if is_tls else 80))
                if len(found) == 1:
                    where: dict[str, Any] = dict(zip(("host", "port"), found[0][4], strict=False))
                else:  # one that doesn't answer must not keep us from the next
                    where = {"sock": await start_connection(found, happy_eyeballs_delay=_NEXT_SECONDS, interleave=1)}
                await loop.create_connection(lambda: tap, **where, **tls)
        except TimeoutError as problem:
            self._found = None
            raise httpx.ConnectTimeout("no connection in time") from problem
        except OSError as problem:
            self._found = None
            raise httpx.ConnectError(str(problem)) from problem

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        loop = asyncio.get_running_loop()
        found = self._found
        if found is None or self._found_at + _KNOWN_SECONDS < loop.time():
            found = self._found = list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._found_at = loop.time()
        return found

    async def aclose(self) -> None:
        for tap in tuple(self._open):
            tap.close()

    def opened(self, tap: Tap) -> None:
        self._open.add(tap)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def closed(self, tap: Tap) -> None:
        self._open.discard(tap)

    def _look(self) -> None:
        """End the connections that have been silent for too long."""
        now = asyncio.get_running_loop().time()
        for tap in [tap for tap in self._open if now - tap.heard_at > tap.silence_seconds]:
            tap.end(httpx.ReadTimeout("not a byte in time"))
        self._watch = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look) if self._open else None


class Tap(asyncio.Protocol):
    """One request and its answer. What has come is held until somebody takes it; too much of it stops the reading."""

    __slots__ = (
        "_chunks",
        "_has_length",
        "_head_bytes",
        "_held",
        "_into",
        "_is_between_chunks",
        "_is_complete",
        "_is_over",
        "_parser",
        "_problem",
        "_request",
        "_transport",
        "_waiter",
        "_where",
        "headers",
        "heard_at",
        "silence_seconds",
        "status",
    )

    def __init__(self, where: TapTransport, request: bytes, silence_seconds: float) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.heard_at = asyncio.get_running_loop().time()
        self.silence_seconds = silence_seconds
        self._where = where
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []  # of the read that is being parsed
        self._held = b""
        self._into: Callable[[bytes], None] | None = None
        self._head_bytes = 0
        self._has_length = False  # whether the answer itself says where it ends
        self._is_between_chunks = False  # so that what comes begins with a chunk's size
        self._is_complete = False
        self._is_over = False
        self._problem: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # -- what its users do ------------------------------------------------------------------------------------

    async def head(self) -> None:
        """Return once `status` and `headers` are there."""
        while not self.status:
            if self._is_over:
                raise self._problem or httpx.ReadError("the connection ended without an answer")
            await self._news()

    async def pour(self, into: Callable[[bytes], None]) -> None:
        """Hand every piece of the body to `into`, at once where it arrives; return at its end.

        What `into` raises ends the connection and is raised here.
        """
        self._into = into
        self.headers.clear()
        held, self._held = self._held, b""
        self._give(held)
        self.resume()
        try:
            while not self._is_over:
                await self._news()
            if self._problem is not None:
                raise self._problem
        finally:
            self._into = self._problem = None  # what it raises knows of us: let go of it now

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        while not self._held:
            if self._is_over:
                if self._problem is not None:
                    raise self._problem
                return b""
            self.resume()
            await self._news()
        held, self._held = self._held, b""
        return held

    def pause(self) -> None:
        """Take no more from the connection for now."""
        if self._transport is not None and not self._is_over:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._is_over:
            self._transport.resume_reading()

    def end(self, problem: Exception | None) -> None:
        """The answer is over: in order, or because of a problem, which whoever reads it is told."""
        if self._is_over:
            return
        self._is_over = True
        self._problem = problem
        self._where.closed(self)
        self._parser = None
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def close(self) -> None:
        self.end(httpx.ReadError("closed"))

    # -- what the connection does -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but name
        if self._is_over:
            transport.close()
            return
        self._where.opened(self)
        self._transport.write(self._request)  # type: ignore[union-attr]
        self._request = b""

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        if self._parser is None:
            return
        if self._is_between_chunks and (body := _only_chunk(data)):  # most reads; the parser need not know
            self._give(body)
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self.end(httpx.RemoteProtocolError(f"{type(problem).__name__}: {problem}"))
            return
        self._is_between_chunks = self._is_between_chunks and data.endswith(b"\r\n")
        self._head_bytes += 0 if self.status else len(data)
        if self._head_bytes > _HEAD_BYTES:
            self.end(httpx.RemoteProtocolError("a head without an end"))
        if self._chunks:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._give(body)
        if self._is_complete:
            self.end(None)

    def connection_lost(self, problem: Exception | None) -> None:
        self._transport = None
        if self.status and not self._has_length and problem is None:
            self.end(None)  # it lasts as long as its connection
        elif self.status:
            self.end(Truncated("the connection ended in the middle of an answer"))
        else:
            self.end(httpx.ReadError(str(problem or "the connection ended without an answer")))

    # -- what the parser finds --------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        self._has_length |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < _INTERIM:
            self.headers.clear()
        else:
            self.status = status
            self._wake()

    def on_chunk_header(self) -> None:
        self._is_between_chunks = False

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_chunk_complete(self) -> None:
        self._is_between_chunks = True

    def on_message_complete(self) -> None:
        self._is_complete = bool(self.status)

    # -- inside -----------------------------------------------------------------------------------------------

    def _give(self, body: bytes) -> None:
        if self._into is None:
            self._held += body
            if len(self._held) > _HELD_BYTES:
                self.pause()
            self._wake()
        elif body:
            try:
                self._into(body)
            except Exception as problem:  # noqa: BLE001 - the reader's own: it is raised where the reader waits
                self.end(problem)

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Body(httpx.AsyncByteStream):
    """An answer's body as httpx knows it; `tap` is the connection."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.tap.read():
            yield piece

    async def aclose(self) -> None:
        self.tap.close()


def tap_of(response: httpx.Response) -> Tap:
    """The connection that this transport's answer comes by."""
    assert isinstance(response.stream, _Body)
    return response.stream.tap


def _only_chunk(data: bytes) -> bytes:
    """What one whole chunk carries, if these bytes are that and nothing else (RFC 9112 section 7.1); else b""."""
    size = _CHUNK_SIZE.match(data)
    if size is None or not data.endswith(b"\r\n") or len(data) != size.end() + int(size[1], 16) + 2:
        return b""
    return data[size.end() : -2]


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.extensions["target"])]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"\r\n".join([*lines, b"", b""])
