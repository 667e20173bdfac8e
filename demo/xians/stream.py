"""`GET .../messaging/listen`: one event stream."""

import asyncio

from demo.xians import conversation, faults, reply
from demo.xians.call import Call, Receive, Scope, Send
from demo.xians.site import Site
from demo.xians.switchboard import Listener, frame


async def listen(site: Site, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an endless stream; everything that can be refused is refused before its first byte."""
    seconds = min(max(call.integer("heartbeatSeconds", 60), 1), 300)
    address = conversation.addressed_by_query(call)
    conversation.check_activation(site.world, address)
    listener = Listener(conversation.ensure_thread(site.world, address), seconds)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [*reply.STREAM, *reply.SERVER, *reply.SECURITY],
        }
    )
    watch = asyncio.create_task(_watch(receive, listener), name="watch for disconnect")
    site.switchboard.open(listener)
    try:
        if site.behaviour.sends_connected:
            await send({"type": "http.response.body", "body": _connected(site, listener), "more_body": True})
        if site.behaviour.blind_seconds > 0:
            await asyncio.sleep(site.behaviour.blind_seconds)
        site.switchboard.attach(listener)
        await _write(listener, send)
        if listener.end == "eof":
            await send({"type": "http.response.body", "body": b""})
        elif listener.end == "reset":
            await asyncio.sleep(0.02)
            faults.abort(scope)
    finally:
        watch.cancel()
        site.switchboard.close(listener)


def _connected(site: Site, listener: Listener) -> bytes:
    clock = site.world.clock
    return frame(
        "connected",
        {
            "message": "Connected to thread message stream",
            "threadId": listener.thread.id,
            "tenantId": listener.thread.tenant_id,
            "timestamp": clock.written(clock.precise()),
        },
    )


async def _watch(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.finish("gone")


async def _write(listener: Listener, send: Send) -> None:
    """Write frames, one chunk each, until the stream is to end."""
    while True:
        while listener.queue and listener.end != "gone":
            data = listener.queue.popleft()
            if listener.cut_after is not None:
                part = data[: listener.cut_after]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                return
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if listener.end == "gone" or (listener.end is not None and listener.cut_after is None):
            return
        await listener.wake.wait()
        listener.wake.clear()
