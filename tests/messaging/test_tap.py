"""The transport of upstream's streams, against a server that answers byte by byte (reliability.md F12, F15-F19)."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.tap import Tap, TapTransport, Truncated, tap_of

PATIENCE = 5.0
TLS = ssl.create_default_context()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = "data: größer\r\ndata: 東京\n\n".encode()
WHOLE = CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY) + b"0\r\n\r\n"

type Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers every connection as it is told; `gone` is set when a client has left."""

    def __init__(self, answer: Answer) -> None:
        self.asked = b""
        self.gone = asyncio.Event()
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.readuntil(b"\r\n\r\n")
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            self.gone.set()
        finally:
            writer.close()


def saying(*pieces: bytes, stays: bool = False) -> Answer:
    """These pieces, each by itself; then the end, or silence until the client goes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if stays:
            await reader.read()
            raise ConnectionError

    return answer


@asynccontextmanager
async def asking(
    answer: Answer, *, silence: float = 60.0
) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[Tap]]]]:
    server = Server(answer)
    transport = TapTransport(TLS)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def ask() -> Tap:
        limits = {"connect": PATIENCE, "read": silence}
        request = httpx.Request(
            "GET", f"http://127.0.0.1:{port}", extensions={"timeout": limits, "target": b"/a/listen?x=%2F"}
        )
        return tap_of(await transport.handle_async_request(request))

    async with listening, asyncio.timeout(PATIENCE * 2):
        try:
            yield server, ask
        finally:
            await transport.aclose()


async def poured(tap: Tap) -> bytes:
    pieces: list[bytes] = []
    await tap.pour(pieces.append)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(WHOLE)])
async def test_it_pours_the_same_however_the_answer_is_cut(size: int) -> None:
    cut = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
    async with asking(saying(*cut)) as (server, ask):
        tap = await ask()
        assert (tap.status, dict(tap.headers)[b"Content-Type"]) == (200, b"text/event-stream")
        assert await poured(tap) == BODY
    assert server.asked.startswith(b"GET /a/listen?x=%2F HTTP/1.1\r\n")


_PIECES = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([b"3\r\nabc\r\n", b"0\r\n\r\n"])))
_SIZES = st.sampled_from([b"%x\r\n", b"%X\r\n", b"0%x\r\n", b'%x;note="1"\r\n'])


@given(pieces=st.lists(st.tuples(_SIZES, st.binary(min_size=1, max_size=300))), body=_PIECES, data=st.data())
async def test_it_pours_what_chunks_carry_wherever_reads_begin_and_end(
    pieces: list[tuple[bytes, bytes]], body: list[bytes], data: st.DataObject
) -> None:
    """Most reads are one whole chunk, which the parser isn't shown: it must not lose its place."""
    pieces += [(data.draw(_SIZES), piece) for piece in body]  # some of which look like chunks
    chunks = [size % len(piece) + piece + b"\r\n" for size, piece in data.draw(st.permutations(pieces))]
    whole = [CHUNKED, *chunks, b"0\r\n\r\n"]
    ends = list(itertools.accumulate(map(len, whole)))
    cuts = data.draw(st.sets(st.one_of(st.sampled_from(ends), st.integers(0, ends[-1])))) | {0, ends[-1]}
    stream = b"".join(whole)
    tap = Tap(TapTransport(TLS), b"", PATIENCE)
    for start, end in itertools.pairwise(sorted(cuts)):
        tap.data_received(stream[start:end])
    tap.connection_lost(None)
    assert await poured(tap) == b"".join(chunk.partition(b"\r\n")[2][:-2] for chunk in chunks)


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([b"1", b"3\r\nabc\r\n", b"fourteen bytes\r\n"], id="in the middle of a size"),
        pytest.param([b"13\r\n012345678\r\n", b"3\r\nabc\r\n", b"\r\n"], id="in the middle of a chunk"),
        pytest.param([b"13\r\nabc\r\n", b"3\r\nabc\r\n", b"012345\r\n"], id="behind what ends a line"),
    ],
)
async def test_what_looks_like_a_chunk_inside_another_is_none(reads: list[bytes]) -> None:
    tap = Tap(TapTransport(TLS), b"", PATIENCE)
    for read in [CHUNKED, b"5\r\nfirst\r\n", *reads, b"0\r\n\r\n"]:
        tap.data_received(read)
    tap.connection_lost(None)
    assert await poured(tap) == b"first" + b"".join(reads).partition(b"\r\n")[2][:-2]


