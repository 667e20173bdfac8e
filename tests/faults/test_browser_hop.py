# ruff: noqa: F401, F811 - the fixtures of a whole site, which tests ask for by name
"""The way between a reader and us: readers that vanish, stall or forge, and proxies that buffer, cut and repeat."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from config.silence import watch_connections
from messaging.cursors import Sealer
from messaging.wire import ThreadAddress, order_at
from tests.faults.nginx import Nginx
from tests.faults.proxy import FaultProxies
from tests.messaging.conftest import SignIn, Site, alice, bob, own_site, shared, signed_in, site, site_env
from tests.messaging.people import PATIENCE, Person
from tests.services.environment import APPLICATION

SOON = 20
"""Seconds that a busy machine may take for what is promised within one or two."""
READERS = 50

type StartNginx = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StartNginx]:
    """Starts private nginxes: `nginx(site.app.port, settings="proxy_buffering on;")`."""
    running: list[Nginx] = []

    def start(*ports: int, settings: str = "") -> Nginx:
        running.append(Nginx(tmp_path / f"nginx-{len(running)}", *ports, settings=settings))
        return running[-1]

    yield start
    for each in running:
        each.stop()


class RawReader:
    """A `listen` request on a bare socket, which reads only when told to."""

    def __init__(self, person: Person, port: int, *, headers: bytes = b"", buffer: int = 0, **query: str) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in person.client.cookies.jar)
        path = f"{person.path('listen')}?{urlencode({**person.names, **query})}"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\nCookie: {cookies}\r\n"
        self._send(head.encode() + headers + b"\r\n")

    def _send(self, request: bytes) -> None:
        try:
            self.socket.sendall(request)
        except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            return

    def until(self, *marks: bytes) -> bytes:
        """Everything up to one of the marks, or to the end of the connection."""
        self.socket.settimeout(SOON)
        read = b""
        while not any(mark in read for mark in marks):
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                return read
            if not chunk:
                return read
            read += chunk
        return read

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def metric(person: Person, name: str) -> int:
    """One number of the application's own account of itself."""
    told = (await person.client.get("/metrics")).text
    return sum(int(float(line.rpartition(" ")[2])) for line in told.splitlines() if line.startswith(name))


async def metric_is(person: Person, name: str, number: int, *, within: float = SOON) -> None:
    async with asyncio.timeout(within):
        while await metric(person, name) != number:
            await asyncio.sleep(0.02)


async def test_readers_that_vanish_leave_nothing_behind(site: Site, alice: Person) -> None:
    """F47: closed or reset, 50 at once: the streams go within a second, upstream's reader after its grace period."""
    before = await metric(alice, "portal_streams_open ")
    gone = await metric(alice, 'portal_streams_closed_total{reason="client"}')
    process = psutil.Process(site.app.pid)
    handles, threads = process.num_fds(), process.num_threads()
    readers = [RawReader(alice, site.app.port) for _ in range(READERS)]
    for reader in readers:
        assert b"event: connected" in await asyncio.to_thread(reader.until, b"event: connected")
    assert await metric(alice, "portal_streams_open ") == before + READERS
    started = time.monotonic()
    for number, reader in enumerate(readers):
        reader.close(reset=number % 2 == 0)
    await metric_is(alice, "portal_streams_open ", before)
    assert time.monotonic() - started < 5
    assert await metric(alice, 'portal_streams_closed_total{reason="client"}') == gone + READERS
    async with asyncio.timeout(SOON):
        while any(thread["activation"] == site.activation for thread in site.xians.streams()["threads"]):
            await asyncio.sleep(0.1)
        while process.num_fds() > handles + READERS // 2:  # a few are the pools' own
            await asyncio.sleep(0.1)
    assert process.num_threads() <= threads + 10


