"""The demo's servers as child processes: started, stopped, killed and started again on the same port."""

import json
import os
import selectors
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 30.0
STOP_SECONDS = 5.0


class ChildError(RuntimeError):
    """A child did not start, or its control surface refused a call."""


class Child:
    """A module of ours run with `-m`, which prints one JSON line when it is ready.

    It ends with this process, however that ends, because its standard input is a pipe that we hold.
    """

    def __init__(self, module: str, *options: str, port: int = 0) -> None:
        self._module = module
        self._options = options
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start, on the port of the last time if there was one, and return when it answers."""
        command = [sys.executable, "-m", self._module, "--port", str(self.port), "--stop-with-stdin"]
        self.process = subprocess.Popen(
            [*command, *self._options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.port = int(self._ready_line(self.process)["port"])
        return self

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        self._end(is_kind=True)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(is_kind=False)

    def _end(self, *, is_kind: bool) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if is_kind:
            process.terminate()
        else:
            process.kill()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _ready_line(self, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_SECONDS):
                self.kill()
                raise ChildError(f"{self._module} was not ready within {READY_SECONDS:.0f} s")
        line = process.stdout.readline()
        if not line:
            self.kill()
            raise ChildError(f"{self._module} ended before it was ready")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class StandIn(Child):
    """The stand-in Xians server in a process of its own, with its control surface.

    With a `state` file, its messages outlive `stop`, `kill` and `start`. Without one, tests that kill it
    start again with an empty world.
    """

    def __init__(
        self,
        *,
        world: str = "empty",
        state: Path | None = None,
        port: int = 0,
        seed: int = 7,
        news_seconds: float = 6.0,
        pace: float = 1.0,
        blind_seconds: float = 0.02,
    ) -> None:
        options = ["--world", world, "--seed", str(seed), "--news-seconds", str(news_seconds)]
        options += ["--pace", str(pace), "--blind-seconds", str(blind_seconds)]
        if state is not None:
            options += ["--state", os.fspath(state)]
        super().__init__("demo.xians", *options, port=port)

    def control(self, action: str, /, **arguments: Any) -> dict[str, Any]:
        """Call one method of `demo.xians.control.Control` over HTTP. Blocks; for async code use a thread."""
        request = urllib.request.Request(
            f"{self.url}/_control/{action}",
            data=json.dumps(arguments).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=READY_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise ChildError(f"{action}: {error.code} {error.read().decode()}") from None


class Provider(Child):
    """The OpenID provider in a process of its own."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__("demo.oidc", port=port)

    @property
    def issuer(self) -> str:
        return self.url
