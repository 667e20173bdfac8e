"""The portal with the scripted provider (`portal`, `visitor`), and the site of tests/messaging (`site`, `alice`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from demo.world import API_KEY
from tests.config.provider import Provider
from tests.config.visitor import Portal, Visitor
from tests.messaging.conftest import (  # noqa: F401 - fixtures, used by their names
    alice,
    bob,
    own_site,
    shared,
    signed_in,
    site,
    site_env,
)
from tests.services.app import AppServer
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.standins import Xians


@pytest.fixture(scope="session")
def _shared_portal(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str], postgres: Postgres
) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("portal")
    provider = Provider()
    upstream = Xians(world="demo", log=folder / "xians.log", state=None, options=("--no-agents",))
    env = {
        **provider.env,
        "XIANS_API_KEY": API_KEY,
        "XIANS_SERVER_URL": upstream.url,
        "DATABASE_URL": fresh_database(),
        "DJANGO_LOG_LEVEL": "DEBUG",
    }
    app = AppServer(
        "uvicorn",
        application="config.asgi:application",
        port=free_port(),
        env=env,
        log=folder / "app.log",
        ready_path="/healthz",
    )
    yield Portal(app, provider, upstream, postgres)
    app.kill()
    upstream.kill()
    provider.close()


@pytest.fixture
def portal(_shared_portal: Portal) -> Iterator[Portal]:
    """The processes are this worker's; the provider is honest again for every test."""
    yield replace(_shared_portal, log_begins=len(_shared_portal.app.log_text()))
    _shared_portal.provider.reset()


@pytest.fixture
def provider(portal: Portal) -> Provider:
    return portal.provider


@pytest_asyncio.fixture
async def visitor(portal: Portal) -> AsyncIterator[Visitor]:
    """Somebody's browser, not signed in yet."""
    somebody = Visitor(portal)
    yield somebody
    await somebody.client.aclose()