def test_a_connection_whose_other_side_is_silent_ends_by_itself() -> None:
    """F48: nothing comes back over a stream, so the kernel asks; it gives up on dead ones within a minute.

    A pulled cable can't be shown on one machine: this shows that every connection we accept is asked. That a page
    finds out by itself is in tests/journeys/test_browser_stream.py, that no `send` waits for ever is shown below.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = len(os.listdir("/dev/fd"))
        watch_connections()
        assert len(os.listdir("/dev/fd")) == before
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 45_000


async def test_a_reader_that_never_reads_holds_nobody_up_and_is_cut(
    site: Site, alice: Person, request: pytest.FixtureRequest
) -> None:
    """F49: its queue is bounded, nothing is sent to it for 15 s, so it goes; readers beside it have everything."""
    count, at_once, text = 1_200, 40, "x" * 8_000  # less at once than a reader's queue holds, however slow we are
    closed = await metric(alice, 'portal_streams_closed_total{reason="lagging"}')
    async with alice.listening() as healthy:
        streams = await metric(alice, "portal_streams_open ")
        slow = RawReader(alice, site.app.port, buffer=4096)
        request.addfinalizer(slow.close)
        await metric_is(alice, "portal_streams_open ", streams + 1)
        thread = {key: value for key, value in site.thread.items() if key != "participant"}
        site.settle()
        burst = partial(site.xians.control, "burst", count=at_once, text=text, topics=["a"], **thread)
        for sent in range(at_once, count + 1, at_once):
            await asyncio.to_thread(burst, participants=[alice.email])
            await healthy.next("Chat", sent, within=60)
        ids = [message["id"] for message in healthy.told("Chat")]
        assert len(set(ids)) == len(ids) == count
        assert not healthy.named("goodbye")
        await metric_is(alice, "portal_streams_open ", streams, within=60)
        assert await metric(alice, 'portal_streams_closed_total{reason="lagging"}') == closed + 1
    assert "took nothing for 15 s" in site.app.log_text()
    assert "Traceback" not in site.app.log_text()
    assert await alice.unread() == {"a": count}


@pytest.mark.parametrize("buffering", ["on", "off"])
async def test_a_buffering_proxy_passes_every_event_on_at_once(
    site: Site, alice: Person, nginx: StartNginx, buffering: str
) -> None:
    """F57: `X-Accel-Buffering: no` does it. There is no start-up probe: the page's chip shows what is held back."""
    front = nginx(site.app.port, settings=f"proxy_buffering {buffering};")
    async with alice.listening(base_url=front.url, heartbeatSeconds=300) as stream:
        for number in range(1, 6):  # each is there before the next is sent: nothing pushes it through
            site.answer(f"n{number}")
            await stream.next("Chat", number)


_GZIP = "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any; proxy_buffering on;"


async def test_a_compressing_proxy_passes_every_event_on_at_once(site: Site, alice: Person, nginx: StartNginx) -> None:
    """F57: and one that is told to ignore our header holds all back, without which this would show nothing."""
    front = nginx(site.app.port, settings=_GZIP)
    query = {**alice.names, "heartbeatSeconds": "300"}
    async with alice.client.stream("GET", front.url + alice.path("listen"), params=query, timeout=SOON) as stream:
        assert stream.headers["content-encoding"] == "gzip"
        chunks = stream.aiter_bytes()
        read = await anext(chunks)
        for number in range(3):
            site.answer(f"text {number}")
            while f"text {number}".encode() not in read:
                read += await anext(chunks)
    deaf = nginx(site.app.port, settings=f"{_GZIP} proxy_ignore_headers X-Accel-Buffering;")
    reader = RawReader(alice, deaf.port, headers=b"Accept-Encoding: gzip\r\n", heartbeatSeconds="300")
    reader.socket.settimeout(2)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(reader.socket.recv, 1)
    finally:
        reader.close()


async def test_heartbeats_keep_an_impatient_proxy_from_cutting(site: Site, alice: Person, nginx: StartNginx) -> None:
    """F58: pages beat every 15 s, less than any proxy's patience (20 s and more); here all is faster."""
    page = await alice.client.get(f"/conversations/Invoice%20Helper/{site.activation.replace(' ', '%20')}/")
    assert 'data-heartbeat-seconds="15"' in page.text
    front = nginx(site.app.port, settings="proxy_read_timeout 3s; proxy_send_timeout 3s;")
    async with alice.listening(base_url=front.url, heartbeatSeconds=1) as stream:
        await stream.next("heartbeat", 6, within=30)
        assert not stream.is_over
    async with alice.listening(base_url=front.url, heartbeatSeconds=300) as mute:
        await mute.until(lambda me: me.is_over, within=30)


async def test_a_proxy_that_cuts_again_and_again_loses_and_doubles_nothing(
    site: Site, alice: Person, fault_proxy: FaultProxies
) -> None:
    """F59: streams have no age of their own with us; each cut is resumed from the last id, quiet rounds included."""
    proxy = fault_proxy(site.app.port)
    seen: list[str] = []
    sent: list[str] = []
    last: str | None = None
    for number in range(12):
        async with alice.listening(base_url=proxy.url, last_event_id=last, heartbeatSeconds=1) as stream:
            if number % 3 == 1:
                await stream.next("heartbeat")
            else:
                sent.append(f"live {number}")
                site.answer(sent[-1], topic=f"t{number % 2}")
                await stream.until(lambda me: sent[-1] in me.texts())
            proxy.cut(reset=number % 2 == 0)
            await stream.until(lambda me: me.is_over)
            seen += stream.texts()
            ids = [event.id for event in stream.events if event.id]
            last = ids[-1] if ids else last
            assert not stream.named("resync")
        sent.append(f"cut off {number}")
        site.answer(sent[-1], topic="t0")
    async with alice.listening(base_url=proxy.url, last_event_id=last) as stream:
        await stream.until(lambda me: sent[-1] in me.texts())
        seen += stream.texts()
    assert seen == sent
    counts = await alice.unread()
    assert sum(counts.values()) == len(sent)


