"""The garbage collector among 3,000 streams' objects: Python's thresholds, and what config/asgi.py does instead.

Each round of each is a process of its own (`python -m benchmarks.choices.collections_choice asgi|python`): the whole
application is imported, then 3,000 feeds with a reader each are made (ours alone, no sockets), then messages come.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from benchmarks.choices.inside import set_up
from benchmarks.choices.table import Table
from benchmarks.threads import ACTIVATION, AGENT, TENANT, Stamps, Thread, participant
from tests.services.process import ROOT

if TYPE_CHECKING:
    from messaging.feeds import Feed
    from messaging.hub import Subscriber

_STREAMS = 3_000
_MESSAGES = 20_000
_ASGI = "freeze and thresholds of config/asgi.py"


def main(rounds: int) -> None:
    table = Table(f"{_STREAMS} streams are made, then {_MESSAGES} messages come", chosen=_ASGI)
    for _ in range(rounds):
        for name, word in ((_ASGI, "asgi"), ("Python's own", "python")):
            command = (sys.executable, "-m", "benchmarks.choices.collections_choice", word)
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
            table.add(name, json.loads(done.stdout.splitlines()[-1]))
    table.show()


# -- in the child -------------------------------------------------------------------------------------------------


class _Pauses:
    """The CPU seconds of every collection, by generation."""

    def __init__(self) -> None:
        self.found: list[tuple[int, float]] = []
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.found.append((told["generation"], time.thread_time() - self._began))


class _Upstream:
    """Lets every feed wait for its greeting."""

    async def listen(self, _address: object, **_how: object) -> None:
        await asyncio.Event().wait()


class _Ledger:
    async def topic_states(self, _inbox: object) -> dict[str, object]:
        """Nothing is known."""
        return {}

    def record(self, *_receipt: object, **_how: object) -> None:
        """Nobody counts here."""


async def _child(*, is_spared: bool) -> None:
    from config import asgi
    from messaging import sse, streams

    if is_spared:
        asgi._keep_pauses_short()
    pauses = _Pauses()
    before = time.process_time()
    readers, waiting = _streams()
    await asyncio.sleep(0)
    made = len(pauses.found)
    threads = [Thread(number, participant(number)) for number in range(_STREAMS)]
    stamps = Stamps()
    for number in range(_MESSAGES):
        feed, subscriber = readers[number % _STREAMS]
        now = time.perf_counter_ns()
        feed._take(sse.Decoder().feed(threads[number % _STREAMS].write(now, stamps.at(now))))
        for item in subscriber.take():
            item.bytes_for(streams.for_api)
    used = time.process_time() - before
    seen = list(pauses.found)
    gc.collect()
    collecting = sum(seconds for _, seconds in seen)
    told = {
        "longest pause, ms": max((seconds for _, seconds in seen), default=0) * 1e3,
        "full collections": sum(generation == 2 for generation, _ in seen),
        "a full one at the end, ms": pauses.found[-1][1] * 1e3,
        "ms in the collector, streams": sum(seconds for _, seconds in seen[:made]) * 1e3,
        "ms in it, messages": sum(seconds for _, seconds in seen[made:]) * 1e3,
        "of all CPU, %": collecting / used * 100,
    }
    assert len(waiting) == _STREAMS  # kept until here, as open streams are
    print(json.dumps(told), flush=True)


def _streams() -> tuple[list[tuple[Feed, Subscriber]], list[asyncio.Task[None]]]:
    from messaging.changes import InboxRef
    from messaging.feeds import Feeds
    from messaging.hub import Subscriber, person_key
    from messaging.outlet import Surroundings
    from messaging.runtime import current
    from messaging.wire import ThreadAddress

    around = Surroundings(
        client=cast(Any, _Upstream()),
        ledger=cast(Any, _Ledger()),
        hub=current().hub,
        wheel=current().wheel,
        secret=b"a secret of 32 bytes, or so it is",
        grace_seconds=0,
        is_crowded=lambda: False,
    )
    feeds = Feeds(around)
    found, waiting = [], []
    for number in range(_STREAMS):
        address = ThreadAddress(TENANT, AGENT, ACTIVATION, participant(number))
        feed = feeds.open(InboxRef(number, address), "sk-Xnai-bench")
        feed.outlet.begin("0" * 17 + "-")
        subscriber = Subscriber(person_key(participant(number)))
        feed.attach(subscriber)
        waiting.append(asyncio.create_task(subscriber.wait()))
        found.append((feed, subscriber))
    return found, waiting


if __name__ == "__main__":
    set_up()
    asyncio.run(_child(is_spared=sys.argv[1] == "asgi"))