async def test_an_interim_answer_is_passed_over() -> None:
    async with asking(saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", WHOLE)) as (_, ask):
        tap = await ask()
        assert b"Link" not in dict(tap.headers)
        assert await poured(tap) == BODY


async def test_without_a_length_it_lasts_as_long_as_its_connection() -> None:
    async with asking(saying(HEAD + b"\r\n", BODY)) as (_, ask):
        assert await poured(await ask()) == BODY


@pytest.mark.parametrize(
    "answer",
    [CHUNKED + b"400\r\ndata: {", CHUNKED + b"5\r\nabcde\r\n", HEAD + b"Content-Length: 9\r\n\r\nabc"],
    ids=["in a chunk", "between chunks", "before its length"],
)
async def test_an_end_in_the_middle_is_no_end_in_order(answer: bytes) -> None:
    """F18, F19: what came is handed on all the same."""
    pieces: list[bytes] = []
    async with asking(saying(answer)) as (_, ask):
        tap = await ask()
        with pytest.raises(Truncated):
            await tap.pour(pieces.append)
    assert b"".join(pieces) in (b"data: {", b"abcde", b"abc")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", httpx.ReadError),
        (b"HTTP/1.1 200", httpx.ReadError),
        (b"SSH-2.0-x\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (1 << 20), httpx.RemoteProtocolError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", httpx.RemoteProtocolError),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes, problem: type[Exception]) -> None:
    """F12"""
    async with asking(saying(answer)) as (_, ask):
        with pytest.raises(problem):
            await ask()


async def test_what_comes_before_anybody_reads_is_held_up_to_a_limit() -> None:
    """A server that writes faster than it is read has to wait; nothing is lost."""
    piece = b"x" * 65_536
    written = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(HEAD + b"\r\n")
        for _ in range(512):
            writer.write(piece)
            await writer.drain()
            written += 1

    async with asking(answer) as (_, ask):
        tap = await ask()
        before = -1
        while before != written:
            before = written
            await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.1)
        assert written < 512
        assert len(await poured(tap)) == 512 * len(piece)


async def test_silence_ends_it_and_bytes_of_any_kind_do_not() -> None:
    """F15, F44: `read` seconds without a byte."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leaving = asyncio.create_task(reader.read())
        writer.write(HEAD + b"\r\n")
        for _ in range(4):
            writer.write(b":\n")
            await asyncio.wait([leaving], timeout=0.7)
        await leaving
        raise ConnectionError

    async with asking(answer, silence=1.2) as (server, ask):
        tap = await ask()
        started = asyncio.get_running_loop().time()
        with pytest.raises(httpx.ReadTimeout):
            await poured(tap)
        assert asyncio.get_running_loop().time() - started > 4 * 0.7
        await server.gone.wait()


async def test_what_the_reader_raises_ends_the_connection_and_is_raised_where_it_waits() -> None:
    def choke(piece: bytes) -> None:
        raise LookupError(piece)

    async with asking(saying(CHUNKED, b"1\r\nx\r\n", stays=True)) as (server, ask):
        tap = await ask()
        with pytest.raises(LookupError):
            await tap.pour(choke)
        await server.gone.wait()


async def test_whoever_stops_waiting_takes_the_connection_along() -> None:
    """Cancelled before the head, and after it (traps.md section 3: httpx leaks these)."""
    async with asking(saying(stays=True)) as (server, ask):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask()
        await server.gone.wait()
    async with asking(saying(CHUNKED, stays=True)) as (server, ask):
        tap = await ask()
        tap.close()
        await server.gone.wait()
        with pytest.raises(httpx.ReadError):
            await poured(tap)


async def test_an_address_that_does_not_answer_leads_on_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses of which the first is a black hole (192.0.2.1 is nobody's, RFC 5737)."""
    async with asking(saying(WHOLE)) as (_, ask):
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def resolve(host: str, port: int, **how: int) -> list[object]:
            found = await real(host, port, **how)
            silent = [(family, kind, protocol, name, ("127.0.0.2", 9)) for family, kind, protocol, name, _ in found]
            return [*silent, *found]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        assert await poured(await ask()) == BODY


async def test_nobody_there_is_a_connect_error() -> None:
    transport = TapTransport(TLS)
    limits = {"connect": PATIENCE, "read": PATIENCE}
    for url in ("http://127.0.0.1:9", "http://nx.invalid"):
        request = httpx.Request("GET", url, extensions={"timeout": limits, "target": b"/"})
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(request)
