"""A stand-in Xians server for measuring: thousands of streams, tens of thousands of messages a second.

It runs in the harness's own event loop, so its controls are plain calls: `pump` writes messages, `streams` and
`connections` count. `demo.xians` is the stand-in that speaks every detail; this one is fast, and says the same where
it says something (xians-api.md 1.1, 2.1, 2.2, 4.1, 4.3). Its topics and history are true at every moment: a proxy that
compares them with what it was sent finds nothing missing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httptools
import orjson

from benchmarks.threads import ACTIVATION, AGENT, TENANT, Stamps, Thread, participant, stamp

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n"
    b"Access-Control-Allow-Origin: *\r\nServer: Kestrel\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_MEMBERSHIP = {"tenantId": TENANT, "tenantName": "Acme AS", "logo": None, "role": "TenantParticipant", "theme": None}
_TICK_SECONDS = 0.001
_MOST_A_TICK = 500
_MESSAGING = re.compile(rf"/api/v1/admin/tenants/{TENANT}/messaging/(\w+)")
_PERSON = re.compile(r"/api/v1/admin/participants/(.+)")


class Upstream:
    """The server, which knows so many people: `await start()`, then `url`.

    `streams` are the open listen streams, `connections` all of TCP.
    """

    def __init__(self, people: int) -> None:
        self.connections: set[_Connection] = set()
        self.streams: set[_Connection] = set()
        self.requests = 0
        self.written = 0
        self.port = 0
        self._people = people
        self._threads: dict[str, Thread] = {}
        self._listeners: dict[str, list[_Connection]] = {}
        self._server: asyncio.Server | None = None
        self._stamps = Stamps()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def thread(self, participant_id: str) -> Thread:
        thread = self._threads.get(participant_id)
        if thread is None:
            thread = self._threads[participant_id] = Thread(len(self._threads) + 1, participant_id)
        return thread

    def forget(self) -> None:
        """Start every thread anew, as empty as it once was."""
        self._threads.clear()

    # -- streams ----------------------------------------------------------------------------------------------

    def attach(self, connection: _Connection, participant_id: str) -> None:
        self.streams.add(connection)
        self._listeners.setdefault(participant_id, []).append(connection)

    def detach(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        if connection in self.streams:
            self.streams.discard(connection)
            self._listeners[connection.participant_id].remove(connection)

    def write(self, participant_id: str) -> None:
        """One more answer in a thread, stored and sent to every stream of it."""
        ns = time.perf_counter_ns()
        chunk = _chunk(self.thread(participant_id).write(ns, self._stamps.at(ns)))
        for connection in self._listeners.get(participant_id, ()):
            connection.write(chunk)
        self.written += 1

    # -- answers ----------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and JSON of everything but `listen`."""
        self.requests += 1
        found = _MESSAGING.fullmatch(path)
        if found is not None:
            words = orjson.loads(body) if body else {}
            thread = self.thread(query.get("participantId") or words.get("participantId", ""))
            return 200, self._messaging(method, found[1], thread, query, words)
        if _PERSON.fullmatch(path):
            mine = {
                "tenantId": TENANT,
                "tenantName": "Acme AS",
                "logo": None,
                "role": "TenantParticipant",
                "theme": None,
            }
            return 200, {"isSystemAdmin": False, "tenants": [mine]}
        if path.endswith("/users"):
            return 200, self._users(int(query["page"]), int(query["pageSize"]))
        if path.endswith("/agentActivations"):
            return 200, [{"id": "68f0", "agentName": AGENT, "name": ACTIVATION, "description": None, "isActive": True}]
        return (200, "ok") if path == "/health" else (404, None)

    def _users(self, page: int, size: int) -> dict[str, Any]:
        """Everybody is a member of the one tenant (4.3)."""
        numbers = range(self._people)[(page - 1) * size : page * size]
        people = [{"userId": f"u{n}", "email": participant(n), "name": f"Person {n}"} for n in numbers]
        rows = [{**person, "role": "TenantParticipant", "isApproved": True} for person in people]
        return {"users": rows, "totalCount": self._people, "page": page, "pageSize": size}

    def _messaging(self, method: str, call: str, thread: Thread, query: dict[str, str], words: dict[str, Any]) -> Any:
        if call == "topics":
            topics = thread.topics()
            size = int(query.get("pageSize", "20"))
            paging = {"currentPage": int(query.get("page", "1")), "pageSize": size, "totalTopics": len(topics)}
            return {"topics": topics, "pagination": {**paging, "totalPages": len(topics), "hasMore": False}}
        if call == "history":
            if query.get("topic"):
                return []
            return thread.history(
                page=int(query.get("page", "1")),
                page_size=int(query.get("pageSize", "50")),
                newest_first=query.get("sortOrder", "desc") == "desc",
            )
        if method == "POST":
            thread.say(words)
            return thread.id
        return True


