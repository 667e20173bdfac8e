"""Reading the stand-in's streams off a socket, so that every byte is seen."""

import asyncio
import json
from typing import Any, Self
from urllib.parse import quote, urlencode

from demo.world import API_KEY

DESK = {"tenant": "acme", "agent": "Helper", "activation": "Desk", "participant": "ada@acme.example"}
SECONDS = 5.0


class Wire:
    """One HTTP/1.1 request on a connection of its own, and what comes back, undecoded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    @classmethod
    async def get(cls, port: int, target: str) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: xians\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode())
        return cls(reader, writer)

    @classmethod
    async def listen(cls, port: int, *, heartbeat: int = 60, participant: str = "Ada@Acme.Example") -> Self:
        names = {"agentName": "Helper", "activationName": "Desk", "participantId": participant}
        query = urlencode({**names, "heartbeatSeconds": heartbeat}, quote_via=quote)
        wire = await cls.get(port, f"/api/v1/admin/tenants/acme/messaging/listen?{query}")
        await wire.read_head()
        return wire

    async def read_head(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        return self.head

    async def chunk(self) -> bytes:
        """The next chunk's data; empty for the last one."""
        async with asyncio.timeout(SECONDS):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def event(self) -> tuple[str, Any]:
        """The next chunk as one event; asserts the framing on the way."""
        data = await self.chunk()
        assert data.isascii()
        name, value, *rest = data.decode().split("\n")
        assert rest == ["", ""]
        assert name.startswith("event: ")
        assert value.startswith("data: ")
        return name[7:], json.loads(value[6:])

    async def rest(self) -> bytes:
        """Everything until the end; raises `ConnectionResetError` if there was a reset."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
