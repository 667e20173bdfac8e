"""What upstream says, typed: messages, topics, activations. Reads every casing and timestamp it is known to send.

Facts: shared/xians-api.md sections 0.3 (timestamps), 1.1.4 (the 14 keys), 1.6 (`data`), 2 (topics and history).
`Any` stops here.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
import orjson

from messaging.errors import UpstreamMisbehaved

GENERAL = ""
"""The topic "General Discussions": scope null on the wire."""

STREAM_KEYS = (
    "id",
    "threadId",
    "workflowId",
    "workflowType",
    "participantId",
    "direction",
    "messageType",
    "text",
    "data",
    "hint",
    "scope",
    "requestId",
    "createdAt",
    "createdBy",
)
"""The keys of a message on the stream; history has more (xians-api.md 1.1.4)."""

_TEXT_KEYS = ("id", "scope", "direction", "messageType", "text", "requestId", "createdBy")
_USUAL_KEYS = frozenset(STREAM_KEYS) - {"workflowType"}  # absent on older servers
_NAMES = ("tenantId", "workflowId", "participantId", "threadId")
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLACE_DIGITS = 17
"""How long the part of an order is that tells the microsecond."""
_LAST_MICROSECOND = 10**PLACE_DIGITS - 1  # in the year 5138
_NO_DATE_YEAR = 1
_LONGEST_ID = 200
_NOT_KEPT: Mapping[str, Any] = MappingProxyType({})

type Names = tuple[object, object, object, object]
"""Whose a message says it is: tenant, workflow, participant and thread, None for what it doesn't say."""


class ThreadAddress(msgspec.Struct, frozen=True, cache_hash=True, gc=False):  # a key that is looked up all the time
    """One participant talking to one activation: what one upstream stream, one feed and one inbox stand for."""

    tenant_id: str
    agent_name: str
    activation_name: str
    participant_id: str

    @property
    def key(self) -> str:
        """64 hex characters that stand for this address where its names are too long or too private."""
        names = (self.tenant_id, self.participant_id, self.agent_name, self.activation_name)
        return hashlib.sha256("\x00".join(names).encode("utf-8", "replace")).hexdigest()


@lru_cache(1024)
def topic_key(scope: str) -> str:
    """64 hex characters that stand for a topic name: names may be of any length and hold anything."""
    return hashlib.sha256(scope.encode("utf-8", "replace")).hexdigest()


def order_of(created_at: datetime, message_id: str) -> str:
    """The place of a message in its inbox: sorts as text by creation time, then id."""
    return order_at(created_at) + (message_id if _PLAIN_ID.fullmatch(message_id) else _plain_id(message_id))


def order_at(moment: datetime) -> str:
    """A place before every message created at or after `moment`."""
    since = moment - _EPOCH
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not 0 <= micros <= _LAST_MICROSECOND:
        micros = min(max(micros, 0), _LAST_MICROSECOND)
    return f"{micros:017d}-"


def _plain_id(message_id: str) -> str:
    return "~" + hashlib.sha256(message_id.encode("utf-8", "replace")).hexdigest()[:24]


class Message(msgspec.Struct, gc=False):  # made for every message there is: a dataclass takes three times as long
    """One message of a thread; never changed.

    `scope` is the topic ("" is General), `kind` upstream's messageType, `order` its place in the inbox,
    `raw` upstream's object as it came (keys untouched). Text fields are safe to store: no NUL, no lone surrogate.
    """

    id: str
    created_at: datetime
    order: str
    scope: str
    direction: str
    kind: str
    text: str | None
    data: object
    request_id: str | None
    created_by: str | None
    raw: Mapping[str, Any]

    @property
    def is_answer(self) -> bool:
        """Whether it counts as unread (D2): from the agent, and Chat."""
        return self.direction == "Outgoing" and self.kind == "Chat"

    @property
    def is_streamed(self) -> bool:
        """Whether upstream's stream carries such messages (xians-api.md 1.1.5)."""
        return self.direction == "Outgoing" or self.kind == "Handoff"


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of a topic's history; `is_last`: upstream has no more behind it (rows we can't read count, too)."""

    messages: list[Message]
    is_last: bool


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """One row of upstream's topic list; `message_count` counts every type and both directions."""

    scope: str
    message_count: int
    last_message_at: datetime | None
    unread_count: int = 0


