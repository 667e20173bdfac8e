"""Many questions to the store as one: what is asked while it is answering waits for the next round."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice

from messaging.errors import LedgerUnavailable

log = logging.getLogger(__name__)

_MOST = 500
_LONGEST_PAUSE = 0.03


class Batch[K, V]:
    """Answers for single keys from a function that answers for many.

    A lone question goes out at once; under load each round takes all that gathered during the one before and for as
    long again, so that the number of queries doesn't grow with the number of askers. One round is over before the next
    begins: no answer is older than one that was given before it.
    """

    def __init__(self, ask: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._ask = ask
        self._waiting: dict[K, asyncio.Future[V | None] | None] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The answer for a key, read after this call; None where there is none. Raises what the function raises."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            self._begin()
        return await asyncio.shield(future)

    def ask(self, keys: Iterable[K]) -> None:
        """Ask about keys for what the function itself does with the answers; nobody is told whether it raised."""
        for key in keys:
            self._waiting.setdefault(key)
        self._begin()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="batch")

    async def _answer(self) -> None:
        took = 0.0
        while self._waiting:
            await asyncio.sleep(min(took, _LONGEST_PAUSE))
            started = time.monotonic()
            keys = list(islice(self._waiting, _MOST))
            asked = {key: self._waiting.pop(key) for key in keys}
            problem = LedgerUnavailable("the store failed")
            found: Mapping[K, V] | None = None
            try:
                found = await self._ask(keys)
            except LedgerUnavailable as known_problem:
                problem = known_problem
            except Exception:
                log.exception("an error of ours")
            finally:  # nobody waits for ever
                for key, future in asked.items():
                    if future is not None:
                        _settle(future, found, key, problem)
            took = time.monotonic() - started if len(keys) > 1 else 0.0


def _settle[K, V](
    future: asyncio.Future[V | None], found: Mapping[K, V] | None, key: K, problem: LedgerUnavailable
) -> None:
    if future.cancelled():
        return
    if found is None:
        future.set_exception(problem)
        future.exception()  # whoever asked may have gone
    else:
        future.set_result(found.get(key))
