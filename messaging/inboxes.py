"""What a signed-in person can do with conversations: the use cases behind the API and the pages.

Every function takes the person's `Access`; none takes a participant from a client. All raise errors.MessagingError's
subclasses and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from messaging import catchup, errors, wire
from messaging import unread as store
from messaging.changes import InboxRef, Read
from messaging.cursors import Sealer
from messaging.directory import Activation, AgentDetail, Tenant
from messaging.runtime import Runtime, current
from messaging.sessions import Access
from messaging.unread import Settlement, TopicUnread
from messaging.visits import compare, refresh, refresh_if_possible, visit
from messaging.wire import GENERAL, Message, ThreadAddress, TopicPage, TopicSummary

log = logging.getLogger(__name__)

_OVERVIEW_SECONDS = 2.0
OVERVIEW_MAX_AGE = 10
"""Seconds: each activation costs upstream a request, and an open overview asks again whenever a count has changed."""
_UNLISTED_MAX_AGE = 0.5
"""Seconds: of topics that are not on the page of the list that is asked for."""
_OVERVIEW_AT_ONCE = 4
_PAGE_OVERLAP = timedelta(seconds=30)
_CHAT_PAGE = 200
_MOST_CHAT_PAGES = 50


@dataclass(frozen=True, slots=True)
class Counts:
    topic: str
    unread_count: int
    total: int


@dataclass(frozen=True, slots=True)
class Unread:
    """`topics` are those with a count, the longest-waiting first."""

    total: int
    topics: list[TopicUnread]


# -- who and what ---------------------------------------------------------------------------------------------


async def tenants(access: Access) -> list[Tenant]:
    """The tenants of this person."""
    return await current().tenancy.tenants(access.participant_id, access.token)


async def require_tenant(tenant_id: str, access: Access) -> Tenant:
    """This person's tenant of that id. Raises TenantForbidden, also when there is no such tenant at all."""
    for tenant in await tenants(access):
        if tenant.tenant_id == tenant_id:
            return tenant
    raise errors.TenantForbidden(f"not a member of {tenant_id[:100]!r}")


async def activations(tenant_id: str, *, access: Access, max_age: float = OVERVIEW_MAX_AGE) -> list[Activation]:
    """The activations of a tenant with this person's unread counts, what came while they were away included.

    What came in the last `max_age` seconds while nobody listened may be left out.
    """
    runtime = current()
    found = await runtime.client.activations(tenant_id, bearer=runtime.client.bearer(access.token))
    visited = await runtime.ledger.run(store.totals, tenant_id, access.participant_id)
    due = [
        ThreadAddress(tenant_id, a.agent_name, a.name, access.participant_id)
        for a in found
        if a.is_active and (a.agent_name, a.name) in visited
    ]
    if due:
        await _refresh_all(runtime, due, access, max_age)
        if not max_age:
            await runtime.ledger.flush()
        visited = await runtime.ledger.run(store.totals, tenant_id, access.participant_id)
    return [replace(a, unread_count=visited.get((a.agent_name, a.name), 0)) for a in found]


async def _refresh_all(runtime: Runtime, addresses: list[ThreadAddress], access: Access, max_age: float) -> None:
    gate = asyncio.Semaphore(_OVERVIEW_AT_ONCE)

    async def refresh(address: ThreadAddress) -> None:
        async with gate:
            inbox = await visit(runtime, address, access)
            await refresh_if_possible(runtime, inbox, access, max_age=max_age)

    tasks = [asyncio.create_task(refresh(address)) for address in addresses]
    done, late = await asyncio.wait(tasks, timeout=_OVERVIEW_SECONDS)
    for task in late:  # an overview shows what is known after two seconds; the next one knows more
        task.cancel()
    for task in done:
        if task.exception() is not None:
            log.info("an inbox was not refreshed: %s", task.exception())


async def agent(address: ThreadAddress, *, access: Access) -> AgentDetail:
    """What the agent says about itself."""
    runtime = current()
    return await runtime.client.agent(address, bearer=runtime.client.bearer(access.token))


