"""The production layout as processes: PostgreSQL, Redis, two of portal@.service, and nginx in front of them.

What is run is what the files in deploy/ say: the unit's own command line, the settings that .env.example names.
"""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
import pytest_asyncio

from demo.world import API_KEY, INVOICES
from tests.deploy.front import DEPLOY, NAME, Certificate, Front
from tests.messaging.people import Person, sign_in
from tests.services.app import environment
from tests.services.ports import free_port
from tests.services.process import Process, answers
from tests.services.redis import Redis
from tests.services.standins import Json, Oidc, Xians

PATIENCE = 40.0


def unit(name: str) -> configparser.ConfigParser:
    """One of deploy/systemd; a directive that is given twice has its values on lines of their own."""
    values: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault((section, key), []).append(value)
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    for (of, key), found in values.items():
        if not parser.has_section(of):
            parser.add_section(of)
        parser.set(of, key, "\n".join(found))
    return parser


def example(path: Path) -> dict[str, str]:
    """The variables of an example file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class PortalProcess:
    """One `portal@PORT.service`."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self._env = environment(env)
        self._log = log
        self._process = self._start()

    def _start(self) -> Process:
        command = shlex.split(unit("portal@.service")["Service"]["ExecStart"].replace("%i", str(self.port)))
        ready = answers(f"http://127.0.0.1:{self.port}/healthz")
        return Process([sys.executable, *command[1:]], log=self._log, ready=ready, env=self._env, timeout=90)

    def restart(self) -> None:
        """As `systemctl restart` does it."""
        self._process.stop(timeout=60)
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()

    def log_text(self) -> str:
        return self._process.log_text()

    def streams(self) -> int:
        """How many streams it has open, as its metrics say."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            told = answer.read().decode()
        found = re.search(r"^portal_streams_open (\S+)$", told, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))


class Layout:
    """The whole of it."""

    def __init__(
        self,
        folder: Path,
        certificate: Certificate,
        parts: ExitStack,
        *,
        database_url: str,
        redis_url: str,
        oidc: Oidc,
    ) -> None:
        self.xians = Xians(world="demo", log=folder / "xians.log", state=None, options=("--no-agents",))
        parts.callback(self.xians.kill)
        settings = {name: value for name, value in example(DEPLOY / ".env.example").items() if value}
        self.env = {
            **settings,
            **oidc.env,
            "DJANGO_DEBUG": "0",
            "DJANGO_ALLOWED_HOSTS": f"{NAME},127.0.0.1",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "XIANS_SERVER_URL": self.xians.url,
            "XIANS_API_KEY": API_KEY,
        }
        self.processes: list[PortalProcess] = []
        for number in (1, 2):
            self.processes.append(PortalProcess(self.env, folder / f"portal-{number}.log"))
            parts.callback(self.processes[-1].kill)
        ports = [process.port for process in self.processes]
        self.front = Front(folder / "nginx", *ports, certificate=certificate)
        parts.callback(self.front.stop)

    def thread(self, names: dict[str, str], participant: str) -> dict[str, str]:
        """A person's thread as the stand-in's controls name it."""
        words = {"agent": names["agentName"], "activation": names["activationName"]}
        return {"tenant": "acme", "participant": participant, **words}

    def answer(self, person: Person, text: str, topic: str | None = None) -> Json:
        """The agent writes to somebody."""
        return self.xians.message(**self.thread(person.names, person.email), text=text, topic=topic)

    async def settled(self) -> None:
        """Wait until upstream hears for every stream that is open."""
        async with asyncio.timeout(PATIENCE):
            while True:
                told = await asyncio.to_thread(self.xians.streams)
                if told["attached"] == told["open"]:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def layout(
    tmp_path_factory: pytest.TempPathFactory,
    certificate: Certificate,
    fresh_database: Callable[[], str],
    redis: Redis,
    oidc: Oidc,
) -> Iterator[Layout]:
    folder = tmp_path_factory.mktemp("layout")
    with ExitStack() as parts:
        yield Layout(folder, certificate, parts, database_url=fresh_database(), redis_url=redis.url, oidc=oidc)


@pytest.fixture
def names(layout: Layout) -> dict[str, str]:
    """An activation that this test has to itself, as API clients name it."""
    activation = f"Desk {time.monotonic_ns()}"
    layout.xians.control("activation", tenant="acme", agent=INVOICES, name=activation, active=True)
    return {"agentName": INVOICES, "activationName": activation}


@pytest_asyncio.fixture
async def alice(layout: Layout, names: dict[str, str]) -> AsyncIterator[Person]:
    """Signed in through nginx."""
    person = await sign_in(layout.front.url, "alice@acme.example", names, trust=layout.front.trust)
    yield person
    await person.client.aclose()


@pytest_asyncio.fixture
async def bob(layout: Layout, names: dict[str, str]) -> AsyncIterator[Person]:
    """Signed in through nginx."""
    person = await sign_in(layout.front.url, "bob@acme.example", names, trust=layout.front.trust)
    yield person
    await person.client.aclose()
