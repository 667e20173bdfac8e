"""Two processes of the application, with a misbehaving link to everything that they talk to, and to their readers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from demo.world import API_KEY, INVOICES
from tests.faults.proxy import FaultProxy
from tests.services.app import AppServer
from tests.services.ports import free_port
from tests.services.process import ProcessFailed
from tests.services.redis import Redis
from tests.services.standins import Oidc, Xians

SETTINGS = {
    "XIANS_API_KEY": API_KEY,
    "XIANS_HEARTBEAT_SECONDS": "1",
    "XIANS_CONNECT_TIMEOUT": "2",
    "XIANS_READ_TIMEOUT": "3",
    "XIANS_FEED_GRACE_SECONDS": "1",
    "XIANS_TENANTS_CACHE_SECONDS": "60",
    "STREAM_MAX_PER_PARTICIPANT": "400",
}

_COMPLAINT = re.compile(r"never retrieved|Exception in ASGI application|^\s*(\w+\.)*\w+(Error|Exception): ")


class Node:
    """One process, and the links between it and others: upstream, postgres, redis, and front (its readers)."""

    def __init__(self, name: str, *, xians: Xians, database_url: str, redis: Redis, oidc: Oidc, folder: Path) -> None:
        self.name = name
        database = urlsplit(database_url)
        assert database.port is not None
        self.links = {
            "upstream": FaultProxy(xians.port),
            "postgres": FaultProxy(database.port),
            "redis": FaultProxy(redis.port),
        }
        behind = database._replace(netloc=f"{database.username}@127.0.0.1:{self.links['postgres'].port}")
        self.app = AppServer(
            "uvicorn",
            application="config.asgi:application",
            port=free_port(),
            env={
                **oidc.env,
                **SETTINGS,
                "XIANS_SERVER_URL": self.links["upstream"].url,
                "DATABASE_URL": behind.geturl(),
                "REDIS_URL": redis.url_at(self.links["redis"].port),
            },
            log=folder / f"{name}.log",
            ready_path="/healthz",
        )
        self.links["front"] = FaultProxy(self.app.port)
        self.deaths: list[float] = []
        """When it was killed: what it had not yet written then is gone."""
        self.upsets: list[tuple[float, float]] = []
        """From when to when what came from upstream may have been held up."""
        self._read = 0
        self.was_stubborn = False
        self.begin()

    def begin(self) -> None:
        """A run begins, in an event loop of its own: nothing has happened yet."""
        self._restarting = asyncio.Lock()
        self.deaths.clear()
        self.upsets.clear()

    def complaints(self) -> list[str]:
        """What it has logged since the last question that only an error in the code explains."""
        with self.app.log.open("rb") as log:
            log.seek(self._read)
            text = log.read().decode(errors="replace")
            self._read = log.tell()
        if self.was_stubborn:
            text += "\nException in ASGI application: still running 15 s after SIGTERM"
            self.was_stubborn = False
        return [line[:300] for line in text.splitlines() if _COMPLAINT.search(line)]

    @property
    def url(self) -> str:
        """Where its readers find it: behind its front link."""
        return self.links["front"].url

    @property
    def is_up(self) -> bool:
        return not self._restarting.locked() and self.app.exit_code is None

    async def restart(self, *, kill: bool, after: float) -> None:
        """End it, at once or in order, and start it again a while later; nothing while it is at that already."""
        if self._restarting.locked():
            return
        async with self._restarting:
            if kill:
                self.deaths.append(time.monotonic())
            try:
                await asyncio.to_thread(self.app.kill if kill else self.app.stop)
            except ProcessFailed:  # it has been killed
                self.deaths.append(time.monotonic())
                self.was_stubborn = True
            await asyncio.sleep(after)
            await asyncio.to_thread(self.app.start)

    async def until_up(self) -> None:
        """Return once no restart is going on."""
        async with self._restarting:
            return

    def heal(self) -> None:
        for link in self.links.values():
            link.clear()

    def close(self) -> None:
        self.app.kill()
        for link in self.links.values():
            link.close()


class Rig:
    """The whole site: two nodes, upstream, PostgreSQL and Redis."""

    def __init__(self, *, database_url: str, redis: Redis, oidc: Oidc, folder: Path) -> None:
        self.database_url = database_url
        (folder / "xians.jsonl").unlink(missing_ok=True)
        self.xians = Xians(
            world="demo", log=folder / "xians.log", state=folder / "xians.jsonl", options=("--no-agents",)
        )
        self.nodes = [
            Node(name, xians=self.xians, database_url=database_url, redis=redis, oidc=oidc, folder=folder)
            for name in ("A", "B")
        ]
        self._upstream = self._client()
        self._activations: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A run begins, in an event loop of its own, to which asyncio's locks are bound."""
        self.upstream_restarting = asyncio.Lock()
        for node in self.nodes:
            node.begin()

    def _client(self) -> httpx.AsyncClient:
        # No connection outlives its call: each run has an event loop of its own.
        return httpx.AsyncClient(
            base_url=self.xians.url, timeout=30, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def control(self, name: str, /, **arguments: Any) -> Any:
        """One control call to upstream, past every proxy; never while it restarts."""
        async with self.upstream_restarting:
            return await self._control(name, **arguments)

    async def _control(self, name: str, /, **arguments: Any) -> Any:
        answer = await self._upstream.post(f"/_control/{name}", json=arguments)
        assert answer.status_code == 200, f"{name}({arguments}): {answer.text}"
        return answer.json()

    async def delete_upstream(self, names: Mapping[str, str], participant: str, topic: str) -> bool:
        """Delete a topic as another client of upstream would: nobody tells us. False if it is refused."""
        query = {**names, "participantId": participant, **({"topic": topic} if topic else {})}
        path = "/api/v1/admin/tenants/acme/messaging/messages"
        async with self.upstream_restarting:
            answer = await self._upstream.delete(path, params=query, headers={"Authorization": f"Bearer {API_KEY}"})
        return answer.status_code == 200

    async def make_activation(self, name: str) -> None:
        """One that everybody may talk with."""
        self._activations.append(name)
        await self.control("activation", tenant="acme", agent=INVOICES, name=name, active=True)

    async def restart_upstream(self, *, kill: bool) -> None:
        """Upstream comes back with its messages; every stream is lost. Reachable only once it knows its activations."""
        async with self.upstream_restarting:
            for node in self.nodes:
                node.links["upstream"].down()
            await self._upstream.aclose()
            await asyncio.to_thread(self.xians.kill if kill else self.xians.stop)
            await asyncio.to_thread(self.xians.start)
            self._upstream = self._client()
            for name in self._activations:
                await self._control("activation", tenant="acme", agent=INVOICES, name=name, active=True)
            for node in self.nodes:
                node.links["upstream"].clear()

    async def heal(self) -> None:
        """Everything works again, every process runs."""
        for node in self.nodes:
            node.heal()
        await asyncio.gather(*(node.until_up() for node in self.nodes))
        await self.control("reset")

    async def aclose(self) -> None:
        await self._upstream.aclose()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.xians.kill()
