"""Alarms that are a quarter of a second coarse."""

from __future__ import annotations

import asyncio

from messaging.wheel import Wheel


async def test_alarms_ring_in_their_order_once_and_not_before_their_time() -> None:
    wheel, rung = Wheel(), []
    loop = asyncio.get_running_loop()
    started = loop.time()
    done = asyncio.Event()
    for seconds in (0.6, 0.1, 0.3):
        wheel.after(seconds, lambda seconds=seconds: rung.append((seconds, loop.time() - started)))  # type: ignore[misc]
    wheel.after(0.8, done.set)
    await asyncio.wait_for(done.wait(), 5)
    assert [seconds for seconds, _ in rung] == [0.1, 0.3, 0.6]
    assert all(seconds <= at <= seconds + 1 for seconds, at in rung)


async def test_a_cancelled_alarm_is_silent() -> None:
    wheel, rung = Wheel(), []
    done = asyncio.Event()
    alarm = wheel.after(0.1, lambda: rung.append("cancelled"))
    wheel.after(0.1, lambda: rung.append("rings"))
    wheel.after(0.4, done.set)
    alarm.cancel()
    alarm.cancel()
    await asyncio.wait_for(done.wait(), 5)
    assert rung == ["rings"]


async def test_an_alarm_may_set_the_next() -> None:
    wheel = Wheel()
    rung: list[int] = []
    done = asyncio.Event()

    def again() -> None:
        rung.append(len(rung))
        if len(rung) < 3:
            wheel.after(0, again)
        else:
            done.set()

    wheel.after(0, again)
    await asyncio.wait_for(done.wait(), 5)
    assert rung == [0, 1, 2]
