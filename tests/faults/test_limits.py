"""The process runs into its limits: threads, file descriptors, memory (F79-F81)."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

import psutil
import pytest

from tests.faults.rig import (  # noqa: F401 - fixtures
    PATIENCE,
    Rig,
    alice_at_both,
    counts,
    eventually,
    shared_parts,
    whole_rig,
)
from tests.messaging.people import Person
from tests.services.app import AppServers
from tests.services.raw import RawClient

STREAMS = 150
STALLED = 40
DESCRIPTORS = 128
MIB = 1 << 20


async def test_streams_come_and_go_and_leave_nothing_behind(rig: Rig, alice: Person, app_server: AppServers) -> None:
    """F79, I5: threads, descriptors and database connections before, during and after many streams."""
    app = app_server(env=rig.one.env)
    process = psutil.Process(app.pid)
    async with AsyncExitStack() as streams:  # whatever is made once is made now
        for _ in range(8):
            await streams.enter_async_context(alice.listening(base_url=app.url))
        assert (await alice.client.get(app.url + "/dashboard/")).status_code == 200
    await until(lambda: open_streams(rig) == 0)
    threads, descriptors = process.num_threads(), process.num_fds()
    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(alice.listening(base_url=app.url)) for _ in range(STREAMS)]
        rig.answer("to all", topic="t")
        for stream in opened:
            await stream.next("Chat", within=PATIENCE)
        assert process.num_threads() <= threads + 8, "a few for the database, and none for a stream"
        assert process.num_fds() <= descriptors + STREAMS + 16
    await until(lambda: open_streams(rig) == 0)
    await until(lambda: process.num_fds() <= descriptors + 8)
    assert process.num_threads() <= threads + 8


def open_streams(rig: Rig) -> int:
    """How many streams upstream has open for this test's activation."""
    mine = [thread["count"] for thread in rig.xians.streams()["threads"] if thread["activation"] == rig.activation]
    return sum(mine)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_it_survives_running_out_of_file_descriptors(rig: Rig, alice: Person, app_server: AppServers) -> None:
    """F80: newcomers are refused or wait, who is there is served on, and when they leave all is as before.

    /metrics has both numbers, so that operators hear of it at 80 %.
    """
    app = app_server(env=rig.one.env)
    async with alice.listening(base_url=app.url) as stream:
        rig.answer("before", topic="t")
        await stream.next("Chat", within=PATIENCE)
        assert (await alice.client.get(app.url + "/dashboard/")).status_code == 200
        resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        told = (await alice.client.get(app.url + "/metrics")).text
        assert re.search(rf"^process_max_fds {DESCRIPTORS}.0$", told, re.MULTILINE)
        assert re.search(r"^process_open_fds \d", told, re.MULTILINE)
        with ExitStack() as crowd:
            for _ in range(400):
                newcomer = crowd.enter_context(socket.socket())
                newcomer.setblocking(False)  # noqa: FBT003 - the standard library's
                newcomer.connect_ex(("127.0.0.1", app.port))
            await until(lambda: psutil.Process(app.pid).num_fds() >= DESCRIPTORS - 4)
            rig.answer("in the crowd", topic="t")
            await stream.next("Chat", 2, within=PATIENCE)
            assert app.exit_code is None
        await until(lambda: psutil.Process(app.pid).num_fds() < DESCRIPTORS // 2)
        assert (await alice.client.get(app.url + "/dashboard/")).status_code == 200
        rig.answer("afterwards", topic="t")
        await stream.next("Chat", 3, within=PATIENCE)
        async with alice.listening(base_url=app.url) as another:
            rig.answer("to both", topic="t")
            await another.next("Chat", within=PATIENCE)
        await eventually(lambda: counts(alice, at=app), {"t": 4})
        assert stream.texts() == ["before", "in the crowd", "afterwards", "to both"]


@pytest.mark.timeout(240)
async def test_readers_who_take_nothing_cost_no_more_than_their_bound(
    rig: Rig, alice: Person, app_server: AppServers
) -> None:
    """F81, I6: a queue holds at most 256 events and a MiB, whoever is behind is sent away; a good reader has it all.

    There is no limit of memory to run into: what a person may open is bounded (STREAM_MAX_PER_PARTICIPANT), what is
    open is bounded, and so is the process.
    """
    app = app_server(env=rig.one.env)
    process = psutil.Process(app.pid)
    size, count = 20_000, 400
    async with AsyncExitStack() as streams:
        good = await streams.enter_async_context(alice.listening(base_url=app.url))
        for _ in range(STALLED):
            streams.enter_context(RawClient(app.port)).ask(alice, app.url + alice.path("listen"), alice.names)
        rig.answer("warm", topic="t")
        await good.next("Chat", within=PATIENCE)
        before = process.memory_info().rss
        highest = before
        for turn in range(count // 20):
            rig.burst(20, ["t"], text="x" * size)
            await good.next("Chat", 1 + 20 * (turn + 1), within=PATIENCE)
            highest = max(highest, process.memory_info().rss)
        grown = (highest - before) / MIB
        assert grown < STALLED * 1 + 64, f"{STALLED} readers that take nothing cost {grown:.0f} MiB"
        started = time.monotonic()
        await until(lambda: metric(app.url, "portal_streams_open") == 1)
        assert time.monotonic() - started < PATIENCE
        rig.answer("the good one is still there", topic="t")
        await good.next("Chat", count + 2, within=PATIENCE)
        assert not good.named("goodbye")
    await eventually(lambda: counts(alice, at=app), {"t": count + 2})


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        told = response.read().decode()
    found = re.search(rf"^{name} (\S+)$", told, re.MULTILINE)
    assert found is not None, f"no {name}"
    return float(found[1])
