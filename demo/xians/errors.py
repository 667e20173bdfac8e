"""Every way in which the server says no. The names E1 to E7 are those of the wire contract."""

from demo.xians import notation, reply
from demo.xians.reply import Reply

_PROBLEMS = {
    400: ("https://tools.ietf.org/html/rfc9110#section-15.5.1", "Bad Request"),
    403: ("https://tools.ietf.org/html/rfc9110#section-15.5.4", "Forbidden"),
    500: (
        "https://tools.ietf.org/html/rfc9110#section-15.6.1",
        "An error occurred while processing your request.",
    ),
}


class Refusal(Exception):
    """Ends a request with `reply`. Raised by handlers, answered by the application."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.status} {reply.body[:200]!r}")
        self.reply = reply


def failed(status: int, text: str) -> Refusal:
    """E1: a service said no."""
    return Refusal(reply.of_json({"error": text}, status=status))


def blank(text: str) -> Refusal:
    """E2: a bare JSON string, from the handlers' own parameter checks."""
    return Refusal(reply.of_json(text, status=400))


def unauthorized(reason: str) -> Refusal:
    """E3: the key is missing, unknown or not good enough. The only JSON answer with a length."""
    answer = reply.of_json({"error": "Unauthorized", "message": reason}, status=401)
    length = (b"content-length", str(len(answer.body)).encode())
    return Refusal(Reply(401, answer.body, [length, *answer.headers]))


def not_in_scope(status: int, text: str) -> Refusal:
    """E4: tenant filters, "SysAdmin only" and some not-founds."""
    return Refusal(reply.of_json({"message": text}, status=status))


def unhandled(
    status: int = 500,
    error: str = "Internal server error",
    text: str = "An error occurred while processing your request",
) -> Refusal:
    """E5: the global exception handler, which drops the security headers."""
    body = notation.relaxed({"error": error, "message": text}).encode()
    return Refusal(Reply(status, body, [(b"content-type", reply.JSON.encode()), *reply.NOT_CACHED]))


def problem(status: int, detail: str) -> Refusal:
    """E6: `application/problem+json`, from the participants' routes only."""
    kind, title = _PROBLEMS[status]
    body = notation.relaxed({"type": kind, "title": title, "status": status, "detail": detail}).encode()
    return Refusal(Reply(status, body, [(b"content-type", b"application/problem+json"), *reply.SECURITY]))


def empty(status: int, *, allow: str | None = None) -> Refusal:
    """E7: no body at all."""
    headers = list(reply.SECURITY)
    return Refusal(Reply(status, b"", [(b"allow", allow.encode()), *headers] if allow else headers))
