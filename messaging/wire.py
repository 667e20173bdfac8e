"""What upstream says, typed: messages, topics, activations. Reads every casing and timestamp it is known to send.

Facts: shared/xians-api.md sections 0.3 (timestamps), 1.1.4 (the 14 keys), 1.6 (`data`), 2 (topics and history).
`Any` stops here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dc_field
from datetime import UTC, datetime
from typing import Any

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

_USUAL_KEYS = frozenset(STREAM_KEYS) - {"workflowType"}  # absent on older servers
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND_DIGITS = 17
_NO_DATE_YEAR = 1
_LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class ThreadAddress:
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


def topic_key(scope: str) -> str:
    """64 hex characters that stand for a topic name: names may be of any length and hold anything."""
    return hashlib.sha256(scope.encode("utf-8", "replace")).hexdigest()


def order_of(created_at: datetime, message_id: str) -> str:
    """The place of a message in its inbox: sorts as text by creation time, then id."""
    micros = (created_at - _EPOCH) // _MICROSECOND
    return f"{max(micros, 0):0{_MICROSECOND_DIGITS}d}-{_plain_id(message_id)}"


def order_at(moment: datetime) -> str:
    """A place before every message created at or after `moment`."""
    return f"{max((moment - _EPOCH) // _MICROSECOND, 0):0{_MICROSECOND_DIGITS}d}-"


_MICROSECOND = datetime.resolution


def _plain_id(message_id: str) -> str:
    if _PLAIN_ID.fullmatch(message_id):
        return message_id
    return "~" + hashlib.sha256(message_id.encode("utf-8", "replace")).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a thread.

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

    def stream_json(self) -> str:
        """This message as the stream would have sent it: the 14 keys, one line."""
        folded = {_fold(key): value for key, value in self.raw.items()}
        return json.dumps({key: folded.get(key) for key in STREAM_KEYS}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of a topic's history; `is_last`: upstream has no more behind it (rows we can't read count, too)."""

    messages: list[Message]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Activation:
    agent_name: str
    name: str
    description: str
    is_active: bool
    unread_count: int = 0


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


@dataclass(frozen=True, slots=True)
class AgentDetail:
    summary: str
    description: str
    category: str
    sample_prompts: list[str]


def load_json(text: str | bytes) -> Any:
    """Decode JSON, whatever it is. Raises UpstreamMisbehaved for anything that is not JSON (NaN included)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:  # lone surrogates are JSON to Python and not to orjson; the fields we keep are cleaned below
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise UpstreamMisbehaved(f"not JSON ({len(text)} characters): {type(problem).__name__}") from problem


def load_json_exactly(text: str | bytes) -> Any:
    """As load_json, with integers of any size kept: for JSON that we hand on."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise UpstreamMisbehaved(f"not JSON ({len(text)} characters): {type(problem).__name__}") from problem


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def message(raw: Any, *, event: str | None = None) -> Message:
    """Read one message object, from the stream or from history.

    `event` is the stream's event name, used where the object has no messageType. Raises UpstreamMisbehaved when
    the object can't be placed: not an object, or without an id.
    """
    if not isinstance(raw, dict):
        raise UpstreamMisbehaved(f"a message must be an object, not {type(raw).__name__}")
    get = raw.get if raw.keys() >= _USUAL_KEYS else {_fold(key): value for key, value in raw.items()}.get
    identity = get("id")
    if not isinstance(identity, str) or not identity:
        raise UpstreamMisbehaved("a message without an id")
    identity = clean(identity)
    if len(identity) > _LONGEST_ID:
        raise UpstreamMisbehaved(f"a message id of {len(identity)} characters")
    created_at = timestamp(get("createdAt")) or datetime.now(UTC)
    scope = text_or_none(get("scope"))
    return Message(
        id=identity,
        created_at=created_at,
        order=order_of(created_at, identity),
        scope=scope or GENERAL,
        direction=text_or_none(get("direction")) or "",
        kind=text_or_none(get("messageType")) or event or "unknown",
        text=text_or_none(get("text")),
        data=get("data"),
        request_id=text_or_none(get("requestId")),
        created_by=text_or_none(get("createdBy")),
        raw=raw,
    )


