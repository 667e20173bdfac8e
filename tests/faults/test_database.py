"""The database stalls, dies, fills up, changes under us: messages go on, counts are right afterwards (F64-F71)."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from tests.faults.rig import (  # noqa: F401 - fixtures
    ALICE,
    PATIENCE,
    Rig,
    alice_at_both,
    both_say,
    counts,
    eventually,
    logged,
    shared_parts,
    shows_total,
    site_settings,
    whole_rig,
)
from tests.messaging import test_unread
from tests.messaging.conftest import Site
from tests.messaging.people import Person, sign_in
from tests.services.app import AppServer, AppServers, environment, manage
from tests.services.ports import free_port
from tests.services.process import ROOT, Process, prints
from tests.services.standins import Oidc, Xians

PAGES = ("/dashboard/", "/conversations/")
WRITTEN = ("messaging_receipt", "messaging_topic", "messaging_inbox", "messaging_dispatch", "django_session")
WRITERS, WRITES = 6, 150


# -- away, or stuck -------------------------------------------------------------------------------------------


async def test_streams_stay_and_show_while_the_database_is_down(rig: Rig, alice: Person) -> None:
    """F65: pages are 503 with a way back, messages come, nothing is missing or counted twice afterwards."""
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        with rig.postgres.down(crash=True):
            for number in range(20):
                rig.answer(f"blind {number}", topic=f"t{number % 2}")
            for stream in (here, there):
                await stream.next("Chat", 20, within=PATIENCE)
            await page_is_unavailable(alice, rig.one)
            await logged(rig.one, "the database can't be used")
            ready = await alice.client.get(rig.one.url + "/readyz")
            assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "unavailable")
            assert (await alice.client.get(rig.one.url + "/healthz")).status_code == 200
        await both_say(rig, alice, {"t0": 10, "t1": 10})
        for stream in (here, there):
            await stream.until(lambda me: shows_total(me, 20), within=PATIENCE)
            assert sorted(stream.texts()) == sorted(f"blind {number}" for number in range(20))
            assert not stream.is_over
            assert not stream.named("goodbye")
        assert len(rig.receipts()) == 20
    assert (await alice.client.get(rig.one.url + "/dashboard/")).status_code == 200
    assert rig.one.log_text().count("the database can't be used") <= 10, "once in ten seconds is enough"
    assert "Traceback" not in rig.one.log_text()


async def page_is_unavailable(person: Person, app: AppServer) -> None:
    """Every kind of request is told to come back, in its own language, and not by an error page."""
    for path in PAGES:
        answer = await person.client.get(app.url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8"), answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert f'data-return-url="{path}"' in answer.text
        assert "database" in answer.text
    answer = await person.client.get(app.url + person.path("unread"), params=person.names)
    assert (answer.status_code, answer.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0


async def test_the_whole_database_server_stands_still(rig: Rig, alice: Person) -> None:
    """F66: its processes are stopped, so no time-out of its own helps; requests end, the loop goes on."""
    async with alice.listening() as stream:
        with standing_still(rig):
            rig.answer("told nevertheless", topic="t")
            await stream.next("Chat", within=PATIENCE)
            await page_is_unavailable(alice, rig.one)
        await both_say(rig, alice, {"t": 1})
        await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)


@contextmanager
def standing_still(rig: Rig) -> Iterator[None]:
    """Every connection's server process is stopped, and whoever connects anew finds a line that carries nothing."""
    stopped = rig.postgres.backends(rig.database)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    rig.to_postgres.stall()
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        rig.to_postgres.clear()


async def test_tables_are_locked_by_somebody_else(rig: Rig, alice: Person) -> None:
    """F66: a query of any length gives up after the limit, its server process, too; the event loop never waits."""
    async with alice.listening() as stream:
        with rig.locked("messaging_receipt", "messaging_topic"):
            rig.answer("told nevertheless", topic="t")
            await stream.next("Chat", within=PATIENCE)
            started = time.monotonic()
            asking = asyncio.create_task(counts(alice, at=rig.one))
            while not asking.done():
                assert (await alice.client.get(rig.one.url + "/healthz")).status_code == 200
            assert await asking == 503
            assert time.monotonic() - started < 30
            async with asyncio.timeout(PATIENCE):
                while await asyncio.to_thread(waiting_backends, rig) > 2 * 8:
                    await asyncio.sleep(0.1)
        await both_say(rig, alice, {"t": 1})
        await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)