@dataclass(frozen=True, slots=True)
class TopicPage:
    topics: list[TopicSummary]
    page: int
    page_size: int
    total_topics: int
    total_pages: int
    has_more: bool


def load_json(text: str | bytes) -> Any:
    """Decode JSON, whatever it is. Raises UpstreamMisbehaved for anything that is not JSON (NaN included)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:  # lone surrogates are JSON to Python and not to orjson; the fields we keep are cleaned below
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as problem:
        raise UpstreamMisbehaved(f"not JSON ({len(text)} characters): {type(problem).__name__}") from problem


def load_json_exactly(text: str | bytes) -> Any:
    """As load_json, with integers of any size kept: for JSON that we hand on."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as problem:
        raise UpstreamMisbehaved(f"not JSON ({len(text)} characters): {type(problem).__name__}") from problem


def _finite(digits: str) -> float:
    """1e999 is JSON, infinity is not: what we hand on must be JSON again."""
    return max(min(float(digits), sys.float_info.max), -sys.float_info.max)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def stream_json(raw: Mapping[str, Any]) -> str:
    """A message as the stream would have sent it: the 14 keys, one line."""
    ours = folded(raw)
    return json.dumps({key: ours.get(key) for key in STREAM_KEYS}, separators=(",", ":"))


class _Usual(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A message as servers send it on the stream: read into place, at a fraction of what any object takes."""

    id: str
    thread_id: str | None
    workflow_id: str | None
    participant_id: str | None
    direction: str | None
    message_type: str | None
    text: str | None
    data: Any
    hint: str | None
    scope: str | None
    request_id: str | None
    created_at: str | None
    created_by: str | None
    workflow_type: str | None = None
    tenant_id: str | None = None


_read_usual = msgspec.json.Decoder(_Usual).decode


def streamed(text: str, event: str) -> tuple[Message, Names]:
    """Read a message of the stream, without upstream's object, and whose it says it is.

    `event` is the stream's event name, used where the object has no messageType. Raises UpstreamMisbehaved when it is
    no JSON, or the object can't be placed.
    """
    try:
        said = _read_usual(text)
    except (msgspec.MsgspecError, RecursionError):
        raw = load_json(text)
        read = message(raw, event=event, keeps_raw=False)
        tenant_id, workflow_id, participant_id, thread_id = [field(raw, name) for name in _NAMES]
        return read, (tenant_id, workflow_id, participant_id, thread_id)
    names = (said.tenant_id, said.workflow_id, said.participant_id, said.thread_id)
    texts = (said.id, said.scope, said.direction, said.message_type, said.text, said.request_id, said.created_by)
    if not _is_clean(text):
        texts = tuple([value and clean(value) for value in texts])  # type: ignore[assignment]
    return _placed(texts, said.created_at, said.data, event, _NOT_KEPT), names


def message(raw: Any, *, event: str | None = None, keeps_raw: bool = True) -> Message:
    """Read one message object, in whatever casing; `keeps_raw`: with upstream's object, which is most of its weight.

    `event` as in `streamed`. Raises UpstreamMisbehaved when the object can't be placed: not an object, or without an
    id.
    """
    if not isinstance(raw, dict):
        raise UpstreamMisbehaved(f"a message must be an object, not {type(raw).__name__}")
    get = raw.get if raw.keys() >= _USUAL_KEYS else folded(raw).get
    texts = [text_or_none(value) for value in map(get, _TEXT_KEYS)]
    return _placed(texts, get("createdAt"), get("data"), event, raw if keeps_raw else _NOT_KEPT)


def _placed(
    texts: Iterable[str | None], created: object, data: object, event: str | None, raw: Mapping[str, Any]
) -> Message:
    """A message of clean texts, in the order of `_TEXT_KEYS`, put in its place."""
    identity, scope, direction, kind, text, request_id, created_by = texts
    if not identity:
        raise UpstreamMisbehaved("a message without an id")
    if len(identity) > _LONGEST_ID:
        raise UpstreamMisbehaved(f"a message id of {len(identity)} characters")
    created_at = timestamp(created) or _moment_of(identity)
    return Message(
        identity,
        created_at,
        order_of(created_at, identity),
        scope or GENERAL,
        direction or "",
        kind or event or "unknown",
        text,
        data,
        request_id,
        created_by,
        raw,
    )


def _is_clean(text: str) -> bool:
    """Whether no string in a JSON text needs `clean`: NUL and lone surrogates can only be written as escapes."""
    return "\\" not in text or "\\u" not in text  # looking for a single character is much faster


def _moment_of(identity: str) -> datetime:
    """When a message without a time was made: upstream's ids begin with the second (ObjectId); else long ago.

    It has to be the same at every reading, or the message would change its place.
    """
    if _OBJECT_ID.fullmatch(identity):
        return datetime.fromtimestamp(int(identity[:8], 16), UTC)
    return _EPOCH


def stranger(names: Names, address: ThreadAddress, thread_id: str) -> str:
    """Which part of the address a message contradicts, "" for none. Absent parts contradict nothing."""
    tenant_id, workflow, participant, thread = names
    if isinstance(tenant_id, str) and tenant_id != address.tenant_id:
        return "tenant"
    if isinstance(participant, str) and participant.lower() != address.participant_id:
        return "participant"
    if isinstance(thread, str) and thread_id and thread != thread_id:
        return "thread"
    if isinstance(workflow, str) and workflow.count(":") >= 3:
        if not workflow.startswith(f"{address.tenant_id}:"):
            return "tenant"
        if not workflow.endswith(f":{address.activation_name}"):
            return "activation"
    return ""


def field(raw: Mapping[str, Any], name: str) -> Any:
    """`raw[name]`, whether its first letter came small or capital; None when absent."""
    return raw[name] if name in raw else raw.get(name[:1].upper() + name[1:])


def folded(raw: Any) -> dict[str, Any]:
    """An object's members with small first letters, whatever casing it came in; none for what is no object."""
    return {key[:1].lower() + key[1:]: value for key, value in raw.items()} if isinstance(raw, dict) else {}


def text_or_none(value: Any) -> str | None:
    """A string that every database takes, or None for anything that is not a string."""
    return clean(value) if isinstance(value, str) else None


def clean(text: str) -> str:
    """`text` with NUL and lone surrogates replaced: PostgreSQL takes neither (reliability.md F36, F37)."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def timestamp(value: Any) -> datetime | None:
    """An ISO timestamp with 0-7 fraction digits, `Z` or not, as aware UTC; None for year 1 and for nonsense."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.year == _NO_DATE_YEAR:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def topic_page(raw: Any) -> TopicPage:
    """Read the answer of `/topics`, with either version's pagination keys (xians-api.md 2.1, W5)."""
    rows = field(raw, "topics") if isinstance(raw, dict) else None
    if not isinstance(rows, list):
        raise UpstreamMisbehaved("a topic list must be an object with `topics`")
    topics = [_topic_summary(row) for row in rows if isinstance(row, dict)]
    paging = field(raw, "pagination")
    paging = folded(paging)
    size = _count(paging.get("pageSize")) or max(len(topics), 1)
    total = _count(paging.get("totalTopics", paging.get("total", len(topics))))
    return TopicPage(
        topics=topics,
        page=_count(paging.get("currentPage", paging.get("page", 1))) or 1,
        page_size=size,
        total_topics=total,
        total_pages=_count(paging.get("totalPages", -(-total // size))),
        has_more=bool(paging.get("hasMore", False)),
    )


def _topic_summary(row: Mapping[str, Any]) -> TopicSummary:
    return TopicSummary(
        scope=text_or_none(field(row, "scope")) or GENERAL,
        message_count=_count(field(row, "messageCount")),
        last_message_at=timestamp(field(row, "lastMessageAt")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def complaint(body: bytes) -> str:
    """What an error answer says, in any of upstream's eight shapes (xians-api.md 0.4); "" when it is empty."""
    if not body.strip():
        return ""
    try:
        said = load_json(body)
    except UpstreamMisbehaved:
        return ""
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, dict):
        for key in ("message", "error", "detail", "title"):
            if isinstance(said.get(key), str):
                return str(said[key]).strip()
    return ""
