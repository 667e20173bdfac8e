"""Processes are killed, stopped, restarted, held up, set to another hour: nothing is lost or doubled (F75-F83)."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import os
import random
import re
import signal
import time
from contextlib import AsyncExitStack
from functools import partial

import httpx
import pytest

from messaging.loopwatch import LoopWatch
from messaging.sse import Event
from tests.faults.rig import (  # noqa: F401 - fixtures
    PATIENCE,
    Rig,
    alice_at_both,
    both_say,
    counts,
    eventually,
    logged,
    shared_parts,
    shows_total,
    whole_rig,
)
from tests.messaging.people import Listener, Person, sign_in
from tests.services.app import AppServer, AppServers
from tests.services.process import ROOT
from tests.services.raw import RawClient

BOB = "bob@acme.example"
KILLS = 5
STREAMS = 200
AWAY = (httpx.HTTPError, httpx.StreamError)


# -- killed ---------------------------------------------------------------------------------------------------


async def test_a_kill_at_any_moment_of_writing_loses_and_doubles_nothing(rig: Rig, alice: Person) -> None:
    """F75: receipts are there or not; the next process counts what is missing once; a confirmed read stays read."""
    dice = random.Random(75)
    confirmed: set[str] = set()
    for turn in range(KILLS):
        async with alice.listening() as stream:
            rig.settle()
            rig.burst(90, ["a", "b", "c"], text=f"turn {turn}")
            await stream.next("Chat", dice.randrange(1, 90), within=PATIENCE)
            if turn % 2:
                assert (await alice.post("read", topic="c")).status_code == 200
                confirmed = await asyncio.to_thread(read_ids, rig)
            rig.one.kill()
        await asyncio.to_thread(rig.one.start)
        assert await asyncio.to_thread(read_ids, rig) == confirmed
        expected = rig.stored()
        expected["c"] -= len(confirmed)
        await eventually(partial(counts, alice, at=rig.one), dict(+expected))
    ids = [message["id"] for message in rig.xians.truth(**rig.thread)]
    assert sorted(rig.receipts()) == sorted(ids)


def read_ids(rig: Rig) -> set[str]:
    """What the database says was read."""
    rows = rig.sql(
        "SELECT message_id FROM messaging_receipt r JOIN messaging_inbox i ON r.inbox_id = i.id"
        " WHERE i.activation_name = %s AND read_at IS NOT NULL",
        rig.activation,
    )
    return {message_id for (message_id,) in rows}


async def test_the_other_process_goes_on_when_one_dies(rig: Rig, alice: Person) -> None:
    """F76: there is no lease to wait for: each process reads upstream for its own readers, and the rows are sets."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.answer("one", topic="t")
        for stream in (here, there):
            await stream.next("Chat", within=PATIENCE)
        last = here.named("Chat")[-1].id
        rig.one.kill()
        rig.answer("two", topic="t")
        await there.next("Chat", 2, within=PATIENCE)
        async with alice.listening(base_url=rig.two.url, last_event_id=last) as moved:
            await moved.next("Chat", within=PATIENCE)
            rig.answer("three", topic="t")
            await moved.next("Chat", 2, within=PATIENCE)
            assert moved.texts() == ["two", "three"]
        await eventually(partial(counts, alice, at=rig.two), {"t": 3})


async def test_a_process_that_was_stopped_wakes_up_late_and_does_no_harm(rig: Rig, alice: Person) -> None:
    """F76: SIGSTOP while the other works; on SIGCONT its late writes are repeats of what is known, and read."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.settle()
        os.kill(rig.one.pid, signal.SIGSTOP)
        try:
            for number in range(5):
                rig.answer(f"m{number}", topic="t", at_once=True)
            await there.next("Chat", 5, within=PATIENCE)
            answer = await alice.client.post(
                rig.two.url + alice.path("read"), json={**alice.names, "topic": "t"}, headers=alice.csrf()
            )
            assert answer.json() == {"topic": "t", "unreadCount": 0, "total": 0}
        finally:
            os.kill(rig.one.pid, signal.SIGCONT)
        await here.next("Chat", 5, within=PATIENCE)
        await both_say(rig, alice, {})
        await here.until(lambda me: not me.named("unread") or shows_total(me, 0), within=PATIENCE)
        rig.answer("later", topic="t")
        for stream in (here, there):
            await stream.next("Chat", 6, within=PATIENCE)
            assert stream.texts() == [*(f"m{number}" for number in range(5)), "later"]
        await both_say(rig, alice, {"t": 1})
    assert len(rig.receipts()) == 6


async def test_both_processes_read_the_same_thread(rig: Rig, alice: Person) -> None:
    """F83: that is our design: two upstream streams, one row for each answer, each shown once in each process."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.settle()
        assert rig.xians.streams()["open"] >= 2
        ids = rig.burst(200, ["t", "u"])
        for stream in (here, there):
            await stream.next("Chat", 200, within=PATIENCE)
            await stream.until(lambda me: shows_total(me, 200), within=PATIENCE)
            assert len(stream.named("Chat")) == 200
        await both_say(rig, alice, {"t": 100, "u": 100})
    assert sorted(rig.receipts()) == sorted(ids)


