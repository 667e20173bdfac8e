"""Serving the stand-in over real sockets, with the connection within reach so that it can be reset."""

import asyncio
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from demo.xians.app import XiansApp
from demo.xians.faults import TRANSPORT


class ReachableProtocol(HttpToolsProtocol):
    """Puts the transport into each request's scope."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {TRANSPORT: self.transport}
        self.scope["extensions"] = extensions


class Server(uvicorn.Server):
    """Announces its start, and cuts every stream when told to stop, as a killed server does."""

    def __init__(self, app: XiansApp, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ReachableProtocol,
                lifespan="on",
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=130,
                timeout_graceful_shutdown=1,
                backlog=4096,
            )
        )
        self._app = app
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for listener in self._app.site.switchboard.listeners():
            listener.finish("reset")


def serve(app: XiansApp, *, host: str, port: int, announce: Callable[[int], None]) -> None:
    """Serve until a signal; `announce` gets the port once connections are accepted."""
    allow_many_connections()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    bound: int = listening.getsockname()[1]
    Server(app, lambda: announce(bound)).run(sockets=[listening])


def allow_many_connections() -> None:
    """Raise the limit of open files as far as this user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop_when_orphaned() -> None:
    """End this process when whoever holds the other end of its standard input goes away."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()