def waiting_backends(rig: Rig) -> int:
    """How many server processes wait for a lock: what we give up is cancelled there, too."""
    ((count,),) = rig.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return int(count)


# -- connections ----------------------------------------------------------------------------------------------


async def test_streams_leave_the_pool_to_the_pages(rig: Rig, alice: Person) -> None:
    """F67: many streams are open, the pool is as large as ever, and pages work."""
    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(alice.listening()) for _ in range(60)]
        rig.answer("to all", topic="t")
        for stream in opened:
            await stream.next("Chat", within=PATIENCE)
        assert len(await asyncio.to_thread(rig.postgres.backends, rig.database)) <= 2 * 8
        for path in PAGES:
            assert (await alice.client.get(rig.one.url + path)).status_code == 200


def test_one_place_alone_makes_streaming_responses() -> None:
    """F67: a stream that somebody builds elsewhere would hold a connection and a thread for as long as it lasts."""
    makers = set()
    for folder in ("config", "conversations", "messaging"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text())))
            used = {node.func for node in nodes if isinstance(node, ast.Call)}
            used |= {base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases}
            names = {node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in used}
            if names & {"StreamingHttpResponse", "FileResponse", "StreamResponse"}:
                makers.add(str(path.relative_to(ROOT)))
    assert makers == {"messaging/streams.py"}


async def test_connections_die_all_the_time(rig: Rig, alice: Person) -> None:
    """F68: a failover, or an administrator: a request may be told to come back, and a repeat of it works."""
    statuses: list[int] = []
    async with alice.listening() as stream:
        for number in range(12):
            rig.answer(f"m{number}", topic="t")
            await asyncio.to_thread(rig.postgres.terminate, rig.database)
            for path in PAGES:
                statuses.append((await alice.client.get(rig.one.url + path)).status_code)
                if statuses[-1] == 503:
                    statuses.append((await alice.client.get(rig.one.url + path)).status_code)
                assert statuses[-1] == 200, statuses
        await stream.next("Chat", 12, within=PATIENCE)
        await both_say(rig, alice, {"t": 12})
        await stream.until(lambda me: shows_total(me, 12), within=PATIENCE)
    assert set(statuses) <= {200, 503}


async def test_a_failover_lands_on_a_server_that_takes_no_writes_yet(rig: Rig, alice: Person) -> None:
    """F68, F70: read-only for a while; nothing is left out of the line, and the feed lives on."""
    async with alice.listening() as stream:
        rig.sql(f"ALTER DATABASE {rig.database} SET default_transaction_read_only = on")
        try:
            rig.postgres.terminate(rig.database)
            for number in range(3):
                rig.answer(f"m{number}", topic="t")
            await stream.next("Chat", 3, within=PATIENCE)
            await logged(rig.one, "receipts could not be written")
        finally:
            with rig.postgres.connect("postgres") as connection:
                connection.execute(f"ALTER DATABASE {rig.database} RESET default_transaction_read_only".encode())
            rig.postgres.terminate(rig.database)
        await both_say(rig, alice, {"t": 3})
        await stream.until(lambda me: shows_total(me, 3), within=PATIENCE)
        assert not stream.is_over


@pytest.mark.parametrize("sqlstate", ["40P01", "40001"])
async def test_deadlocks_and_serialization_failures_are_tried_again(rig: Rig, alice: Person, sqlstate: str) -> None:
    """F69: the person sees nothing of it."""
    async with alice.listening() as stream:
        with rig.failing(sqlstate, "messaging_receipt", times=2):
            rig.answer("m", topic="t")
            await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
        with rig.failing(sqlstate, "messaging_receipt", times=2):
            answer = await alice.post("read", topic="t")
            assert (answer.status_code, answer.json()["total"]) == (200, 0)
    assert rig.receipts() != []


