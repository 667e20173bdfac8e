"""JSON and timestamps, written the way the Xians server writes them.

The server has two JSON escapers: a strict one for events (pure ASCII) and a relaxed one for everything
else. Both are reproduced to the byte, because a client that reads with anything but a JSON parser
must be caught here and not in production.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

type Json = Any
"""Whatever `json.loads` gives; the one place where `Any` is let in."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_STRICT = re.compile(r"""\\\\|\\"|\\u[0-9a-f]{4}|['<>&+`]""")
_RELAXED = re.compile(
    r"\\\\|\\u[0-9a-f]{4}|"
    "[\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ue000-\uf8ff\U00010000-\U0010ffff]"
)


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    if found == "\\\\":
        return found
    if found == '\\"':
        return "\\u0022"
    if len(found) > 1:
        return "\\u" + found[2:].upper()
    units = found.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02X}{units[i + 1]:02X}" for i in range(0, len(units), 2))


def _strict_string(text: str) -> str:
    return _STRICT.sub(_escape, json.encoder.encode_basestring_ascii(_LONE_SURROGATE.sub("\ufffd", text)))


def _relaxed_string(text: str) -> str:
    return _RELAXED.sub(_escape, json.encoder.encode_basestring(_LONE_SURROGATE.sub("\ufffd", text)))


def _write(value: Json, string: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ",".join(f"{string(key)}:{_write(item, string)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, string) for item in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value, allow_nan=False)


def strict(value: Json) -> str:
    """JSON as it stands in an event: ASCII only, and quotes, angle brackets, `&`, `+`, backtick escaped."""
    return _write(value, _strict_string)


def relaxed(value: Json) -> str:
    """JSON as it stands in an ordinary response: UTF-8, with only what C# still escapes escaped."""
    return _write(value, _relaxed_string)


def parse(text: str | bytes) -> Json:
    """Read JSON, keeping the scale of decimals; raises `ValueError` for anything that is not JSON."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def timestamp(moment: datetime, *, digits: int | None = None) -> str:
    """UTC with a trailing `Z`; trailing zeros of the fraction are trimmed unless `digits` fixes their number.

    Python keeps six digits; a seventh is always 2, so that one moment is always written the same.
    """
    moment = moment.astimezone(UTC)
    head = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f"{moment.microsecond:06d}".rstrip("0") if digits is None else f"{moment.microsecond:06d}2"[:digits]
    return f"{head}.{fraction}Z" if fraction else f"{head}Z"


def moment(text: str) -> datetime:
    """Read any timestamp of the server; a missing `Z` means UTC. Raises `ValueError`."""
    read = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00")))
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def stored_form(sent: Json) -> dict[str, Json] | None:
    """What the database keeps of a message's `data`: an object as it is, anything else as its raw text."""
    if sent is None or isinstance(sent, dict):
        return sent
    return {"value": _write(sent, json.encoder.encode_basestring)}


def data_in_history(stored: dict[str, Json] | None) -> Json:
    """`data` as history shows it: a lone `value` is unwrapped only if it is a string."""
    if stored is not None and list(stored) == ["value"] and isinstance(stored["value"], str):
        return _unwrapped(stored["value"])
    return stored


def data_in_event(stored: dict[str, Json] | None) -> Json:
    """`data` as an event shows it: a lone `value` is always unwrapped."""
    if stored is not None and list(stored) == ["value"]:
        value = stored["value"]
        return _unwrapped(value) if isinstance(value, str) else value
    return stored


def _unwrapped(text: str) -> Json:
    if text[:1] + text[-1:] not in ("{}", "[]"):
        return text
    try:
        return parse(text)
    except ValueError:
        return text
