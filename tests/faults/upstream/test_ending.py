"""How upstream's stream ends, stops or lags, and what comes back (reliability.md F15-F19, F31-F33, F44, F45)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.upstream.desk import Desk, eventually, failures, memory, metric, page_stream, told
from tests.faults.upstream.hostile import Exchange, Then, frame
from tests.messaging.people import Person

POSITION_CHECK = 75.0
MIB = 1 << 20
ENDLESS = 64  # MiB


async def stay(exchange: Exchange) -> None:
    await exchange.live()
    await exchange.stay()


async def test_silence_is_noticed_after_two_and_a_half_heartbeats(site: Desk, alice: Person) -> None:
    """F15: a socket that stays open and says nothing is an outage, and is closed on our side."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def silent(exchange: Exchange) -> None:
        if exchange.number > 1:
            await stay(exchange)
        await exchange.live()
        try:
            await exchange.hang()
        finally:
            loop.call_soon_threadsafe(ended.set)

    before = failures(site.app)
    desk = site.another(silent)
    async with page_stream(desk.of(alice), site.app) as stream:
        started = time.monotonic()
        await stream.until(lambda me: told(me, "status")[-1:] and told(me, "status")[-1]["state"] == "reconnecting")
        assert time.monotonic() - started > 2 * 2.5 - 1.5
        await asyncio.wait_for(ended.wait(), 10)
        await stream.until(lambda me: told(me, "status")[-1]["state"] == "live")
    assert failures(site.app)["up_silent"] - before.get("up_silent", 0) == 1


async def test_what_the_stream_never_brought_is_found_by_the_position_check(site: Desk, alice: Person) -> None:
    """F16: heartbeats go on, messages don't (U3, U5): shown, counted and in the metrics within one check."""
    async with site.of(alice).listening() as stream, page_stream(site.of(alice), site.app) as page:
        site.settle()
        looks = site.hostile.count(call="topics", activation=site.activation)
        await eventually(lambda: site.hostile.count(call="topics", activation=site.activation) >= looks + 2)
        found = metric(site.app, 'portal_messages_received_total{source="history"}')
        for number in range(3):
            site.stored(f"withheld {number}", topic="t")
        await stream.next("Chat", 3, within=POSITION_CHECK)
        assert stream.texts() == ["withheld 0", "withheld 1", "withheld 2"]
        await stream.until(lambda me: {"topic": "t", "unreadCount": 3, "total": 3} in me.told("unread"))
        assert not page.named("status")
        assert metric(site.app, 'portal_messages_received_total{source="history"}') == found + 3


async def clean(exchange: Exchange) -> None:
    await exchange.finish()


async def cut(exchange: Exchange) -> None:
    await exchange.raw(b"400\r\nevent: Chat\ndata: {")


async def reset(exchange: Exchange) -> None:
    await cut(exchange)
    await asyncio.sleep(0.1)
    exchange.reset()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param(clean, "up_eof", id="F17"),
        pytest.param(reset, "up_truncated", id="F18"),
        pytest.param(cut, "up_truncated", id="F19"),
    ],
)
async def test_an_end_is_one_failure_and_a_second_later_all_is_well(
    site: Desk, alice: Person, end: Callable[[Exchange], Awaitable[None]], reason: str
) -> None:
    """F17, F18, F19: one attempt, the first wait; what fell into the gap comes from history, once."""

    async def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            await stay(exchange)
        await exchange.live()
        await exchange.until(go)
        await asyncio.to_thread(desk.stored, "in the gap")
        await end(exchange)

    go = threading.Event()
    before = failures(site.app)
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as page, desk.of(alice).listening() as stream:
        go.set()
        await stream.next("Chat")
        await page.until(lambda me: [each["state"] for each in told(me, "status")][-2:] == ["reconnecting", "live"])
        lost = [status for status in told(page, "status") if status["state"] == "reconnecting"]
        assert [status["attempt"] for status in lost] == [1]
        assert 1 <= lost[0]["retryInSeconds"] <= 1.2
        assert stream.texts() == ["in the gap"]
    assert failures(site.app)[reason] - before.get(reason, 0) == 1
    assert f"lost (try 1, next in 1.{str(lost[0]['retryInSeconds'])[2:3]}" in site.app.log_text()


async def test_a_message_that_was_cut_anywhere_is_shown_whole_and_once(site: Desk, alice: Person) -> None:
    """F18: reset after every so many bytes of a frame: its part is forgotten, history brings it whole."""

    async def at(part: float) -> None:
        async def script(exchange: Exchange) -> None:
            if exchange.number > 1:
                await stay(exchange)
            await exchange.live()
            await exchange.until(go)
            message = frame("Chat", await asyncio.to_thread(desk.stored, "whole — ganz"))
            await exchange.chunk(message[: round(part * len(message))])
            await asyncio.sleep(0.05)
            exchange.reset()

        go = threading.Event()
        desk = site.another(script)
        person = desk.of(alice)
        async with person.listening() as stream:
            go.set()
            await stream.next("Chat", within=30)
            await eventually(lambda: desk.connects == 2)
            assert stream.texts() == ["whole — ganz"], part
        await eventually_unread(person, {None: 1})

    cuts = 12
    await asyncio.gather(*(at(number / cuts) for number in range(cuts + 1)))


async def eventually_unread(person: Person, counts: dict[str | None, int]) -> None:
    async with asyncio.timeout(20):
        while await person.unread() != counts:
            await asyncio.sleep(0.1)