async def test_two_processes_write_and_read_crosswise_without_a_deadlock(rig: Rig, alice: Person) -> None:
    """F69: both record the same answers of several topics while both read them, in opposite orders."""
    topics = [f"t{number}" for number in range(6)]
    before = deadlocks(rig)
    async with alice.listening() as here, alice.listening(base_url=rig.two.url) as there:
        rig.settle()
        rig.burst(240, list(topics))
        reads = [
            alice.client.post(app.url + alice.path("read"), json={**alice.names, "topic": topic}, headers=alice.csrf())
            for pair in zip(topics, reversed(topics), strict=True)
            for app, topic in zip((rig.one, rig.two), pair, strict=True)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*reads)} == {200}
        for stream in (here, there):
            await stream.next("Chat", 240, within=PATIENCE)
        for topic in topics:
            assert (await alice.post("read", topic=topic)).status_code == 200
        await both_say(rig, alice, {})
    assert len(rig.receipts()) == 240
    assert deadlocks(rig) == before


def deadlocks(rig: Rig) -> int:
    ((count,),) = rig.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


# -- full, or changing ----------------------------------------------------------------------------------------


async def test_the_disk_is_full(rig: Rig, alice: Person) -> None:
    """F70: messages are shown, changes are refused with 503, nothing is half written, and later all is counted.

    A trigger that raises PostgreSQL's own error stands in for the disk.
    """
    async with alice.listening() as stream:
        rig.answer("before", topic="t")
        await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
        with rig.failing("53100", *WRITTEN):
            rig.answer("while it is full", topic="t")
            await stream.next("Chat", 2, within=PATIENCE)
            assert (await alice.post("read", topic="t")).status_code == 503
            sent = await alice.post("send", text="not now", topic="t", requestId="full")
            assert sent.status_code == 503
            assert not rig.xians.requests(route="send")
            assert len(rig.receipts()) == 1
            await logged(rig.one, "receipts could not be written")
        await stream.until(lambda me: shows_total(me, 2), within=PATIENCE)
        assert (await alice.post("read", topic="t")).status_code == 200
        await both_say(rig, alice, {})
        again = await alice.post("send", text="now", topic="t", requestId="full")
        assert again.status_code == 200
    assert len(rig.receipts()) == 2


async def test_columns_are_added_while_it_runs(rig: Rig, alice: Person) -> None:
    """F71: the next version's migration has run, and the old processes still serve."""
    async with alice.listening() as stream:
        rig.answer("before", topic="t")
        await stream.until(lambda me: shows_total(me, 1), within=PATIENCE)
        for table in WRITTEN[:-1]:
            rig.sql(f"ALTER TABLE {table} ADD COLUMN of_later text, ADD COLUMN kind text NOT NULL DEFAULT 'plain'")
        try:
            rig.answer("after", topic="u")
            await stream.until(lambda me: shows_total(me, 2), within=PATIENCE)
            assert (await alice.post("send", text="hello", topic="t")).status_code == 200
            assert (await alice.post("read", topic="t")).json()["total"] == 1
            newcomer = await sign_in(rig.two.url, "bob@acme.example", rig.names)
            assert await newcomer.unread() == {}
            await newcomer.client.aclose()
            await both_say(rig, alice, {"u": 1})
            assert (await alice.client.get(rig.one.url + "/dashboard/")).status_code == 200
        finally:
            for table in WRITTEN[:-1]:
                rig.sql(f"ALTER TABLE {table} DROP COLUMN of_later, DROP COLUMN kind")


def test_migrations_only_add(db: None) -> None:
    """F71: what the processes of the version before still read must not go, change its type, or start to be required.

    A column that Django fills itself has no default in the database (it is dropped at once): old code can't insert.
    """
    breaking = re.compile(r"DROP (TABLE|COLUMN|DEFAULT)|RENAME|SET NOT NULL|ALTER COLUMN \S+ TYPE", re.IGNORECASE)
    loader = MigrationLoader(connection, replace_migrations=False)
    ours = sorted(name for app, name in loader.disk_migrations if app == "messaging")
    assert ours[0] == "0001_inboxes"
    for name in ours[1:]:
        statements = loader.collect_sql([(loader.get_migration("messaging", name), False)])
        assert not [line for line in statements if breaking.search(line) and not line.startswith("--")], name


