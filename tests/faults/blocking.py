"""The application with an address that holds the event loop up, as nothing in it may."""

from __future__ import annotations

import time
from typing import Any

from config.asgi import application as real


def hold_up(seconds: float) -> None:
    time.sleep(seconds)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/hold-up":
        hold_up(1.0)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await real(scope, receive, send)
