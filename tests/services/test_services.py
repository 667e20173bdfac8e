"""The fixtures themselves: what they start is real, and it stops and comes back when told to."""

import asyncio
import os
import signal
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest
import redis as redis_client
from playwright.async_api import Page

from tests.faults.proxy import FaultProxies
from tests.services.app import AppServers, Server
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.process import Process, ProcessFailed, prints
from tests.services.redis import Redis
from tests.services.standins import XiansServers

_ECHO = "tests.services.echo:application"
_NO_DATABASE = {"DATABASE_URL": "sqlite://:memory:"}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        body: bytes = response.read()
    return body.decode()


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(200)}) == 200


def test_a_process_that_ends_early_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="because of this"):
        Process(
            [sys.executable, "-c", "raise SystemExit('because of this')"],
            log=tmp_path / "log",
            ready=prints("never"),
        )


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = "from signal import *; signal(SIGTERM, SIG_IGN); print('up', flush=True); pause()"
    process = Process([sys.executable, "-c", script], log=tmp_path / "log", ready=prints("^up$"))
    with pytest.raises(ProcessFailed, match="still running"):
        process.stop(timeout=0.1)
    assert process.exit_code == -signal.SIGKILL


def test_postgres_makes_databases_and_survives_a_crash(postgres: Postgres) -> None:
    url = postgres.create_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with postgres.down(crash=True), pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_redis_goes_and_comes_back_empty(redis: Redis) -> None:
    with redis.client() as client:
        client.set("a", "b")
    with redis.down(), redis.client() as client, pytest.raises(redis_client.ConnectionError):
        client.ping()
    with redis.client() as client:
        assert client.get("a") is None


def test_services_can_be_reached_through_a_proxy(postgres: Postgres, redis: Redis, fault_proxy: FaultProxies) -> None:
    proxy = fault_proxy(postgres.port)
    with psycopg.connect(postgres.url("postgres", port=proxy.port)) as connection:
        proxy.cut(reset=True)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with redis_client.Redis.from_url(redis.url_at(fault_proxy(redis.port).port)) as client:
        assert client.ping()


@pytest.mark.parametrize("server", ["uvicorn", "daphne", "granian"])
def test_an_asgi_server_starts_stops_and_starts_again(app_server: AppServers, server: Server) -> None:
    app = app_server(server, application=_ECHO, env={**_NO_DATABASE, "DJANGO_ECHO": "hello"})
    assert _get(f"{app.url}/DJANGO_ECHO") == "hello"
    app.kill()
    with pytest.raises(OSError, match="refused"):
        _get(app.url)
    app.start()
    assert _get(f"{app.url}/DJANGO_ECHO") == "hello"
    app.stop()
    assert app.exit_code is not None


async def test_chromium_shows_a_page(app_server: AppServers, page: Page) -> None:
    app = app_server(application=_ECHO, env={**_NO_DATABASE, "DJANGO_ECHO": "seen"})
    await page.goto(f"{app.url}/DJANGO_ECHO")
    assert await page.inner_text("body") == "seen"


async def test_the_stand_in_takes_orders(xians: XiansServers) -> None:
    server = xians("demo", "--no-agents", keeps_state=True)
    pid = server.pid
    streams = await asyncio.to_thread(server.wait_streams, count=0)
    assert streams["open"] == 0
    before = server.truth()
    server.stop()
    server.start()
    assert server.pid != pid
    assert server.truth() == before
    with pytest.raises(TimeoutError):
        server.wait_streams(count=1, within_seconds=0.05)


def test_children_dont_inherit_the_callers_settings() -> None:
    assert "REDIS_URL" not in os.environ
    assert os.environ["XIANS_SERVER_URL"] == "http://127.0.0.1:9"
