"""Responses, with the headers that the real server puts on them."""

from dataclasses import dataclass, field

from demo.xians import notation
from demo.xians.notation import Json

type Headers = list[tuple[bytes, bytes]]

JSON = "application/json; charset=utf-8"
SERVER: Headers = [(b"server", b"Kestrel")]
SECURITY: Headers = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-xss-protection", b"1; mode=block"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"x-permitted-cross-domain-policies", b"none"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
]
STREAM: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"connection", b"keep-alive"),
    (b"access-control-allow-origin", b"*"),
]
NOT_CACHED: Headers = [
    (b"cache-control", b"no-cache,no-store"),
    (b"pragma", b"no-cache"),
    (b"expires", b"-1"),
]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response. Like Kestrel's, a JSON body goes out chunked, without `Content-Length`."""

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)

    def head(self) -> Headers:
        length: Headers = [] if self.body else [(b"content-length", b"0")]
        return [*self.headers, *SERVER, *length]


def of_json(value: Json, *, status: int = 200, headers: Headers | None = None) -> Reply:
    body = notation.relaxed(value).encode()
    return Reply(status, body, [(b"content-type", JSON.encode()), *(headers or []), *SECURITY])


def of_text(text: str, *, status: int = 200) -> Reply:
    return Reply(status, text.encode(), [(b"content-type", b"text/plain"), *SECURITY])
