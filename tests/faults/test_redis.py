"""Redis is a hint and never the truth: without it, and late, and full, everything works; then all agree (F72-F74)."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.rig import (  # noqa: F401 - fixtures
    PATIENCE,
    Rig,
    alice_at_both,
    both_say,
    shared_parts,
    shows_total,
    whole_rig,
)
from tests.messaging.people import Listener, Person
from tests.services.app import AppServers

AGREED_SECONDS = 5.0
"""How soon after Redis' return every open tab shows what the database says."""


async def test_everything_works_while_redis_is_down(rig: Rig, alice: Person) -> None:
    """F72: streams stay, messages come, sending and reading are never refused; readiness says what is away."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        with rig.redis.down(crash=True):
            for number in range(6):
                rig.answer(f"m{number}", topic="t")
            for stream in (here, there):
                await stream.next("Chat", 6, within=PATIENCE)
                await stream.until(lambda me: shows_total(me, 6), within=PATIENCE)
            assert (await alice.post("send", text="hello", topic="t")).status_code == 200
            answer = await alice.post("read", topic="t")
            assert (answer.status_code, answer.json()["total"]) == (200, 0)
            await here.until(lambda me: shows_total(me, 0), within=PATIENCE)
            ready = await alice.client.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["channelLayer"]) == (503, "unavailable")
            assert ready.json()["checks"]["database"] == "ok"
            assert (await alice.client.get("/dashboard/")).status_code == 200
        assert not here.is_over
        assert not there.is_over


async def test_a_read_reaches_the_other_process_without_redis(rig: Rig, alice: Person, app_server: AppServers) -> None:
    """F72: within a minute, in which every process looks at the database anyway; in this one, within a second."""
    hasty = app_server(env=rig.one.env, application="tests.faults.hasty:application")
    with rig.redis.down(crash=True):
        async with alice.listening() as here, alice.listening(base_url=hasty.url) as there:
            rig.answer("m", topic="t")
            for stream in (here, there):
                await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
            assert (await alice.post("read", topic="t")).json()["total"] == 0
            await there.until(lambda me: shows_total(me, 0), within=PATIENCE)


@pytest.mark.parametrize("how", ["stopped", "cut", "blackhole"])
async def test_what_was_lost_meanwhile_is_made_good_as_soon_as_redis_is_back(rig: Rig, alice: Person, how: str) -> None:
    """F72, F73: a notice that went nowhere; within five seconds of Redis' return both processes agree."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        for number in range(3):
            rig.answer(f"m{number}", topic=f"t{number}")
        for stream in (here, there):
            await stream.until(lambda me: shows_total(me, 3), within=PATIENCE)
        await at_rest(rig, here, there)
        break_redis(rig, how)
        for number in range(3):
            assert (await alice.post("read", topic=f"t{number}")).status_code == 200
        await here.until(lambda me: shows_total(me, 0), within=PATIENCE)
        mend_redis(rig, how)
        await until_told(there, 0)


def break_redis(rig: Rig, how: str) -> None:
    if how == "stopped":
        rig.redis.stop(crash=True)
    elif how == "cut":
        rig.to_redis.down()
    else:
        rig.to_redis.blackhole()


def mend_redis(rig: Rig, how: str) -> None:
    if how == "stopped":
        rig.redis.start()
    else:
        rig.to_redis.clear()


async def at_rest(rig: Rig, *streams: Listener) -> None:
    """Wait until no process will compare by itself in the next seconds: it would hide a notice that was lost."""
    seen = -1
    while seen != (seen := len(rig.xians.requests(route="topics"))):
        await asyncio.sleep(4.5)  # as long as feeds look again after `connected`
    assert not any(stream.is_over for stream in streams)


async def until_told(stream: Listener, total: int) -> None:
    """Within the time that is promised; a machine that is busy with other things gets a little more."""
    started = time.monotonic()
    await stream.until(lambda me: shows_total(me, total), within=AGREED_SECONDS * 2)
    assert time.monotonic() - started < AGREED_SECONDS * 2


async def test_redis_restarts_in_the_middle_of_a_burst(rig: Rig, alice: Person) -> None:
    """F73: whichever notices were lost, both processes show and count every answer once."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.settle()
        rig.burst(150, ["t", "u"])
        rig.redis.stop(crash=True)
        rig.redis.start()
        rig.burst(150, ["t", "u"], text="after")
        for stream in (here, there):
            await stream.next("Chat", 300, within=PATIENCE)
        assert (await alice.post("read", topic="u")).json() == {"topic": "u", "unreadCount": 0, "total": 150}
        await both_say(rig, alice, {"t": 150})
        for stream in (here, there):
            await stream.until(lambda me: shows_total(me, 150), within=PATIENCE)
            assert len({event.id for event in stream.named("Chat")}) == len(stream.named("Chat")) == 300
    assert len(rig.receipts()) == 300


async def test_redis_answers_late(rig: Rig, alice: Person) -> None:
    """F74: nobody waits for it; late notices, in whatever order, say no more than "look", so the newest state wins."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.answer("m", topic="t")
        for stream in (here, there):
            await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
        with rig.redis.client() as client:
            client.execute_command("CLIENT", "PAUSE", 5000, "ALL")
        assert (await alice.post("read", topic="t")).json()["total"] == 0
        assert (await alice.post("send", text="hello", topic="t")).status_code == 200
        rig.answer("n", topic="u")
        for stream in (here, there):
            await stream.next("Chat", 2, within=PATIENCE)
            await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
        await both_say(rig, alice, {"u": 1})
        for stream in (here, there):
            await stream.until(lambda me: me.told("unread")[-1] == {"topic": "u", "unreadCount": 1, "total": 1})


async def test_redis_is_full(rig: Rig, alice: Person) -> None:
    """F74: it takes no more keys; nothing that a person does fails over that."""
    with rig.redis.client() as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        try:
            async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
                rig.answer("m", topic="t")
                for stream in (here, there):
                    await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
                assert (await alice.post("send", text="hello", topic="t")).status_code == 200
                assert (await alice.client.get("/dashboard/")).status_code == 200
                assert (await alice.post("read", topic="t")).json()["total"] == 0
                await both_say(rig, alice, {})
        finally:
            client.config_set("maxmemory", "0")
