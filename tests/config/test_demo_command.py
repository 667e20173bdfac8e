"""`manage.py demo`: nothing to configure, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from demo.world import INVOICES
from tests.messaging.people import sign_in
from tests.services.ports import free_port
from tests.services.process import ROOT

PATIENCE = 60.0
_OURS = ("config", "conversations", "demo", "messaging", "templates", "static", "manage.py")


class Demo:
    """The command in a copy of the project, so that it doesn't meet a demo that somebody is looking at."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "demo.log"
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "demo", "--port", str(port)],
                cwd=folder,
                env={
                    **clean,
                    "PYTHONUNBUFFERED": "1",
                    "DJANGO_DEBUG": "nonsense",
                    "XIANS_SERVER_URL": "not for the demo",
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def types(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        if self.process.poll() is None:
            left = self.family()
            os.killpg(self.process.pid, signal.SIGKILL)
            for child in left:
                if child.is_running():
                    child.kill()
            self.process.wait(10)
        if self.process.stdin is not None:
            self.process.stdin.close()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project without its tests and without what earlier demos left."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in _OURS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture
def demo(copy: Path) -> Iterator[Demo]:
    demo = Demo(copy, port=free_port())
    yield demo
    demo.close()


async def test_it_runs_everything_and_ends_everything(demo: Demo) -> None:
    demo.until(lambda: "Ctrl-C ends all of it." in demo.said())
    for told in (f"{demo.url}/", "alice@acme.example", "bob@acme.example", "admin / admin"):
        assert told in demo.said()
    children = demo.family()
    assert len(children) >= 3
    person = await sign_in(demo.url, "alice@acme.example", {"agentName": INVOICES, "activationName": "Nordic desk"})
    assert (await person.get("topics")).status_code == 200

    def answer(path: str) -> int:
        return httpx.get(demo.url + path).status_code

    assert answer("/login/") == 200
    demo.until(lambda: answer("/readyz") == 200)
    demo.types("off")
    demo.until(lambda: "The Xians server is gone." in demo.said())
    demo.until(lambda: answer("/readyz") == 503)
    assert (await person.get("topics")).status_code == 503
    demo.types("on")
    demo.until(lambda: "The Xians server is back." in demo.said())
    demo.until(lambda: answer("/readyz") == 200)
    assert (await person.get("topics")).status_code == 200
    demo.types("what?")
    demo.until(lambda: "Type off or on" in demo.said())
    await person.client.aclose()

    children += demo.family()
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(30) == 0, demo.said()
    _, left = psutil.wait_procs(children, timeout=10)
    assert left == []
    assert "Goodbye." in demo.said()
    assert "Traceback" not in demo.said()


def test_it_says_which_port_to_try_when_one_is_taken(copy: Path, demo: Demo) -> None:
    demo.until(lambda: "Ctrl-C ends all of it." in demo.said())
    port = int(demo.url.rpartition(":")[2])
    done = subprocess.run(
        [sys.executable, "manage.py", "demo", "--port", str(port)],
        cwd=copy,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"Port {port} is in use. Try: manage.py demo --port {port + 1}" in done.stderr