class _Connection(asyncio.Protocol):
    """One TCP connection; what httptools finds comes in at the `on_...` methods."""

    def __init__(self, upstream: Upstream) -> None:
        self.participant_id = ""
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body = b""
        self._beat: asyncio.TimerHandle | None = None
        self.write: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but name
        self.write = self._transport.write  # type: ignore[union-attr]
        self._upstream.connections.add(self)

    def connection_lost(self, problem: Exception | None) -> None:
        self.write = lambda _: None
        if self._beat is not None:
            self._beat.cancel()
        self._upstream.detach(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body, self._url, self._body = self._url, self._body, b"", b""
        parts = urlsplit(url.decode())
        query = dict(parse_qsl(parts.query))
        if parts.path.endswith("/messaging/listen"):
            self._listen(query)
            return
        status, told = self._upstream.answer(self._parser.get_method().decode(), unquote(parts.path), query, body)
        content = b"" if told is None else orjson.dumps(told)
        head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json; charset=utf-8\r\n"
        self.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

    def _listen(self, query: dict[str, str]) -> None:
        self.participant_id = query.get("participantId", "").lower()
        thread = self._upstream.thread(self.participant_id)
        told = {
            "message": "Connected to thread message stream",
            "threadId": thread.id,
            "tenantId": TENANT,
            "timestamp": stamp(datetime.now(UTC)),
        }
        self.write(_HEAD + _chunk(_event("connected", told)))
        self._upstream.attach(self, self.participant_id)
        seconds = min(max(int(query.get("heartbeatSeconds", "60")), 1), 300)
        self._beat = asyncio.get_running_loop().call_later(seconds, self._heartbeat, seconds)

    def _heartbeat(self, seconds: int) -> None:
        told = {"timestamp": stamp(datetime.now(UTC)), "subscriberCount": len(self._upstream.streams) + 1}
        self.write(_chunk(_event("heartbeat", told)))
        self._beat = asyncio.get_running_loop().call_later(seconds, self._heartbeat, seconds)


def _event(name: str, told: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(told) + b"\n\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


class Pump:
    """Writes answers at a steady rate, one participant after the other, until stopped."""

    def __init__(self, upstream: Upstream, participants: Sequence[str], per_second: float) -> None:
        self.written = 0
        self._upstream = upstream
        self._participants = participants
        self._per_second = per_second
        self._started = time.perf_counter()
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        due = int((time.perf_counter() - self._started) * self._per_second) - self.written
        for _ in range(min(due, _MOST_A_TICK)):
            self._upstream.write(self._participants[self.written % len(self._participants)])
            self.written += 1
        self._handle = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def retarget(self, participants: Sequence[str]) -> None:
        """Write to these from now on."""
        self._participants = participants

    def stop(self) -> float:
        """Write no more; the messages a second that were really written."""
        self._handle.cancel()
        return self.written / (time.perf_counter() - self._started)
