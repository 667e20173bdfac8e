"""One client does its worst; the others don't notice."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time
from contextlib import AsyncExitStack

import httpx
import psutil
import pytest
import pytest_asyncio

from tests.messaging.conftest import (  # noqa: F401 - fixtures, used by their names
    SignIn,
    Site,
    alice,
    bob,
    own_site,
    shared,
    signed_in,
    site,
    site_env,
)
from tests.messaging.people import PATIENCE, Person
from tests.services.app import AppServer

LIMIT = 10
OPENS = 200
AT_ONCE = 40
PATIENT = 15.0
"""What one request of somebody else's may take on a machine that others use, too."""


@pytest_asyncio.fixture
async def narrow(site: Site, signed_in: SignIn) -> tuple[AppServer, Person, Person]:  # noqa: F811
    """A process with few streams for each participant; Alice, who floods it, and Bob, who works."""
    app = site.another_process(STREAM_MAX_PER_PARTICIPANT=str(LIMIT))
    return app, await signed_in("alice@acme.example", app=app), await signed_in("bob@acme.example", app=app)


async def _open_and_leave(person: Person) -> int:
    """Open a stream, take at most its first bytes, and go."""
    async with person.client.stream("GET", person.path("listen"), params=person.names) as response:
        if response.status_code == 200:
            await anext(response.aiter_raw())
        else:
            await response.aread()
        return response.status_code


async def _works(person: Person, until: asyncio.Event) -> list[float]:
    """Somebody's ordinary requests; how long each took."""
    took: list[float] = []
    while not until.is_set() or len(took) < 10:
        started = time.monotonic()
        answer = await person.get("unread")
        assert answer.status_code == 200, answer.text
        took.append(time.monotonic() - started)
    return took


