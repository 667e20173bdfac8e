"""Coming to an inbox: the first visit sets the zero (D7), every later one counts what was missed (D6)."""

from __future__ import annotations

import asyncio
import logging
import time

from messaging import catchup, errors, unread
from messaging.changes import InboxRef
from messaging.runtime import Runtime
from messaging.sessions import Access
from messaging.unread import Settlement
from messaging.wire import ThreadAddress, TopicSummary

log = logging.getLogger(__name__)

_REMEMBERED = 50_000
_WRITTEN_AT_ONCE = 1_000
_FIRST_VISIT_PAGES = 1_000
_NEWEST_TOPICS = 3
_NEWEST_MESSAGES = 20


async def visit(runtime: Runtime, address: ThreadAddress, access: Access) -> InboxRef:
    """The inbox at an address. On the first visit upstream is asked what is there already: that is not unread.

    Raises UpstreamError's subclasses (unknown activation and so on) on a first visit only.
    """
    inbox = runtime.visited.get(address) or await runtime.ledger.find(address)
    if inbox is None:
        inbox = await _first_visit(runtime, address, runtime.client.bearer(access.token))
    feed = runtime.feeds.get(address)
    if feed is not None:  # its own credential may have expired since somebody opened a stream
        feed.bearer = runtime.client.bearer(access.token) or feed.bearer
    runtime.visited[address] = inbox
    if len(runtime.visited) > _REMEMBERED:
        del runtime.visited[next(iter(runtime.visited))]
    return inbox


async def _first_visit(runtime: Runtime, address: ThreadAddress, bearer: str) -> InboxRef:
    """Many tabs may come at once: upstream is asked for one of them."""
    task = runtime.arriving.get(address)
    if task is None:
        task = runtime.arriving[address] = asyncio.create_task(_open_inbox(runtime, address, bearer))
        task.add_done_callback(lambda done: _arrived(runtime, address, done))
    return await asyncio.shield(task)


def _arrived(runtime: Runtime, address: ThreadAddress, task: asyncio.Task[InboxRef]) -> None:
    runtime.arriving.pop(address, None)
    if not task.cancelled():
        task.exception()  # whoever waited has been told


async def _open_inbox(runtime: Runtime, address: ThreadAddress, bearer: str) -> InboxRef:
    pages = catchup.Pages(runtime.client, address, bearer)
    found = await catchup.survey(pages, most_pages=_FIRST_VISIT_PAGES)
    settled = await _settled(runtime, address, found.topics, bearer)
    return await runtime.ledger.run(unread.open_inbox, address, found.topics, settled)


async def _settled(runtime: Runtime, address: ThreadAddress, topics: list[TopicSummary], bearer: str) -> dict[str, str]:
    """The exact newest place of the topics in which something may be arriving right now."""
    dated = [topic for topic in topics if topic.last_message_at is not None]
    dated.sort(key=lambda topic: str(topic.last_message_at), reverse=True)
    settled = {}
    for topic in dated[:_NEWEST_TOPICS]:
        page = await runtime.client.history(address, topic.scope, page=1, page_size=_NEWEST_MESSAGES, bearer=bearer)
        old = [m.order for m in page.messages if topic.last_message_at and m.created_at <= topic.last_message_at]
        if old:
            settled[topic.scope] = max(old)
    return settled


async def refresh(runtime: Runtime, inbox: InboxRef, access: Access, *, max_age: float = 0) -> None:
    """Count what upstream stored while nobody here was listening, unless a feed sees to that already.

    What was stored in the last `max_age` seconds before this call may be left out, nothing older. It looks once at a
    time: of many who ask, all but the first share the next look. Raises UpstreamError's subclasses.
    """
    due = time.monotonic() - max_age
    while runtime.refreshed.get(inbox.address, float("-inf")) < due:
        feed = runtime.feeds.get(inbox.address)
        if feed is not None and feed.is_complete:
            return
        task = runtime.refreshing.get(inbox.address)  # which may have begun before what is to be counted was stored
        if task is None:
            task = asyncio.create_task(_look(runtime, inbox, runtime.client.bearer(access.token)))
            runtime.refreshing[inbox.address] = task
            task.add_done_callback(lambda done: _looked(runtime, inbox, done))
        await asyncio.shield(task)


async def _look(runtime: Runtime, inbox: InboxRef, bearer: str) -> None:
    begun = time.monotonic()
    try:
        await compare(runtime, inbox, bearer)
        runtime.refreshed[inbox.address] = begun
        if len(runtime.refreshed) > _REMEMBERED:
            del runtime.refreshed[next(iter(runtime.refreshed))]
    finally:  # not in a callback: who asks before that is called would find a task that is done, again and again
        del runtime.refreshing[inbox.address]


def _looked(runtime: Runtime, inbox: InboxRef, task: asyncio.Task[None]) -> None:
    if runtime.refreshing.get(inbox.address) is task:  # cancelled before it began
        del runtime.refreshing[inbox.address]
    if not task.cancelled():
        task.exception()  # whoever waited has been told


async def compare(runtime: Runtime, inbox: InboxRef, bearer: str) -> None:
    """Fetch and record what upstream has and we don't know. Raises UpstreamError's subclasses.

    Where somebody listens the feed does it: its readers are to be shown it, too.
    """
    ledger = runtime.ledger
    feed = runtime.feeds.get(inbox.address)
    if feed is not None and feed.state == "live":
        if await feed.gaps.compare() is not None:
            return
        if feed.state == "live":
            raise errors.UpstreamUnavailable("not compared")
    known = await ledger.topic_states(inbox)
    difference = await catchup.compare(catchup.Pages(runtime.client, inbox.address, bearer), known)
    if not difference.is_news:
        return
    for count, message in enumerate(difference.messages, start=1):
        ledger.record(inbox, message)
        if count % _WRITTEN_AT_ONCE == 0:
            await ledger.flush()  # more may have been found than the line holds
    await ledger.flush()
    await ledger.settle(Settlement(inbox, difference.asked_at, difference.topics, difference.floors, difference.whole))
    if difference.gone:
        await ledger.drop_topics(inbox, difference.gone)


async def refresh_if_possible(runtime: Runtime, inbox: InboxRef, access: Access, *, max_age: float = 0) -> None:
    """As refresh; when upstream is away or refuses, what is stored has to do."""
    try:
        await refresh(runtime, inbox, access, max_age=max_age)
    except errors.UpstreamError as problem:
        log.info("inbox %s shows its stored counts: %s", inbox.pk, problem.detail)