def field(raw: Mapping[str, Any], name: str) -> Any:
    """`raw[name]`, whether its first letter came small or capital; None when absent."""
    return raw[name] if name in raw else raw.get(name[:1].upper() + name[1:])


def _fold(key: str) -> str:
    return key[:1].lower() + key[1:]


def text_or_none(value: Any) -> str | None:
    """A string that every database takes, or None for anything that is not a string."""
    return clean(value) if isinstance(value, str) else None


def clean(text: str) -> str:
    """`text` with NUL and lone surrogates replaced: PostgreSQL takes neither (reliability.md F36, F37)."""
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
    paging = {_fold(key): value for key, value in paging.items()} if isinstance(paging, dict) else {}
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


def tenants(raw: Any) -> list[Tenant]:
    """Read the tenants in `/participants/{email}` (xians-api.md 4.1)."""
    rows = field(raw, "tenants") if isinstance(raw, dict) else None
    found = []
    for row in _objects(rows):
        tenant_id = text_or_none(field(row, "tenantId"))
        if tenant_id:
            name = text_or_none(field(row, "tenantName")) or tenant_id
            found.append(Tenant(tenant_id, name, text_or_none(field(row, "role")) or ""))
    return found


def activations(raw: Any) -> list[Activation]:
    """Read `/agentActivations`: a bare array (xians-api.md 3.1); an object with `data` is read too (section 12)."""
    rows = raw.get("data") if isinstance(raw, dict) else raw
    found = []
    for row in _objects(rows):
        agent_name = text_or_none(field(row, "agentName"))
        name = text_or_none(field(row, "name"))
        if agent_name and name:
            description = text_or_none(field(row, "description")) or ""
            found.append(Activation(agent_name, name, description, field(row, "isActive") is True))
    return found


def agent_detail(raw: Any) -> AgentDetail:
    """Read the parts of `/agentDeployments/{agentName}` that a page shows (xians-api.md 3.2)."""
    agent = field(raw, "agent") if isinstance(raw, dict) else None
    agent = {_fold(key): value for key, value in agent.items()} if isinstance(agent, dict) else {}
    prompts = agent.get("samplePrompts")
    return AgentDetail(
        summary=text_or_none(agent.get("summary")) or "",
        description=text_or_none(agent.get("description")) or "",
        category=text_or_none(agent.get("category")) or "",
        sample_prompts=[clean(p) for p in prompts if isinstance(p, str)] if isinstance(prompts, list) else [],
    )


def _objects(rows: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(rows, list):
        raise UpstreamMisbehaved("a list was expected")
    return (row for row in rows if isinstance(row, dict))


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


@dataclass(slots=True)
class StreamItem:
    """One thing that a stream tells its reader; shared by all readers, so encoded once per encoder.

    `kind` is "message" (`message`, `event`, `cursor`, `json`; `is_edit`: its id was shown before), "sent" (the
    person's own `message`, from any tab or device), "unread" (`topic`, `unread_count`, `total`, `address`),
    "counts" (at the start of a stream: unread by topic, those that have any),
    "recovered" (`count` messages came late after a break `since`..`until`), "status" (`state`, `attempt`,
    `retry_in_seconds`) or "resync" (`reason`).
    """

    kind: str
    message: Message | None = None
    event: str = ""
    cursor: str = ""
    sent_ms: int = 0
    json: str = ""
    is_edit: bool = False
    address: ThreadAddress | None = None
    topic: str = GENERAL
    unread_count: int = 0
    total: int = 0
    counts: dict[str, int] = dc_field(default_factory=dict)
    count: int = 0
    since: datetime | None = None
    until: datetime | None = None
    state: str = ""
    attempt: int = 0
    retry_in_seconds: float = 0.0
    reason: str = ""
    encoded: dict[Callable[[StreamItem], bytes], bytes] = dc_field(default_factory=dict, repr=False)

    def bytes_for(self, encode: Callable[[StreamItem], bytes]) -> bytes:
        """This item as `encode` writes it; computed for the first reader only."""
        written = self.encoded.get(encode)
        if written is None:
            written = self.encoded[encode] = encode(self)
        return written
