"""The Xians server's admin API as far as conversations need it, asked through httpx's interface.

The wire contract is shared/xians-api.md. Under that interface runs aiohttp's transport for calls (`pool`), and one of
our own for streams (`tap`): httpx's own pool leaks connections of cancelled streams. Requests go straight to the
transports: what httpx's client does around each (merging addresses, cookies, credentials, redirects) costs more than
the request itself, and we need none of it (docs/decisions).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import quote

import httpx

from messaging import directory, errors, failures, sse, wire
from messaging.failures import translated
from messaging.pool import PoolTransport
from messaging.tap import Tap, TapTransport, tap_of
from messaging.wire import ThreadAddress

log = logging.getLogger(__name__)

_API = "/api/v1/admin/"
_HEADER_SECONDS = 10
_MISSED_HEARTBEATS = 2.5
_MAX_JSON_BYTES = 32 << 20
_MAX_COMPLAINT_BYTES = 4096
_REST_CONNECTIONS = 64
_USERS_PAGE = 500
_MAX_USER_PAGES = 100
_AT_ONCE = 32
"""After so many events the readers get their turn: a burst must not look like a slow reader."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where upstream is and how long we wait for it; seconds."""

    base_url: str
    api_key: str
    connect_timeout: float
    read_timeout: float
    heartbeat_seconds: int


