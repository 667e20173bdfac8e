"""Streams that write what comes at once (config/gate.py): everything in order, once, however the server takes it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from config import gate
from messaging import runtime
from messaging.hub import Subscriber
from messaging.items import StreamItem
from messaging.resuming import Start
from messaging.streams import EventStream, Wishes

PATIENCE = 10.0


class Client:
    """The server's side of one stream. `waits` says of each send whether it takes a while."""

    def __init__(self, waits: Callable[[], bool]) -> None:
        self.body = b""
        self.sends = 0
        self.news = asyncio.Event()
        self.gone = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._waits = waits
        self._asked = False

    async def receive(self) -> dict[str, object]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request"}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, object]) -> None:
        assert event["type"] == "http.response.body"
        while self._waits() or not self.may_go_on.is_set():
            await asyncio.sleep(0)
        part = event["body"]
        assert isinstance(part, bytes)
        self.body += part
        self.sends += 1
        self.news.set()

    def texts(self) -> list[str]:
        return [line.removeprefix("data: ") for line in self.body.decode().split("\n") if line.startswith("data: m")]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.news.clear()
                await self.news.wait()


def written(item: StreamItem) -> bytes:
    if item.reason == "poison":
        raise LookupError("can't be drawn")
    return f"data: {item.json}\n\n".encode() if item.kind == "message" else b""


class Reading:
    """One reader at one stream."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.subscriber = Subscriber("somebody")
        its = runtime.Runtime()
        self.stream = EventStream(its, self.subscriber, None, Wishes(None, 300, written), Start(), lambda: None, "")
        self.task = asyncio.create_task(gate._deliver(self.stream, client.receive, client.send))

    def put(self, text: str, **more: str) -> None:
        self.subscriber.put(StreamItem("message", json=text, **more))  # type: ignore[arg-type]

    async def go(self) -> None:
        self.client.gone.set()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(12))
async def test_everything_comes_once_and_in_order(seed: int) -> None:
    dice = random.Random(seed)
    slowness = dice.choice([0.0, 0.3, 0.9])
    client = Client(lambda: dice.random() < slowness)
    reading = Reading(client)
    expected = [f"m{number}" for number in range(200)]
    for text in expected:
        reading.put(text)
        for _ in range(dice.choice([0, 0, 1, 3])):
            await asyncio.sleep(0)
    await client.until(lambda: len(client.texts()) >= len(expected))
    assert client.texts() == expected
    await reading.go()


async def test_what_comes_in_one_go_is_written_in_one_go_and_nobody_wakes() -> None:
    client = Client(lambda: False)
    reading = Reading(client)
    await client.until(lambda: b"connected" in client.body)
    await asyncio.sleep(0)
    waiter, sent = reading.subscriber._waiter, client.sends
    for text in ("m1", "m2", "m3"):
        reading.put(text)
    await asyncio.sleep(0)
    assert client.texts() == ["m1", "m2", "m3"]
    assert client.sends == sent + 1
    assert reading.subscriber._waiter is waiter is not None
    assert not waiter.done()
    await reading.go()


async def test_a_reader_that_stands_still_is_lagging_and_holds_up_nobody() -> None:
    client = Client(lambda: False)
    reading = Reading(client)
    await client.until(lambda: b"connected" in client.body)
    client.may_go_on.clear()
    for number in range(1_000):
        reading.put(f"m{number}")
        if number == 0:
            await asyncio.sleep(0)
    assert reading.subscriber.closed_because == "lagging"
    client.may_go_on.set()
    async with asyncio.timeout(PATIENCE):
        await reading.task
    assert client.texts() == ["m0"]
    assert b'"reason": "lagging"' in client.body


async def test_what_cannot_be_written_ends_that_stream_and_not_its_writer() -> None:
    client = Client(lambda: False)
    reading = Reading(client)
    await client.until(lambda: b"connected" in client.body)
    await asyncio.sleep(0)
    reading.put("m1", reason="poison")
    reading.put("m2")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LookupError):
            await reading.task


async def test_a_server_that_fails_ends_that_stream_and_not_its_writer() -> None:
    client = Client(lambda: False)
    reading = Reading(client)
    await client.until(lambda: b"connected" in client.body)
    await asyncio.sleep(0)

    def fail() -> bool:
        raise ConnectionResetError

    client._waits = fail
    reading.put("m1")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionResetError):
            await reading.task
