"""What tests of upstream's faults have at hand: an activation with a script, the page's stream, metrics."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil

from messaging.wire import STREAM_KEYS
from tests.faults.upstream.hostile import Hostile, Script
from tests.messaging.conftest import Site
from tests.messaging.people import Listener, Person
from tests.services.app import AppServer, AppServers
from tests.services.standins import Json, Xians

_FAILURES = re.compile(r'^portal_upstream_failures_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE)


class Desk(Site):
    """An activation of its own, whose stream is scripted."""

    def __init__(
        self, app: AppServer, xians: Xians, start: AppServers, hostile: Hostile, script: Script | None
    ) -> None:
        super().__init__(app, xians, start)
        self.hostile = hostile
        self._start = start
        if script is not None:
            hostile.script(script, activation=self.activation)

    def another(self, script: Script | None = None) -> Desk:
        """One more activation of the same site."""
        return Desk(self.app, self.xians, self._start, self.hostile, script)

    def of(self, person: Person) -> Person:
        """The same person at this activation."""
        return Person(person.client, person.email, self.names)

    @property
    def connects(self) -> int:
        """How often this activation's stream was asked for."""
        return self.hostile.count(activation=self.activation)

    def stored(self, text: str, **more: Any) -> Json:
        """The agent writes, and upstream's stream doesn't bring it: the message as the stream would have it."""
        message = self.xians.message(**{**self.thread, "text": text, "withhold": True, **more})
        return {key: value for key, value in message.items() if key in STREAM_KEYS}


@asynccontextmanager
async def page_stream(person: Person, app: AppServer) -> AsyncIterator[Listener]:
    """The stream of a conversation's page, which says `status` where the API's says nothing."""
    names = (httpx.URL(path=f"/{person.names[key]}").raw_path.decode() for key in ("agentName", "activationName"))
    url = f"{app.url}/conversations{''.join(names)}/stream/?tenant={person.tenant}"
    async with person.client.stream("GET", url, timeout=httpx.Timeout(90, pool=5)) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        listener = Listener(response)
        reading = asyncio.create_task(listener.read())
        try:
            yield listener
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def failures(app: AppServer) -> dict[str, float]:
    """How often each reason is counted at /metrics."""
    told = httpx.get(f"{app.url}/metrics", timeout=30).text
    return {reason: float(count) for reason, count in _FAILURES.findall(told)}


def metric(app: AppServer, line: str) -> float:
    """One value of /metrics, by its name and labels as they stand there; 0 if it isn't there yet."""
    told = httpx.get(f"{app.url}/metrics", timeout=30).text
    found = re.search(rf"^{re.escape(line)} (\S+)$", told, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def eventually(condition: Callable[[], object], *, within: float = 15) -> None:
    """Ask again and again until it is so."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.05)


def memory(app: AppServer) -> int:
    """The bytes that a server process holds."""
    size: int = psutil.Process(app.pid).memory_info().rss
    return size


def told(listener: Listener, name: str) -> list[Json]:
    return [json.loads(event.data) for event in listener.named(name)]
