"""Promises that only a particular moment can break (interfaces.md, sections 2 and 4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from messaging.cursors import MOST_MARKS
from tests.faults.proxy import FaultProxies, FaultProxy
from tests.messaging.conftest import SignIn, Site
from tests.messaging.people import PATIENCE, Listener, Person
from tests.services.redis import Redis


async def test_what_arrives_while_a_stream_is_being_opened_comes_once(site: Site, alice: Person) -> None:
    """D1: it is in history by then, and in the reader's queue."""
    async with alice.listening() as stream:
        site.answer("before")
        last = (await stream.next("Chat")).id
    await _listened_to(site, by=0)
    site.answer("while nobody listened")
    asked = len(site.xians.requests(route="history"))
    rule = site.xians.refuse(route="history", delay_seconds=1)

    async def answer_meanwhile() -> None:
        async with asyncio.timeout(PATIENCE):
            while len(site.xians.requests(route="history")) == asked:
                await asyncio.sleep(0.02)
        site.answer("while the stream was being opened")
        site.xians.forgive(rule)

    meanwhile = asyncio.create_task(answer_meanwhile())
    async with alice.listening(last_event_id=last) as again:
        await meanwhile
        site.answer("after")
        await again.until(lambda me: "after" in me.texts())
        assert again.texts() == ["while nobody listened", "while the stream was being opened", "after"]


async def test_two_processes_send_a_request_id_once(site: Site, signed_in: SignIn) -> None:
    """Whoever claims the request id first sends; the other says so, and hears the answer when it asks again."""
    here = await signed_in("alice@acme.example")
    there = await signed_in("alice@acme.example", app=site.another_process())
    await there.unread()
    site.xians.refuse(route="send", delay_seconds=2, count=1)
    first = asyncio.create_task(here.post("send", text="once", requestId="r-1"))
    async with asyncio.timeout(PATIENCE):
        while not site.xians.requests(route="send"):
            await asyncio.sleep(0.02)
    second = await there.post("send", text="once", requestId="r-1")
    assert (second.status_code, second.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert second.headers["retry-after"]
    answer = await first
    assert answer.status_code == 200, answer.text
    assert (await there.post("send", text="once", requestId="r-1")).json() == answer.json()
    assert [message["requestId"] for message in site.xians.truth(**site.thread)] == ["r-1"]


@asynccontextmanager
async def one_deaf_process(own_site: Site, alice: Person, link: FaultProxy) -> AsyncIterator[Listener]:
    """Alice's reader at a process whose `link` to upstream was down while an answer came.

    That process can't compare with upstream, so it doesn't know; the site's own process had the answer.
    """
    await alice.unread()
    async with AsyncExitStack() as streams:
        asked = len(own_site.xians.requests(route="topics"))
        other = await streams.enter_async_context(alice.listening(base_url=own_site.app.url))
        async with asyncio.timeout(PATIENCE):  # it compares again only after it has compared
            while len(own_site.xians.requests(route="topics")) < asked + 2:
                await asyncio.sleep(0.05)
        deaf = await streams.enter_async_context(alice.listening())
        own_site.answer("to both")
        await deaf.next("Chat")
        await other.next("Chat")
        own_site.xians.refuse(route="topics", status=500)
        link.down()
        await _listened_to(own_site, by=1)
        own_site.answer("while one is cut off")
        await other.next("Chat", 2)
        link.up()
        await _listened_to(own_site, by=2)
        yield deaf


async def test_what_one_process_never_heard_of_another_replays(
    own_site: Site, signed_in: SignIn, fault_proxy: FaultProxies
) -> None:
    """D1: the newest message that a reader got says nothing of an older one that its process missed."""
    link = fault_proxy(own_site.xians.port)
    alice = await signed_in("alice@acme.example", app=own_site.another_process(XIANS_SERVER_URL=link.url))
    async with one_deaf_process(own_site, alice, link) as deaf:
        own_site.answer("newer")
        last = (await deaf.next("Chat", 2)).id
        assert deaf.texts() == ["to both", "newer"]
        own_site.xians.forgive()
        async with alice.listening(base_url=own_site.app.url, last_event_id=last) as again:
            own_site.answer("newest")
            await again.until(lambda me: "newest" in me.texts())
            assert again.texts() == ["while one is cut off", "newest"]


async def test_a_burst_with_a_hole_in_it_is_not_taken_for_whole(
    own_site: Site, signed_in: SignIn, fault_proxy: FaultProxies
) -> None:
    """D1: as before, with more messages behind the missing one than a cursor can name: then it has to be said."""
    link = fault_proxy(own_site.xians.port)
    alice = await signed_in("alice@acme.example", app=own_site.another_process(XIANS_SERVER_URL=link.url))
    async with one_deaf_process(own_site, alice, link) as deaf:
        own_site.settle()
        thread = {key: value for key, value in own_site.thread.items() if key != "participant"}
        own_site.xians.control("burst", count=2 * MOST_MARKS, participants=[alice.email], **thread)
        last = (await deaf.next("Chat", 1 + 2 * MOST_MARKS)).id
        assert "while one is cut off" not in deaf.texts()
        own_site.xians.forgive()
        async with alice.listening(base_url=own_site.app.url, last_event_id=last) as again:
            assert json.loads((await again.next("resync")).data)["reason"]


async def test_a_tab_of_another_process_that_hears_nothing_itself_is_told(
    redis: Redis, own_site: Site, signed_in: SignIn
) -> None:
    """D5: the other process has no stream of this inbox and writes nothing: it knows by being told, each time."""
    here, there = (own_site.another_process(REDIS_URL=redis.url) for _ in range(2))
    alice = await signed_in("alice@acme.example", app=here)
    overview = alice.client.stream("GET", f"{there.url}/dashboard/stream/", timeout=httpx.Timeout(60))
    async with alice.listening(), overview as response, asyncio.TaskGroup() as tasks:
        dashboard = Listener(response)
        reading = tasks.create_task(dashboard.read())
        await dashboard.next("connected")
        for number in range(1, 4):
            told = len(dashboard.named("unread"))
            own_site.answer(f"answer {number}", topic="t")
            await dashboard.until(lambda me, told=told: len(me.named("unread")) > told, within=3)  # type: ignore[misc]
        reading.cancel()


async def _listened_to(site: Site, *, by: int) -> None:
    """So many processes hold an upstream stream of this activation."""
    async with asyncio.timeout(PATIENCE):
        while sum(t["count"] for t in site.xians.streams()["threads"] if t["activation"] == site.activation) != by:
            await asyncio.sleep(0.05)
