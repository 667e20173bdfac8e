"""An upstream that says what no well-meant server can be made to say, byte by byte.

It stands in front of the stand-in Xians server: a request for which a test has a script gets that, every other one
is handed on. It runs in a thread with an event loop of its own, as the fault proxy does.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

type Script = Callable[["Exchange"], Awaitable[None]]

STREAM = "text/event-stream; charset=utf-8"
_FOREVER = 600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it came (monotonic), and the headers it came with, their names in small letters."""

    at: float
    call: str
    activation: str
    headers: Mapping[str, str]


class Exchange:
    """One scripted answer; `number` counts the requests of this script from 1."""

    def __init__(self, asked: Asked, number: int, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self.number = number
        self.written = 0
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        self.written += len(data)
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, content_type: str = STREAM, **headers: str) -> None:
        """The head of a chunked answer; `_` in a header's name stands for `-`."""
        told = {"Content-Type": content_type, **{name.replace("_", "-"): text for name, text in headers.items()}}
        lines = [f"HTTP/1.1 {status} Scripted", "Transfer-Encoding: chunked", *(f"{k}: {v}" for k, v in told.items())]
        await self.raw("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, name: str, told: object) -> None:
        await self.chunk(frame(name, told))

    async def live(self) -> None:
        """The head of a stream, its greeting and a heartbeat: proof of life."""
        await self.head()
        await self.event("connected", {"tenantId": "acme", "timestamp": datetime.now(UTC).isoformat()})
        await self.event("heartbeat", {"subscriberCount": 1})

    async def finish(self) -> None:
        """The last chunk: a clean end."""
        await self.raw(b"0\r\n\r\n")

    async def stay(self, seconds: float = _FOREVER) -> None:
        """Beat once a second, until the client goes."""
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            await self.event("heartbeat", {"subscriberCount": 1})

    async def until(self, event: threading.Event) -> None:
        """Wait for the test, beating meanwhile: it may take its time."""
        beat_at = time.monotonic() + 1
        while not event.is_set():
            await asyncio.sleep(0.02)
            if time.monotonic() > beat_at:
                beat_at += 1
                await self.event("heartbeat", {"subscriberCount": 1})

    async def hang(self, seconds: float = _FOREVER) -> None:
        """Say nothing, until the client goes."""
        deadline = time.monotonic() + seconds
        while not self._writer.is_closing() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    def reset(self) -> None:
        """End with a TCP reset."""
        its_socket = self._writer.get_extra_info("socket")
        its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Then:
    """A stream that is well until the test says `begin`, ends in order, and meets the fault whenever it comes again."""

    def __init__(self, fault: Script) -> None:
        self._fault = fault
        self._begun = threading.Event()

    def begin(self) -> None:
        self._begun.set()

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.number > 1:
            await self._fault(exchange)
            return
        await exchange.live()
        await exchange.until(self._begun)
        await exchange.finish()


class Hostile:
    """Listens on 127.0.0.1 and hands on to `target_port` what no script takes; `close` it in the end."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self._target_port = target_port
        self._scheme = "https" if tls else "http"
        self._scripts: dict[tuple[str, str], Script] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(tls), self._loop).result(10)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def script(self, script: Script | None, *, call: str = "listen", activation: str = "*") -> None:
        """Answer this call (the path's last part, `*` for any) with a script; None: hand it on again."""
        if script is None:
            self._scripts.pop((call, activation), None)
        else:
            self._scripts[call, activation] = script
            self._numbers[call, activation] = 0

    def count(self, *, call: str = "listen", activation: str | None = None) -> int:
        return len(self.times(call=call, activation=activation))

    def times(self, *, call: str = "listen", activation: str | None = None) -> list[float]:
        """When such requests came."""
        return [a.at for a in list(self.asked) if call in ("*", a.call) and activation in (None, a.activation)]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self, tls: ssl.SSLContext | None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked = _read(head)
        self.asked.append(asked)
        for key in ((asked.call, asked.activation), (asked.call, "*"), ("*", "*")):
            if key in self._scripts:
                self._numbers[key] += 1
                answering = asyncio.ensure_future(self._scripts[key](Exchange(asked, self._numbers[key], writer)))
                await _while_connected(reader, answering)
                return
        await self._hand_on(head, asked, reader, writer)

    async def _hand_on(
        self, head: bytes, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        body = await reader.readexactly(int(asked.headers.get("content-length", "0")))
        source, sink = await asyncio.open_connection("127.0.0.1", self._target_port)
        lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
        sink.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        try:
            await _while_connected(reader, asyncio.ensure_future(_copy(source, writer)))
        finally:
            sink.close()


async def _copy(source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        writer.write(data)
        await writer.drain()


async def _while_connected(reader: asyncio.StreamReader, answering: asyncio.Future[None]) -> None:
    """Let an answer go on until it is complete or whoever asked has gone."""
    leaving = asyncio.ensure_future(reader.read(1))
    try:
        both: set[asyncio.Future[Any]] = {leaving, answering}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
    finally:
        for task in (leaving, answering):
            task.cancel()
        await asyncio.gather(leaving, answering, return_exceptions=True)


def _read(head: bytes) -> Asked:
    request, *lines = head.decode("latin-1").split("\r\n")[:-2]
    target = urlsplit(request.split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    activation = parse_qs(target.query).get("activationName", [""])[0]
    return Asked(time.monotonic(), unquote(target.path.rsplit("/", 1)[-1]), activation, headers)


def frame(event: str, told: object) -> bytes:
    """One event; `told` is its JSON, or text that is passed on as it is."""
    text = told if isinstance(told, str) else json.dumps(told)
    return f"event: {event}\ndata: {text}\n\n".encode("utf-8", "surrogatepass")
