"""A TCP proxy that misbehaves on request, in toxiproxy's words; stands in front of anything on this machine.

It runs in a thread with an event loop of its own, so synchronous and asynchronous tests use it alike and a
test that blocks doesn't hold it up. Every method takes effect before it returns, on open connections and on
later ones, until `clear`. Direction "upstream" is from the client to the target, "downstream" the way back.
"""

import asyncio
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Literal

import pytest

from tests.faults.pipe import Ending, Pipe, Toxics, end

Direction = Literal["upstream", "downstream", "both"]


class _Connection:
    def __init__(
        self,
        proxy: "FaultProxy",
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._writers = (client[1], target[1])
        self.pipes = {
            "upstream": self._pipe(client[0], target[1], "upstream"),
            "downstream": self._pipe(target[0], client[1], "downstream"),
        }

    def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str) -> Pipe:
        toxics = self._proxy._toxics[direction]
        return Pipe(source, sink, toxics, on_finish=self._finished, on_end=self.end)

    def _finished(self) -> None:
        if all(pipe.finished for pipe in self.pipes.values()):
            self.end("close")

    def end(self, ending: Ending) -> None:
        for pipe in self.pipes.values():
            pipe.stop()
        for writer in self._writers:
            end(writer, ending)
        self._proxy._connections.discard(self)


