"""What travels over the page's stream: finished HTML, from the very templates that draw the history."""

import dataclasses
import functools
import json
from collections.abc import Callable

from django.template.loader import render_to_string

from conversations import entries, flow, links, markdown, topic_names
from conversations.entries import Entry
from messaging import sse, wire
from messaging.items import StreamItem
from messaging.wire import ThreadAddress

TEMPLATE = "conversations/fragments.html"


@functools.lru_cache(maxsize=4_096)
def encoder(address: ThreadAddress) -> Callable[[StreamItem], bytes]:
    """The function that turns this conversation's stream items into events.

    One function object for each address: the stream encodes an item once for all tabs that share an encoder.
    """

    def encode(item: StreamItem) -> bytes:
        if item.kind == "unread":
            return _unread(item)
        if item.kind == "counts":
            return _counts(item)
        if item.kind == "recovered":
            return _recovered(item)
        if item.kind == "gone":
            return sse.encode("gone", json.dumps({"topicKey": topic_names.key(item.topic)}))
        if item.message is None:
            return b""
        return _message(address, item)

    return encode


def _message(address: ThreadAddress, item: StreamItem) -> bytes:
    message = item.message
    assert message is not None
    entry = entries.of(message, agent=address.activation_name)
    if item.kind == "sent":
        entry = dataclasses.replace(entry, status="Sent", order=message.order if message.id else "")
    event = sse.encode("message", item_html(entry), item.cursor or None)
    if entry.is_answer and not item.is_edit:
        event += sse.encode("toast", _toast(address, entry, message.scope, message.text or ""))
    return event


def item_html(entry: Entry) -> str:
    """One entry as the page shows it."""
    return render_to_string(f"{TEMPLATE}#item", {"item": flow.live(entry)}).strip()


def _toast(address: ThreadAddress, entry: Entry, topic: str, text: str) -> str:
    context = {
        "entry": entry,
        "href": links.conversation(address, topic),
        "title": topic_names.title(topic),
        "excerpt": markdown.excerpt(text),
    }
    return render_to_string(f"{TEMPLATE}#toast", context).strip()


def _unread(item: StreamItem) -> bytes:
    topic = item.topic or ""
    counts = {
        "topic": topic or None,
        "topicKey": topic_names.key(topic),
        "unreadCount": item.unread_count,
        "total": item.total,
    }
    return sse.encode("unread", json.dumps(counts))


def _counts(item: StreamItem) -> bytes:
    """All counts at once: what changed while the page had no stream."""
    counts = {topic_names.key(topic): count for topic, count in item.counts.items()}
    return sse.encode("counts", json.dumps({"counts": counts, "total": sum(item.counts.values())}))


def changes(item: StreamItem) -> bytes:
    """For an overview: that some count has changed, and nothing more."""
    return sse.encode("unread", "{}") if item.kind == "unread" else b""


def _recovered(item: StreamItem) -> bytes:
    context = {"count": item.count, "since": item.since, "until": item.until, "order": _order(item)}
    return sse.encode("recovered", render_to_string(f"{TEMPLATE}#recovered", context).strip())


def _order(item: StreamItem) -> str:
    return wire.order_at(item.until) if item.until else ""
