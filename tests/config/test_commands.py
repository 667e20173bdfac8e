"""`manage.py unread` and `manage.py listen`, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from demo.world import API_KEY, INVOICES
from tests.messaging.conftest import Site
from tests.messaging.people import Person, sign_in
from tests.services.app import AppServers, environment, manage
from tests.services.process import Process, ProcessFailed, prints
from tests.services.redis import Redis

ALICE = "alice@acme.example"


async def run(site: Site, *arguments: str) -> str:
    return await asyncio.to_thread(manage, *arguments, env=site.app.env)


@pytest_asyncio.fixture
async def unread(site: Site, alice: Person, bob: Person) -> AsyncIterator[None]:
    """Alice has two unread answers in a topic, Bob one in General; none are left for the next test."""
    async with alice.listening() as hers, bob.listening() as his:
        for number in range(2):
            site.answer(f"a{number}", topic="Q2 review")
        site.answer("b", participant="bob@acme.example")
        await hers.until(lambda me: any(told["total"] == 2 for told in me.told("unread")))
        await his.until(lambda me: any(told["total"] == 1 for told in me.told("unread")))
    yield
    for person, topic in ((alice, "Q2 review"), (bob, None)):
        await person.post("read", topic=topic)


async def test_unread_is_a_table_or_json(site: Site, unread: None) -> None:
    table = (await run(site, "unread")).splitlines()
    assert table[0].split() == [
        "tenant",
        "participant",
        "agent",
        "activation",
        "topic",
        "unreadCount",
        "oldestUnreadAt",
    ]
    rows = [line for line in table[1:] if site.activation in line]
    assert any(ALICE in row and "Q2 review" in row and "  2  " in row for row in rows)
    assert any("bob@acme.example" in row and "General" in row and "  1  " in row for row in rows)
    told = [row for row in json.loads(await run(site, "unread", "--json")) if row["activation"] == site.activation]
    assert {(row["participant"], row["topic"], row["unreadCount"]) for row in told} == {
        (ALICE, "Q2 review", 2),
        ("bob@acme.example", None, 1),
    }


@pytest.mark.timeout(300)  # several commands, each a process of its own
async def test_unread_filters_and_clears_what_is_filtered(site: Site, alice: Person, bob: Person, unread: None) -> None:
    for nothing in (["--tenant", "globex"], ["--participant", "nobody@x.example"], ["--agent", "Newsroom"]):
        assert json.loads(await run(site, "unread", "--json", *nothing)) == []
        assert (await run(site, "unread", *nothing)).strip() == "Nothing is unread."
    hers = ["--tenant", "acme", "--participant", ALICE.upper(), "--agent", INVOICES]
    assert {row["participant"] for row in json.loads(await run(site, "unread", "--json", *hers))} == {ALICE}
    assert "marked as read." in await run(site, "unread", "clear", *hers)
    assert json.loads(await run(site, "unread", "--json", *hers)) == []
    assert await alice.unread() == {}
    assert await bob.unread() == {None: 1}


async def test_unread_resyncs_from_upstream(site: Site, alice: Person) -> None:
    await alice.unread()
    site.answer("nobody was there", topic="t")
    lines = (await run(site, "unread", "resync", "--participant", ALICE)).splitlines()
    assert f"{ALICE}: 1 unread after comparing with upstream" in lines
    assert any(site.activation in line and " t " in line for line in lines)
    assert await alice.unread() == {"t": 1}
    await alice.post("read", topic="t")


async def test_clearing_reaches_open_pages_of_other_processes(
    own_site: Site, redis: Redis, app_server: AppServers
) -> None:
    """D5: through Redis."""
    app = app_server(env={**own_site.app.env, "REDIS_URL": redis.url})
    person = await sign_in(app.url, ALICE, own_site.names)
    async with person.listening() as stream:
        own_site.answer("x", topic="t")
        await stream.until(lambda me: any(told["total"] == 1 for told in me.told("unread")))
        said = await asyncio.to_thread(manage, "unread", "clear", env=app.env)
        assert said.strip() == "1 marked as read."
        await stream.until(lambda me: me.told("unread")[-1] == {"topic": "t", "unreadCount": 0, "total": 0})
    await person.client.aclose()


@contextmanager
def listening(site: Site, log: Path, *options: str) -> Iterator[Process]:
    """The command, once it is connected; killed at the end of the block."""
    command = [sys.executable, "manage.py", "listen", "acme", INVOICES, site.activation, ALICE, *options]
    process = Process(command, log=log, ready=prints("connected"), env=environment(site.app.env))
    try:
        yield process
    finally:
        process.kill()


def test_listen_prints_a_json_line_for_every_event(site: Site, tmp_path: Path) -> None:
    with listening(site, tmp_path / "log", "--json", "--seconds", "60") as process:
        stored = site.answer("Hei 👋\nline two", topic="Q2 review")
        process.wait_until(prints('"Chat".*\n'))
        process.wait_until(prints('"unreadCount": 1.*\n'))
    events: list[dict[str, Any]] = [json.loads(line) for line in process.log_text().splitlines()]
    assert events[0]["event"] == "connected"
    (chat,) = [event for event in events if event["event"] == "Chat"]
    assert (chat["topic"], chat["text"], chat["id"]) == ("Q2 review", "Hei 👋\nline two", stored["id"])
    counts = [event for event in events if event["event"] == "unread"]
    assert counts[-1] == {"event": "unread", "topic": "Q2 review", "unreadCount": 1, "total": 1}
    assert API_KEY not in process.log_text()


def test_listen_prints_short_lines_for_people(site: Site, tmp_path: Path) -> None:
    with listening(site, tmp_path / "log") as process:
        site.answer("word " * 100 + "\x1b[31m\nsecond line", topic="t")
        process.wait_until(prints("Chat .*word"))
        process.wait_until(prints("unread +t 1 1"))
    lines = process.log_text().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert "second line" not in lines
    assert "\x1b" not in process.log_text()


async def test_listen_stops_by_itself(site: Site) -> None:
    printed = await run(site, "listen", "acme", INVOICES, site.activation, ALICE, "--json", "--seconds", "0.5")
    assert json.loads(printed.splitlines()[0])["event"] == "connected"


async def test_listen_says_in_a_sentence_what_is_wrong(site: Site) -> None:
    with pytest.raises(ProcessFailed) as problem:
        await run(site, "listen", "acme", INVOICES, "nobody", ALICE, "--seconds", "5")
    assert "CommandError" in str(problem.value)
    assert "Traceback" not in str(problem.value)
    assert API_KEY not in str(problem.value)