ENDLESS_EVENTS: dict[str, tuple[bytes, bytes]] = {
    "F31 one event of 64 MiB in many lines": (b"event: Chat\n", b"data: " + b"x" * 1017 + b"\n"),
    "F31 endlessly many empty data lines": (b"event: Chat\n", b"data:\n"),
    "F32 one line without an end": (b"event: Chat\ndata: ", b"x" * 1024),
}


@pytest.mark.parametrize("name", list(ENDLESS_EVENTS))
async def test_an_event_over_the_limit_is_not_buffered_and_comes_from_history(
    site: Desk, alice: Person, name: str
) -> None:
    """F31, F32: the reader stops, reconnects and compares; API clients get the message whole, the page a part of it."""
    start, piece = ENDLESS_EVENTS[name]
    text = "x" * (MIB + 1000)
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        if exchange.number > 1:
            await stay(exchange)
        await exchange.live()
        await exchange.until(go)
        await asyncio.to_thread(desk.stored, text)
        await exchange.chunk(start)
        block = piece * (65536 // len(piece))
        while sent < ENDLESS * MIB:
            await exchange.chunk(block)
            sent += len(block)

    go = threading.Event()
    before = failures(site.app)
    desk = site.another(script)
    held = memory(site.app)
    async with page_stream(desk.of(alice), site.app) as page, desk.of(alice).listening() as stream:
        go.set()
        await stream.next("Chat", within=30)
        assert stream.texts() == [text]
        await page.next("message", within=30)
        assert "characters are left out" in page.named("message")[0].data
        assert len(page.named("message")[0].data) < len(text) / 2
        await eventually(lambda: desk.connects == 2)
    assert sent < 16 * MIB, "it was read on and on"
    assert memory(site.app) - held < 100 * MIB
    assert failures(site.app)["up_event_too_big"] - before.get("up_event_too_big", 0) == 1
    await eventually_unread(desk.of(alice), {None: 1})


@pytest.mark.parametrize("start", [b": ", b"unknown: "])
async def test_a_line_that_nobody_needs_may_be_endless(site: Desk, alice: Person, start: bytes) -> None:
    """F33: a comment or an unknown field of 64 MiB is skipped without being kept, on the same connection."""

    async def script(exchange: Exchange) -> None:
        await exchange.live()
        await exchange.chunk(start)
        for _ in range(ENDLESS):
            await exchange.chunk(b"x" * MIB)
        await exchange.chunk(b"\n\n")
        await exchange.event("Chat", await asyncio.to_thread(desk.stored, "after it"))
        await exchange.stay()

    desk = site.another(script)
    held = memory(site.app)
    async with desk.of(alice).listening() as stream:
        await stream.next("Chat", within=30)
        assert stream.texts() == ["after it"]
        assert desk.connects == 1
    assert memory(site.app) - held < 30 * MIB


async def test_a_slow_upstream_is_alive_as_long_as_bytes_come(site: Desk, alice: Person) -> None:
    """F44: a message that takes longer than 2.5 heartbeats to arrive ends nothing."""

    async def script(exchange: Exchange) -> None:
        await exchange.live()
        await exchange.until(go)
        message = frame("Chat", await asyncio.to_thread(desk.stored, "slow"))
        started = time.monotonic()
        for number, byte in enumerate(message):
            await exchange.chunk(bytes([byte]))
            await asyncio.sleep(max(0.0, started + 7 * number / len(message) - time.monotonic()))
        await exchange.stay()

    go = threading.Event()
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as page, desk.of(alice).listening() as stream:
        go.set()
        await stream.next("Chat", within=30)
        assert stream.texts() == ["slow"]
        assert not [status for status in told(page, "status") if status["state"] == "reconnecting"]
        assert desk.connects == 1


async def test_a_replica_that_is_behind_takes_nothing_away(site: Desk, alice: Person) -> None:
    """F45: topics and history that lack what was shown and counted: it stays, and isn't new when they have it."""
    person = site.of(alice)

    async def compared() -> None:
        looks = site.hostile.count(call="topics", activation=site.activation)
        site.xians.control("emit", raw="event: Chat\ndata: {\n\n", thread=site.thread)  # anything unreadable
        await eventually(lambda: site.hostile.count(call="topics", activation=site.activation) > looks)

    async with person.listening() as stream:
        site.answer("shown", topic="young")
        await stream.next("Chat")
        await compared()
        site.xians.control("behave", lag_seconds=600)
        for _ in range(2):
            await compared()
            assert await person.unread() == {"young": 1}
        site.xians.control("behave", lag_seconds=0)
        await compared()
        site.answer("later", topic="young")
        await stream.next("Chat", 2)
        assert stream.texts() == ["shown", "later"]
        await eventually_unread(person, {"young": 2})


async def test_a_stream_that_lived_starts_over_at_the_first_wait(site: Desk, alice: Person) -> None:
    """F13, F17: a heartbeat since `connected` sets the count back; opening alone does not (test_connecting.py)."""

    async def mortal(exchange: Exchange) -> None:
        await exchange.live()
        await exchange.finish()

    script = Then(mortal)
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as page:
        script.begin()
        await page.until(
            lambda me: len([s for s in told(me, "status") if s["state"] == "reconnecting"]) >= 4, within=20
        )
        lost = [status for status in told(page, "status") if status["state"] == "reconnecting"]
        assert {status["attempt"] for status in lost} == {1}
        assert not page.is_over
