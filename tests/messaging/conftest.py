"""A whole site for a test: the stand-in Xians server, the provider, and the application in its own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from demo.world import API_KEY
from tests.messaging.people import Person, sign_in
from tests.services.app import AppServer, AppServers
from tests.services.standins import Json, Oidc, Xians, XiansServers

type SignIn = Callable[..., Awaitable[Person]]

NORDIC = {"tenant": "acme", "agent": "Invoice Helper", "activation": "Nordic desk"}


class Site:
    """The application (`app`) and the upstream it talks to (`xians`)."""

    def __init__(self, app: AppServer, xians: Xians, start: AppServers, env: dict[str, str]) -> None:
        self.app = app
        self.xians = xians
        self._start = start
        self._env = env

    def answer(self, text: str, topic: str | None = None, *, at_once: bool = False, **more: Any) -> Json:
        """The agent of the Nordic desk writes to Alice (or `participant`), once upstream hears for every open stream.

        `at_once`: even if it is still deaf, just after `connected`.
        """
        if not at_once:
            self.xians.wait_streams(count=self.xians.streams()["open"])
        participant = more.pop("participant", "alice@acme.example")
        return self.xians.message(participant=participant, text=text, topic=topic, **{**NORDIC, **more})

    def second_process(self, **env: str) -> AppServer:
        return self._start(env={**self._env, "DATABASE_URL": self.app.database_url, **env})


@pytest.fixture
def site_env(oidc: Oidc) -> dict[str, str]:
    """What the application is told; a test module may override it."""
    return {**oidc.env, "XIANS_API_KEY": API_KEY, "XIANS_HEARTBEAT_SECONDS": "2"}


@pytest.fixture
def upstream(xians: XiansServers) -> Xians:
    """A stand-in with the demo's agents, none of which talks by itself."""
    return xians("demo", "--no-agents", keeps_state=True)


@pytest.fixture
def site(app_server: AppServers, upstream: Xians, site_env: dict[str, str]) -> Site:
    env = {**site_env, "XIANS_SERVER_URL": upstream.url}
    return Site(app_server(env=env), upstream, app_server, env)


@pytest_asyncio.fixture
async def signed_in(site: Site) -> AsyncIterator[SignIn]:
    """Signs people in: `await signed_in("bob@acme.example")`."""
    people: list[Person] = []

    async def start(email: str, *, base_url: str = "") -> Person:
        people.append(await sign_in(base_url or site.app.url, email))
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
