"""People who use the site over HTTP as a script would: signed in through the real provider, with a real cookie."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx

from messaging.sse import Decoder, Event

PATIENCE = 10.0


class Listener:
    """One open `listen` stream, read in the background."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[Event] = []
        self.is_over = False
        self._news = asyncio.Condition()

    async def read(self) -> None:
        decoder = Decoder(64 << 20)
        try:
            async for chunk in self.response.aiter_raw():
                await self._add(decoder.feed(chunk))
        except (httpx.HTTPError, httpx.StreamError):
            pass
        async with self._news:
            self.is_over = True
            self._news.notify_all()

    async def _add(self, events: list[Event]) -> None:
        async with self._news:
            self.events += events
            self._news.notify_all()

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.event == name]

    def told(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.named(name)]

    def texts(self) -> list[str]:
        """The texts of Chat messages, in the order in which they came."""
        return [message["text"] for message in self.told("Chat")]

    async def until(self, condition: Callable[[Listener], object], *, within: float = PATIENCE) -> None:
        """Wait until `condition(self)`; raises AssertionError with what came instead."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(lambda: condition(self))
        except TimeoutError:
            seen = [(event.event, event.data[:120]) for event in self.events]
            raise AssertionError(f"not within {within} s; over: {self.is_over}; came: {seen}") from None

    async def next(self, name: str, count: int = 1, *, within: float = PATIENCE) -> Event:
        """The `count`th event of that name."""
        await self.until(lambda me: len(me.named(name)) >= count, within=within)
        return self.named(name)[count - 1]


class Person:
    """Somebody who is signed in."""

    def __init__(self, client: httpx.AsyncClient, email: str, names: dict[str, str], tenant: str = "acme") -> None:
        self.client = client
        self.email = email
        self.names = names
        self.tenant = tenant

    def path(self, call: str) -> str:
        return f"/api/tenants/{self.tenant}/messaging/{call}"

    async def get(self, call: str, **query: Any) -> httpx.Response:
        return await self.client.get(self.path(call), params={**self.names, **query})

    async def post(self, call: str, **body: Any) -> httpx.Response:
        return await self.client.post(self.path(call), json={**self.names, **body}, headers=self.csrf())

    async def delete(self, call: str, **query: Any) -> httpx.Response:
        return await self.client.delete(self.path(call), params={**self.names, **query}, headers=self.csrf())

    def csrf(self) -> dict[str, str]:
        """What a page of the site sends along; over HTTPS the origin, too."""
        token = self.client.cookies.get("csrftoken") or self.client.cookies.get("__Host-csrftoken") or ""
        is_https = self.client.base_url.scheme == "https"
        return {"X-CSRFToken": token, **({"Origin": str(self.client.base_url).rstrip("/")} if is_https else {})}

    async def unread(self, **query: Any) -> dict[str | None, int]:
        """Unread by topic."""
        answer = await self.get("unread", **query)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        counts = {row["topic"]: row["unreadCount"] for row in told["topics"]}
        assert told["total"] == sum(counts.values())
        return counts

    @asynccontextmanager
    async def listening(
        self, *, last_event_id: str | None = None, base_url: str = "", **query: Any
    ) -> AsyncIterator[Listener]:
        """An open stream; `base_url` names another process of the same site."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        url = base_url + self.path("listen") + "?" + urlencode({**self.names, **query})
        timeout = httpx.Timeout(60, pool=5)
        async with self.client.stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                await response.aread()
                raise AssertionError(f"listen answered {response.status_code}: {response.text}")
            listener = Listener(response)
            reading = asyncio.create_task(listener.read())
            try:
                await listener.next("connected")
                yield listener
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def sign_in(base_url: str, email: str, names: dict[str, str], *, trust: ssl.SSLContext | None = None) -> Person:
    """Go through the provider's own form, as a browser does; `trust` is for a site with HTTPS."""
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(base_url=base_url, timeout=30, limits=limits, verify=trust or True)
    at_provider = (await client.get("/oidc/authenticate/", params={"next": "/dashboard/"})).headers["location"]
    back = await client.post(at_provider, data={"sub": email})
    assert back.is_redirect, back.text
    answer = await client.get(back.headers["location"])
    assert answer.headers["location"] == "/dashboard/", answer.headers["location"]
    page = await client.get("/conversations/")
    assert page.status_code == 200, page.text[:500]
    return Person(client, email, names)
