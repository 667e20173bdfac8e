"""One seed, from the first step to the verdict."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import psycopg

from demo.world import INVOICES
from tests.faults.laboratory.books import Books, Inbox
from tests.faults.laboratory.judgement import Deviation, Judge, Snapshot
from tests.faults.laboratory.rig import Rig
from tests.faults.laboratory.steps import WEIGHTS, Laboratory
from tests.faults.laboratory.tab import close
from tests.messaging.people import Person, sign_in

PEOPLE = ("alice@acme.example", "bob@acme.example")
PATIENCE = 90.0
"""Seconds until everything has to be right again: what only the minutely comparison can see is seen by then."""
_SETTLED_SECONDS = 1.0
_STORIES = 2
_UNREAD_IDS = """
    SELECT message_id FROM messaging_receipt AS receipt JOIN messaging_inbox AS inbox ON inbox.id = receipt.inbox_id
    WHERE read_at IS NULL AND participant_id = %s AND agent_name = %s AND activation_name = %s
"""


@dataclass(slots=True)
class Verdict:
    """What one seed came to."""

    seed: int
    steps: int
    seconds: float
    messages: int
    faults: int
    edges: int
    resyncs: int
    undecided: int
    shown: int
    deviations: list[Deviation] = field(default_factory=list)
    report: str = ""

    def count(self, *kinds: str) -> int:
        return sum(deviation.what in kinds for deviation in self.deviations)

    def __str__(self) -> str:
        wrong = self.count("count", "order", "send", "other")
        return (
            f"seed {self.seed}: {self.steps} steps, {self.messages} messages, {self.shown} times shown, "
            f"{self.faults} faults, {self.resyncs} resyncs, {self.edges} known edges, {self.undecided} undecided: "
            f"{self.count('lost')} lost, {self.count('twice')} shown twice, {wrong} wrong counts ({self.seconds:.0f} s)"
        )


async def run(rig: Rig, seed: int, steps: int, *, patience: float = PATIENCE) -> Verdict:
    """Take so many random steps, heal everything, wait until it is right (I4: 75 s), and say what is not."""
    begun = time.monotonic()
    dice = random.Random(seed)
    books = Books()
    rig.begin()
    for node in rig.nodes:
        node.complaints()
    async with _people(rig) as people:
        laboratory = Laboratory(rig, books, people, dice)
        await _begin(laboratory, seed)
        try:
            for _ in range(steps):
                (step,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
                await step(laboratory)
                await asyncio.sleep(dice.expovariate(1 / 0.03))
            healed = await _heal(laboratory)
            judge, deviations = await _settled(laboratory, patience)
        finally:
            for task in laboratory.errands:
                task.cancel()
            await close(laboratory.tabs)
            await rig.heal()
    for node in rig.nodes:
        deviations += [Deviation("other", f"{node.name} logged: {line}") for line in node.complaints()]
    verdict = Verdict(
        seed,
        steps,
        time.monotonic() - begun,
        len(books.stored),
        books.faults,
        judge.edges,
        sum(len(connection.resyncs) for tab in laboratory.tabs for connection in tab.connections),
        judge.undecided,
        sum(len(tab.showings) for tab in laboratory.tabs),
        deviations,
    )
    verdict.report = _report(verdict, judge, books, f"healed by {healed}")
    return verdict


@asynccontextmanager
async def _people(rig: Rig) -> AsyncIterator[dict[str, Person]]:
    people = {email: await sign_in(rig.nodes[0].app.url, email, {}) for email in PEOPLE}
    try:
        yield people
    finally:
        for person in people.values():
            await person.client.aclose()


async def _begin(laboratory: Laboratory, seed: int) -> None:
    """Activations that nobody has used, with a past that must not count (D7)."""
    rig, books = laboratory.rig, laboratory.books
    for number in (1, 2):
        name = f"Laboratory {seed}.{number} {uuid.uuid4().hex[:4]}"
        await rig.make_activation(name)
        books.inboxes += [Inbox(email, INVOICES, name) for email in PEOPLE]
    for inbox in books.inboxes:
        for number in range(3):
            await rig.control("message", **inbox.thread, text=f"the past {number}", topic=("Orders", None)[number % 2])
        answer = await laboratory.people[inbox.participant].client.get(
            rig.nodes[0].url + laboratory.people[inbox.participant].path("unread"), params=inbox.names
        )
        assert answer.json() == {"total": 0, "topics": []}, answer.text
    await asyncio.sleep(_SETTLED_SECONDS * 3)  # older than this no later message claims to be
    for _ in range(4):
        await laboratory.open_tab()


async def _heal(laboratory: Laboratory) -> str:
    """Everything works again and everybody is there; returns what gives the last impulse."""
    await asyncio.gather(*laboratory.errands)
    await laboratory.rig.heal()
    for tab in laboratory.tabs:
        tab.wake()
    laboratory.books.say("healed")
    impulse = laboratory.dice.choice(("nothing", "a cut", "a cut", "a restart"))
    if impulse == "a cut":
        await laboratory.rig.control("cut", mode="eof")
    elif impulse == "a restart":
        await laboratory.rig.nodes[0].restart(kill=False, after=0)
    return impulse


async def _settled(laboratory: Laboratory, patience: float) -> tuple[Judge, list[Deviation]]:
    """Wait until nothing deviates any more, and look once more a moment later; or give up."""
    deadline = time.monotonic() + patience
    good = 0
    while True:
        judge, deviations = await _look(laboratory)
        good = 0 if deviations else good + 1
        if good == 2 or time.monotonic() > deadline:
            return judge, deviations
        await asyncio.sleep(_SETTLED_SECONDS)


async def _look(laboratory: Laboratory) -> tuple[Judge, list[Deviation]]:
    rig, books = laboratory.rig, laboratory.books
    snapshot = Snapshot({})
    async with await psycopg.AsyncConnection.connect(rig.database_url, autocommit=True) as database:
        for inbox in books.inboxes:
            rows = await database.execute(_UNREAD_IDS, [inbox.participant, inbox.agent, inbox.activation])
            snapshot.unread_ids[inbox] = {str(row[0]) for row in await rows.fetchall()}
    for inbox in books.inboxes:
        snapshot.truth |= {told["id"]: told for told in (await rig.control("truth", **inbox.thread))["messages"]}
        snapshot.api_counts[inbox] = {}
        for node in rig.nodes:
            person = laboratory.people[inbox.participant]
            try:
                answer = await person.client.get(node.url + person.path("unread"), params=inbox.names)
            except httpx.HTTPError as problem:
                books.say(f"{node.name} says nothing: {problem!r}")
                snapshot.api_counts[inbox][node.name] = {"no answer": 1}
                continue
            rows = answer.json().get("topics", [{"topic": "an error", "unreadCount": answer.status_code}])
            snapshot.api_counts[inbox][node.name] = {row["topic"] or "": row["unreadCount"] for row in rows}
    judge = Judge(books, laboratory.tabs, rig.nodes, snapshot)
    return judge, judge.deviations()


def _report(verdict: Verdict, judge: Judge, books: Books, end: str) -> str:
    lines = [str(verdict), f"  {end}"]
    if verdict.deviations:
        lines += ["", "the last steps:", *(f"  {line}" for line in books.last(40)), ""]
        kinds = Counter((deviation.what, deviation.sentence) for deviation in verdict.deviations)
        lines += [f"{count} x {what}: {sentence}" for (what, sentence), count in kinds.items()]
        told: Counter[str] = Counter()
        for deviation in verdict.deviations:
            told[deviation.sentence] += 1
            if deviation.message_id and told[deviation.sentence] <= _STORIES:
                lines += ["", f"{deviation.what}: {deviation.sentence}", *judge.story(deviation.message_id)]
                if deviation.tab is not None:
                    lines += [f"  the life of {deviation.tab}:", *judge.life(deviation.tab)]
    return "\n".join(lines)
