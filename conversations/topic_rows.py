"""The list of topics beside a conversation."""

from dataclasses import dataclass
from datetime import datetime

from conversations import badges, links, topic_names
from messaging.wire import ThreadAddress, TopicPage, TopicSummary


@dataclass(frozen=True, slots=True)
class TopicRow:
    """One topic as the list shows it."""

    name: str
    key: str
    title: str
    href: str
    at: datetime | None
    message_count: int
    unread_count: int
    badge: str
    is_current: bool
    is_general: bool

    @property
    def is_single(self) -> bool:
        return self.message_count == 1


@dataclass(frozen=True, slots=True)
class TopicList:
    """One page of rows, and the links to the pages beside it."""

    rows: list[TopicRow]
    page: int
    total_pages: int
    newer: str
    older: str
    total: int


def of(address: ThreadAddress, found: TopicPage, *, current: str) -> TopicList:
    """The rows of a page of topics. A current topic that isn't among them gets a row: it may be a new one."""
    summaries = list(found.topics)
    if found.page == 1 and all(each.scope != current for each in summaries):
        summaries.insert(1, TopicSummary(current, 0, None, 0))
    return TopicList(
        rows=[_row(address, summary, current) for summary in summaries],
        page=found.page,
        total_pages=found.total_pages,
        newer=links.part(address, "topics", current, page=found.page - 1) if found.page > 1 else "",
        older=links.part(address, "topics", current, page=found.page + 1) if found.has_more else "",
        total=found.total_topics,
    )


def _row(address: ThreadAddress, summary: TopicSummary, current: str) -> TopicRow:
    return TopicRow(
        name=summary.scope,
        key=topic_names.key(summary.scope),
        title=topic_names.title(summary.scope),
        href=links.conversation(address, summary.scope),
        at=summary.last_message_at,
        message_count=summary.message_count,
        unread_count=summary.unread_count,
        badge=badges.text(summary.unread_count),
        is_current=summary.scope == current,
        is_general=not summary.scope,
    )