# -- restarted ------------------------------------------------------------------------------------------------


async def test_a_rolling_restart_loses_and_doubles_nothing(rig: Rig, alice: Person) -> None:
    """F77: whoever is sent away comes back to the other process with the place it had, while answers keep coming."""
    reader = Wanderer(rig, alice)
    reading = asyncio.create_task(reader.read())
    await asyncio.wait_for(reader.is_there.wait(), PATIENCE)
    rig.answer("m000", topic="t0")
    sent = 1
    await reader.has(sent)
    for app in (rig.one, rig.two, rig.one, rig.two):
        stopping = None
        for number in range(8):
            rig.answer(f"m{sent:03d}", topic=f"t{sent % 3}", at_once=True)
            sent += 1
            if number == 3:
                stopping = asyncio.create_task(asyncio.to_thread(app.stop, timeout=60))
        assert stopping is not None
        await stopping
        await asyncio.to_thread(app.start)
    await reader.has(sent)
    reader.is_over = True
    await reading
    assert sorted(reader.texts) == [f"m{number:03d}" for number in range(sent)]
    assert reader.resyncs == 0, "a place of ours is always honoured"
    await both_say(rig, alice, dict(rig.stored()))
    assert len(rig.receipts()) == sent


class Wanderer:
    """A reader behind a balancer: a stream from whichever process there is, from where the last one ended."""

    def __init__(self, rig: Rig, person: Person) -> None:
        self._apps = itertools.cycle((rig.one, rig.two))
        self._person = person
        self._place: str | None = None
        self.texts: list[str] = []
        self.resyncs = 0
        self.is_there = asyncio.Event()
        self.is_over = False

    async def has(self, count: int) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while len(self.texts) < count:
            assert time.monotonic() < deadline, self.texts
            await asyncio.sleep(0.1)

    async def read(self) -> None:
        while not self.is_over:
            try:
                url = next(self._apps).url
                async with self._person.listening(base_url=url, last_event_id=self._place) as stream:
                    taken = 0
                    self.is_there.set()
                    while self._wants_more(stream) or len(stream.events) > taken:
                        taken = self._take(stream.events, taken)
                        await asyncio.sleep(0.02)
            except (AssertionError, *AWAY):  # not there, or not ready: the other one, then
                await asyncio.sleep(0.2)

    def _wants_more(self, stream: Listener) -> bool:
        return not (self.is_over or stream.is_over)

    def _take(self, events: list[Event], taken: int) -> int:
        for event in events[taken:]:
            self.resyncs += event.event == "resync"
            if event.event == "Chat":
                self.texts.append(json.loads(event.data)["text"])
                self._place = event.id
        return len(events)


async def test_a_draining_process_is_not_ready_and_ends_in_time(
    rig: Rig, alice: Person, app_server: AppServers
) -> None:
    """F77: all streams hear goodbye at once, readiness is red, and one reader who takes nothing holds up nobody."""
    app = app_server(env=rig.one.env)
    bob = await sign_in(app.url, BOB, rig.names)
    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(alice.listening(base_url=app.url)) for _ in range(STREAMS)]
        stalled = streams.enter_context(RawClient(app.port))
        stalled.ask(bob, app.url + bob.path("listen"), bob.names)
        for _ in range(40):  # more than its connection's buffers hold
            rig.answer("x" * 200_000, participant=BOB)
        started = time.monotonic()
        os.kill(app.pid, signal.SIGTERM)
        is_red = asyncio.create_task(turns_red(app, alice))
        for stream in opened:
            await stream.until(lambda me: me.is_over, within=PATIENCE)
            assert [told["reason"] for told in stream.told("goodbye")] == ["shutdown"]
        assert time.monotonic() - started < 10
        await is_red
    await bob.client.aclose()
    await asyncio.to_thread(app.stop, timeout=60)
    assert app.exit_code is not None


