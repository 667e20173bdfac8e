"""A child process that is ready when it says so, writes its output to a file, and is ended by its id."""

import http.client
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Ready = Callable[["Process"], bool]
"""Asked again and again until it says yes."""


class ProcessFailed(RuntimeError):
    """A child ended, or wasn't ready in time; the message carries the end of its output."""


def prints(pattern: str) -> Ready:
    """Ready when a line of the output matches this regular expression."""
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda process: compiled.search(process.log_text()) is not None


def listens(port: int) -> Ready:
    """Ready when something on 127.0.0.1 takes a connection at this port."""

    def ready(_process: "Process") -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    return ready


def answers(url: str) -> Ready:
    """Ready when a GET of this URL answers 200."""
    parts = urllib.parse.urlsplit(url)

    def ready(_process: "Process") -> bool:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


class Process:
    """Starts on construction and waits until ready; raises `ProcessFailed` if that doesn't happen.

    The child leads a session of its own, so that Ctrl-C reaches pytest alone and `kill` takes the child's
    own children (an ASGI server's workers) with it. `env` is the whole environment, not an addition;
    `user` is a system user to run as, which only root may ask for.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        ready: Ready,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        user: str | None = None,
        timeout: float = 30,
    ) -> None:
        self.argv = [str(argument) for argument in argv]
        self.log = log
        with log.open("ab") as output:
            self._offset = output.tell()
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        try:
            self.wait_until(ready, timeout=timeout)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.poll()

    def log_text(self) -> str:
        """What this process (not an earlier one with the same log file) has written so far."""
        with self.log.open("rb") as log:
            log.seek(self._offset)
            return log.read().decode(errors="replace")

    def wait_until(self, ready: Ready, *, timeout: float = 30) -> None:
        """Wait for a condition; a child that ends meanwhile is a failure, too."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.exit_code
            if ready(self):
                return
            if ended is not None:
                raise ProcessFailed(f"{self._name} ended with {ended}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self._name} was not ready after {timeout} s:\n{self._tail()}")
            time.sleep(0.02)

    def stop(self, *, signal_number: signal.Signals = signal.SIGTERM, timeout: float = 15) -> int:
        """Ask it to end and return its exit code; raise `ProcessFailed`, having killed it, if it won't."""
        if self.exit_code is None:
            self._child.send_signal(signal_number)
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            tail = self._tail()
            self.kill()
            raise ProcessFailed(
                f"{self._name} was still running {timeout} s after {signal_number.name}:\n{tail}"
            ) from None

    def kill(self) -> None:
        """End it and its children at once, as a crash or a power cut would."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            self._child.kill()
        self._child.wait(10)
        deadline = time.monotonic() + 2  # its children are gone a moment later, and their sockets with them
        while _group_exists(self.pid) and time.monotonic() < deadline:
            time.sleep(0.005)

    @property
    def _name(self) -> str:
        return " ".join(self.argv[:5])

    def _tail(self) -> str:
        return self.log_text()[-4000:]


def _group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
