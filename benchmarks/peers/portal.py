"""This application under uvicorn: signed-in people, PostgreSQL, unread counting, gap comparison, everything on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.peers.peer import Peer, get
from benchmarks.threads import ACTIVATION, AGENT, TENANT
from tests.services.environment import APPLICATION
from tests.services.postgres import Postgres
from tests.services.process import ROOT, Ready, answers
from tests.services.redis import Redis

_DATABASE = "people"
_NAMES = f"agentName={AGENT}&activationName={ACTIVATION}".replace(" ", "%20")


class Portal(Peer):
    """Each start has a fresh copy of the database in which everybody is signed in; a `restart` keeps it."""

    name = "portal"
    keeps_cursors = True

    def __init__(self, folder: Path, upstream_port: int, postgres: Postgres, sessions: Sequence[str]) -> None:
        super().__init__(folder, upstream_port)
        self.database = ""
        self._postgres = postgres
        self._sessions = sessions

    def argv(self) -> Sequence[str | Path]:
        return [
            *(sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--loop", "uvloop", "--http", "httptools", "--backlog", "4096"),
            *("--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "10"),
        ]

    def env(self) -> Mapping[str, str]:
        return environment(self._postgres.url(self.database), self.upstream_port)

    def ready(self) -> Ready:
        return answers(f"http://127.0.0.1:{self.port}/healthz")

    async def start(self) -> None:
        if not self.database:
            self.database = self._postgres.create_database(template=_DATABASE).rpartition("/")[2]
        await super().start()

    def connection_count(self) -> int:
        return self._postgres.connection_count(self.database)

    def request(self, person: int) -> tuple[bytes, bytes]:
        path = f"/api/tenants/{TENANT}/messaging/listen?{_NAMES}"
        return get(path, self.port, f"Cookie: sessionid={self._sessions[person]}")

    def page(self, person: int) -> tuple[str, dict[str, str]]:
        """The address of a conversation's page, and whose it is."""
        path = f"/conversations/{quote(AGENT)}/{quote(ACTIVATION)}/?tenant={TENANT}"
        return path, {"Cookie": f"sessionid={self._sessions[person]}"}


class OneOfSeveral(Portal):
    """The portal as it runs beside others of its site: Redis carries what they tell each other."""

    name = "several"

    def __init__(
        self, folder: Path, upstream_port: int, postgres: Postgres, sessions: Sequence[str], redis: Redis
    ) -> None:
        super().__init__(folder, upstream_port, postgres, sessions)
        self._redis = redis

    def env(self) -> Mapping[str, str]:
        return {**super().env(), "REDIS_URL": self._redis.url}


def environment(database_url: str, upstream_port: int) -> dict[str, str]:
    """A production's settings, with no grace for upstream streams: the peers have none."""
    return {
        **os.environ,
        **APPLICATION,
        "PYTHONPATH": str(ROOT),
        "DJANGO_DEBUG": "0",
        "DJANGO_LOG_LEVEL": "WARNING",
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
        "DATABASE_URL": database_url,
        "XIANS_SERVER_URL": f"http://127.0.0.1:{upstream_port}",
        "XIANS_FEED_GRACE_SECONDS": "0",
    }


def sign_everybody_in(postgres: Postgres, count: int) -> list[str]:
    """Make the database that portals start from; the people's session keys."""
    url = postgres.create_database(_DATABASE)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.people", str(count)],
        env=environment(url, 9),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split()
