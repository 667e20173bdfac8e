"""One direction of one proxied TCP connection, and what may go wrong in it; runs in the proxy's loop."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Ending = Literal["close", "reset"]
_CHUNK = 65536


@dataclass(slots=True)
class Toxics:
    """What one direction suffers from; changed at any time, read anew for every piece that is written."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: float | None = None
    slice_bytes: int | None = None
    slice_pause_seconds: float = 0.0
    limit_bytes: int | None = None
    limit_ending: Ending = "close"
    stalled: bool = False
    blackhole: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    dice: random.Random = field(default_factory=random.Random)  # hypothesis, in another thread, minds the global one

    def delay(self) -> float:
        """How long the next chunk is held back."""
        return max(0.0, self.latency_seconds + self.dice.uniform(-self.jitter_seconds, self.jitter_seconds))

    def piece_size(self) -> int:
        """The most that goes into the next write: a slice, or what the bandwidth lets through in 20 ms."""
        size = self.slice_bytes or _CHUNK
        if self.bytes_per_second is not None:
            size = min(size, max(1, int(self.bytes_per_second * 0.02)))
        return size

    def pause_after(self, written: int) -> float:
        """How long to wait after a write of so many bytes."""
        pause = self.slice_pause_seconds if self.slice_bytes else 0.0
        if self.bytes_per_second is not None:
            pause += written / self.bytes_per_second
        return pause

    def announce(self) -> None:
        """Wake what waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Pipe:
    """Carries bytes from a reader to a writer, and the end of them, too.

    `on_finish` is told when this direction has ended in order and the other may go on, `on_end` when the
    whole connection has to end.
    """

    def __init__(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        toxics: Toxics,
        *,
        on_finish: Callable[[], None],
        on_end: Callable[[Ending], None],
    ) -> None:
        self.toxics = toxics
        self.passed = 0
        self.lost = False
        self.finished = False
        self._limit_from = 0
        self._source = source
        self._sink = sink
        self._on_finish = on_finish
        self._on_end = on_end
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    def restart_limit(self) -> None:
        """Count the limit's bytes from here."""
        self._limit_from = self.passed

    def half_close(self) -> None:
        """End this direction now, as if its source had (a FIN); the other direction goes on."""
        self.stop()
        self._finish()

    def stop(self) -> None:
        """Carry nothing any more."""
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await self._source.read(_CHUNK)
            except OSError:  # it was reset, so the other side is, too
                self._on_end("reset")
                return
            await self._queue.put((loop.time() + self.toxics.delay(), chunk))
            if not chunk:
                return

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            deliver_at, chunk = await self._queue.get()
            if (wait := deliver_at - loop.time()) > 0:
                await asyncio.sleep(wait)
            try:
                if chunk:
                    await self._deliver(chunk)
                else:
                    await self._deliver_end()
                    return
            except OSError:
                self._on_end("reset")
                return

    async def _deliver(self, chunk: bytes) -> None:
        while chunk:
            await self._until_moving()
            toxics = self.toxics
            if toxics.blackhole:
                self.lost = True
                return
            size = toxics.piece_size()
            if (left := self._limit_left()) is not None:
                size = min(size, left)
            piece, chunk = chunk[:size], chunk[size:]
            self.passed += len(piece)
            self._sink.write(piece)
            await self._sink.drain()
            if self._limit_left() == 0:
                self._on_end(toxics.limit_ending)
                return
            if pause := toxics.pause_after(len(piece)):
                await asyncio.sleep(pause)

    async def _deliver_end(self) -> None:
        await self._until_moving()
        if self.toxics.blackhole:
            self.lost = True
        else:
            self._finish()

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        if self._sink.can_write_eof() and not self._sink.is_closing():
            self._sink.write_eof()
        self._on_finish()

    def _limit_left(self) -> int | None:
        limit = self.toxics.limit_bytes
        return None if limit is None else max(0, self._limit_from + limit - self.passed)

    async def _until_moving(self) -> None:
        while self.toxics.stalled:
            await self.toxics.changed.wait()


def end(writer: asyncio.StreamWriter, ending: Ending) -> None:
    """Close a connection in order, or with a TCP reset."""
    if ending == "close":
        writer.close()
        return
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
