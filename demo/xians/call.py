"""One request, and how its parameters are bound: by name in any case, refused with an empty 400."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from demo.xians import errors, notation
from demo.xians.notation import Json
from demo.xians.world import ApiKey

type Scope = MutableMapping[str, Any]
type AsgiMessage = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[AsgiMessage]]
type Send = Callable[[AsgiMessage], Awaitable[None]]

BODY_LIMIT = 31_457_280
_INTEGER = re.compile(r"\s*[+-]?\d{1,10}\s*")


@dataclass(slots=True)
class Call:
    method: str
    path: str
    query_string: str
    headers: list[tuple[str, str]]
    parameters: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    key: ApiKey | None = None
    query: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope) -> "Call":
        raw = scope.get("raw_path") or scope["path"].encode()
        query_string = scope["query_string"].decode("latin-1")
        call = cls(
            method=scope["method"],
            path=raw.split(b"?")[0].decode("latin-1"),
            query_string=query_string,
            headers=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        )
        for name, value in parse_qsl(query_string, keep_blank_values=True):
            name = name.lower()
            call.query[name] = f"{call.query[name]},{value}" if name in call.query else value
        return call

    def header(self, name: str) -> str:
        return next((value for header, value in self.headers if header == name), "")

    @property
    def tenant_id(self) -> str:
        return self.parameters["tenantId"]

    @property
    def owner(self) -> str:
        return self.key.owner if self.key else ""

    def required(self, name: str) -> str:
        """A query parameter that must be there, blank or not."""
        value = self.query.get(name.lower())
        if value is None:
            raise errors.empty(400)
        return value

    def optional(self, name: str) -> str | None:
        return self.query.get(name.lower())

    def integer(self, name: str, default: int | None = None) -> int:
        """An int parameter; without a default it is required."""
        value = self.query.get(name.lower())
        if value is None and default is not None:
            return default
        if value is None or not _INTEGER.fullmatch(value):
            raise errors.empty(400)
        return int(value)

    def boolean(self, name: str, *, default: bool = False) -> bool:
        value = self.query.get(name.lower())
        if value is None:
            return default
        if value.strip().lower() not in ("true", "false"):
            raise errors.empty(400)
        return value.strip().lower() == "true"

    def json_object(self) -> "Fields":
        """The body as a JSON object; anything else is refused as the server's binder refuses it."""
        content_type = self.header("content-type").partition(";")[0].strip().lower()
        if content_type != "application/json" and not content_type.endswith("+json"):
            raise errors.empty(415)
        try:
            value = notation.parse(self.body)
        except ValueError:
            raise errors.empty(400) from None
        if not isinstance(value, dict):
            raise errors.empty(400)
        return Fields(value)


class Fields:
    """A JSON object's members by name in any case."""

    def __init__(self, value: dict[str, Json]) -> None:
        self._members = {name.lower(): member for name, member in value.items()}

    def any(self, name: str) -> Json:
        return self._members.get(name.lower())

    def text(self, name: str, *, is_required: bool = False) -> str | None:
        """A string member or null; a required one must be there as a key."""
        if is_required and name.lower() not in self._members:
            raise errors.empty(400)
        value = self._members.get(name.lower())
        if value is not None and not isinstance(value, str):
            raise errors.empty(400)
        return value

    def integer(self, name: str) -> int:
        """A number or a number in a string; absent counts as 0, null is refused."""
        value = self._members.get(name.lower(), 0)
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise errors.empty(400)
        return value

    def member_of(self, name: str, choices: tuple[str, ...], default: str | None) -> str | None:
        """An enum member by name in any case, or by number."""
        value = self._members.get(name.lower(), default)
        if value is None or value == default:
            return default
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
            return choices[value]
        for choice in choices:
            if isinstance(value, str) and choice.lower() == value.lower():
                return choice
        raise errors.empty(400)


async def read_body(receive: Receive) -> bytes:
    """The whole request body; more than the server's limit is a 413."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise errors.empty(413)
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def segment_of(raw: str) -> str:
    """A decoded path segment; an encoded slash stays encoded, as the real router leaves it."""
    kept = raw.replace("%2F", "%252F").replace("%2f", "%252f")
    return unquote_to_bytes(kept.encode("latin-1")).decode("utf-8", "replace")