async def turns_red(app: AppServer, person: Person) -> None:
    """Wait until a balancer that asks would send nobody here any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await person.client.get(app.url + "/readyz")
            if (answer.status_code, answer.json()["checks"].get("process")) == (503, "draining"):
                return


# -- held up --------------------------------------------------------------------------------------------------


async def test_a_held_up_event_loop_is_noticed_with_its_stack(rig: Rig, alice: Person, app_server: AppServers) -> None:
    """F78: the log names the culprit, once in ten seconds; the metrics count every time."""
    app = app_server(env=rig.one.env, application="tests.faults.blocking:application")
    for _ in range(3):
        assert (await alice.client.get(app.url + "/hold-up")).status_code == 204
    await logged(app, "the event loop has been held up")
    said = [line for line in app.log_text().splitlines() if "held up for" in line]
    assert len(said) == 1
    assert "hold_up (" in said[0]
    assert "blocking.py" in said[0]
    told = (await alice.client.get(app.url + "/metrics")).text
    assert metric(told, "portal_event_loop_blocked_total") >= 1
    assert metric(told, "portal_event_loop_lag_seconds_count") > 0
    assert metric(told, "portal_event_loop_lag_seconds_sum") >= 0.7


def metric(told: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", told, re.MULTILINE)
    assert found is not None, f"no {name}"
    return float(found[1])


async def test_a_loop_that_runs_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """F78: many small steps are no blockade."""
    LoopWatch()
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        await asyncio.sleep(0)
    assert "held up" not in caplog.text


# -- the clock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [("SIGUSR1", "SIGUSR2"), ("SIGUSR2", "SIGUSR1")], ids=["forward", "back"])
async def test_the_clock_of_one_process_jumps_by_an_hour_and_back(
    rig: Rig, alice: Person, app_server: AppServers, signals: tuple[str, str]
) -> None:
    """F82: streams stay open and live; nothing is shown or counted twice, or not at all."""
    jumping = app_server(env=rig.one.env, application="tests.faults.shifted:application")
    async with (
        alice.listening(base_url=jumping.url, heartbeatSeconds=1) as here,
        alice.listening(base_url=rig.two.url) as there,
    ):
        sent = 0
        for name in ("", *signals):
            if name:
                os.kill(jumping.pid, getattr(signal, name))
                await logged(jumping, "the clock is 0 s off" if name == signals[1] else "3600 s off")
            for _ in range(3):
                rig.answer(f"m{sent}", topic="t", withhold=sent % 3 == 2, at_once=True)
                sent += 1
            rig.xians.control("emit", raw="event: Chat\ndata: {\n\n")  # so that what was withheld is looked for
            for stream in (here, there):
                await stream.next("Chat", sent, within=PATIENCE)
            beats = len(here.named("heartbeat"))
            await here.next("heartbeat", beats + 2, within=PATIENCE)
            for app in (jumping, rig.two):
                await eventually(partial(counts, alice, at=app), {"t": sent})
        for stream in (here, there):
            assert sorted(stream.texts()) == sorted(f"m{number}" for number in range(sent))
            assert not stream.is_over
        place = here.named("Chat")[-1].id
    rig.answer("afterwards", topic="t")
    async with alice.listening(base_url=rig.two.url, last_event_id=place) as back:
        await back.next("Chat", within=PATIENCE)
        assert back.texts() == ["afterwards"]


ROOMS = ("config", "conversations", "messaging")
_WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "timezone.now", "datetime.today"}
_WAITS = {"sleep", "timeout", "timeout_at", "wait", "wait_for", "call_later", "call_at", "join"}


def test_waits_are_measured_on_the_monotonic_clock() -> None:
    """F82: nothing that waits, times out or watches looks at the wall clock.

    It is for what other processes read: when a token expires (`config.tokens`), when something was sent or read.
    """
    waits = 0
    for path in [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]:
        where = str(path.relative_to(ROOT))
        for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
            name = ast.unparse(call.func)
            assert name != "time.time" or where == "config/tokens.py", f"{where}:{call.lineno}"
            if name.rpartition(".")[2] in _WAITS:
                waits += 1
                inside = {ast.unparse(part.func) for part in ast.walk(call) if isinstance(part, ast.Call)}
                assert not inside & _WALL, f"{where}:{call.lineno}"
    assert waits > 20
