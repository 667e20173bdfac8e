"""Two processes of one site, with a proxy in front of the database, of Redis and of upstream: all of it may break.

The modules that import these fixtures share one rig; every test has an activation to itself and finds everything whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from demo.world import API_KEY
from tests.faults.proxy import FaultProxy
from tests.messaging.conftest import Site
from tests.messaging.people import Listener, Person, sign_in
from tests.services.app import AppServer, AppServers, manage
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.redis import Redis
from tests.services.standins import Oidc, Xians

PATIENCE = 40.0
"""Seconds after which a wait in these tests has failed; what is promised in less time says so itself."""
ALICE = "alice@acme.example"


class Rig(Site):
    """A site of two processes, `one` (also `app`) and `two`, and everything around them that may break."""

    def __init__(self, parts: Parts, start: AppServers) -> None:
        super().__init__(parts.one, parts.xians, start)
        self.one, self.two = parts.one, parts.two
        self.postgres, self.redis = parts.postgres, parts.redis
        self.to_postgres, self.to_redis = parts.to_postgres, parts.to_redis

    @property
    def database(self) -> str:
        """The database's name."""
        return self.app.database_url.rpartition("/")[2]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the site's database, past the proxy; its rows, if it has any."""
        with self.postgres.connect(self.database) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def receipts(self) -> list[str]:
        """The message ids that this test's activation has receipts for."""
        rows = self.sql(
            "SELECT message_id FROM messaging_receipt r JOIN messaging_inbox i ON r.inbox_id = i.id"
            " WHERE i.activation_name = %s",
            self.activation,
        )
        return [message_id for (message_id,) in rows]

    def stored(self) -> Counter[str | None]:
        """How many answers upstream has stored for Alice here, by topic."""
        return Counter(message["scope"] for message in self.xians.truth(**self.thread) if is_answer(message))

    def burst(self, count: int, topics: list[str | None] | None = None, text: str = "message") -> list[str]:
        """So many answers at once; their ids."""
        thread = {name: value for name, value in self.thread.items() if name != "participant"}
        made = self.xians.control("burst", count=count, participants=[ALICE], topics=topics, text=text, **thread)
        ids: list[str] = made["ids"]
        return ids

    @contextmanager
    def locked(self, *tables: str) -> Iterator[None]:
        """Inside the block nobody can use these tables: every statement waits."""
        with psycopg.connect(self.postgres.url(self.database)) as connection:
            connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE".encode())
            yield
            connection.rollback()

    @contextmanager
    def failing(self, sqlstate: str, *tables: str, times: int = 1_000_000) -> Iterator[None]:
        """Inside the block writes to these tables end with this error, the first so many of them."""
        self.sql("DROP SEQUENCE IF EXISTS failures")
        self.sql("CREATE SEQUENCE failures")
        self.sql(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'a fault of the test'"
            f" USING ERRCODE = '{sqlstate}'; END IF; RETURN coalesce(NEW, OLD); END $$"
        )
        for table in tables:
            self.sql(
                f"CREATE TRIGGER fail BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION fail()"
            )
        try:
            yield
        finally:
            for table in tables:
                self.sql(f"DROP TRIGGER fail ON {table}")

    def heal(self) -> None:
        """Everything as it was."""
        self.postgres.start()
        self.redis.start()
        for proxy in (self.to_postgres, self.to_redis):
            proxy.clear()
        for app in (self.one, self.two):
            if app.exit_code is not None:
                app.start()
        self.xians.control("reset")


