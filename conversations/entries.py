"""What one message looks like on the page, ready for the template: no logic is left to it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString
from msgspec import structs

from conversations import markdown, topic_names
from messaging import wire
from messaging.wire import Message

STEP_KINDS: Final = frozenset({"Reasoning", "Tool"})
_MAX_FIELDS: Final = 24
_MAX_VALUE: Final = 400
_MAX_CODE: Final = 20_000
_MAX_TEXT: Final = 100_000
"""A text that goes on for longer is cut: no person reads it, and every tab would have to lay it out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message on the page. Exactly one of `body`, `fields`, `code`, `files` has something to show."""

    dom_id: str
    message_id: str
    topic_key: str
    order: str
    at: datetime
    author: str
    kind: str
    is_own: bool = False
    is_answer: bool = False
    is_step: bool = False
    is_tool: bool = False
    label: str = ""
    status: str = ""
    body: SafeString | str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    code: str = ""
    files: list[str] = field(default_factory=list)
    cut: int = 0
    """How many characters of the text are left out."""


def of(message: Message, *, agent: str) -> Entry:
    """The entry of any message; `agent` is the name that the agent goes by on this page."""
    is_own = message.direction == "Incoming" and message.kind not in STEP_KINDS
    entry = Entry(
        dom_id=_dom_id(message, is_own=is_own),
        message_id=message.id,
        topic_key=topic_names.key(message.scope),
        order=message.order,
        at=message.created_at,
        author="You" if is_own else agent,
        kind=message.kind,
        is_own=is_own,
        is_answer=message.is_answer,
        is_step=message.kind in STEP_KINDS,
        is_tool=message.kind == "Tool",
    )
    return _filled(entry, message)


def own(text: str, *, request_id: str, topic: str, at: datetime) -> Entry:
    """A message of the person's own that upstream has just taken; its place in the inbox isn't known yet."""
    return Entry(
        dom_id=f"request-{request_id}",
        message_id="",
        topic_key=topic_names.key(topic),
        order="",
        at=at,
        author="You",
        kind="Chat",
        is_own=True,
        status="Sent",
        body=markdown.render(text),
    )


def _dom_id(message: Message, *, is_own: bool) -> str:
    if is_own and message.request_id:
        return f"request-{message.request_id}"
    return f"message-{message.order.partition('-')[2]}"


def _filled(entry: Entry, message: Message) -> Entry:
    if message.text and len(message.text) > _MAX_TEXT:
        entry = replace(entry, cut=len(message.text) - _MAX_TEXT)
        message = structs.replace(message, text=message.text[:_MAX_TEXT])
    content = content_of(message.data)
    if entry.is_step:
        words = message.text or (content if isinstance(content, str) else _pretty(content))
        return replace(entry, body=words or message.kind)
    if message.kind == "File":
        return replace(entry, label="File", files=list(_file_names(content)) or ["file"], body=_prose(message))
    if message.kind == "Data" and content is not None:
        return _with_data(replace(entry, label="Data", body=_prose(message)), content)
    if message.kind == "Handoff":
        return replace(entry, label="Handed over", body=_prose(message))
    if message.kind == "Chat":
        return replace(entry, body=_prose(message) or _words(content))
    return replace(entry, label=message.kind, body=format_html("<p>{}</p>", message.text or _words(content)))


def _prose(message: Message) -> SafeString | str:
    return markdown.render(message.text) if message.text else ""


def _with_data(entry: Entry, content: object) -> Entry:
    if isinstance(content, str):
        return replace(entry, body=entry.body or markdown.render(content))
    if isinstance(content, Mapping) and 0 < len(content) <= _MAX_FIELDS and all(map(_is_short, content.values())):
        return replace(entry, fields=[(str(name), _words(value)) for name, value in content.items()])
    return replace(entry, code=_pretty(content))


def content_of(given: object) -> object:
    """`data` as it was meant: a string that holds JSON is that JSON (xians-api.md 1.6)."""
    if not isinstance(given, str):
        return given
    try:
        found: object = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return wire.clean(found) if isinstance(found, str) else found


def _is_short(value: object) -> bool:
    return not isinstance(value, Mapping | list) and len(str(value)) <= _MAX_VALUE


def _words(value: object) -> str:
    if value is None:
        return ""
    return wire.clean(value) if isinstance(value, str) else _pretty(value)


def _pretty(value: object) -> str:
    if value is None:
        return ""
    text = wire.clean(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    return text if len(text) <= _MAX_CODE else text[:_MAX_CODE] + "\n…"


def _file_names(content: object) -> Iterator[str]:
    """Names only: the content of a file never goes into the page."""
    listed = content.get("files", content) if isinstance(content, Mapping) else content
    for each in listed if isinstance(listed, list) else [listed]:
        if isinstance(each, Mapping):
            name = each.get("fileName") or each.get("name")
            if isinstance(name, str):
                yield topic_names.title(wire.clean(name))
