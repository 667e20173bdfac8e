"""Readers whose network is gone, without a word: the kernel finds out, since nothing ever comes back over a stream."""

import os
import socket
import stat
from contextlib import suppress
from typing import Final

_DESCRIPTORS: Final = "/dev/fd"
_SETTINGS: Final = [
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 20),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 20),  # what macOS calls the same
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 40_000),
]
"""With a heartbeat every 15 s this ends a dead connection within a minute; the system's own limit is a quarter hour."""


def watch_connections() -> None:
    """Let connections end when their other side is silent: those of this process, and those it accepts from now on.

    ASGI hides the server's sockets, so they are found among the process's open files; what a listening socket is told,
    the connections that come in through it inherit.
    """
    for name in os.listdir(_DESCRIPTORS):
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as found:
                    _set(found)


def _set(found: socket.socket) -> None:
    if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        return
    for level, option, value in _SETTINGS:
        if hasattr(socket, option):
            found.setsockopt(level, getattr(socket, option), value)