async def test_a_repeated_request_changes_nothing(site: Site, alice: Person, nginx: StartNginx) -> None:
    """F60: a proxy sends the GET to a second process when the first one is dead, and two are as good as one."""
    doomed = site.another_process()
    front = nginx(doomed.port, site.app.port, settings="proxy_next_upstream error timeout http_502;")
    async with alice.listening(base_url=front.url) as stream:
        site.answer("one", topic="t")
        first = await stream.next("Chat")
        site.answer("two", topic="t")
        await stream.next("Chat", 2)
        doomed.kill()
        await stream.until(lambda me: me.is_over)
    site.answer("three", topic="t")
    async with (
        alice.listening(base_url=front.url, last_event_id=first.id) as again,
        alice.listening(base_url=front.url, last_event_id=first.id) as twin,
    ):
        site.answer("four", topic="t")
        for reader in (again, twin):
            await reader.until(lambda me: "four" in me.texts())
            assert reader.texts() == ["two", "three", "four"]
    async with asyncio.timeout(PATIENCE):
        while await alice.unread() != {"t": 4}:
            await asyncio.sleep(0.05)


_FORGED: list[bytes] = [
    *(b"garbage", b"0", b"-1", b"null", b"earliest", b"*", b"%00", b"%0d%0a", b"../../etc/passwd", b"' OR 1=1 --"),
    *(b"." * 3, b"..", b"a.b.c", b"1.2.3", b"1-a.2.3", b"00000000000000000-x.1.0123456789", b"-" * 64, b"9" * 64),
    *(b"9" * 65, b"x" * 1_000, b"x" * 60_000, b"\xff\xfe\xfd", b"\x80" * 64, "é".encode(), "😀".encode(), b"\xc3("),
    *(
        b"1e9",
        b"NaN",
        b"0x10",
        b"{}",
        b"[]",
        b'{"id":1}',
        b"<script>",
        b"\t\x0b",
        b"a\tb",
        b'"',
        b"\\",
        b"\x7f",
        b"\x01",
    ),
]


async def test_a_forged_position_is_told_as_such_and_nothing_else(
    site: Site, alice: Person, bob: Person, signed_in: SignIn
) -> None:
    """F61: somebody else's or nobody's: the same `resync` for all, or the request is refused; then all works."""
    async with alice.listening() as hers, bob.listening() as his:
        site.answer("for Alice")
        site.answer("for Bob", participant="bob@acme.example")
        mine, strange = (await hers.next("Chat")).id, (await his.next("Chat")).id
    assert mine is not None
    assert strange is not None
    written = len(site.app.log_text())
    other = Site(site.app, site.xians, site._start)
    elsewhere = await signed_in("alice@acme.example")
    elsewhere.names = other.names
    async with elsewhere.listening() as stream:
        other.answer("in another inbox")
        foreign = (await stream.next("Chat")).id or ""
    changed = mine[:-1] + ("0" if mine[-1] != "0" else "1")
    answers = await asyncio.gather(
        *(
            asyncio.to_thread(_ask, alice, site.app.port, forged)
            for forged in (*_FORGED, strange.encode(), foreign.encode(), changed.encode(), mine.encode()[:-2])
        )
    )
    assert set(answers) <= {_RESYNC, "refused"}
    assert answers.count("refused") <= 4, answers  # what isn't HTTP at all
    assert answers[-4:] == [_RESYNC] * 4
    assert await asyncio.to_thread(_ask, alice, site.app.port, b"x" * (1 << 20)) in {_RESYNC, "refused"}
    async with alice.listening(lastEventId="garbage") as stream:
        await stream.next("resync")
    async with alice.listening(last_event_id=_ancient(site)) as stream:
        await stream.next("Chat")
        assert stream.texts() == ["for Alice"]
        assert not stream.named("resync")
    assert "Traceback" not in site.app.log_text()[written:]


_RESYNC = 'connected, resync {"reason": "unknown-position"}'


def _ask(person: Person, port: int, last_event_id: bytes) -> str:
    """What the first events are for this Last-Event-ID; "refused" for a 4xx or a connection that is closed."""
    reader = RawReader(person, port, headers=b"Last-Event-ID: " + last_event_id + b"\r\n")
    try:
        head, _, body = reader.until(b"event: resync", b"event: Chat", b"HTTP/1.1 4").partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            assert head == b"" or head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 414")), head[:200]
            return "refused"
        while b"\n\n" not in body.partition(b"event: resync")[2]:
            body += reader.socket.recv(65536)
    finally:
        reader.close()
    lines = [line for line in body.decode().splitlines() if line.startswith(("event:", "data:", "id:"))]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event:")]
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data:")]
    return f"{names[0]}, {names[1]} {json.dumps(json.loads(told[1]))}"


def _ancient(site: Site) -> str:
    """A position that we could have given out, years ago."""
    address = ThreadAddress("acme", site.names["agentName"], site.activation, "alice@acme.example")
    sealer = Sealer(APPLICATION["DJANGO_SECRET_KEY"].encode(), address.key)
    return sealer.write(order_at(datetime(2001, 1, 1, tzinfo=UTC)), 978_307_200_000)
