"""Streams and the process they live in: what they cost, how they end, who else is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psutil
import pytest
from psycopg import connect

from tests.messaging.conftest import SignIn, Site
from tests.messaging.people import PATIENCE, Person
from tests.services.app import AppServers, Server
from tests.services.redis import Redis

MANY = 300


async def test_300_streams_cost_few_threads_and_connections(own_site: Site, alice: Person) -> None:
    """F67, F79"""
    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(alice.listening()) for _ in range(MANY)]
        own_site.answer("to all of them")
        for stream in opened:
            await stream.next("Chat")
        assert psutil.Process(own_site.app.pid).num_threads() <= 20
        with connect(own_site.app.database_url) as probe:
            (count,) = probe.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone() or (0,)
        assert count <= 10
        assert (await alice.client.get("/dashboard/")).status_code == 200
        assert own_site.xians.streams()["open"] == 1
    await asyncio.to_thread(own_site.xians.wait_streams, count=0, exactly=True)


async def test_it_refuses_more_streams_than_a_participant_may_have(site: Site, signed_in: SignIn) -> None:
    """F130"""
    small = site.another_process(STREAM_MAX_PER_PARTICIPANT="2")
    alice = await signed_in("alice@acme.example", app=small)
    async with alice.listening(), alice.listening():
        answer = await alice.get("listen")
        assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_STREAMS")
        assert answer.headers["retry-after"]


async def test_a_full_process_asks_to_come_back_in_a_moment(site: Site, signed_in: SignIn) -> None:
    small = site.another_process(STREAM_MAX_PER_PROCESS="2")
    alice = await signed_in("alice@acme.example", app=small)
    async with alice.listening():
        async with alice.listening():
            answer = await alice.get("listen")
            assert (answer.status_code, answer.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
            assert answer.json()["details"]["throttled"] is True
            assert 2 <= int(answer.headers["retry-after"]) <= 8
        async with asyncio.timeout(PATIENCE):
            while "portal_streams_open 1.0" not in (await alice.client.get("/metrics")).text:
                await asyncio.sleep(0.05)
        async with alice.listening():
            pass


@pytest.mark.parametrize("server", ["uvicorn", "daphne", "granian"])
async def test_every_server_serves_it_and_says_goodbye(
    server: Server, app_server: AppServers, site: Site, signed_in: SignIn
) -> None:
    """F77"""
    app = app_server(server, env=site.app.env)
    alice = await signed_in("alice@acme.example", app=app)
    async with alice.listening() as stream:
        site.answer("hello")
        await stream.next("Chat")
        stopping = asyncio.create_task(asyncio.to_thread(app.stop))
        await stream.until(lambda me: me.is_over, within=PATIENCE)
        assert [told["reason"] for told in stream.told("goodbye")] == ["shutdown"]
        await stopping


async def test_signing_out_ends_the_streams_of_that_session_only(site: Site, alice: Person, signed_in: SignIn) -> None:
    """F86"""
    phone = await signed_in("alice@acme.example")
    async with alice.listening() as here, phone.listening() as there:
        answer = await alice.client.post("/oidc/logout/", headers=alice.csrf())
        assert answer.status_code == 302
        assert (await here.next("goodbye")).data
        assert here.told("goodbye")[0]["reason"] == "signed-out"
        await here.until(lambda me: me.is_over)
        site.answer("for the phone")
        await there.next("Chat")
        assert not there.named("goodbye")
        assert not here.named("Chat")
    assert (await alice.get("unread")).status_code == 401


async def test_an_expired_session_ends_its_stream(own_site: Site, alice: Person) -> None:
    """F85"""
    async with alice.listening() as stream:
        with connect(own_site.app.database_url) as database:
            database.execute("UPDATE django_session SET expire_date = now() - interval '1 minute'")
        await stream.next("goodbye", within=10)
        assert stream.told("goodbye")[0]["reason"] == "signed-out"
        await stream.until(lambda me: me.is_over)


async def test_a_deactivated_account_loses_its_stream(own_site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        with connect(own_site.app.database_url) as database:
            database.execute("UPDATE auth_user SET is_active = false")
        await stream.next("goodbye", within=10)
    assert (await alice.get("unread")).status_code == 401


async def test_two_processes_agree(redis: Redis, own_site: Site, signed_in: SignIn) -> None:
    """F86, F99, F101: each has its own upstream stream, the database is one, Redis says "look again"."""
    one = own_site.another_process(REDIS_URL=redis.url)
    two = own_site.another_process(REDIS_URL=redis.url)
    alice = await signed_in("alice@acme.example", app=one)
    async with alice.listening() as here, alice.listening(base_url=two.url) as there:
        for number in range(5):
            own_site.answer(f"n{number}", topic="t")
        for stream in (here, there):
            await stream.next("Chat", 5)
            await stream.until(lambda me: {"topic": "t", "unreadCount": 5, "total": 5} in me.told("unread"))
        await alice.post("read", topic="t")
        for stream in (here, there):
            await stream.until(
                lambda me: me.told("unread")[-1] == {"topic": "t", "unreadCount": 0, "total": 0}, within=1
            )
        await alice.client.post("/oidc/logout/", headers=alice.csrf())
        await there.next("goodbye", within=2)