# -- reading --------------------------------------------------------------------------------------------------


async def topics(address: ThreadAddress, *, page: int = 1, page_size: int = 20, access: Access) -> TopicPage:
    """One page of topics, newest first, General at the head of page 1 and on no other, each with its unread count."""
    runtime = current()
    inbox = await visit(runtime, address, access)
    bearer = runtime.client.bearer(access.token)
    found = await runtime.client.topics(address, page=page, page_size=page_size, bearer=bearer)
    known = await runtime.ledger.topic_states(inbox)
    is_news = any(catchup.is_changed(topic, known) for topic in found.topics)
    await refresh_if_possible(runtime, inbox, access, max_age=0 if is_news else _UNLISTED_MAX_AGE)
    counts = await runtime.ledger.counts(inbox)
    rows = [topic for topic in found.topics if topic.scope != GENERAL]
    if page == 1:
        general = [topic for topic in found.topics if topic.scope == GENERAL]
        rows = (general or [await _general(runtime, inbox)]) + rows
    return replace(found, topics=[replace(t, unread_count=counts.get(t.scope, 0)) for t in rows])


async def _general(runtime: Runtime, inbox: InboxRef) -> TopicSummary:
    """General as it was last seen: upstream has it on a later page, or nowhere while it is empty."""
    state = (await runtime.ledger.topic_states(inbox)).get(GENERAL, catchup.NOTHING_KNOWN)
    return TopicSummary(GENERAL, state.count, state.last_at)


async def history(
    address: ThreadAddress,
    topic: str,
    *,
    page: int = 1,
    page_size: int = 50,
    newest_first: bool = True,
    chat_only: bool = False,
    access: Access,
) -> list[Mapping[str, Any]]:
    """One page of a topic as upstream's own objects; `chat_only` counts pages in Chat messages.

    What a client reads of the topic that its stream shows is read (D3), though the stream may not have brought it yet.
    """
    runtime = current()
    inbox = await visit(runtime, address, access)
    bearer = runtime.client.bearer(access.token)

    async def fetch(number: int, size: int) -> wire.HistoryPage:
        return await runtime.client.history(
            address, topic, page=number, page_size=size, newest_first=newest_first, bearer=bearer
        )

    if not chat_only:
        found = (await fetch(page, page_size)).messages
        _shown(runtime, inbox, topic, found)
        return [message.raw for message in found]
    chats: dict[str, Message] = {}
    for number in range(1, _MOST_CHAT_PAGES + 1):
        answer = await fetch(number, _CHAT_PAGE)
        chats |= {message.id: message for message in answer.messages if message.kind == "Chat"}
        if answer.is_last or len(chats) >= page * page_size:
            break
    found = list(chats.values())[(page - 1) * page_size : page * page_size]
    _shown(runtime, inbox, topic, found)
    return [message.raw for message in found]


def _shown(runtime: Runtime, inbox: InboxRef, topic: str, messages: list[Message]) -> None:
    if runtime.hub.is_shown(inbox.address, topic):
        for message in messages:
            runtime.ledger.record(inbox, message)
        runtime.ledger.read(Read(inbox, topic, message_ids=frozenset(message.id for message in messages)))


async def newest(
    address: ThreadAddress, topic: str, *, before: str | None = None, limit: int = 40, access: Access
) -> tuple[list[Message], bool]:
    """Up to `limit` messages, oldest first, older than the order `before`; and whether there are earlier ones."""
    runtime = current()
    await visit(runtime, address, access)
    bearer = runtime.client.bearer(access.token)
    return await catchup.newest(runtime.client, address, topic, before=before, limit=limit, bearer=bearer)


async def cursor(address: ThreadAddress) -> str:
    """Where a page's stream has to begin so that nothing between its rendering and its stream is missed.

    Ask for it before reading the messages that the page shows.
    """
    runtime = current()
    feed = runtime.feeds.get(address)
    if feed is not None and feed.is_complete:
        return feed.outlet.cursor()
    now = datetime.now(UTC)
    sealer = Sealer(runtime.secret, address.key)
    return sealer.write(wire.order_at(now - _PAGE_OVERLAP), int(now.timestamp() * 1000))