# -- the line of receipts -------------------------------------------------------------------------------------


async def test_what_the_line_could_not_hold_is_found_again(rig: Rig, alice: Person, app_server: AppServers) -> None:
    """F65: more answers than the line takes while the database is away; the comparison afterwards counts them."""
    small = app_server(env=rig.one.env, application="tests.faults.small_line:application")
    async with alice.listening(base_url=small.url) as stream:
        rig.settle()
        rig.to_postgres.down()
        ids = rig.burst(300, ["t"])
        await stream.next("Chat", 300, within=PATIENCE)
        rig.to_postgres.up()
        await eventually(lambda: counts(alice, at=small), {"t": 300}, within=2 * PATIENCE)
    assert sorted(rig.receipts()) == sorted(ids)


# -- SQLite ---------------------------------------------------------------------------------------------------


def test_sqlite_takes_many_writers(tmp_path: Path) -> None:
    """F64: six processes write as we do, a seventh holds the lock for a while; none is told that it is locked."""
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    manage("migrate", "--verbosity", "0", env={"DATABASE_URL": url})
    command = [sys.executable, "-m", "tests.faults.writer"]
    writers = [
        Process(
            [*command, str(number), str(WRITES)],
            log=tmp_path / f"writer-{number}.log",
            ready=prints("^ready"),
            env=environment({"DATABASE_URL": url}),
            timeout=60,
        )
        for number in range(WRITERS)
    ]
    holder = Process(
        [*command, "hold", "3"],
        log=tmp_path / "holder.log",
        ready=prints("^holding"),
        env=environment({"DATABASE_URL": url}),
        timeout=60,
    )
    (tmp_path / "go").touch()
    for process in writers:
        process.wait_until(prints("^done"), timeout=100)
        process.stop()
        assert "locked" not in process.log_text()
    assert "released" in holder.log_text(), "they all waited for it"
    holder.stop()
    told = manage("unread", "--json", env={"DATABASE_URL": url})
    assert f'"unreadCount": {WRITERS * WRITES + WRITES}' in told


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory, oidc: Oidc) -> Iterator[tuple[AppServer, Xians]]:
    """The application's default database, no Redis, one process."""
    folder = tmp_path_factory.mktemp("sqlite")
    upstream = Xians(world="demo", log=folder / "xians.log", state=None, options=("--no-agents",))
    env = {
        **site_settings(oidc),
        "XIANS_SERVER_URL": upstream.url,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
    }
    manage("migrate", "--verbosity", "0", env=env)
    app = AppServer(
        "uvicorn",
        application="config.asgi:application",
        port=free_port(),
        env=env,
        log=folder / "app.log",
        ready_path="/healthz",
    )
    yield app, upstream
    app.kill()
    upstream.kill()


ESSENTIAL: list[Callable[[Site, Person], Awaitable[None]]] = [
    test_unread.test_it_starts_at_zero_whatever_upstream_holds_already,
    test_unread.test_it_counts_each_answer_once_and_remembers_over_a_restart,
    test_unread.test_it_counts_what_came_while_nobody_was_connected,
    test_unread.test_it_counts_only_chat_from_the_agent,
    test_unread.test_it_reads_a_topic_that_a_listener_shows,
    test_unread.test_it_tells_every_tab_of_a_read_within_a_second,
    test_unread.test_it_reads_up_to_a_message,
    test_unread.test_it_forgets_a_deleted_topic,
    test_unread.test_opening_a_topic_reads_what_came_while_nobody_listened,
]


@pytest.mark.parametrize("essential", ESSENTIAL, ids=lambda case: case.__name__.removeprefix("test_"))
async def test_one_process_without_redis_works_fully_on_sqlite(
    essential: Callable[[Site, Person], Awaitable[None]],
    on_sqlite: tuple[AppServer, Xians],
    app_server: AppServers,
) -> None:
    """F64: the application's default database keeps the promises D1-D7, too."""
    app, upstream = on_sqlite
    site = Site(app, upstream, app_server)
    person = await sign_in(app.url, ALICE, site.names)
    await essential(site, person)
    await person.client.aclose()
    assert "locked" not in app.log_text()
