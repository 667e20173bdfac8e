"""The clients: thousands of open streams on raw asyncio protocols, each of which knows what it should have got."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import httptools

from benchmarks.threads import MARK, Thread

_NUMBER = slice(len(MARK), len(MARK) + 9)
_MOMENT = slice(len(MARK) + 10, len(MARK) + 29)
_MARK_LENGTH = len(MARK) + 29
_OPEN_SECONDS = 60
_RESET = struct.pack("ii", 1, 0)


class NotOpened(RuntimeError):
    """Streams could not be opened; the message says how that ended."""


@dataclass
class Tally:
    """What all streams of a load have seen."""

    delivered: int = 0
    duplicates: int = 0
    disordered: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    latencies: array[int] | None = None
    """Nanoseconds from a message's writing to its arrival, while this is an array."""


class Stream(asyncio.Protocol):
    """One tab: a stream of one thread, opened again when it ends if its load says so."""

    def __init__(self, load: Load, request: tuple[bytes, bytes], thread: Thread) -> None:
        self.thread = thread
        self.is_open = False
        self.expected = len(thread.moments)
        self.missing: set[int] = set()
        self._load = load
        self._request = request
        self._cursor = b""
        self._rest = b""
        self._last = b""
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] | None = None
        self.is_wanted = False

    @property
    def has_cursor(self) -> bool:
        return bool(self._resume())

    @property
    def lost(self) -> int:
        """Messages of the thread that should have come by now and didn't."""
        return len(self.missing) + len(self.thread.moments) - self.expected

    async def open(self) -> None:
        """Return once `connected` has come; raises NotOpened."""
        self.is_wanted = True
        self._opened = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._load.port)
                await self._opened
        except TimeoutError:
            self.close()
            raise NotOpened("no `connected` in time") from None
        except OSError as problem:
            raise NotOpened(type(problem).__name__) from None

    def close(self) -> None:
        """Go, as a browser does whose machine is switched off: with a reset."""
        self.is_wanted = False
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    # -- the connection ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but name
        resume = b"Last-Event-ID: %b\r\n" % self._resume() if self._resume() else b""
        self._transport.write(self._request[0] + resume + self._request[1])  # type: ignore[union-attr]

    def connection_lost(self, problem: Exception | None) -> None:
        was_open, self.is_open, self._transport = self.is_open, False, None
        self._cursor = self._resume()
        self._last = b""
        ending = "reset" if problem else "end"
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(NotOpened(ending))
        elif was_open and self.is_wanted:
            self._load.ended(self, ending)

    def _resume(self) -> bytes:
        """The id of the last message, as `Last-Event-ID`."""
        if self._last.startswith(b"id: "):
            return self._last[4 : self._last.index(b"\n")]
        return self._cursor

    def data_received(self, data: bytes) -> None:
        assert self._parser is not None
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status != 200:
            self._load.tally.endings[str(status)] += 1
            if self._opened is not None and not self._opened.done():
                self._opened.set_exception(NotOpened(f"status {status}"))
            assert self._transport is not None
            self._transport.abort()

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def on_body(self, body: bytes) -> None:
        if self._rest:
            body = self._rest + body
        events = body.split(b"\n\n")
        self._rest = events.pop()
        now = time.perf_counter_ns()
        for event in events:
            at = event.find(MARK)
            if at < 0:
                self._other(event)
            else:
                self._last = event
                self._message(event[at : at + _MARK_LENGTH], now)

    def _message(self, mark: bytes, now: int) -> None:
        tally = self._load.tally
        tally.delivered += 1
        if tally.latencies is not None:
            tally.latencies.append(now - int(mark[_MOMENT]))
        number = int(mark[_NUMBER])
        if number == self.expected:
            self.expected += 1
        elif number > self.expected:
            self.missing.update(range(self.expected, number))
            self.expected = number + 1
        elif number in self.missing:
            self.missing.discard(number)
            tally.disordered += 1
        else:
            tally.duplicates += 1

    def _other(self, event: bytes) -> None:
        name = event[event.find(b"event: ") + 7 :].partition(b"\n")[0].decode()
        self._load.tally.events[name] += 1
        if name == "connected" and self._opened is not None and not self._opened.done():
            self.is_open = True
            self._opened.set_result(None)


class Load:
    """Streams through one proxy. `request` is cut where `Last-Event-ID` goes in."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: list[Stream] = []
        self.tally = Tally()
        self.comes_back_after: float | None = None
        """Seconds after which an ended stream is opened again, 20 % more or less; None: never."""
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def open_count(self) -> int:
        return sum(stream.is_open for stream in self.streams)

    @property
    def lost(self) -> int:
        """Messages that open streams, and those that come back, should have got by now."""
        return sum(stream.lost for stream in self.streams if stream.is_wanted)

    def forgive(self) -> None:
        """Expect nothing that has not come by now."""
        for stream in self.streams:
            stream.missing.clear()
            stream.expected = len(stream.thread.moments)

    def add(self, request: tuple[bytes, bytes], thread: Thread) -> Stream:
        """One more stream, not open yet."""
        stream = Stream(self, request, thread)
        self.streams.append(stream)
        return stream

    async def open(self, streams: Sequence[Stream], *, at_once: int) -> float:
        """Open them, so many at once; the seconds it took. Raises NotOpened."""
        waiting = iter(streams)
        started = time.perf_counter()

        async def work() -> None:
            for stream in waiting:
                await stream.open()

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(at_once, len(streams))):
                workers.create_task(work())
        return time.perf_counter() - started

    def ended(self, stream: Stream, ending: str) -> None:
        self.tally.endings[ending] += 1
        if self.comes_back_after is not None:
            task = asyncio.ensure_future(self._come_back(stream))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _come_back(self, stream: Stream) -> None:
        while self.comes_back_after is not None:
            await asyncio.sleep(self.comes_back_after * random.uniform(0.8, 1.2))
            try:
                await stream.open()
            except NotOpened as problem:
                self.tally.endings[f"again: {problem}"] += 1
            else:
                return

    def close(self, streams: Iterable[Stream] | None = None) -> None:
        """Close these, or all and for good."""
        if streams is None:
            self.comes_back_after = None
            for task in self._returning:
                task.cancel()
        for stream in tuple(self.streams if streams is None else streams):
            stream.close()


async def until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True
