"""What may happen in the laboratory: agents answer, people act, everything fails. One step is one function."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.faults.laboratory.books import Books, Deletion, Inbox, Reading, Sending, Stored
from tests.faults.laboratory.rig import Node, Rig
from tests.faults.laboratory.tab import Tab
from tests.messaging.people import Person

TOPICS = (
    "",
    "Orders",
    "General Discussions",
    "general-discussions",
    "null",
    "Åse & Co / 50 % + more?",
    "\u202eright to left \u200d 💬",
    "..",
    "x" * 200,
)
_UNREADABLE_TOPICS = ("  padded  ", "two\nlines")  # only agents can make these; nobody here opens them
_STEPS = ("Reasoning", "Tool", "Data", "File", "Webhook")
_JUNK = (
    "data: {\n\n",
    "event: Chat\ndata: [1, 2]\n\n",
    'event: Chat\ndata: {"text": "no id"}\n\n',
    ": a comment\n\n",
    "event: connected\ndata: nonsense\n\n",
    'event: Sparkle\ndata: "?"\n\n',
)
_MOST_TABS = 14
_REQUEST_SECONDS = 12


class Laboratory:
    """The state of one seed's world, and everything that can happen in it."""

    def __init__(self, rig: Rig, books: Books, people: dict[str, Person], dice: random.Random) -> None:
        self.rig = rig
        self.books = books
        self.people = people
        self.dice = dice
        self.tabs: list[Tab] = []
        self.errands: set[asyncio.Task[None]] = set()
        self._numbers = 0

    # -- small things -----------------------------------------------------------------------------------------

    def errand(self, work: Awaitable[None]) -> None:
        """Let something go on while further steps are taken."""
        task = asyncio.ensure_future(work)
        self.errands.add(task)
        task.add_done_callback(self._errand_done)

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self.errands.discard(task)  # one that failed stays, and is raised in the end

    def inbox(self) -> Inbox:
        return self.dice.choice(self.books.inboxes)

    def topic(self) -> str:
        if self.dice.random() < 0.05:
            self._numbers += 1
            return f"New topic {self._numbers}"
        return self.dice.choice(TOPICS) if self.dice.random() < 0.6 else self.dice.choice(TOPICS[:2])

    def node(self) -> Node:
        return self.dice.choice(self.rig.nodes)

    async def store(self, inbox: Inbox, topic: str, *ways: str, type: str = "Chat", **more: Any) -> Stored:
        begun = time.monotonic()
        self._numbers += 1
        told = await self.rig.control(
            "message", **inbox.thread, text=f"message {self._numbers}", topic=topic or None, type=type, **more
        )
        return self.books.store(inbox, told, begun, *ways)

    def known(self, inbox: Inbox, topic: str | None = None) -> list[Stored]:
        """What was stored in an inbox, oldest first."""
        return [
            stored
            for stored in self.books.stored.values()
            if stored.inbox == inbox and (topic is None or stored.topic == topic)
        ]

    def upset(self, nodes: list[Node], seconds: float) -> None:
        begun = time.monotonic()
        for node in nodes:
            node.upsets.append((begun, begun + seconds))

    # -- agents -----------------------------------------------------------------------------------------------

    async def answer(self) -> None:
        await self.store(self.inbox(), self.topic())

    async def answer_where_nobody_can_go(self) -> None:
        await self.store(self.inbox(), self.dice.choice(_UNREADABLE_TOPICS))

    async def work(self) -> None:
        """What is shown and never counted."""
        await self.store(self.inbox(), self.topic(), type=self.dice.choice(_STEPS))

    async def burst(self) -> None:
        inbox, topic = self.inbox(), self.topic()
        for _ in range(self.dice.randint(10, 50)):
            await self.store(inbox, topic if self.dice.random() < 0.8 else self.topic())

    async def flood(self) -> None:
        """More at once than a queue or the ring holds."""
        inbox, begun, count = self.inbox(), time.monotonic(), self.dice.randint(260, 400)
        thread = {key: value for key, value in inbox.thread.items() if key != "participant"}
        topics = [self.topic() or None for _ in range(3)]
        done = await self.rig.control(
            "burst", **thread, participants=[inbox.participant], count=count, topics=topics, text="flood"
        )
        ids = set(done["ids"])
        for told in (await self.rig.control("truth", **inbox.thread))["messages"]:
            if told["id"] in ids:
                self.books.store(inbox, told, begun)

    async def repeat(self) -> None:
        """Upstream says something once more."""
        stored = self._some()
        if stored is not None:
            await self._if_there("again", id=stored.id, pascal_case=self.dice.random() < 0.3)

    async def edit(self) -> None:
        stored = self._some()
        if stored is not None:
            await self._if_there("edit", id=stored.id, text=f"edited {self.dice.random()}")

    def _some(self) -> Stored | None:
        every = list(self.books.stored.values())
        if not every:
            return None
        return self.dice.choice(every[-20:] if self.dice.random() < 0.7 else every)

    async def _if_there(self, name: str, **arguments: Any) -> None:
        """A control call on a message that may have been deleted."""
        self.books.say(f"{name} {arguments['id'][-6:]}")
        stored = self.books.stored[arguments["id"]]
        if not any((gone.inbox, gone.topic) == (stored.inbox, stored.topic) for gone in self.books.deletions):
            await self.rig.control(name, **arguments)

    async def withheld(self) -> None:
        """Stored, and forgotten by the stream."""
        await self.store(self.inbox(), self.topic(), "withheld", withhold=True)

    async def aged(self) -> None:
        """Another clock: created a moment ago, or in a moment."""
        at = datetime.now(UTC) + timedelta(milliseconds=self.dice.randint(-2500, 1500))
        await self.store(self.inbox(), self.topic(), "aged", created_at=_written(at))

    async def twins(self) -> None:
        """Several of one and the same moment."""
        inbox, topic, at = self.inbox(), self.topic(), _written(datetime.now(UTC))
        for _ in range(self.dice.randint(2, 5)):
            await self.store(inbox, topic, "twin", created_at=at)

    async def few_digits(self) -> None:
        digits = self.dice.randint(0, 2)
        at = datetime.now(UTC)
        text = at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at.microsecond:06d}"[: digits + 1] if digits else "") + "Z"
        await self.store(self.inbox(), self.topic(), "few-digits", created_at=text)

    async def junk(self) -> None:
        """What can't be read, or is somebody else's."""
        if self.dice.random() < 0.5:
            await self.rig.control("emit", raw=self.dice.choice(_JUNK))
            return
        inbox, other = self.dice.sample(self.books.inboxes, 2)
        messages = [stored for stored in self.known(inbox) if stored.id in self.books.stored]
        if messages and other.participant != inbox.participant:
            await self._if_there("again", id=self.dice.choice(messages).id, to=other.thread)

    # -- people -----------------------------------------------------------------------------------------------

    async def send(self) -> None:
        inbox, topic = self.inbox(), self.topic()
        sending = Sending(inbox, topic, str(uuid.UUID(int=self.dice.getrandbits(128))), time.monotonic())
        self.books.sendings[sending.request_id] = sending
        self.errand(self._send(sending, self.node()))
        if self.dice.random() < 0.4:  # pressed twice
            self.errand(self._send(sending, self.node(), after=self.dice.choice((0.0, 0.05, 1.0))))

    async def send_again(self) -> None:
        """Retry what was not taken, or repeat what was."""
        if self.books.sendings:
            sending = self.dice.choice(list(self.books.sendings.values())[-10:])
            self.errand(self._send(sending, self.node()))

    async def _send(self, sending: Sending, node: Node, after: float = 0) -> None:
        await asyncio.sleep(after)
        body = {"text": "from me", "topic": sending.topic or None, "requestId": sending.request_id}
        answer = await self._request("POST", sending.inbox, node, "send", body)
        sending.statuses.append(answer.status_code if answer is not None else 0)
        self.books.say(f"send {sending.request_id[:8]} at {node.name}: {sending.statuses[-1]}")

    async def read_all(self) -> None:
        inbox = self.inbox()
        self.errand(self._read(Reading(inbox, self.topic(), "", time.monotonic()), None))

    async def read_up_to(self) -> None:
        """What a page does: confirm the newest that it shows."""
        tab = self.dice.choice(self.tabs)
        recent = [showing for showing in tab.showings[-20:] if showing.topic not in _UNREADABLE_TOPICS]
        if recent:
            showing = self.dice.choice(recent)
            stored = self.books.stored.get(showing.id)
            if stored is not None:
                reading = Reading(tab.inbox, stored.topic, "", time.monotonic(), up_to=stored.order)
                self.errand(self._read(reading, stored.id))

    async def _read(self, reading: Reading, message_id: str | None) -> None:
        node = self.node()
        reading.node, reading.begun = node.name, time.monotonic()
        self.books.readings.append(reading)
        body = {"topic": reading.topic or None, **({"upToMessageId": message_id} if message_id else {})}
        answer = await self._request("POST", reading.inbox, node, "read", body)
        reading.done = time.monotonic()
        reading.is_sure = answer is not None and answer.status_code == 200
        status = answer.status_code if answer is not None else 0
        what = f"up to {message_id[-6:]}" if message_id else "all"
        self.books.say(f"read {reading.inbox} {reading.topic[:20]!r} {what} at {node.name}: {status}")

    async def ask(self) -> None:
        inbox, node = self.inbox(), self.node()
        self.errand(self._ask(inbox, node, self.dice.choice(("unread", "topics", "history"))))

    async def _ask(self, inbox: Inbox, node: Node, what: str) -> None:
        await self._request("GET", inbox, node, what, {})

    async def _request(
        self, method: str, inbox: Inbox, node: Node, call: str, values: dict[str, Any]
    ) -> httpx.Response | None:
        """One request of a person; None where nobody answered. An answer that no fault explains is kept."""
        person = self.people[inbox.participant]
        more: dict[str, Any] = {"params": {**inbox.names, **values}}
        if method == "POST":
            more = {"json": {**inbox.names, **values}, "headers": person.csrf()}
        elif method == "DELETE":
            more["headers"] = person.csrf()
        try:
            answer = await person.client.request(
                method, node.url + person.path(call), timeout=httpx.Timeout(_REQUEST_SECONDS, pool=None), **more
            )
        except httpx.HTTPError:
            return None
        if answer.status_code not in (200, 429, 500, 502, 503, 504):
            self.books.unexpected.append(f"{call} of {inbox}: {answer.status_code} {answer.text[:300]}")
        return answer

    async def delete(self) -> None:
        inbox, node = self.inbox(), self.node()
        topics = [topic for topic in TOPICS[1:] if self.known(inbox, topic)]
        if topics:
            self.errand(self._delete(inbox, node, self.dice.choice(topics)))

    async def _delete(self, inbox: Inbox, node: Node, topic: str) -> None:
        deletion = Deletion(inbox, topic, f"at {node.name}", time.monotonic())
        self.books.deletions.append(deletion)
        answer = await self._request("DELETE", inbox, node, "messages", {"topic": topic})
        is_done = answer is not None and answer.status_code == 200
        deletion.done = time.monotonic() + (0 if is_done else _REQUEST_SECONDS)
        self.books.say(
            f"delete {inbox} {topic[:20]!r} at {node.name}: {answer.status_code if answer is not None else 0}"
        )

    async def delete_elsewhere(self) -> None:
        inbox = self.inbox()
        topics = [topic for topic in TOPICS[1:] if self.known(inbox, topic)]
        if topics:
            topic = self.dice.choice(topics)
            deletion = Deletion(inbox, topic, "behind our back", time.monotonic())
            self.books.deletions.append(deletion)
            if await self.rig.delete_upstream(inbox.names, inbox.participant, topic):
                deletion.done = time.monotonic()
                self.books.say(f"delete {inbox} {topic[:20]!r} upstream")
            else:
                self.books.deletions.remove(deletion)

    # -- tabs -------------------------------------------------------------------------------------------------

    async def open_tab(self) -> None:
        if len(self.tabs) >= _MOST_TABS:
            return
        inbox = self.inbox()
        client = self.people[inbox.participant].client
        tab = Tab(len(self.tabs), inbox, client, self.rig.nodes, self.books, self.dice.getrandbits(32))
        if self.dice.random() < 0.5:
            tab.shows = self.topic()
        self.tabs.append(tab)
        tab.wake()

    async def sleep(self) -> None:
        await self.dice.choice(self.tabs).sleep()

    async def wake(self) -> None:
        for tab in self.tabs:
            if not tab.is_awake and self.dice.random() < 0.5:
                tab.wake()

    async def leave_and_return(self) -> None:
        tab = self.dice.choice(self.tabs)
        await tab.sleep()
        tab.wake()

    async def show_topic(self) -> None:
        """Another topic, or none."""
        tab = self.dice.choice(self.tabs)
        await tab.sleep()
        tab.shows = self.topic() if self.dice.random() < 0.8 else None
        tab.wake()

    # -- faults -----------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        await self._restart(is_kill=True)

    async def terminate(self) -> None:
        await self._restart(is_kill=False)

    async def _restart(self, *, is_kill: bool) -> None:
        node = self.node()
        if not node.is_up or (self.dice.random() < 0.8 and not all(other.is_up for other in self.rig.nodes)):
            return
        self.books.faults += 1
        self.books.say(f"{'kill' if is_kill else 'terminate'} {node.name}")
        self.upset([node], 20)
        self.errand(node.restart(kill=is_kill, after=self.dice.uniform(0, 1.5)))

    async def disturb_upstream(self) -> None:
        self._disturb("upstream", self.node(), self.dice.uniform(0.2, 3))

    async def disturb_database(self) -> None:
        self._disturb("postgres", self.node(), self.dice.uniform(0.2, 3))

    async def disturb_redis(self) -> None:
        self._disturb("redis", self.node(), self.dice.uniform(0.2, 3))

    async def disturb_readers(self) -> None:
        self._disturb("front", self.node(), self.dice.uniform(0.2, 3))

    def _disturb(self, name: str, node: Node, seconds: float) -> None:
        link = node.links[name]
        size = self.dice.randint(1, 4000)
        kinds: dict[str, Callable[[], None]] = {
            "cut": link.cut,
            "reset": lambda: link.cut(reset=True),
            "down": link.down,
            # Only the way back: a request that arrives long after its sender has given up can't be told from a new one.
            "stall": lambda: link.stall("downstream"),
            "blackhole": link.blackhole,
            "latency": lambda: link.latency(size / 10_000, jitter=size / 20_000),
            "slicer": lambda: link.slicer(1 + size % 50, pause_seconds=0.001),
            "limit": lambda: link.limit_data(size, ending="reset"),
        }
        kind = self.dice.choice(list(kinds))
        self.books.faults += 1
        self.books.say(f"{kind} {name} of {node.name} for {seconds:.1f} s")
        if name in ("upstream", "front"):
            self.upset([node], seconds + 5)
        kinds[kind]()
        self.errand(self._clear(link.clear, f"{name} of {node.name} is well again", seconds))

    async def _clear(self, clear: Callable[[], None], line: str, after: float) -> None:
        await asyncio.sleep(after)
        async with self.rig.upstream_restarting:
            clear()
        self.books.say(line)

    async def deafen(self) -> None:
        """Upstream's change stream is down: it stores, and streams nothing."""
        seconds = self.dice.uniform(0.2, 2)
        self._fault(f"change stream down for {seconds:.1f} s", seconds)
        await self.rig.control("change_stream_down", seconds=seconds)

    async def cut_streams(self) -> None:
        mode = self.dice.choice(("eof", "truncate", "reset"))
        after = self.dice.choice((None, None, self.dice.randint(1, 200)))
        self._fault(f"cut {mode} {after}", 0)
        await self.rig.control("cut", mode=mode, after_bytes=after)

    async def restart_upstream(self) -> None:
        kill = self.dice.random() < 0.5
        self._fault("restart upstream", 5)
        await self.rig.restart_upstream(kill=kill)
        self.books.say("upstream is back")

    async def refuse(self) -> None:
        status = self.dice.choice((500, 503, 429))
        route = self.dice.choice(("*", "listen", "history", "topics", "send"))
        headers = {"Retry-After": "1"} if status == 429 else {}
        seconds = self.dice.uniform(0.2, 2)
        self._fault(f"refuse {route} with {status} for {seconds:.1f} s", seconds)
        is_late = self.dice.random() < 0.5 and route == "send"
        done = await self.rig.control("refuse", route=route, status=status, headers=headers, runs_handler_first=is_late)
        self.errand(self._forgive(done["rule"], seconds))

    async def _forgive(self, rule: int, after: float) -> None:
        await asyncio.sleep(after)
        await self.rig.control("forgive", rule=rule)

    async def blind(self) -> None:
        """How long upstream is deaf after it has said `connected`."""
        await self.rig.control("behave", blind_seconds=self.dice.choice((0.0, 0.02, 0.1, 0.5)))

    def _fault(self, line: str, seconds: float) -> None:
        self.books.faults += 1
        self.books.say(line)
        self.upset(self.rig.nodes, seconds + 5)


