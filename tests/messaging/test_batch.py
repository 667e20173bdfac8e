"""Many questions as one (messaging/batch.py): each is answered by a round that began after it was asked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from typing import Any

from messaging.batch import Batch
from messaging.errors import LedgerUnavailable

PATIENCE = 10.0


class Store:
    """Answers when it is told to, with the number of the round."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.is_busy = False
        self.may_answer = asyncio.Semaphore(0)
        self.problem: Exception | None = None

    async def ask(self, keys: list[str]) -> Mapping[str, int]:
        assert not self.is_busy
        self.is_busy = True
        self.rounds.append(keys)
        number = len(self.rounds)
        await self.may_answer.acquire()
        self.is_busy = False
        if self.problem is not None:
            raise self.problem
        return {key: number for key in keys if key != "unknown"}

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.rounds) < times:
                await asyncio.sleep(0)


async def test_what_is_asked_during_a_round_is_answered_by_the_next_one() -> None:
    store = Store()
    batch = Batch(store.ask)
    first = asyncio.create_task(batch.get("a"))
    await store.until_asked(1)
    later = [asyncio.create_task(batch.get(key)) for key in ("a", "b", "b", "unknown")]
    await asyncio.sleep(0)
    batch.ask(["c", "a"])
    store.may_answer.release()
    assert await first == 1
    await store.until_asked(2)
    store.may_answer.release()
    assert await asyncio.gather(*later) == [2, 2, 2, None]
    assert store.rounds == [["a"], ["a", "b", "unknown", "c"]]


async def test_a_failed_round_is_told_to_those_who_asked_and_the_next_one_is_made() -> None:
    store = Store()
    batch = Batch(store.ask)
    store.problem = LedgerUnavailable("away")
    asked = [asyncio.create_task(batch.get(key)) for key in "ab"]
    batch.ask(["c"])
    store.may_answer.release()
    assert [type(problem) for problem in await asyncio.gather(*asked, return_exceptions=True)] == [
        LedgerUnavailable
    ] * 2
    store.problem = None
    store.may_answer.release()
    assert await batch.get("a") == 2


async def test_nobody_need_wait_for_the_answer() -> None:
    """A reader goes while the database is asked, and the database fails: that is no error of ours."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    store = Store()
    batch = Batch(store.ask)
    store.problem = LedgerUnavailable("away")
    asked = asyncio.create_task(batch.get("a"))
    await store.until_asked(1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    other = asyncio.create_task(batch.get("b"))
    for _ in range(2):
        store.may_answer.release()
    assert isinstance((await asyncio.gather(other, return_exceptions=True))[0], LedgerUnavailable)
    del asked, other
    gc.collect()
    assert complaints == []
