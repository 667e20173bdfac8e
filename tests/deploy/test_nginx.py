"""deploy/nginx.conf by itself, in front of small servers that say what reaches them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.front import DEPLOY, NAME, Certificate, Front, Fronts, check, configure
from tests.services.ports import free_port

LISTEN = "/api/tenants/acme/messaging/listen"
STREAMS = [LISTEN, "/conversations/Invoice%20Helper/North/stream/", "/dashboard/stream/"]
SOON = 20.0

type Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Stub:
    """A process that isn't one: keeps the heads of the requests that it gets, and answers as `serve` does."""

    def __init__(self, serve: Serve) -> None:
        self.port = free_port()
        self.heads: list[str] = []
        self._serve = serve

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            await self._serve(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def fine(head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()


async def dying(head: str, writer: asyncio.StreamWriter) -> None:
    """It took the request, and ends without a word."""


@asynccontextmanager
async def running(*stubs: Stub) -> AsyncIterator[None]:
    servers = [await asyncio.start_server(stub.take, "127.0.0.1", stub.port) for stub in stubs]
    try:
        yield
    finally:
        for server in servers:
            server.close()


def client(front: Front) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=front.url, verify=front.trust, timeout=SOON)


@pytest.mark.parametrize("processes", ["processes.conf", "processes.compose.conf"])
def test_nginx_takes_the_file_with_either_list_of_processes(
    tmp_path: Path, certificate: Certificate, processes: str
) -> None:
    config = configure(tmp_path, certificate, {}, http=free_port(), https=free_port())
    (tmp_path / "portal-processes.conf").write_text((DEPLOY / processes).read_text())
    assert "emerg" not in check(config)


async def test_a_process_is_told_the_host_and_that_it_was_https(front: Fronts) -> None:
    """F129 hangs on it: a client's own word for either counts nothing."""
    stub = Stub(fine)
    async with running(stub), client(nginx := front(stub.port)) as browser:
        forged = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.1"}
        assert (await browser.get("/dashboard/", headers=forged)).status_code == 200
    lines = stub.heads[0].lower().splitlines()
    assert f"host: {NAME}:{nginx.port}" in lines
    assert [line for line in lines if line.startswith("x-forwarded-")] == [
        "x-forwarded-proto: https",
        "x-forwarded-for: 127.0.0.1",
    ]


async def test_a_post_is_never_sent_twice_and_a_get_is_passed_on(front: Fronts) -> None:
    """A process dies over a request. What may have been done already is not done again; what only reads, is."""
    good, bad = Stub(fine), Stub(dying)
    async with running(good, bad), client(front(good.port, bad.port)) as browser:
        statuses = []
        for number in range(24):
            cookie = {"Cookie": f"__Host-sessionid=key{number}"}
            statuses.append((await browser.post("/api/tenants/acme/messaging/send", headers=cookie)).status_code)
        seen = [head for stub in (good, bad) for head in stub.heads]
        assert len(seen) == 24
        assert statuses.count(503) == len(bad.heads) > 0
        for number in range(24):
            answer = await browser.get("/conversations/", headers={"Cookie": f"__Host-sessionid=key{number}"})
            assert answer.status_code == 200


async def test_a_post_reaches_the_next_process_when_the_first_is_not_there(front: Fronts) -> None:
    """A rolling restart: nothing was sent yet, so nothing can be done twice."""
    stub = Stub(fine)
    async with running(stub), client(front(stub.port, free_port())) as browser:
        for number in range(24):
            cookie = {"Cookie": f"__Host-sessionid=key{number}"}
            answer = await browser.post("/api/tenants/acme/messaging/send", headers=cookie)
            assert answer.status_code == 200
    assert len(stub.heads) == 24


async def test_a_delete_is_sent_once(front: Fronts) -> None:
    """DELETE counts as harmless to repeat. Ours isn't: an answer may have come in between."""
    stubs = Stub(dying), Stub(dying)
    async with running(*stubs), client(front(*(stub.port for stub in stubs))) as browser:
        answer = await browser.delete("/api/tenants/acme/messaging/messages?topic=t")
    assert answer.status_code == 503
    assert sum(len(stub.heads) for stub in stubs) == 1


async def test_a_session_stays_with_a_process_whatever_other_cookies_there_are(front: Fronts) -> None:
    stubs = Stub(fine), Stub(fine)
    places: dict[str, set[int]] = {}
    async with running(*stubs), client(front(*(stub.port for stub in stubs))) as browser:
        for number in range(16):
            session = f"__Host-sessionid=key{number}"
            for cookies in (session, f"__Host-csrftoken=x{number}; {session}", f"{session}; __Host-tenant=acme"):
                before = [len(stub.heads) for stub in stubs]
                await browser.get("/", headers={"Cookie": cookies})
                now = [len(stub.heads) for stub in stubs]
                places.setdefault(session, set()).add([b < n for b, n in zip(before, now, strict=True)].index(True))
    assert {len(found) for found in places.values()} == {1}
    assert set.union(*places.values()) == {0, 1}


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_passes_at_once_and_is_never_compressed(front: Fronts, path: str) -> None:
    """F57: even where a process doesn't say X-Accel-Buffering: no; each event is read before the next is written."""
    heard = asyncio.Event()

    async def stream(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for number in range(3):
            writer.write(f"data: {number}\n\n".encode())
            await writer.drain()
            async with asyncio.timeout(SOON):
                await heard.wait()
            heard.clear()

    stub = Stub(stream)
    async with (
        running(stub),
        client(front(stub.port)) as browser,
        browser.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer,
    ):
        assert "content-encoding" not in answer.headers
        read = b""
        chunks = answer.aiter_raw()
        for number in range(3):
            while f"data: {number}\n\n".encode() not in read:
                read += await anext(chunks)
            heard.set()


async def test_what_is_too_long_never_reaches_a_process(front: Fronts) -> None:
    stub = Stub(fine)
    async with running(stub), client(front(stub.port)) as browser:
        assert (await browser.post("/api/tenants/", content=b"x" * (5 << 20))).status_code == 413
        assert (await browser.get("/", headers={"X-Long": "x" * 20_000})).status_code == 400
        many = {f"X-{number}": "x" * 900 for number in range(100)}
        assert (await browser.get("/", headers=many)).status_code == 400
        assert (await browser.get("/metrics")).status_code == 404
    assert stub.heads == []


async def test_a_head_that_comes_byte_by_byte_ends(front: Fronts) -> None:
    """uvicorn would wait for ever."""
    stub = Stub(fine)
    nginx = front(stub.port, changes={"client_header_timeout 10s;": "client_header_timeout 1s;"})
    async with running(stub):
        reader, writer = await asyncio.open_connection(NAME, nginx.port, ssl=nginx.trust)
        end = asyncio.create_task(reader.read())
        async with asyncio.timeout(SOON):
            while not end.done():
                writer.write(b"G")
                await asyncio.wait([end], timeout=0.2)
        assert isinstance(end.exception(), ConnectionError | None)
        writer.transport.abort()
    assert stub.heads == []


async def test_other_names_and_plain_http_are_not_served(front: Fronts) -> None:
    stub = Stub(fine)
    async with running(stub):
        nginx = front(stub.port)
        async with httpx.AsyncClient(timeout=SOON) as browser:
            answer = await browser.get(f"http://{NAME}:{nginx.http_port}/dashboard/?a=b")
        assert (answer.status_code, answer.headers["location"]) == (301, f"https://{NAME}/dashboard/?a=b")
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(NAME, nginx.port, ssl=nginx.trust, server_hostname="other.example")
    assert stub.heads == []


async def test_without_any_process_people_and_scripts_are_told_to_come_again(front: Fronts) -> None:
    async with client(front(free_port(), free_port())) as browser:
        for path in (LISTEN, "/api/tenants/", "/api/tenants/acme/messaging/messages"):
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["code"] == "UPSTREAM_UNAVAILABLE"
        answer = await browser.get("/dashboard/")
        assert (answer.status_code, answer.headers["refresh"]) == (503, "5")
        assert answer.headers["content-type"].startswith("text/html")


async def test_a_herd_of_streams_is_let_in_at_a_pace(front: Fronts) -> None:
    """The real rate is 400 a second with 2,000 in line; here 5 and 3, so that ten are a herd."""
    stub = Stub(fine)
    changes = {"rate=400r/s": "rate=5r/s", "burst=2000": "burst=3"}
    async with running(stub), client(front(stub.port, changes=changes)) as browser:
        answers = await asyncio.gather(*(browser.get(LISTEN) for _ in range(10)))
        taken = [answer for answer in answers if answer.status_code == 200]
        sent_away = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) + len(sent_away) == 10
        assert len(taken) >= 4
        assert sent_away
        assert {answer.headers["retry-after"] for answer in sent_away} == {"5"}
        assert (await browser.get("/dashboard/")).status_code == 200, "pages don't wait with the streams"


async def test_the_access_log_holds_no_codes_and_no_cookies(front: Fronts) -> None:
    stub = Stub(fine)
    async with running(stub), client(nginx := front(stub.port)) as browser:
        path = "/oidc/callback/?code=canary-code&state=canary-state"
        await browser.get(path, headers={"Cookie": "__Host-sessionid=canary-session"})
    async with asyncio.timeout(SOON):
        while not (lines := nginx.access_log()):  # written after the answer
            await asyncio.sleep(0.01)
    line = lines[-1]
    assert "/oidc/callback/ " in line
    assert "canary" not in line
    assert f"127.0.0.1:{stub.port}" in line
