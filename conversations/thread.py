"""One topic of a conversation with everything around it: the context of the conversation page."""

import asyncio
from dataclasses import dataclass, field

from django.utils import timezone

from conversations import entries, flow, links, topic_names, topic_rows
from conversations.flow import Item
from messaging import inboxes, parameters
from messaging.directory import AgentDetail
from messaging.errors import ActivationInactive, AgentCannotConverse, Invalid, MessagingError
from messaging.sessions import Access
from messaging.wire import Message, ThreadAddress, TopicPage, TopicSummary

PROMPTS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """The messages of one topic, `earlier` being the address of those before them ("" if there are none)."""

    items: list[Item]
    earlier: str = ""
    newest_answer: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """What was found out about one topic. `cannot_converse`, `is_inactive` and `problem` (a name that
    no topic can have) say why there may be nothing."""

    address: ThreadAddress
    topic: str
    cursor: str = ""
    topics: TopicPage | None = None
    shown: Shown = field(default_factory=lambda: Shown([]))
    total_unread: int = 0
    detail: AgentDetail | None = None
    is_inactive: bool = False
    cannot_converse: bool = False
    problem: str = ""


async def load(address: ThreadAddress, topic: str, *, before: str | None, access: Access) -> Thread:
    """Everything about an open topic.

    The cursor is taken first: what arrives while the rest is fetched stands in the page, in the stream or in both,
    never in neither.
    """
    try:
        topic = await parameters.existing_topic({"topic": topic}, address)
        cursor = await inboxes.cursor(address)
        topics, shown, unread, detail = await asyncio.gather(
            inboxes.topics(address, access=access),
            messages(address, topic, before=before, access=access),
            inboxes.unread(address, access=access),
            _detail(address, access),
        )
    except Invalid as error:
        return Thread(address, topic, problem=f"A topic’s name {error.sentence.removeprefix('topic ')}")
    except ActivationInactive:
        return Thread(address, topic, is_inactive=True)
    except AgentCannotConverse:
        return Thread(address, topic, cannot_converse=True)
    return Thread(address, topic, cursor, topics, shown, unread.total, detail)


async def messages(address: ThreadAddress, topic: str, *, before: str | None, access: Access) -> Shown:
    """A screenful of a topic, oldest first: the newest, or those before a place in the inbox."""
    found, has_earlier = await inboxes.newest(address, topic, before=before, access=access)
    drawn = (entries.of(message, agent=address.activation_name) for message in found)
    earlier = links.part(address, "messages", topic, before=found[0].order) if has_earlier and found else ""
    return Shown(flow.arrange(drawn, now=timezone.now()), earlier, _newest_answer(found))


def _newest_answer(found: list[Message]) -> str:
    return next((message.id for message in reversed(found) if message.is_answer), "")


async def _detail(address: ThreadAddress, access: Access) -> AgentDetail | None:
    try:
        return await inboxes.agent(address, access=access)
    except MessagingError:
        return None


def topic_list(thread: Thread) -> topic_rows.TopicList:
    """The rows beside the thread; General alone where upstream said nothing."""
    found = thread.topics or TopicPage([TopicSummary("", 0, None, 0)], 1, 20, 1, 1, has_more=False)
    return topic_rows.of(thread.address, found, current=thread.topic)


def context(thread: Thread) -> dict[str, object]:
    """The names that the thread's template uses."""
    address, topic = thread.address, thread.topic
    detail = thread.detail
    return {
        "thread": thread,
        "topic": topic,
        "topic_key": topic_names.key(topic),
        "topic_title": topic_names.title(topic),
        "is_general": not topic,
        "items": thread.shown.items,
        "earlier": thread.shown.earlier,
        "earlier_page": thread.shown.earlier.replace("/messages/?", "/?", 1),
        "newest_answer": thread.shown.newest_answer,
        "detail": detail,
        "prompts": detail.sample_prompts[:PROMPTS] if detail else [],
        "can_write": not (thread.is_inactive or thread.cannot_converse or thread.problem),
        "page_url": links.conversation(address, topic),
        "here_url": links.conversation(address),
        "send_url": links.part(address, "send", topic),
        "read_url": links.part(address, "read", topic),
        "delete_url": links.part(address, "delete", topic),
    }
