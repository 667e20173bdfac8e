"""What is measured: something between the clients and upstream."""

from __future__ import annotations

import asyncio
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.threads import ACTIVATION, AGENT, TENANT, participant
from tests.services.ports import free_port
from tests.services.process import Process, ProcessFailed, Ready, listens

_START_SECONDS = 60
_TRIES = 3
CORE = 0
"""The core of what is measured; upstream, clients and database share the other."""
_NAMES = f"agentName={AGENT}&activationName={ACTIVATION}".replace(" ", "%20")


class Peer(ABC):
    """`port` is where clients connect. `is_process`: there is a process to look at; `keeps_cursors`: a client can come
    back with its last id."""

    name: str
    is_process = True
    keeps_cursors = False

    def __init__(self, folder: Path, upstream_port: int) -> None:
        self.folder = folder
        self.upstream_port = upstream_port
        self.port = free_port()
        self._process: Process | None = None

    @abstractmethod
    def argv(self) -> Sequence[str | Path]:
        """How it is started."""

    def env(self) -> Mapping[str, str] | None:
        """Its whole environment; None: ours."""
        return None

    def ready(self) -> Ready:
        return listens(self.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, or start it again: that on the same port."""
        for tries_left in reversed(range(1 if self._process else _TRIES)):
            try:
                self._process = await asyncio.to_thread(self._launch)
            except ProcessFailed:
                if not tries_left:
                    raise
                self.port = free_port()
            else:
                return

    def _launch(self) -> Process:
        argv = [sys.executable, "-m", "benchmarks.pinned", str(CORE), *self.argv()]
        log = self.folder / f"{self.name}.log"
        return Process(argv, log=log, ready=self._is_up, env=self.env(), timeout=_START_SECONDS)

    def _is_up(self, process: Process) -> bool:
        """Ready, and it is our process that listens there: another run on this machine may have taken the port.

        After a restart it is ours, and with thousands of connections that look would take seconds.
        """
        return (self._process is not None or self._listens(process)) and self.ready()(process)

    def _listens(self, process: Process) -> bool:
        try:
            sockets = psutil.Process(process.pid).net_connections("tcp4")
        except psutil.NoSuchProcess:
            return False
        listening = {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
        return self.port in listening

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self._process is not None
        await asyncio.to_thread(self._process.stop, signal_number=signal.SIGTERM, timeout=30)

    async def kill(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.kill)

    def request(self, person: int) -> tuple[bytes, bytes]:
        """The request of a person's stream, cut where `Last-Event-ID` goes in."""
        names = f"{_NAMES}&participantId={participant(person)}&heartbeatSeconds=60"
        return get(f"/api/v1/admin/tenants/{TENANT}/messaging/listen?{names}", self.port)


def get(path: str, port: int, *headers: str) -> tuple[bytes, bytes]:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Accept: text/event-stream", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode(), b"\r\n"
