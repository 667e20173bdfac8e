"""The fault proxy itself: each misbehaviour is what it says, and is over when it is cleared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.faults.proxy import FaultProxies, FaultProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ill = Callable[[FaultProxy], None]
Connect = Callable[[FaultProxy], Awaitable[Streams]]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.write(b"<end>")
    await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def proxy(fault_proxy: FaultProxies) -> AsyncIterator[FaultProxy]:
    """In front of a server that sends back what it gets, and <end> after its client's last byte."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            await _echo(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield fault_proxy(server.sockets[0].getsockname()[1])
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens client connections and ends them with the test."""
    writers: list[asyncio.StreamWriter] = []

    async def open_connection(proxy: FaultProxy) -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(streams[1])
        return streams

    yield open_connection
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def _ask(streams: Streams, question: bytes) -> bytes:
    streams[1].write(question)
    async with asyncio.timeout(5):
        return await streams[0].readexactly(len(question))


async def _silent(reader: asyncio.StreamReader, seconds: float = 0.15) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def _elapsed(streams: Streams, question: bytes) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await _ask(streams, question) == question
    return loop.time() - started


async def test_it_passes_everything_on(proxy: FaultProxy, connect: Connect) -> None:
    reader, writer = await connect(proxy)
    question = bytes(range(256)) * 4096
    assert await _ask((reader, writer), question) == question
    assert proxy.passed("upstream") == proxy.passed("downstream") == len(question)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert await reader.read() == b"<end>"
    assert proxy.accepted == 1


async def test_it_is_down_and_up_again_at_the_same_port(proxy: FaultProxy, connect: Connect) -> None:
    reader, _ = await connect(proxy)
    port = proxy.port
    proxy.down()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    proxy.up()
    assert proxy.port == port
    assert await _ask(await connect(proxy), b"back") == b"back"


async def test_it_resets_open_connections_and_new_ones(proxy: FaultProxy, connect: Connect) -> None:
    old = await connect(proxy)
    await _ask(old, b"x")
    proxy.reset_peer()
    with pytest.raises(ConnectionResetError):
        await _ask(old, b"y")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await _ask(await connect(proxy), b"z")
    proxy.clear()
    assert await _ask(await connect(proxy), b"well") == b"well"


async def test_it_resets_after_a_while(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    await _ask(streams, b"x")
    proxy.reset_peer(after_seconds=0.1)
    assert await _ask(streams, b"still") == b"still"
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(5):
            await streams[0].read(1)


@pytest.mark.parametrize("reset", [False, True])
async def test_it_cuts_open_connections_only(proxy: FaultProxy, connect: Connect, *, reset: bool) -> None:
    streams = await connect(proxy)
    await _ask(streams, b"x")
    proxy.cut(reset=reset)
    async with asyncio.timeout(5):
        if reset:
            with pytest.raises(ConnectionResetError):
                await streams[0].read()
        else:
            assert await streams[0].read() == b""
    assert await _ask(await connect(proxy), b"new") == b"new"


async def test_a_blackhole_swallows_and_stays_open(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    await _ask(streams, b"x")
    proxy.blackhole()
    streams[1].write(b"lost")
    streams[1].write_eof()
    assert await _silent(streams[0])
    assert proxy.open_count == 1
    proxy.clear()
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(5):
            await streams[0].read(1)


async def test_a_blackhole_may_be_one_way(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    proxy.blackhole("downstream")
    streams[1].write(b"heard, but not answered")
    assert await _silent(streams[0])
    assert proxy.passed("upstream") == 23
    assert proxy.passed("downstream") == 0


async def test_a_stall_delivers_everything_afterwards(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    proxy.stall()
    streams[1].write(b"held")
    assert await _silent(streams[0])
    proxy.clear()
    async with asyncio.timeout(5):
        assert await streams[0].readexactly(4) == b"held"


async def test_it_delays(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    assert await _elapsed(streams, b"x") < 0.1
    proxy.latency(0.1, direction="both")
    assert await _elapsed(streams, b"x") >= 0.2
    proxy.clear()
    assert await _elapsed(streams, b"x") < 0.1


async def test_it_narrows_the_bandwidth(proxy: FaultProxy, connect: Connect) -> None:
    streams = await connect(proxy)
    proxy.bandwidth(100_000)
    assert await _elapsed(streams, b"x" * 20_000) >= 0.18


async def test_it_slices(proxy: FaultProxy, connect: Connect) -> None:
    reader, writer = await connect(proxy)
    proxy.slicer(1, pause_seconds=0.01)
    writer.write(b"abcde")
    pieces: list[bytes] = []
    async with asyncio.timeout(5):
        while len(b"".join(pieces)) < 5:
            pieces.append(await reader.read(100))
    assert pieces == [b"a", b"b", b"c", b"d", b"e"]


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_it_ends_after_so_many_bytes(proxy: FaultProxy, connect: Connect, ending: str) -> None:
    reader, writer = await connect(proxy)
    await _ask((reader, writer), b"not counted")
    proxy.limit_data(3, ending="reset" if ending == "reset" else "close")
    writer.write(b"abcdef")
    async with asyncio.timeout(5):
        assert await reader.readexactly(3) == b"abc"
        if ending == "reset":
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b""
    fresh, writer = await connect(proxy)
    writer.write(b"123456")
    async with asyncio.timeout(5):
        assert await fresh.readexactly(3) == b"123"


async def test_it_half_closes(proxy: FaultProxy, connect: Connect) -> None:
    reader, writer = await connect(proxy)
    await _ask((reader, writer), b"x")
    proxy.half_close("upstream")
    async with asyncio.timeout(5):
        assert await reader.read() == b"<end>"


async def test_a_target_that_refuses_is_a_reset(fault_proxy: FaultProxies, connect: Connect) -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    proxy = fault_proxy(port)

    async def knock() -> None:
        reader, _ = await connect(proxy)
        await reader.read(1)

    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(knock(), 5)


@pytest.mark.parametrize(
    "ill",
    [
        FaultProxy.blackhole,
        FaultProxy.stall,
        lambda proxy: proxy.latency(5),
        lambda proxy: proxy.bandwidth(1),
    ],
)
async def test_it_closes_in_any_state(proxy: FaultProxy, connect: Connect, ill: Callable[[FaultProxy], None]) -> None:
    streams = await connect(proxy)
    await _ask(streams, b"x")
    ill(proxy)
    streams[1].write(b"y" * 1000)
    proxy.down()
    assert proxy.open_count == 0