class UpstreamClient:
    """Typed calls to one Xians server. One client belongs to one event loop; close it with `aclose`.

    `bearer` is the credential of a call: our API key where one is configured, else the person's own access token
    (interfaces.md section 6). Every method raises errors.UpstreamError's subclasses and nothing else.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lookout = failures.Lookout(settings.api_key)
        self._tls = ssl.create_default_context()
        self._root = httpx.URL(settings.base_url)
        self._prefix = self._root.raw_path.rstrip(b"/")
        self._rest = PoolTransport(self._tls, connections=_REST_CONNECTIONS)
        self._streams = TapTransport(self._tls)
        connect = settings.connect_timeout
        self._rest_limits = {"connect": connect, "read": settings.read_timeout, "pool": connect}
        self._stream_limits = {"connect": connect, "read": settings.heartbeat_seconds * _MISSED_HEARTBEATS}

    async def aclose(self) -> None:
        await self._rest.aclose()
        await self._streams.aclose()

    def bearer(self, access_token: str | None) -> str:
        """The credential for a call on behalf of a person who may hold an access token."""
        return self._settings.api_key or access_token or ""

    def authorization(self, access_token: str | None) -> str:
        """What `send` tells the agent: the person's token or "", never absent and never our key (7.5)."""
        return access_token or ""

    # -- people and agents ------------------------------------------------------------------------------------

    async def tenants(self, participant_id: str, *, bearer: str) -> list[directory.Tenant]:
        """The tenants of a person; none for somebody upstream does not know (4.1)."""
        try:
            return directory.tenants(await self._get(_path("participants", participant_id), {}, bearer))
        except errors.ActivationNotFound:
            return []

    async def approved_users(self, tenant_id: str, *, bearer: str) -> set[str]:
        """The participant ids of everybody whom a tenant lists as approved (4.3); for the service's own key only."""
        found: set[str] = set()
        for page in range(1, _MAX_USER_PAGES + 1):
            query = {"page": str(page), "pageSize": str(_USERS_PAGE)}
            users = directory.users(await self._get(_path("tenants", tenant_id, "users"), query, bearer))
            found |= {user.participant_id for user in users if user.is_approved}
            if len(users) < _USERS_PAGE:
                break
        return found

    async def activations(self, tenant_id: str, *, bearer: str) -> list[directory.Activation]:
        return directory.activations(await self._get(_path("tenants", tenant_id, "agentActivations"), {}, bearer))

    async def agent(self, address: ThreadAddress, *, bearer: str) -> directory.AgentDetail:
        path = _path("tenants", address.tenant_id, "agentDeployments", address.agent_name)
        return directory.agent_detail(await self._get(path, {}, bearer))

    async def reachable(self) -> None:
        """Raise UpstreamUnavailable unless something that answers HTTP lives at upstream's address."""
        request = self._request("GET", "/health", {}, self._rest_limits)
        with self.lookout.over(""):
            with translated():
                async with asyncio.timeout(self._settings.connect_timeout):
                    answer = await self._rest.handle_async_request(request)
                    await answer.aclose()
            if answer.status_code >= 500:
                raise errors.UpstreamUnavailable(f"{answer.status_code} from health", reason="up_5xx")

    # -- messaging --------------------------------------------------------------------------------------------

    async def topics(self, address: ThreadAddress, *, page: int, page_size: int, bearer: str) -> wire.TopicPage:
        """One page of topics, newest first; General is not special here and absent when empty (2.1)."""
        query = {**_conversation(address), "page": str(page), "pageSize": str(page_size)}
        return wire.topic_page(await self._get(_messaging(address, "topics"), query, bearer))

    async def history(
        self, address: ThreadAddress, topic: str, *, page: int, page_size: int, newest_first: bool = True, bearer: str
    ) -> wire.HistoryPage:
        """One page of a topic's messages of every type; what can't be read is logged and left out (2.2)."""
        query = {
            **_conversation(address),
            "page": str(page),
            "pageSize": str(page_size),
            "sortOrder": "desc" if newest_first else "asc",
        }
        if topic:
            query["topic"] = topic
        rows = await self._call(
            "GET", _messaging(address, "history"), bearer, params=query, read=wire.load_json_exactly
        )
        if not isinstance(rows, list):
            raise errors.UpstreamMisbehaved("history must be a list")
        messages = []
        for row in rows:
            try:
                messages.append(wire.message(row))
            except errors.UpstreamMisbehaved as problem:
                log.warning("history row left out: %s", problem)
        return wire.HistoryPage(messages, is_last=len(rows) < page_size)

    async def send(
        self, address: ThreadAddress, *, text: str | None, extras: Mapping[str, Any], authorization: str, bearer: str
    ) -> str:
        """Hand a message to the agent and return the thread id. Never retried here: it is not idempotent (1.2).

        `extras` are the optional keys of the body: topic, requestId, data, type, hint, origin.
        """
        body = {
            **{key: value for key, value in extras.items() if value is not None},
            **_conversation(address),
            "text": text,
            "authorization": authorization,
        }
        thread_id = await self._call("POST", _messaging(address, "send"), bearer, json=body)
        return thread_id if isinstance(thread_id, str) else str(wire.field(thread_id, "threadId") or "")

    async def delete_messages(self, address: ThreadAddress, topic: str, *, bearer: str) -> None:
        """Delete a topic's messages; "" is General alone (1.5)."""
        query = {**_conversation(address), **({"topic": topic} if topic else {})}
        await self._call("DELETE", _messaging(address, "messages"), bearer, params=query)

    async def listen(self, address: ThreadAddress, *, bearer: str, hear: Callable[[list[sse.Event]], None]) -> NoReturn:
        """Read the event stream until it ends; `hear` is called with the events that arrive, at once and some at once.

        Raises UpstreamTimeout after 2.5 heartbeats without a byte, UpstreamUnavailable when the stream ends, and
        what `hear` raises, which ends it.
        """
        with self.lookout.over(bearer):
            tap = await self._tap(address, bearer)
        self.lookout.accepted(bearer)
        events = _Events(tap, hear)
        try:
            with translated("up_silent"):
                await tap.pour(events.take)
            await events.heard()
            problem: errors.UpstreamError = errors.UpstreamUnavailable("the stream ended", reason=events.ending)
        except errors.UpstreamError as known:
            problem = known
            await events.heard()
        finally:
            events.stop()
        self.lookout.failed(problem, bearer)
        raise problem

    async def _tap(self, address: ThreadAddress, bearer: str) -> Tap:
        query = {**_conversation(address), "heartbeatSeconds": str(self._settings.heartbeat_seconds)}
        headers = {**_authorized(bearer), "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        with translated("up_header_timeout"):
            path = _API + _messaging(address, "listen") + _query(query)
            request = self._request("GET", path, headers, self._stream_limits)
            async with asyncio.timeout(_HEADER_SECONDS):
                response = await self._streams.handle_async_request(request)
        try:
            await _require_stream(response)
        except BaseException:
            await response.aclose()
            raise
        return tap_of(response)

    # -- plumbing ---------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        limits: Mapping[str, float],
        json: Mapping[str, Any] | None = None,
    ) -> httpx.Request:
        extensions = {"timeout": limits, "target": self._prefix + path.encode("ascii")}
        return httpx.Request(method, self._root, headers=headers, json=json, extensions=extensions)

    async def _get(self, path: str, query: Mapping[str, str], bearer: str) -> Any:
        return await self._call("GET", path, bearer, params=query)

    async def _call(
        self,
        method: str,
        path: str,
        bearer: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        read: Callable[[bytes], Any] = wire.load_json,
    ) -> Any:
        with self.lookout.over(bearer), translated():
            headers = {**_authorized(bearer), "Accept-Encoding": "gzip, deflate"}
            request = self._request(method, _API + path + _query(params), headers, self._rest_limits, json)
            async with asyncio.timeout(self._settings.connect_timeout + self._settings.read_timeout):
                response = await self._rest.handle_async_request(request)
                try:
                    if response.status_code >= 300:
                        raise failures.refusal(response, await _read(response, _MAX_COMPLAINT_BYTES, cut=True))
                    self.lookout.accepted(bearer)
                    return read(await _read(response, _MAX_JSON_BYTES))
                finally:
                    await response.aclose()


