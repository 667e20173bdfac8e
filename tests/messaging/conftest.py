"""A whole site for a test: the stand-in Xians server, the provider, and the application in its own process.

`site` shares its processes with the other tests of this worker and has an activation to itself; a test that stops,
starts or configures a process takes `own_site`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from demo.world import API_KEY, INVOICES
from tests.messaging.people import PATIENCE, Person, sign_in
from tests.services.app import AppServer, AppServers
from tests.services.ports import free_port
from tests.services.standins import Json, Oidc, Xians, XiansServers

type SignIn = Callable[..., Awaitable[Person]]

_numbers = itertools.count(1)


class Site:
    """The application (`app`), the upstream it talks to (`xians`), and the activation that this test talks with."""

    def __init__(self, app: AppServer, xians: Xians, start: AppServers) -> None:
        self.app = app
        self.xians = xians
        self._start = start
        self.activation = f"Desk {next(_numbers)}"
        xians.control("activation", tenant="acme", agent=INVOICES, name=self.activation, active=True)

    @property
    def names(self) -> dict[str, str]:
        """The activation as API clients name it."""
        return {"agentName": INVOICES, "activationName": self.activation}

    @property
    def thread(self) -> dict[str, str]:
        """Alice's thread as the stand-in's controls name it."""
        return {
            "tenant": "acme",
            "agent": INVOICES,
            "activation": self.activation,
            "participant": "alice@acme.example",
        }

    def answer(self, text: str, topic: str | None = None, *, at_once: bool = False, **more: Any) -> Json:
        """The agent writes to Alice (or `participant`), once upstream hears for every open stream.

        `at_once`: even if it is still deaf, just after `connected`.
        """
        if not at_once:
            self.settle()
        return self.xians.message(**{**self.thread, "text": text, "topic": topic, **more})

    def settle(self) -> None:
        """Wait until upstream hears for every stream that is open."""
        deadline = time.monotonic() + PATIENCE
        while (streams := self.xians.streams())["attached"] < streams["open"]:
            assert time.monotonic() < deadline, streams

    def another_process(self, **env: str) -> AppServer:
        """One more of the same site, on the same database, with these settings."""
        return self._start(env={**self.app.env, **env})


@pytest.fixture(scope="session")
def site_env(oidc: Oidc) -> dict[str, str]:
    """What the application is told."""
    return {
        **oidc.env,
        "XIANS_API_KEY": API_KEY,
        "XIANS_HEARTBEAT_SECONDS": "2",
        "XIANS_TENANTS_CACHE_SECONDS": "2",
        "XIANS_FEED_GRACE_SECONDS": "1",
        "STREAM_MAX_PER_PARTICIPANT": "400",
    }


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, site_env: dict[str, str], fresh_database: Callable[[], str]
) -> Iterator[tuple[AppServer, Xians]]:
    """The processes that the tests of a worker share."""
    folder = tmp_path_factory.mktemp("site")
    upstream = Xians(world="demo", log=folder / "xians.log", state=None, options=("--no-agents",))
    env = {**site_env, "XIANS_SERVER_URL": upstream.url, "DATABASE_URL": fresh_database()}
    app = AppServer(
        "uvicorn",
        application="config.asgi:application",
        port=free_port(),
        env=env,
        log=folder / "app.log",
        ready_path="/healthz",
    )
    yield app, upstream
    app.kill()
    upstream.kill()


@pytest.fixture
def site(shared: tuple[AppServer, Xians], app_server: AppServers) -> Iterator[Site]:
    app, upstream = shared
    yield Site(app, upstream, app_server)
    upstream.control("reset")


@pytest.fixture
def own_site(app_server: AppServers, xians: XiansServers, site_env: dict[str, str]) -> Site:
    """Processes that nobody else uses; upstream keeps its messages over a restart."""
    upstream = xians("demo", "--no-agents", keeps_state=True)
    return Site(app_server(env={**site_env, "XIANS_SERVER_URL": upstream.url}), upstream, app_server)


@pytest_asyncio.fixture
async def signed_in(request: pytest.FixtureRequest) -> AsyncIterator[SignIn]:
    """Signs people in: `await signed_in("bob@acme.example")`; `app` names another process than the site's."""
    people: list[Person] = []
    name = "own_site" if "own_site" in request.fixturenames else "site"
    here: Site = request.getfixturevalue(name)

    async def start(email: str, *, app: AppServer | None = None) -> Person:
        people.append(await sign_in((app or here.app).url, email, here.names))
        return people[-1]

    yield start
    for person in people:
        await person.client.aclose()


@pytest_asyncio.fixture
async def alice(signed_in: SignIn) -> Person:
    """A member of acme and globex."""
    return await signed_in("alice@acme.example")


@pytest_asyncio.fixture
async def bob(signed_in: SignIn) -> Person:
    """A member of acme only."""
    return await signed_in("bob@acme.example")
