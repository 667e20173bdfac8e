"""What upstream has that we don't know: its topic list compared with ours, the difference read from history.

The second source of every message (reliability.md U1-U5, F16): the stream may miss anything, history doesn't.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from messaging.unread import TopicState, behind
from messaging.upstream import UpstreamClient
from messaging.wire import GENERAL, HistoryPage, Message, ThreadAddress, TopicPage, TopicSummary, order_at

_TOPICS_PAGE = 200
_MAX_TOPIC_PAGES = 20
_HISTORY_PAGE = 100
_MAX_MESSAGES = 2_000
_LATE = timedelta(minutes=10)
"""How much older than its neighbours a message may claim to be (clocks of several nodes) and still be found."""
_LAG = timedelta(seconds=60)
"""How far behind a replica of upstream may be: a topic younger than that which it doesn't list is not gone, but not yet
there (F45)."""
_AT_ONCE = 4

NOTHING_KNOWN = TopicState(floor="", count=0, last_at=None)


@dataclass(slots=True)
class Difference:
    """What is new upstream.

    `topics` as they are listed now; the `messages` behind what changed, oldest first; `floors`: topics with more news
    than we fetch, and the order up to which they were not looked at; `gone`: topics that were listed before and hold
    no message now, and the order up to which they were seen; `missing`: the same of topics so young that a replica may
    only be behind; `whole`: the ids and orders of all messages of the topics
    that were read to their beginning; `is_news`: whether anything differs from what was known;
    `asked_at`: what we learnt since then says nothing against it.
    """

    topics: list[TopicSummary]
    messages: list[Message] = field(default_factory=list)
    floors: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    whole: dict[str, dict[str, str]] = field(default_factory=dict)
    is_news: bool = False
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Survey:
    """The topics that hold messages; the synthetic General of an unused thread is left out.

    `reaches`: None when these are all; else the list was too long, and topics without news since then are missing.
    """

    topics: list[TopicSummary]
    reaches: datetime | None = None


class Pages:
    """Upstream's topic list and history of one thread, no page asked for twice: what is looked at at one time.

    `begun_at`: none of it is older than that (seconds, monotonic).
    """

    def __init__(self, client: UpstreamClient, address: ThreadAddress, bearer: str) -> None:
        self.begun_at = time.monotonic()
        self._client = client
        self._address = address
        self._bearer = bearer
        self._topics: dict[int, TopicPage] = {}
        self._history: dict[tuple[str, int], HistoryPage] = {}

    async def topics(self, page: int) -> TopicPage:
        """A page of the list, by its number, newest topics first."""
        if page not in self._topics:
            self._topics[page] = await self._client.topics(
                self._address, page=page, page_size=_TOPICS_PAGE, bearer=self._bearer
            )
        return self._topics[page]

    async def history(self, topic: str, page: int) -> HistoryPage:
        """A page of a topic, by its number, newest messages first."""
        if (topic, page) not in self._history:
            self._history[topic, page] = await self._client.history(
                self._address, topic, page=page, page_size=_HISTORY_PAGE, bearer=self._bearer
            )
        return self._history[topic, page]


async def survey(pages: Pages, *, most_pages: int = _MAX_TOPIC_PAGES) -> Survey:
    """Upstream's list of a thread's topics, newest first, as far as so many pages of it reach."""
    is_whole = False
    found: dict[str, TopicSummary] = {}
    for page in range(1, most_pages + 1):
        answer = await pages.topics(page)
        for topic in answer.topics:
            found.setdefault(topic.scope, topic)
        is_whole = len(answer.topics) < _TOPICS_PAGE
        if is_whole:
            break
    topics = [topic for topic in found.values() if topic.message_count or topic.scope != GENERAL]
    dated = [topic.last_message_at for topic in topics if topic.last_message_at is not None]
    return Survey(topics, None if is_whole or not dated else min(dated))


async def compare(pages: Pages, known: Mapping[str, TopicState]) -> Difference:
    """Fetch what `known` leaves out, into new `pages`. Raises UpstreamError's subclasses; then nothing was learnt."""
    asked_at = datetime.now(UTC)
    listing = await survey(pages)
    difference = Difference(listing.topics, asked_at=asked_at)
    listed = {topic.scope for topic in listing.topics}
    for scope, state in known.items():
        # A list may lag or shift while it is paged: only an empty history says that a topic is gone.
        known_at = (state.surveyed_at, state.last_at, state.heard_at)  # there, by the stream, or as a receipt
        seen_at = max(filter(None, known_at), default=None)
        if seen_at is None or scope in listed:
            continue
        if listing.reaches is None or seen_at > listing.reaches:
            rest = await pages.history(scope, 1)
            if rest.is_last and not rest.messages:
                is_young = datetime.now(UTC) - seen_at < _LAG
                (difference.missing if is_young else difference.gone)[scope] = behind(seen_at)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def fetch(topic: TopicSummary) -> None:
        state = known.get(topic.scope, NOTHING_KNOWN)
        async with gate:
            news = await _news(pages, topic, state)
        difference.messages.extend(news.messages)
        if news.floor:
            difference.floors[topic.scope] = news.floor
        elif news.is_whole and len(news.messages) >= topic.message_count:
            difference.whole[topic.scope] = {message.id: message.order for message in news.messages}

    changed = [topic for topic in listing.topics if is_changed(topic, known)]
    await asyncio.gather(*(fetch(topic) for topic in changed))
    difference.messages.sort(key=lambda message: message.order)
    difference.is_news = bool(changed or difference.gone)
    return difference