async def unread(address: ThreadAddress, *, access: Access) -> Unread:
    """What is unread in an inbox, what came while nobody listened included."""
    runtime = current()
    inbox = await visit(runtime, address, access)
    await refresh_if_possible(runtime, inbox, access)
    await runtime.ledger.flush()
    waiting = await runtime.ledger.run(store.waiting, inbox)
    return Unread(sum(topic.unread_count for topic in waiting), waiting)


async def read(address: ThreadAddress, topic: str, *, up_to: str | None, access: Access) -> Counts:
    """Mark a topic read, up to a message id or altogether. An id that isn't this inbox's changes nothing.

    Raises UpstreamUnavailable or UpstreamTimeout when upstream has to be asked where the message stands, or whether the
    topic holds more than we know, and can't be: a client that is told "done" never says it again.
    """
    runtime = current()
    inbox = await visit(runtime, address, access)
    await runtime.ledger.flush()
    if up_to is None:
        try:
            await _look(runtime, inbox, access)
        finally:
            runtime.ledger.read(Read(inbox, topic))
    else:
        place = _heard(runtime, inbox, topic, up_to) or await runtime.ledger.run(store.order_of, inbox, topic, up_to)
        if place is None:
            await refresh(runtime, inbox, access)
            place = await _found(runtime, inbox, topic, up_to, access)
        if place is not None:
            runtime.ledger.read(Read(inbox, topic, up_to=place))
    counts = await runtime.ledger.counts(inbox)
    return Counts(topic, counts.get(topic, 0), sum(counts.values()))


async def _look(runtime: Runtime, inbox: InboxRef, access: Access) -> None:
    """Learn what upstream holds now. Where it refuses, what is known is all there is."""
    try:
        await compare(runtime, inbox, runtime.client.bearer(access.token))
    except errors.UpstreamRefused as problem:
        log.info("inbox %s shows its stored counts: %s", inbox.pk, problem.detail)


def _heard(runtime: Runtime, inbox: InboxRef, topic: str, message_id: str) -> str | None:
    feed = runtime.feeds.get(inbox.address)
    items = feed.outlet.after("") if feed is not None else []
    mine = (item.message for item in items if item.message is not None and item.message.id == message_id)
    return next((message.order for message in mine if message.scope == topic), None)


async def _found(runtime: Runtime, inbox: InboxRef, topic: str, message_id: str, access: Access) -> str | None:
    """The place of a message that has no receipt: the person's own, say, which is often the last on the screen."""
    bearer = runtime.client.bearer(access.token)
    found = await catchup.find(runtime.client, inbox.address, topic, {message_id}, bearer=bearer)
    for message in found:
        runtime.ledger.record(inbox, message)
    return found[0].order if found else None


# -- writing --------------------------------------------------------------------------------------------------


async def delete_topic(address: ThreadAddress, topic: str, *, access: Access) -> None:
    """Delete a topic's messages upstream; its unread goes to 0 and stays there for what was deleted."""
    runtime = current()
    inbox = await visit(runtime, address, access)
    bearer = runtime.client.bearer(access.token)
    newest = await runtime.client.history(address, topic, page=1, page_size=1, bearer=bearer)
    await runtime.client.delete_messages(address, topic, bearer=bearer)
    await runtime.ledger.flush()
    floor = max((store.behind(message.created_at) for message in newest.messages), default="")  # several may be newest
    await runtime.ledger.drop_topics(inbox, {topic: floor})
    looked_at = datetime.now(UTC)
    rest = await catchup.whole(runtime.client, address, topic, bearer=bearer)
    if rest is not None:  # what was answered between the look and the deletion is gone, too
        await runtime.ledger.settle(Settlement(inbox, looked_at, whole={topic: rest}, may_lag=False))
    runtime.hub.tell_of([inbox], "gone", topic=topic)
    feed = runtime.feeds.get(address)
    if feed is not None:
        feed.gaps.forget_topic(topic)
