"""Answers that are wrong on purpose: refusals, delays, drips, hangs and cuts, for any route."""

import asyncio
import base64
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch

from demo.xians.call import AsgiMessage, Call, Scope, Send

TRANSPORT = "demo.transport"


class Cut(Exception):
    """The response was ended on purpose; nothing more may be written to it."""


@dataclass(slots=True)
class Fault:
    """One rule. The parts apply in this order: delay, hang or abort or drip or answer, then what is cut.

    `route` is a route's name (`listen`, `send`, `topics`, `history`, `delete`, ...), a pattern of the
    path (`/api/*/topics`), or `*`. `count` limits how many requests it meets; `skip` lets some by first.
    """

    route: str = "*"
    method: str | None = None
    contains: str | None = None
    """Only requests whose decoded query string or body has this text."""
    count: int | None = None
    skip: int = 0
    delay_seconds: float = 0.0
    runs_handler_first: bool = False
    """Do the work (store the message), then answer wrongly."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    body_base64: str | None = None
    hang: bool = False
    abort: bool = False
    drip_seconds: float | None = None
    """Write status, headers and body one byte at a time, this far apart."""
    gzip: bool = False
    close_after_sends: int | None = None
    """End the response cleanly after so many body writes: 1 on `listen` is `connected`, then EOF."""
    reset_after_bytes: int | None = None
    met: int = 0

    def fits(self, route: str | None, call: Call) -> bool:
        if self.method is not None and self.method.upper() != call.method:
            return False
        if self.route not in ("*", route) and not fnmatch(call.path, self.route):
            return False
        if self.contains is None:
            return True
        return self.contains in call.query.values() or self.contains.encode() in call.body

    @property
    def answers(self) -> bool:
        return self.hang or self.abort or self.status is not None or self.drip_seconds is not None


class Faults:
    """The rules in force; the first that fits a request takes it."""

    def __init__(self) -> None:
        self.rules: dict[int, Fault] = {}
        self._next = 1

    def add(self, fault: Fault) -> int:
        number = self._next
        self._next += 1
        self.rules[number] = fault
        return number

    def take(self, route: str | None, call: Call) -> Fault | None:
        for number, fault in list(self.rules.items()):
            if not fault.fits(route, call):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.met += 1
            if fault.count is not None and fault.met >= fault.count:
                del self.rules[number]
            return fault
        return None


def transport_of(scope: Scope) -> asyncio.Transport | None:
    """The connection under a request; none in in-process tests. (uvloop's are no `asyncio.Transport`s.)"""
    transport: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    return transport


def abort(scope: Scope) -> None:
    """Reset the connection under a request. Without a transport (in-process tests) it does nothing."""
    transport = transport_of(scope)
    if transport is None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor >= 0:
        with socket.socket(fileno=socket.dup(descriptor)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def answer(fault: Fault, scope: Scope, send: Send, gone: Callable[[], asyncio.Future[None]]) -> None:
    """Give the wrong answer that a rule describes, instead of the right one."""
    if fault.hang:
        await gone()
    elif fault.abort:
        abort(scope)
    elif fault.drip_seconds is not None:
        await _drip(fault, scope)
    else:
        head = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fault.headers.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": head})
        await send({"type": "http.response.body", "body": _body(fault)})


def _body(fault: Fault) -> bytes:
    return base64.b64decode(fault.body_base64) if fault.body_base64 is not None else fault.body.encode()


async def _drip(fault: Fault, scope: Scope) -> None:
    transport = transport_of(scope)
    if transport is None:
        return
    lines = [
        f"HTTP/1.1 {fault.status or 200} Dripping",
        *(f"{k}: {v}" for k, v in fault.headers.items()),
        "",
        "",
    ]
    for byte in "\r\n".join(lines).encode("latin-1") + _body(fault):
        if transport.is_closing():
            return
        transport.write(bytes([byte]))
        await asyncio.sleep(fault.drip_seconds or 0)
    transport.close()


def wrap(fault: Fault, scope: Scope, send: Send) -> Send:
    """A `send` that compresses or cuts what the right answer writes."""
    zipper = zlib.compressobj(wbits=31) if fault.gzip else None
    sends = written = 0

    async def cutting(message: AsgiMessage) -> None:
        nonlocal sends, written
        if message["type"] != "http.response.body":
            if zipper is not None:
                message["headers"] = [*message["headers"], (b"content-encoding", b"gzip")]
            await send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if zipper is not None:
            body = zipper.compress(body) + zipper.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
        if fault.reset_after_bytes is not None and written + len(body) > fault.reset_after_bytes:
            part = body[: fault.reset_after_bytes - written]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.05)
            abort(scope)
            raise Cut
        written += len(body)
        sends += 1
        is_last = fault.close_after_sends is not None and sends >= fault.close_after_sends
        await send({"type": "http.response.body", "body": body, "more_body": more and not is_last})
        if is_last and more:
            raise Cut

    return cutting
