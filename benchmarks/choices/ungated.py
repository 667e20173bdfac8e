"""The application with every stream going Django's whole way, past config/gate.py: what the gate saves."""

from __future__ import annotations

from asgiref.sync import ThreadSensitiveContext

from config.asgi import Portal, Receive, Scope, Send, _bounded, _is_stream
from config.asgi import application as gated
from messaging import streams


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """As `config.asgi.application`, which is asked for everything but streams."""
    if scope["type"] != "http" or not _is_stream(scope["path"]):
        await gated(scope, receive, send)
        return
    await _through_django(gated, scope, receive, send)


async def _through_django(portal: Portal, scope: Scope, receive: Receive, send: Send) -> None:
    mine: list[streams.EventStream] = []
    streams.opened.set(mine)
    try:
        async with ThreadSensitiveContext(executor=next(portal._threads)):
            await portal._django(scope, _bounded(receive), send)  # type: ignore[arg-type]
    finally:
        for stream in mine:
            stream.close()
