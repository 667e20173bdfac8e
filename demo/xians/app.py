"""The ASGI application: requests in, through log, power switch and faults, to the handlers.

Plain ASGI rather than a framework: what is imitated here is the behaviour of another web server, down to
empty 404s, chunked JSON without a length and connections that are reset, and a framework would only be
in the way of each of those.
"""

import asyncio
from collections.abc import Awaitable, Callable

from demo.xians import auth, faults, routes
from demo.xians.call import AsgiMessage, Call, Receive, Scope, Send, read_body
from demo.xians.control import Control
from demo.xians.control_surface import ControlSurface
from demo.xians.errors import Refusal, empty
from demo.xians.faults import Cut, Fault
from demo.xians.reply import Reply
from demo.xians.routes import Route
from demo.xians.site import Record, Site
from demo.xians.stream import listen
from demo.xians.switchboard import Behaviour
from demo.xians.world import World

type Lifecycle = Callable[[], Awaitable[None]]

REQUEST_LINE_LIMIT = 8_192
HEADER_LIMIT = 32_768


class XiansApp:
    """One stand-in server as an ASGI application. `control` drives it from the same process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.control = Control(site)
        self._surface = ControlSurface(self.control)
        self.on_startup: list[Lifecycle] = []
        self.on_shutdown: list[Lifecycle] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            if scope["path"].startswith("/_control/"):
                await self._surface(scope, receive, send)
            elif not self.site.behaviour.is_up:
                faults.abort(scope)
            else:
                await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        for start in self.on_startup:
            await start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for stop in self.on_shutdown:
            await stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call.of(scope)
        record = self.site.log.open(call)

        async def recording(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                self.site.log.answered(record, message["status"])
            await send(message)

        try:
            await self._faulty(call, record, scope, receive, recording)
        except Refusal as refusal:
            await _write(refusal.reply, recording)
        except Cut:
            return

    async def _faulty(self, call: Call, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        route = _route_or_refusal(call)
        record.route = name = route.name if isinstance(route, Route) else None
        if call.method in ("POST", "PUT", "PATCH"):
            call.body = await read_body(receive)
            record.body = call.body.decode("utf-8", "replace")
        fault = self.site.faults.take(name, call)
        if fault is None:
            await self._handle(route, call, scope, receive, send)
            return
        self.site.bell.ring()
        await asyncio.sleep(fault.delay_seconds)
        if fault.runs_handler_first:
            await self._handle(route, call, scope, receive, _discard)
        if fault.answers:
            await faults.answer(fault, scope, send, lambda: asyncio.ensure_future(_until_gone(receive)))
        else:
            await self._cut(fault, route, call, scope, receive, send)

    async def _cut(
        self, fault: Fault, route: Route | Refusal, call: Call, scope: Scope, receive: Receive, send: Send
    ) -> None:
        wrapped = faults.wrap(fault, scope, send)
        try:
            await self._handle(route, call, scope, receive, wrapped)
        except Refusal as refusal:
            await _write(refusal.reply, wrapped)

    async def _handle(self, route: Route | Refusal, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(route, Refusal):
            raise route
        _check_sizes(call)
        if not route.is_open:
            auth.authenticate(self.site.world, call)
            auth.check_scope(call)
        if route.handler is None:
            await listen(self.site, call, scope, receive, send)
        else:
            await _write(await route.handler(self.site, call), send)


def create_app(world: World, *, behaviour: Behaviour | None = None) -> XiansApp:
    """A stand-in server around a world, with the real server's behaviour unless told otherwise."""
    return XiansApp(Site(world, behaviour=behaviour))


def _route_or_refusal(call: Call) -> Route | Refusal:
    try:
        return routes.find(call)
    except Refusal as refusal:
        return refusal


def _check_sizes(call: Call) -> None:
    if len(call.path) + len(call.query_string) + len(call.method) + 11 > REQUEST_LINE_LIMIT:
        raise empty(414)
    if len(call.headers) > 100 or sum(len(name) + len(value) + 4 for name, value in call.headers) > HEADER_LIMIT:
        raise empty(431)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _discard(message: AsgiMessage) -> None:
    """The answer of a handler that ran although its answer is replaced."""


async def _write(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.head()})
    await send({"type": "http.response.body", "body": reply.body})
