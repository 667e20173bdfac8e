"""The demo's talkative agents: tasks inside the stand-in that answer, and one that writes first."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from demo import answers, world
from demo.xians.app import XiansApp
from demo.xians.messages import Draft, Message, Thread

NEWS_TOPICS = ("Markets", "Weather", "Sport", "Local", "Science")
NEWS_LIMIT = 40
"""Pieces of news after which an unanswered newsroom falls silent."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing an agent writes, after a pause."""

    pause_seconds: float
    draft: Draft


type Writer = Callable[[Message, random.Random], list[Step]]


class Agents:
    """Answers each question in a task of its own, and keeps the news coming."""

    def __init__(self, app: XiansApp, *, seed: int, news_seconds: float, pace: float) -> None:
        self._app = app
        self._site = app.site
        self._dice = random.Random(seed)
        self._news_seconds = news_seconds
        self._pace = pace
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: dict[str, int] = {}
        self._news_threads: dict[str, Thread] = {}

    async def start(self) -> None:
        for thread in self._site.world.messages.threads():
            self._learn_thread(thread)
        self._site.world.messages.changes.thread_made.append(self._learn_thread)
        self._site.world.messages.changes.message_published.append(self._hear)
        self._spawn(self._write_news(), "newsroom")

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _learn_thread(self, thread: Thread) -> None:
        if thread.agent_name == world.NEWS:
            self._news_threads[thread.id] = thread

    def _hear(self, message: Message) -> None:
        if message.draft.direction != "Incoming":
            return
        self._written[message.thread.id] = 0
        write = _WRITERS.get(message.thread.agent_name)
        if write is not None:
            self._spawn(self._answer(message, write(message, self._dice)), f"answer {message.id}")

    async def _answer(self, question: Message, steps: list[Step]) -> None:
        for step in steps:
            await asyncio.sleep(step.pause_seconds * self._pace)
            step.draft.scope = question.draft.scope
            step.draft.request_id = question.draft.request_id
            step.draft.origin = question.draft.origin
            self._store(question.thread, step.draft)

    async def _write_news(self) -> None:
        async for thread in self._due_for_news():
            number = self._written.get(thread.id, 0) + 1
            self._written[thread.id] = number
            text = answers.news(self._dice)
            if number == NEWS_LIMIT:
                text += "\n\n*That is all for now. Write something and there will be more.*"
            self._store(
                thread,
                Draft(
                    text=text,
                    scope=self._dice.choice(NEWS_TOPICS),
                    request_id=str(uuid.UUID(int=self._dice.getrandbits(128), version=4)),
                ),
            )

    async def _due_for_news(self) -> AsyncIterator[Thread]:
        """Threads of people who listen, or who wrote and have not been told enough since."""
        while True:
            await asyncio.sleep(self._news_seconds * self._dice.uniform(0.7, 1.3))
            for thread in list(self._news_threads.values()):
                is_awaited = thread.id in self._written or self._site.switchboard.is_listened_to(thread)
                if is_awaited and self._written.get(thread.id, 0) < NEWS_LIMIT:
                    yield thread

    def _store(self, thread: Thread, draft: Draft) -> None:
        draft.created_by = self._site.world.agent_runner
        if self._site.behaviour.is_up:
            self._site.world.messages.add(thread, draft)


def _invoice_steps(question: Message, dice: random.Random) -> list[Step]:
    drafts = answers.invoice(question.draft.text or "", dice)
    return [Step(dice.uniform(0.5, 1.0), draft) for draft in drafts]


def _news_steps(question: Message, dice: random.Random) -> list[Step]:
    return [Step(dice.uniform(0.4, 0.9), Draft(text=answers.news_reply(question.draft.text or "", dice)))]


def _gallery_steps(question: Message, dice: random.Random) -> list[Step]:
    texts = answers.gallery(question.draft.text or "")
    return [Step(dice.uniform(0.3, 0.7), Draft(text=text)) for text in texts]


_WRITERS: dict[str, Writer] = {
    world.INVOICES: _invoice_steps,
    world.NEWS: _news_steps,
    world.GALLERY: _gallery_steps,
}


def install(app: XiansApp, *, seed: int = 7, news_seconds: float = 6.0, pace: float = 1.0) -> Agents:
    """Let the agents live as long as the application does; `pace` stretches every pause of an answer."""
    agents = Agents(app, seed=seed, news_seconds=news_seconds, pace=pace)
    app.on_startup.append(agents.start)
    app.on_shutdown.append(agents.stop)
    return agents
