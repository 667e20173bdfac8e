"""The servers of other people that the application needs, played by `demo`: Xians and the OIDC provider."""

import http.client
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from tests.services.app import environment
from tests.services.ports import free_port
from tests.services.process import Process, prints

type Json = dict[str, Any]

_READY = r'^\{"port": (\d+)'


class ControlRefused(RuntimeError):
    """A control call that the stand-in didn't take; the message says why."""


class _StandIn:
    """A demo server process that prints its port; stopped and started again it keeps the port."""

    def __init__(self, module: str, *options: str, log: Path) -> None:
        self.log = log
        self._argv = [sys.executable, "-m", module, *options]
        self.port = free_port()
        self._process = self._start()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_text(self) -> str:
        return self._process.log_text()

    def stop(self) -> None:
        """SIGTERM."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL: connections are reset and nothing is tidied up."""
        self._process.kill()

    def start(self) -> None:
        """After `stop` or `kill`: the same again."""
        if self._process.exit_code is None:
            raise RuntimeError(f"{self.url} is still running")
        self._process = self._start()

    def _start(self) -> Process:
        process = Process(
            [*self._argv, "--port", str(self.port)], log=self.log, ready=prints(_READY), env=environment({})
        )
        said = re.search(_READY, process.log_text(), re.MULTILINE)
        assert said is not None
        self.port = int(said[1])
        return process


class Xians(_StandIn):
    """A stand-in Xians server; its methods are those of `demo.xians.control.Control`, over HTTP.

    They block: in an asynchronous test, `await asyncio.to_thread(xians.wait_streams, count=1)`.
    What has no method here is `control("name", ...)`.
    """

    def __init__(self, *, world: str, log: Path, state: Path | None, options: tuple[str, ...]) -> None:
        kept = () if state is None else ("--state", str(state))
        super().__init__("demo.xians", "--world", world, *kept, *options, log=log)

    def control(self, name: str, /, **arguments: Any) -> Json:
        """One control call; raises `ControlRefused`, or `TimeoutError` where the stand-in waited in vain."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", f"/_control/{name}", json.dumps(arguments))
            response = connection.getresponse()
            answer: Json = json.loads(response.read())
        finally:
            connection.close()
        if response.status == 408:
            raise TimeoutError(f"{name}({arguments}): {answer['error']}")
        if response.status != 200:
            raise ControlRefused(f"{name}({arguments}): {answer['error']}")
        return answer

    def message(
        self, *, tenant: str, agent: str, activation: str, participant: str, text: str | None, **more: Any
    ) -> Json:
        """Store and stream an agent's message (more: `topic`, `type`, `data`, ...); as history has it."""
        return self.control(
            "message",
            tenant=tenant,
            agent=agent,
            activation=activation,
            participant=participant,
            text=text,
            **more,
        )

    def truth(self, **of: str) -> list[Json]:
        """Every stored message, in order; `tenant`, `agent`, `activation`, `participant` narrow it."""
        messages: list[Json] = self.control("truth", **of)["messages"]
        return messages

    def streams(self) -> Json:
        """`open`, `attached`, `opened` and `threads`: the streams that clients hold."""
        return self.control("streams")

    def wait_streams(
        self,
        *,
        count: int = 1,
        exactly: bool = False,
        opened: int | None = None,
        within_seconds: float = 5.0,
    ) -> Json:
        """Wait until so many streams hear events; raises `TimeoutError`."""
        return self.control("wait_streams", count=count, exactly=exactly, opened=opened, within_seconds=within_seconds)

    def requests(self, *, route: str | None = None, after: int = 0) -> list[Json]:
        """What was asked: `number`, `route`, `method`, `path`, `query`, `headers`, `body`, `status`."""
        requests: list[Json] = self.control("requests", route=route, after=after)["requests"]
        return requests

    def refuse(self, **rule: Any) -> int:
        """Let requests fail as `demo.xians.faults.Fault` says; returns the rule's number."""
        number: int = self.control("refuse", **rule)["rule"]
        return number

    def forgive(self, rule: int | None = None) -> None:
        """Drop one rule, or all."""
        self.control("forgive", rule=rule)

    def cut(self, mode: Literal["eof", "truncate", "reset"] = "eof", *, after_bytes: int | None = None) -> int:
        """End every open stream; returns how many there were."""
        count: int = self.control("cut", mode=mode, after_bytes=after_bytes)["listeners"]
        return count

    def power(self, *, on: bool) -> None:
        """Off: every stream and every request is reset, as if the server had crashed."""
        self.control("power", on=on)


class Oidc(_StandIn):
    """The identity provider with the demo's people."""

    def __init__(self, *, log: Path) -> None:
        super().__init__("demo.oidc", log=log)

    @property
    def env(self) -> dict[str, str]:
        """What the application has to be started with."""
        return {"OIDC_ISSUER_URL": self.url}


class XiansServers(Protocol):
    """How tests start stand-ins: `xians(world="demo")`."""

    def __call__(self, world: Literal["empty", "demo"] = "empty", *options: str, keeps_state: bool = False) -> Xians:
        """Start one. `options` are further ones of `python -m demo.xians`; `keeps_state` lets messages
        survive `stop` and `start`."""
        ...


@pytest.fixture
def xians(tmp_path: Path) -> Iterator[XiansServers]:
    """Starts stand-in Xians servers and ends them with the test."""
    running: list[Xians] = []

    def start(world: Literal["empty", "demo"] = "empty", *options: str, keeps_state: bool = False) -> Xians:
        number = len(running)
        state = tmp_path / f"xians-{number}.json" if keeps_state else None
        server = Xians(world=world, log=tmp_path / f"xians-{number}.log", state=state, options=options)
        running.append(server)
        return server

    yield start
    for server in running:
        server.kill()


@pytest.fixture(scope="session")
def oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oidc]:
    """This worker's identity provider; sessions at it belong to browsers, so tests may share it."""
    provider = Oidc(log=tmp_path_factory.mktemp("oidc") / "log")
    yield provider
    provider.kill()
