"""A client that asks for something over a plain socket and then reads as little as it likes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

from tests.messaging.people import Person


class RawClient:
    """One connection to 127.0.0.1, with the smallest receive buffer that the system gives."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))

    def ask(self, person: Person, url: str, query: Mapping[str, str]) -> None:
        """GET this with the person's cookies; returns when the status line says 200."""
        parts = urlsplit(url)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in person.client.cookies.jar)
        lines = [f"GET {parts.path}?{urlencode(query)} HTTP/1.1", f"Host: {parts.netloc}", f"Cookie: {cookies}", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        status = self.socket.recv(12)
        assert status == b"HTTP/1.1 200", status

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