async def _read(response: httpx.Response, limit: int, *, cut: bool = False) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    is_packed = "content-encoding" in response.headers
    body = bytearray()
    async for chunk in response.aiter_bytes() if is_packed else response.stream:  # httpx's ways around it cost more
        body += chunk
        if len(body) > limit:
            if cut:
                break
            raise errors.UpstreamMisbehaved(f"an answer of more than {limit} bytes")
    return bytes(body[:limit])


async def _require_stream(response: httpx.Response) -> None:
    if response.status_code != 200:
        with translated():
            async with asyncio.timeout(_HEADER_SECONDS):
                body = b"" if response.status_code < 300 else await _read(response, _MAX_COMPLAINT_BYTES, cut=True)
        if response.status_code < 300:
            raise errors.UpstreamMisbehaved(f"{response.status_code} instead of a stream")
        raise failures.refusal(response, body)
    essence = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if essence != "text/event-stream":
        raise errors.UpstreamMisbehaved(f"{essence[:80]!r} instead of an event stream", reason="up_bad_type")
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise errors.UpstreamMisbehaved(f"a stream in {encoding[:20]!r}", reason="up_bad_encoding")


class _Events:
    """Makes events of a tap's bytes and has them heard, so many at once that others get their turn."""

    __slots__ = ("_all_heard", "_decoder", "_hear", "_is_proven", "_rest", "_tap")

    def __init__(self, tap: Tap, hear: Callable[[list[sse.Event]], None]) -> None:
        self._tap = tap
        self._hear = hear
        self._decoder = sse.Decoder()
        self._is_proven = False  # something came that was more than the greeting
        self._rest: list[sse.Event] = []  # what waits for its turn
        self._all_heard: asyncio.Future[None] | None = None

    @property
    def ending(self) -> str:
        """The reason to give when the stream ends in order."""
        return "up_eof" if self._is_proven else "up_flap"

    def take(self, chunk: bytes) -> None:
        try:
            events = self._decoder.feed(chunk)
        except sse.EventTooLarge as problem:
            raise errors.UpstreamMisbehaved(str(problem), reason="up_event_too_big") from problem
        if self._rest:
            self._rest += events
            return
        if not self._is_proven:
            self._is_proven = any(event.event != "connected" for event in events)
        if len(events) <= _AT_ONCE:
            self._hear(events)
        else:
            self._rest = events[_AT_ONCE:]
            self._tap.pause()
            asyncio.get_running_loop().call_soon(self._go_on)
            self._hear(events[:_AT_ONCE])

    def _go_on(self) -> None:
        events, self._rest = self._rest[:_AT_ONCE], self._rest[_AT_ONCE:]
        try:
            self._hear(events)
        except errors.MessagingError as problem:
            self._rest = []
            self._tap.end(problem)
        if self._rest:
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self._all_heard is not None:
            self._all_heard.set_result(None)
        else:
            self._tap.resume()

    async def heard(self) -> None:
        """Return when everything that came has been heard."""
        if self._rest:
            self._all_heard = asyncio.get_running_loop().create_future()
            await self._all_heard

    def stop(self) -> None:
        """Hear no more."""
        self._rest, self._all_heard = [], None
        self._tap.close()


def _authorized(bearer: str) -> dict[str, str]:
    if not bearer.isascii() or not bearer.isprintable():
        raise errors.UpstreamRefused("the credential holds characters that a header can't carry")
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def _conversation(address: ThreadAddress) -> dict[str, str]:
    return {
        "agentName": address.agent_name,
        "activationName": address.activation_name,
        "participantId": address.participant_id,
    }


def _query(query: Mapping[str, str] | None) -> str:
    return "?" + "&".join([f"{name}={_quoted(value)}" for name, value in query.items()]) if query else ""


@lru_cache(maxsize=8_192)
def _quoted(text: str) -> str:
    """The same names are asked for again and again."""
    return quote(text, safe="")


def _messaging(address: ThreadAddress, call: str) -> str:
    return _path("tenants", address.tenant_id, "messaging", call)


def _path(*segments: str) -> str:
    """A relative path; `.` and `..` are refused, since httpx would fold them into another endpoint (F121)."""
    if any(segment in ("", ".", "..") for segment in segments):
        raise errors.ActivationNotFound("a path segment that can't be addressed")
    return "/".join([_quoted(segment) for segment in segments])
