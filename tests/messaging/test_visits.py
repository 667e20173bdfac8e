"""Coming to an inbox: how often upstream is looked at."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from messaging import visits
from messaging.changes import InboxRef
from messaging.sessions import Access
from messaging.wire import ThreadAddress

INBOX = InboxRef(1, ThreadAddress("acme", "a", "b", "alice@acme.example"))
ALICE = Access("alice@acme.example", "Alice", None, "s", 1)


@pytest.fixture
def runtime() -> Any:
    return SimpleNamespace(feeds={}, refreshed={}, refreshing={}, client=SimpleNamespace(bearer=lambda token: ""))


async def test_who_comes_when_a_look_has_just_ended_looks_again(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same turn of the event loop, too, before anybody was told that it has ended."""
    looks: list[asyncio.Task[None]] = []

    async def compare(*_: object) -> None:
        await asyncio.sleep(0)
        if not looks:
            looks.append(asyncio.create_task(visits.refresh(runtime, INBOX, ALICE)))

    monkeypatch.setattr(visits, "compare", compare)
    await visits.refresh(runtime, INBOX, ALICE)
    assert runtime.refreshed.keys() == {INBOX.address}
    first = runtime.refreshed[INBOX.address]
    async with asyncio.timeout(5):
        await looks[0]
    assert runtime.refreshed[INBOX.address] > first
    assert not runtime.refreshing


async def test_a_look_that_is_cancelled_before_it_begins_keeps_nobody_from_looking(
    runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(*_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(visits, "compare", compare)
    asking = asyncio.create_task(visits.refresh(runtime, INBOX, ALICE))
    asyncio.get_running_loop().call_soon(lambda: runtime.refreshing[INBOX.address].cancel())
    with pytest.raises(asyncio.CancelledError):
        await asking
    await visits.refresh(runtime, INBOX, ALICE)
    assert runtime.refreshed