def _written(at: datetime) -> str:
    """As upstream writes it: milliseconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


type Step = Callable[[Laboratory], Awaitable[None]]

WEIGHTS: dict[Step, float] = {
    Laboratory.answer: 30,
    Laboratory.answer_where_nobody_can_go: 1,
    Laboratory.work: 6,
    Laboratory.burst: 2,
    Laboratory.flood: 0.3,
    Laboratory.repeat: 4,
    Laboratory.edit: 3,
    Laboratory.withheld: 6,
    Laboratory.aged: 4,
    Laboratory.twins: 2,
    Laboratory.few_digits: 2,
    Laboratory.junk: 2,
    Laboratory.send: 5,
    Laboratory.send_again: 2,
    Laboratory.read_all: 3,
    Laboratory.read_up_to: 8,
    Laboratory.ask: 4,
    Laboratory.delete: 0.8,
    Laboratory.delete_elsewhere: 0.4,
    Laboratory.open_tab: 5,
    Laboratory.sleep: 3,
    Laboratory.wake: 6,
    Laboratory.leave_and_return: 4,
    Laboratory.show_topic: 4,
    Laboratory.kill: 0.8,
    Laboratory.terminate: 0.6,
    Laboratory.disturb_upstream: 3,
    Laboratory.disturb_database: 2,
    Laboratory.disturb_redis: 1.5,
    Laboratory.disturb_readers: 3,
    Laboratory.deafen: 1.5,
    Laboratory.cut_streams: 1.5,
    Laboratory.restart_upstream: 0.5,
    Laboratory.refuse: 1.5,
    Laboratory.blind: 1,
}
