"""The application behind an upstream that a test can script; shared by the tests of one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.upstream.desk import Desk
from tests.faults.upstream.hostile import Hostile
from tests.journeys.conftest import console  # noqa: F401 - a fixture
from tests.messaging.conftest import alice, shared, signed_in, site_env  # noqa: F401 - fixtures
from tests.services.app import AppServer, AppServers
from tests.services.ports import free_port
from tests.services.standins import Xians


@pytest.fixture(scope="session")
def scripted(
    shared: tuple[AppServer, Xians],  # noqa: F811
    site_env: dict[str, str],  # noqa: F811
    fresh_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AppServer, Hostile]]:
    """One application behind one scripted upstream."""
    hostile = Hostile(shared[1].port)
    app = AppServer(
        "uvicorn",
        application="config.asgi:application",
        port=free_port(),
        env={**site_env, "XIANS_SERVER_URL": hostile.url, "DATABASE_URL": fresh_database()},
        log=tmp_path_factory.mktemp("scripted") / "app.log",
        ready_path="/healthz",
    )
    yield app, hostile
    app.kill()
    hostile.close()


@pytest.fixture
def site(
    scripted: tuple[AppServer, Hostile],
    shared: tuple[AppServer, Xians],  # noqa: F811
    app_server: AppServers,
) -> Iterator[Desk]:
    """In these tests a site is a desk."""
    app, hostile = scripted
    yield Desk(app, shared[1], app_server, hostile, None)
    shared[1].control("reset")