async def test_a_flood_of_streams_is_refused_and_nobody_else_notices(
    site: Site,  # noqa: F811
    narrow: tuple[AppServer, Person, Person],
) -> None:
    """F130: past the limit each open is a 429 that costs upstream nothing; others' streams and requests go on."""
    app, alice, bob = narrow  # noqa: F811
    await alice.unread()
    async with bob.listening() as his:
        opened = site.xians.streams()["opened"]
        is_over = asyncio.Event()
        work = asyncio.create_task(_works(bob, is_over))
        async with AsyncExitStack() as held:
            for _ in range(LIMIT):
                await held.enter_async_context(alice.listening())
            before = site.xians.control("requests")["last"]
            statuses: list[int] = []
            for _ in range(OPENS // AT_ONCE):
                statuses += await asyncio.gather(*(_open_and_leave(alice) for _ in range(AT_ONCE)))
            assert set(statuses) == {429}
            refused = await alice.get("listen")
            assert (refused.json()["code"], refused.headers["retry-after"]) == ("TOO_MANY_STREAMS", "10")
            routes = [request["route"] for request in site.xians.requests(after=before)]
            assert routes.count("listen") == 0
        is_over.set()
        took = await work
        assert max(took) < PATIENT
        assert statistics.median(took) < PATIENT / 5
        assert site.xians.streams()["opened"] - opened == 1  # hers is shared by all ten
        site.answer("still here", participant=bob.email)
        await his.next("Chat")
    await _rests(app, bob)


async def test_streams_that_come_and_go_leave_nothing_behind(
    site: Site,  # noqa: F811
    narrow: tuple[AppServer, Person, Person],
) -> None:
    """F130: opened and closed as fast as one client can: one upstream stream, and then none."""
    app, alice, bob = narrow  # noqa: F811
    await alice.unread()
    opened = site.xians.streams()["opened"]
    threads = psutil.Process(app.pid).num_threads()
    is_over = asyncio.Event()
    work = asyncio.create_task(_works(bob, is_over))
    statuses: list[int] = []
    for _ in range(OPENS // AT_ONCE):
        statuses += await asyncio.gather(*(_open_and_leave(alice) for _ in range(AT_ONCE)))
    is_over.set()
    assert set(statuses) <= {200, 429}
    assert 200 in statuses
    assert max(await work) < PATIENT
    assert site.xians.streams()["opened"] - opened <= OPENS // AT_ONCE
    await _rests(app, bob)
    assert psutil.Process(app.pid).num_threads() <= threads + 12
    async with alice.listening() as stream:
        site.answer("as if nothing had been")
        await stream.next("Chat")


async def _rests(app: AppServer, person: Person) -> None:
    """The process has let go of every stream and every feed."""
    async with asyncio.timeout(PATIENCE * 2):
        while True:
            told = (await person.client.get(f"{app.url}/metrics")).text
            values = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
            if values["portal_streams_open"] == values["portal_feeds_open"] == "0.0":
                return
            await asyncio.sleep(0.1)


def _slow(app: AppServer, start: bytes) -> socket.socket:
    """A client that begins and never ends."""
    connection = socket.create_connection(("127.0.0.1", app.port), timeout=20)
    connection.sendall(start)
    return connection


STARTS = {
    "half a head": b"GET /dashboard/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "half a body": b"POST /api/tenants/acme/messaging/send HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    "half a chunk": b"POST /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx",
    "nothing at all": b"",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
async def test_slow_senders_hold_nobody_up(site: Site, bob: Person, start: bytes) -> None:  # noqa: F811
    """F131: a hundred of them, each with a request that doesn't end; the time limit for them is the proxy's."""
    process = psutil.Process(site.app.pid)
    threads = process.num_threads()
    slow = [await asyncio.to_thread(_slow, site.app, start) for _ in range(100)]
    try:
        async with bob.listening() as stream:
            site.answer("in time", participant=bob.email)
            await stream.next("Chat")
            for _ in range(5):
                started = time.monotonic()
                assert (await bob.get("unread")).status_code == 200
                assert time.monotonic() - started < PATIENT
            for connection in slow:
                connection.sendall(b"y" if start else b"G")
        assert process.num_threads() <= threads + 12  # none of its own for a slow one
    finally:
        for connection in slow:
            connection.close()


async def _said(app: AppServer, request: bytes, rest: bytes = b"", *, times: int = 0) -> bytes:
    """The beginning of the answer to these bytes; b"" when the connection is closed on us."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    try:
        async with asyncio.timeout(30):
            writer.write(request)
            for _ in range(times):
                writer.write(rest)
                await writer.drain()
            return await reader.read(200)
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"GET /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LONG = {
    "one header": HEAD + b"X-Long: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "many headers": HEAD + (b"X-Many: " + b"x" * 1_000 + b"\r\n") * 1_000 + b"\r\n",
    "an address": b"GET /login/?q=" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "cookies": HEAD + (b"Cookie: a=" + b"x" * 8_000 + b"\r\n") * 100 + b"\r\n",
}


@pytest.mark.parametrize("head", LONG.values(), ids=LONG.keys())
async def test_a_head_of_a_megabyte_is_refused(site: Site, bob: Person, head: bytes) -> None:  # noqa: F811
    """F131: 431 before anything of it is looked at. A head that never ends is the web server's to cut off: h11 does
    so at 64 KiB and the proxy sooner; httptools has no limit of its own."""
    before = psutil.Process(site.app.pid).memory_info().rss
    answer = await _said(site.app, head)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert psutil.Process(site.app.pid).memory_info().rss - before < 64 << 20
    assert (await bob.get("unread")).status_code == 200


async def test_a_huge_body_is_refused_before_it_is_read(site: Site, alice: Person, bob: Person) -> None:  # noqa: F811
    """F131: announced: 413 at once; in chunks of unknown number: cut off. Neither is kept on disk or in memory."""
    cookie = f"sessionid={alice.client.cookies['sessionid']}; csrftoken={alice.client.cookies['csrftoken']}"
    head = f"POST {alice.path('send')} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n"
    head += f"X-CSRFToken: {alice.client.cookies['csrftoken']}\r\nContent-Type: application/json\r\n"
    announced = (head + "Content-Length: 10000000000\r\n\r\n").encode()
    assert (await _said(site.app, announced)).startswith(b"HTTP/1.1 413")
    process = psutil.Process(site.app.pid)
    before = process.memory_info().rss
    chunked = (head + "Transfer-Encoding: chunked\r\n\r\n").encode()
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    assert b"200" not in await _said(site.app, chunked, chunk, times=400)
    assert process.memory_info().rss - before < 64 << 20
    assert not site.xians.requests(route="send")
    assert (await bob.get("unread")).status_code == 200


async def test_a_body_of_the_right_size_passes(site: Site, alice: Person) -> None:  # noqa: F811
    """F131: what a person can write is never too long for the server, and what is too long is told so in words."""
    text = "ü" * 99_999
    assert (await alice.post("send", text=text)).status_code == 200
    body = json.dumps({**site.names, "text": "x" * 2_000_000})
    headers = {**alice.csrf(), "Content-Type": "application/json"}
    answer: httpx.Response = await alice.client.post(alice.path("send"), content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
