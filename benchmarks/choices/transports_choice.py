"""What runs under httpx's interface: streams and small answers of the stand-in upstream, read by six clients.

Each client is a process of its own (`python -m benchmarks.choices.transports_choice CLIENT PORT`), which tells what it
used; upstream is on the other core. A client only reads the bytes, so that the difference is the client's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
import httpx
import httpx2
import httpx_aiohttp
import uvloop

from benchmarks.choices.rig import take_the_other_core
from benchmarks.choices.table import Table
from benchmarks.load import until
from benchmarks.peers.peer import CORE
from benchmarks.threads import ACTIVATION, AGENT, TENANT, participant
from benchmarks.upstream import Pump, Upstream
from messaging.pool import PoolTransport
from messaging.tap import TapTransport, tap_of
from tests.services.process import ROOT

_STREAMS = 200
_AT_ONCE = 20
_RATE = 1_000
_MESSAGES = 4_000
_GETS = 500
_HEADERS = {"Authorization": "Bearer sk-Xnai-bench", "Accept-Encoding": "identity"}
_NAMES = f"agentName={AGENT}&activationName={ACTIVATION}".replace(" ", "%20")
_MESSAGE, _GREETING = b"event: Chat", b"event: connected"
_OURS = "our tap and pool"


def main(rounds: int) -> None:
    take_the_other_core()
    table = Table(f"{_STREAMS} streams, {_MESSAGES} messages at {_RATE}/s, {_GETS} GETs", chosen=_OURS)
    for _ in range(rounds):
        for name in _CLIENTS:
            table.add(name, uvloop.run(_measure(name)))
    table.show()


async def _measure(name: str) -> dict[str, float]:
    upstream = Upstream(_STREAMS)
    await upstream.start()
    command = (sys.executable, "-m", "benchmarks.choices.transports_choice", name, str(upstream.port))
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        await child.stdout.readline()  # all streams are open
        pump = Pump(upstream, [participant(person) for person in range(_STREAMS)], _RATE)
        await until(lambda: pump.written >= _MESSAGES + _RATE, seconds=60)  # more than are waited for
        pump.stop()
        told = await child.stdout.readline()
        await child.wait()
    finally:
        await upstream.aclose()
    found: dict[str, float] = json.loads(told)
    return found


# -- in the child -------------------------------------------------------------------------------------------------


class Client(Protocol):
    async def stream(self, url: str, take: Callable[[bytes], None]) -> Awaitable[None]:
        """Open an answer that doesn't end; what is returned hands its chunks to `take` while it is awaited."""

    async def get(self, url: str) -> bytes:
        """A whole answer."""