def is_changed(topic: TopicSummary, known: Mapping[str, TopicState]) -> bool:
    """Whether upstream's list shows a topic otherwise than it was when everything behind it had been fetched."""
    state = known.get(topic.scope, NOTHING_KNOWN)
    return (topic.message_count, topic.last_message_at) != (state.count, state.last_at)


@dataclass(frozen=True, slots=True)
class _News:
    """Messages of a topic; `floor`: where we stopped though more is unknown; `is_whole`: these are all it holds."""

    messages: list[Message]
    floor: str = ""
    is_whole: bool = False


async def _news(pages: Pages, topic: TopicSummary, state: TopicState) -> _News:
    """A topic's messages from the newest back to what is known."""
    found: dict[str, Message] = {}
    page = 0
    while True:
        page += 1
        answer = await pages.history(topic.scope, page)
        for message in answer.messages:
            found.setdefault(message.id, message)
        if answer.is_last:
            return _News(list(found.values()), is_whole=True)
        if not answer.messages:
            continue
        oldest = min(answer.messages, key=lambda message: message.order)
        if _is_even(topic, state, found.values(), oldest):
            return _News(list(found.values()))
        if oldest.order <= state.floor or (state.last_at and oldest.created_at < state.last_at - _LATE):
            return _News(list(found.values()))
        if len(found) >= _MAX_MESSAGES:
            return _News(list(found.values()), floor=oldest.order)


def _is_even(topic: TopicSummary, state: TopicState, found: Iterable[Message], oldest: Message) -> bool:
    """Whether the list differs from what was known by just those of the messages found that are newer: in the middle of
    a burst some are always on their way."""
    if state.last_at is None or topic.last_message_at is None or oldest.created_at > state.last_at:
        return False
    newer = sum(state.last_at < message.created_at <= topic.last_message_at for message in found)
    return state.count + newer == topic.message_count


async def newest(
    client: UpstreamClient, address: ThreadAddress, topic: str, *, before: str | None, limit: int, bearer: str
) -> tuple[list[Message], bool]:
    """Up to `limit` messages older than the order `before` (None: the newest), oldest first; whether there are more.

    Pages are by number over a list that grows at its head, so every page from the first is looked through until
    enough older ones are found; what shifts in meanwhile only repeats.
    """
    found: dict[str, Message] = {}
    page_size = max(limit + 1, _HISTORY_PAGE if before else 0)
    page = 0
    while True:
        page += 1
        answer = await client.history(address, topic, page=page, page_size=page_size, bearer=bearer)
        for message in answer.messages:
            if before is None or message.order < before:
                found.setdefault(message.id, message)
        if answer.is_last or len(found) > limit:
            break
    ordered = sorted(found.values(), key=lambda message: message.order)
    return ordered[-limit:], len(ordered) > limit


async def after(pages: Pages, order: str, *, limit: int = _MAX_MESSAGES) -> tuple[list[Message], bool]:
    """Every streamed message behind the order, over all topics, in order; whether that is all there is."""
    complete = True
    found: dict[str, Message] = {}
    for topic in (await survey(pages)).topics:
        if topic.last_message_at and order_at(topic.last_message_at) < order[: len(order_at(topic.last_message_at))]:
            continue
        page = 0
        while True:
            page += 1
            answer = await pages.history(topic.scope, page)
            for message in answer.messages:
                if message.order > order:
                    found.setdefault(message.id, message)
            if answer.is_last or min((message.order for message in answer.messages), default="~") <= order:
                break
            if len(found) >= limit:
                complete = False
                break
    streamed = [message for message in found.values() if message.is_streamed]
    return sorted(streamed, key=lambda message: message.order), complete


async def whole(client: UpstreamClient, address: ThreadAddress, topic: str, *, bearer: str) -> dict[str, str] | None:
    """The ids and orders of everything that a topic holds now; None when that is more than one page."""
    answer = await client.history(address, topic, page=1, page_size=_HISTORY_PAGE, bearer=bearer)
    return {message.id: message.order for message in answer.messages} if answer.is_last else None


async def find(
    client: UpstreamClient, address: ThreadAddress, topic: str, wanted: set[str], *, bearer: str
) -> list[Message]:
    """The messages of a topic with these ids, as far as they are among its newest thousands."""
    found: dict[str, Message] = {}
    for page in range(1, _MAX_MESSAGES // _HISTORY_PAGE + 1):
        answer = await client.history(address, topic, page=page, page_size=_HISTORY_PAGE, bearer=bearer)
        found |= {message.id: message for message in answer.messages if message.id in wanted}
        if answer.is_last or len(found) == len(wanted):
            break
    return list(found.values())


async def sent_before(
    client: UpstreamClient, address: ThreadAddress, topic: str, request_id: str, *, bearer: str
) -> Message | None:
    """The person's message that carries a request id, if upstream has stored it (xians-api.md 10.34)."""
    answer = await client.history(address, topic, page=1, page_size=_HISTORY_PAGE * 2, bearer=bearer)
    mine = (
        message for message in answer.messages if message.direction == "Incoming" and message.request_id == request_id
    )
    return next(mine, None)
