"""What clients send, checked: every function raises errors.Invalid that names the field as the client spelled it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from messaging import cursors
from messaging.errors import Invalid
from messaging.runtime import current
from messaging.wire import GENERAL, ThreadAddress

NAME_LENGTH = 255
TOPIC_LENGTH = 200
TEXT_LENGTH = 100_000
_REQUEST_ID_LENGTH = 100
_HINT_LENGTH = 2_000
_TYPES = ("Chat", "Data", "File", "Handoff", "Webhook", "Reasoning", "Tool")
_REFUSED_ORIGINS = ("app:", "heartbeat", "agent-initiated")
"""Upstream routes or expires messages of these origins: they would vanish from the conversation (xians-api.md 1.2)."""


def address(tenant_id: str, participant_id: str, values: Mapping[str, Any]) -> ThreadAddress:
    """The conversation that `agentName` and `activationName` name."""
    return ThreadAddress(tenant_id, name(values, "agentName"), name(values, "activationName"), participant_id)


def name(values: Mapping[str, Any], field: str) -> str:
    value = values.get(field)
    if value is None or value == "":
        raise Invalid(field, "is required")
    if not isinstance(value, str):
        raise Invalid(field, "must be a string")
    if not value.strip():
        raise Invalid(field, "is required")
    if len(value) > NAME_LENGTH:
        raise Invalid(field, f"must have at most {NAME_LENGTH} characters")
    _require_printable(field, value)
    return value


def topic(values: Mapping[str, Any]) -> str:
    """The topic a client names: absent, null and blank are General. Upstream trims in places, so we always do."""
    value = values.get("topic")
    if value is None:
        return GENERAL
    if not isinstance(value, str):
        raise Invalid("topic", "must be a string or null")
    value = value.strip()
    if len(value) > TOPIC_LENGTH:
        raise Invalid("topic", f"must have at most {TOPIC_LENGTH} characters")
    _require_printable("topic", value)
    return value


async def existing_topic(values: Mapping[str, Any], address: ThreadAddress) -> str:
    """As `topic`; a name that nobody could give to a new topic is fine if an agent has made one of that name."""
    value = values.get("topic")
    try:
        usual = topic(values)
    except Invalid:
        if isinstance(value, str) and await _is_known(value, address):
            return value
        raise
    if isinstance(value, str) and value != usual and await _is_known(value, address):
        return value
    return usual


async def _is_known(name: str, address: ThreadAddress) -> bool:
    runtime = current()
    inbox = await runtime.ledger.find(address)
    return inbox is not None and name in await runtime.ledger.topic_states(inbox)


def _require_printable(field: str, value: str) -> None:
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in value):
        raise Invalid(field, "must not hold control characters")


def number(values: Mapping[str, Any], field: str, *, default: int, at_least: int = 1, at_most: int) -> int:
    value = values.get(field)
    if value is None or value == "":
        return default
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 10) or not at_least <= int(text) <= at_most:
        raise Invalid(field, f"must be a number from {at_least} to {at_most}")
    return int(text)


def page(values: Mapping[str, Any]) -> int:
    return number(values, "page", default=1, at_most=1_000_000)


def boolean(values: Mapping[str, Any], field: str) -> bool:
    value = str(values.get(field, "false")).lower()
    if value not in ("true", "false"):
        raise Invalid(field, "must be true or false")
    return value == "true"


def newest_first(values: Mapping[str, Any]) -> bool:
    value = str(values.get("sortOrder") or "desc").lower()
    if value not in ("asc", "desc"):
        raise Invalid("sortOrder", "must be asc or desc")
    return value == "desc"


def text(values: Mapping[str, Any]) -> str | None:
    """What the person says; it may be absent only where there is `data` to send."""
    value = values.get("text")
    if value is not None and not isinstance(value, str):
        raise Invalid("text", "must be a string")
    if not (value and value.strip()) and values.get("data") is None:
        raise Invalid("text", "is required")
    if value and len(value) > TEXT_LENGTH:
        raise Invalid("text", f"must have at most {TEXT_LENGTH} characters")
    return value


def request_id(values: Mapping[str, Any]) -> str | None:
    value = optional(values, "requestId", _REQUEST_ID_LENGTH)
    return value.strip() or None if value else None


def optional(values: Mapping[str, Any], field: str, length: int) -> str | None:
    value = values.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid(field, "must be a string")
    if len(value) > length:
        raise Invalid(field, f"must have at most {length} characters")
    _require_printable(field, value)
    return value


def extras(values: Mapping[str, Any]) -> dict[str, Any]:
    """The optional parts of a message: data, type, hint, origin."""
    kind = values.get("type")
    if kind is not None and kind not in _TYPES:
        raise Invalid("type", f"must be one of {', '.join(_TYPES)}")
    origin = optional(values, "origin", NAME_LENGTH)
    if origin and origin.startswith(_REFUSED_ORIGINS):
        raise Invalid("origin", "is one that the agent server keeps for itself")
    return {
        "data": values.get("data"),
        "type": kind,
        "hint": optional(values, "hint", _HINT_LENGTH),
        "origin": origin,
    }


def cursor(query: Mapping[str, Any], header: str | None) -> str | None:
    """Where a client's stream was: its `Last-Event-ID` header, else `lastEventId`. Over-long is as good as unknown."""
    value = header or query.get("lastEventId") or None
    return value[: cursors.LONGEST] if value else None