async def _use(client: Client, root: str) -> None:
    messages = f"{root}/api/v1/admin/tenants/{TENANT}/messaging"
    waiting = iter(range(_STREAMS))
    tasks: list[asyncio.Task[None]] = []
    seen = greeted = 0
    is_enough, all_greeted = asyncio.Event(), asyncio.Event()

    def take(chunk: bytes) -> None:
        nonlocal seen, greeted
        seen += chunk.count(_MESSAGE)
        greeted += chunk.count(_GREETING)
        if greeted == _STREAMS:
            all_greeted.set()
        if seen >= _MESSAGES:
            is_enough.set()

    async def open_some() -> None:
        for person in waiting:
            url = f"{messages}/listen?{_NAMES}&participantId={participant(person)}&heartbeatSeconds=60"
            tasks.append(asyncio.ensure_future(await client.stream(url, take)))

    async def get_some() -> None:
        for number in numbers:
            await client.get(f"{messages}/topics?{_NAMES}&participantId={participant(number % _STREAMS)}")

    await client.get(f"{root}/health")  # what is made once is made
    before = time.process_time()
    await asyncio.gather(*(open_some() for _ in range(_AT_ONCE)))
    await all_greeted.wait()
    opened = time.process_time()
    numbers = iter(range(_GETS))
    await asyncio.gather(*(get_some() for _ in range(_AT_ONCE)))
    got = time.process_time()
    print("open", flush=True)
    await is_enough.wait()
    found = {
        "CPU us per opened stream": (opened - before) / _STREAMS * 1e6,
        "CPU us per GET": (got - opened) / _GETS * 1e6,
        "CPU us per message": (time.process_time() - got) / seen * 1e6,
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # two hundred streams that some clients take their time to close


class HttpxClient:
    """An httpx client as it is used, whatever its transport; httpx2's is the same in all but name."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._open = AsyncExitStack()

    async def stream(self, url: str, take: Callable[[bytes], None]) -> Awaitable[None]:
        response = await self._open.enter_async_context(self._client.stream("GET", url, headers=_HEADERS))
        return _read(response.aiter_raw(), take)

    async def get(self, url: str) -> bytes:
        content: bytes = (await self._client.get(url, headers=_HEADERS)).content
        return content


class TransportClient:
    """httpx's requests and responses, given to its aiohttp transport without a client."""

    def __init__(self, transport: httpx_aiohttp.AiohttpTransport) -> None:
        self._transport = transport
        self._limits = {"connect": 5, "read": 75, "pool": 5}

    async def _ask(self, url: str) -> httpx.Response:
        request = httpx.Request("GET", _parsed(url), headers=_HEADERS, extensions={"timeout": self._limits})
        return await self._transport.handle_async_request(request)

    async def stream(self, url: str, take: Callable[[bytes], None]) -> Awaitable[None]:
        response = await self._ask(url)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return _read(response.stream, take)

    async def get(self, url: str) -> bytes:
        response = await self._ask(url)
        try:
            return await response.aread()
        finally:
            await response.aclose()


_parsed = lru_cache(maxsize=4_096)(httpx.URL)


class OurClient:
    """As messaging/upstream.py asks: `tap` for streams, `pool` for the rest, addresses not taken apart."""

    def __init__(self) -> None:
        tls = ssl.create_default_context()
        self._tap = TapTransport(tls)
        self._pool = PoolTransport(tls, connections=64)
        self._limits = {"connect": 5, "read": 75, "pool": 5}

    def _request(self, url: str) -> httpx.Request:
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        extensions = {"timeout": self._limits, "target": f"/{path}".encode()}
        return httpx.Request("GET", _parsed(f"{scheme}://{host}"), headers=_HEADERS, extensions=extensions)

    async def stream(self, url: str, take: Callable[[bytes], None]) -> Awaitable[None]:
        return tap_of(await self._tap.handle_async_request(self._request(url))).pour(take)

    async def get(self, url: str) -> bytes:
        response = await self._pool.handle_async_request(self._request(url))
        try:
            return await response.aread()
        finally:
            await response.aclose()


class AiohttpClient:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def stream(self, url: str, take: Callable[[bytes], None]) -> Awaitable[None]:
        response = await self._session.get(url, headers=_HEADERS)
        return _read(response.content.iter_any(), take)

    async def get(self, url: str) -> bytes:
        async with self._session.get(url, headers=_HEADERS) as response:
            return await response.read()


async def _read(chunks: AsyncIterable[bytes], take: Callable[[bytes], None]) -> None:
    async for chunk in chunks:
        take(chunk)


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=75)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)


def _httpx() -> Client:
    limits = httpx.Limits(max_connections=None)
    return HttpxClient(httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(5, read=75), trust_env=False))


def _httpx2() -> Client:
    limits = httpx2.Limits(max_connections=None)
    return HttpxClient(httpx2.AsyncClient(limits=limits, timeout=httpx2.Timeout(5, read=75), trust_env=False))


def _httpx_over_aiohttp() -> Client:
    transport = httpx_aiohttp.AiohttpTransport(client=_session, trust_env=False)
    return HttpxClient(httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(5, read=75), trust_env=False))


def _transport() -> Client:
    return TransportClient(httpx_aiohttp.AiohttpTransport(client=_session, trust_env=False))


def _aiohttp() -> Client:
    return AiohttpClient(_session())


_CLIENTS: dict[str, Callable[[], Client]] = {
    _OURS: OurClient,
    "aiohttp's transport": _transport,
    "httpx": _httpx,
    "httpx2": _httpx2,
    "httpx over aiohttp": _httpx_over_aiohttp,
    "aiohttp itself": _aiohttp,
}


async def _child(name: str, port: str) -> None:
    await _use(_CLIENTS[name](), f"http://127.0.0.1:{port}")


if __name__ == "__main__":
    os.sched_setaffinity(0, {CORE})
    gc.disable()
    uvloop.run(_child(sys.argv[1], sys.argv[2]))
