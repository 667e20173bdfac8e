"""The application as people meet it: a real ASGI server in a process of its own, with real services."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

import pytest

from tests.services.environment import APPLICATION
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.process import ROOT, Process, ProcessFailed, answers

Server = Literal["uvicorn", "daphne", "granian"]
_COMMANDS: dict[Server, Callable[[str, str], list[str]]] = {
    "uvicorn": lambda app, port: ["uvicorn", app, "--host", "127.0.0.1", "--port", port],
    "daphne": lambda app, port: ["daphne", app, "--bind", "127.0.0.1", "--port", port],
    "granian": lambda app, port: [*("granian", app, "--interface", "asgi", "--host", "127.0.0.1", "--port", port)],
}


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child that runs our code: the tests' own, and `extra` on top."""
    return {**os.environ, **APPLICATION, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **extra}


def manage(*arguments: str, env: Mapping[str, str]) -> str:
    """Run a management command in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=environment(env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode != 0:
        raise ProcessFailed(f"manage.py {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class AppServer:
    """One running server process. `env` is what it was started with, on top of the tests' own."""

    def __init__(
        self,
        server: Server,
        *,
        application: str,
        port: int,
        env: Mapping[str, str],
        log: Path,
        ready_path: str,
    ) -> None:
        self.server = server
        self.application = application
        self.port = port
        self.env = dict(env)
        self.log = log
        self.ready_path = ready_path
        self._process = self._start()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return self.env["DATABASE_URL"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exit_code

    def log_text(self) -> str:
        """What it has written since its last start."""
        return self._process.log_text()

    def stop(self, *, timeout: float = 15) -> int:
        """SIGTERM; its exit code. Raises `ProcessFailed` if it is still there after `timeout` seconds."""
        return self._process.stop(timeout=timeout)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._process.kill()

    def start(self) -> None:
        """After `stop` or `kill`: the same again, on the same port and database."""
        if self.exit_code is None:
            raise RuntimeError(f"{self.url} is still running")
        self._process = self._start()

    def _start(self) -> Process:
        return Process(
            [sys.executable, "-m", *_COMMANDS[self.server](self.application, str(self.port))],
            log=self.log,
            ready=answers(self.url + self.ready_path),
            env=environment(self.env),
        )


class AppServers(Protocol):
    """How tests start servers: `app_server(env={"REDIS_URL": redis.url})`."""

    def __call__(
        self,
        server: Server = "uvicorn",
        *,
        env: Mapping[str, str] | None = None,
        application: str = "config.asgi:application",
        ready_path: str = "/healthz",
    ) -> AppServer:
        """Start one and wait until it answers. Without a DATABASE_URL in `env` it gets a fresh, migrated
        database; a second process of the same site takes the first one's `database_url`."""
        ...


@pytest.fixture(scope="session")
def fresh_database(postgres: Postgres) -> Callable[[], str]:
    """Call it for the URL of a new, migrated, empty database; migrations run once for each worker."""
    template = "migrated"
    made: list[str] = []

    def fresh() -> str:
        if not made:
            made.append(postgres.create_database(template))
            manage("migrate", "--verbosity", "0", env={"DATABASE_URL": made[0]})
        return postgres.create_database(template=template)

    return fresh


@pytest.fixture
def app_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AppServers]:
    """Starts application servers and ends them with the test."""
    running: list[AppServer] = []

    def start(
        server: Server = "uvicorn",
        *,
        env: Mapping[str, str] | None = None,
        application: str = "config.asgi:application",
        ready_path: str = "/healthz",
    ) -> AppServer:
        env = dict(env or {})
        if "DATABASE_URL" not in env:
            fresh: Callable[[], str] = request.getfixturevalue("fresh_database")
            env["DATABASE_URL"] = fresh()
        app = AppServer(
            server,
            application=application,
            port=free_port(),
            env=env,
            log=tmp_path / f"{server}-{len(running)}.log",
            ready_path=ready_path,
        )
        running.append(app)
        return app

    yield start
    for app in running:
        app.kill()