class FaultProxy:
    """Listens on 127.0.0.1 at `port` and passes everything on to `target_port`; `close` it in the end."""

    def __init__(self, target_port: int, *, target_host: str = "127.0.0.1", port: int = 0) -> None:
        self.port = port
        self.accepted = 0
        self._target = (target_host, target_port)
        self._connections: set[_Connection] = set()
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._resets_after: float | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arriving: set[socket.socket] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._toxics: dict[str, Toxics] = {"upstream": Toxics(), "downstream": Toxics()}
        self.up()

    @property
    def url(self) -> str:
        """For targets that speak HTTP; without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_count(self) -> int:
        """How many connections are open through it."""
        return len(self._connections)

    def passed(self, direction: Literal["upstream", "downstream"]) -> int:
        """How many bytes the open connections have carried this way."""
        return sum(connection.pipes[direction].passed for connection in list(self._connections))

    # The whole proxy

    def down(self) -> None:
        """Refuse new connections and close the open ones, as when nobody listens any more."""
        self._run(self._down)

    def up(self) -> None:
        """Listen again, at the same port."""
        self._run(self._up)

    def clear(self) -> None:
        """Be a good proxy again. A connection that lost bytes in a blackhole is reset: TCP has no holes."""
        self._run(self._clear)

    def close(self) -> None:
        """End everything, the thread included."""
        self._run(self._end_everything)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # Once, to the connections that are open

    def cut(self, *, reset: bool = False) -> None:
        """End the open connections now, in order or with a TCP reset; new ones are served."""
        self._run(lambda: self._cut("reset" if reset else "close"))

    def half_close(self, direction: Literal["upstream", "downstream"]) -> None:
        """Say "no more from this side" on the open connections; the other direction goes on."""
        self._each_pipe(direction, Pipe.half_close)

    # Until `clear`

    def reset_peer(self, *, after_seconds: float = 0.0) -> None:
        """Reset every connection, the open ones and each new one, so long after now or after it opened."""
        self._run(lambda: self._reset_peer(after_seconds))

    def blackhole(self, direction: Direction = "both") -> None:
        """Keep connections open and swallow what is sent, the end of the connection included."""
        self._change(direction, lambda toxics: setattr(toxics, "blackhole", True))

    def stall(self, direction: Direction = "both") -> None:
        """Hold back everything and deliver it after `clear`, as a network that comes back does."""
        self._change(direction, lambda toxics: setattr(toxics, "stalled", True))

    def latency(self, seconds: float, *, jitter: float = 0.0, direction: Direction = "downstream") -> None:
        """Deliver everything so much later, in order and with the full bandwidth."""

        def change(toxics: Toxics) -> None:
            toxics.latency_seconds, toxics.jitter_seconds = seconds, jitter

        self._change(direction, change)

    def bandwidth(self, bytes_per_second: float, *, direction: Direction = "downstream") -> None:
        """Let through no more than that."""
        self._change(direction, lambda toxics: setattr(toxics, "bytes_per_second", bytes_per_second))

    def slicer(self, size: int, *, pause_seconds: float = 0.0, direction: Direction = "downstream") -> None:
        """Write at most `size` bytes at a time, and wait a little after each write."""

        def change(toxics: Toxics) -> None:
            toxics.slice_bytes, toxics.slice_pause_seconds = size, pause_seconds

        self._change(direction, change)

    def limit_data(self, size: int, *, ending: Ending = "close", direction: Direction = "downstream") -> None:
        """End a connection once it has carried `size` more bytes (a new one: `size` bytes) this way."""

        def change(toxics: Toxics) -> None:
            toxics.limit_bytes, toxics.limit_ending = size, ending

        self._each_pipe(direction, Pipe.restart_limit)
        self._change(direction, change)

    # In the proxy's thread

    def _run(self, action: Callable[[], Awaitable[None] | None]) -> None:
        async def run() -> None:
            if (pending := action()) is not None:
                await pending

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _change(self, direction: Direction, change: Callable[[Toxics], None]) -> None:
        def apply() -> None:
            for name, toxics in self._toxics.items():
                if direction in (name, "both"):
                    change(toxics)
                    toxics.announce()

        self._run(apply)

    def _each_pipe(self, direction: Direction, action: Callable[[Pipe], None]) -> None:
        def apply() -> None:
            for connection in list(self._connections):
                for name, pipe in connection.pipes.items():
                    if direction in (name, "both"):
                        action(pipe)

        self._run(apply)

    async def _up(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
            self._listener.settimeout(0)
            self.port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._take, self._listener)

    async def _down(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        while self._arriving:
            self._arriving.pop().close()
        self._cut("close")
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _end_everything(self) -> None:
        await self._down()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in list(self._writers):  # one whose peer doesn't read would wait for ever to close
            writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _clear(self) -> None:
        self._resets_after = None
        for toxics in self._toxics.values():
            fresh = Toxics()
            for name in Toxics.__slots__:
                if name != "changed":
                    setattr(toxics, name, getattr(fresh, name))
            toxics.announce()
        for connection in list(self._connections):
            if any(pipe.lost for pipe in connection.pipes.values()):
                connection.end("reset")
        await self._up()

    def _cut(self, ending: Ending) -> None:
        for connection in list(self._connections):
            connection.end(ending)

    def _reset_peer(self, after_seconds: float) -> None:
        self._resets_after = after_seconds
        for connection in list(self._connections):
            self._reset_later(connection)

    def _reset_later(self, connection: _Connection) -> None:
        if self._resets_after == 0:
            connection.end("reset")
        elif self._resets_after is not None:
            self._loop.call_later(self._resets_after, self._reset_if_still, connection)

    def _reset_if_still(self, connection: _Connection) -> None:
        if self._resets_after is not None and connection in self._connections:
            connection.end("reset")

    # asyncio's own ways to accept lose a connection that arrives while they end, so this listens by itself.

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # it was gone before it was taken
            return
        client.settimeout(0)
        self.accepted += 1
        self._arriving.add(client)
        self._spawn(self._accept(client))

    async def _accept(self, client: socket.socket) -> None:
        streams = await asyncio.open_connection(sock=client)
        self._arriving.discard(client)
        self._writers.add(streams[1])
        try:
            target = await asyncio.open_connection(*self._target)
        except OSError:
            end(streams[1], "reset")
            return
        except asyncio.CancelledError:
            end(streams[1], "close")
            raise
        self._writers.add(target[1])
        connection = _Connection(self, streams, target)
        self._connections.add(connection)
        self._reset_later(connection)


FaultProxies = Callable[[int], FaultProxy]


@pytest.fixture
def fault_proxy() -> Iterator[FaultProxies]:
    """Starts proxies and ends them with the test: `proxy = fault_proxy(postgres.port)`."""
    running: list[FaultProxy] = []

    def start(target_port: int) -> FaultProxy:
        proxy = FaultProxy(target_port)
        running.append(proxy)
        return proxy

    yield start
    for proxy in running:
        proxy.close()