class Parts:
    """What the tests of a worker share."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.postgres = Postgres(free_port())
        self.redis = Redis(free_port())
        self.to_postgres, self.to_redis = FaultProxy(self.postgres.port), FaultProxy(self.redis.port)
        self.xians = Xians(world="demo", log=folder / "xians.log", state=folder / "state", options=("--no-agents",))
        self.postgres.create_database("site")
        manage("migrate", "--verbosity", "0", env={"DATABASE_URL": self.postgres.url("site")})
        self.env = {
            **env,
            "XIANS_SERVER_URL": self.xians.url,
            "DATABASE_URL": self.postgres.url("site", port=self.to_postgres.port),
            "DATABASE_TIMEOUT_SECONDS": "2",
            "REDIS_URL": self.redis.url_at(self.to_redis.port),
        }
        self.one, self.two = (
            AppServer(
                "uvicorn",
                application="config.asgi:application",
                port=free_port(),
                env=self.env,
                log=folder / f"{name}.log",
                ready_path="/healthz",
            )
            for name in ("one", "two")
        )

    def close(self) -> None:
        for server in (self.one, self.two, self.xians):
            server.kill()
        for proxy in (self.to_postgres, self.to_redis):
            proxy.close()
        self.postgres.close()
        self.redis.close()


_PARTS = pytest.StashKey[Parts]()


def site_settings(oidc: Oidc) -> dict[str, str]:
    """What a site of these tests is told, besides where its parts are."""
    return {
        **oidc.env,
        "XIANS_API_KEY": API_KEY,
        "XIANS_HEARTBEAT_SECONDS": "2",
        "XIANS_TENANTS_CACHE_SECONDS": "2",
        "XIANS_FEED_GRACE_SECONDS": "1",
        "STREAM_MAX_PER_PARTICIPANT": "1000",
    }


@pytest.fixture(scope="session", name="parts")
def shared_parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, oidc: Oidc) -> Parts:
    """Every module that imports this has a fixture of its own, as pytest sees it; the parts are the same."""
    stash = request.config.stash
    if _PARTS not in stash:
        stash[_PARTS] = Parts(tmp_path_factory.mktemp("rig"), site_settings(oidc))
        request.config.add_cleanup(stash[_PARTS].close)
    return stash[_PARTS]


@pytest.fixture(name="rig")
def whole_rig(parts: Parts, app_server: AppServers) -> Iterator[Rig]:
    made = Rig(parts, app_server)
    yield made
    made.heal()


@pytest_asyncio.fixture(name="alice")
async def alice_at_both(rig: Rig) -> AsyncIterator[Person]:
    """Signed in at both processes of the rig; she has visited this test's inbox."""
    person = await sign_in(rig.one.url, ALICE, rig.names)
    await person.unread()
    yield person
    await person.client.aclose()


def is_answer(message: dict[str, Any]) -> bool:
    return (message["direction"], message["messageType"]) == ("Outgoing", "Chat")


type Counted = dict[str | None, int]


async def eventually(ask: Callable[[], Awaitable[object]], wanted: object, *, within: float = PATIENCE) -> None:
    """Ask until the answer is the wanted one."""
    deadline = time.monotonic() + within
    while (last := await ask()) != wanted:
        assert time.monotonic() < deadline, f"not within {within} s: {wanted}; last: {last}"
        await asyncio.sleep(0.05)


async def counts(person: Person, *, at: AppServer) -> Counted | int:
    """Unread by topic as this process says, or the status with which it doesn't."""
    answer = await person.client.get(at.url + person.path("unread"), params=person.names)
    if answer.status_code != 200:
        return answer.status_code
    return {row["topic"]: row["unreadCount"] for row in answer.json()["topics"]}


async def both_say(rig: Rig, person: Person, wanted: Counted, *, within: float = PATIENCE) -> None:
    """Both processes come to count this."""
    for app in (rig.one, rig.two):
        await eventually(partial(counts, person, at=app), wanted, within=within)


def shows_total(stream: Listener, total: int) -> bool:
    """Whether the newest count that a stream told is this one."""
    told = stream.told("unread")
    return bool(told) and told[-1]["total"] == total


async def logged(app: AppServer, text: str, *, within: float = PATIENCE) -> None:
    """Wait until a process has written this."""
    deadline = time.monotonic() + within
    while text not in app.log_text():
        assert time.monotonic() < deadline, f"{text!r} was not logged:\n{app.log_text()[-3000:]}"
        await asyncio.sleep(0.05)
