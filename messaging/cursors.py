"""Cursors: what a reader of an inbox has been handed, as the `id:` that our streams write and take back.

A cursor is `<order>.<sent>.<marks>.<span>.<seal>`. Everything up to the order was handed to its holder; of what
stands behind it, the messages whose marks are listed (four letters each) and no other. An order alone would not do:
the newest message that a reader got says nothing about an older one that its process had not heard of (upstream's
stream leaves messages out), and another process may have known that one for long. After a burst there are too many for
marks: then the span says of a stretch before the order how many they were, and their sum. `sent` is the moment of
writing (milliseconds, hexadecimal), or two moments: of what became known since the second one the order says nothing,
not even where it is older. The seal binds all of it to one inbox, so that nobody else's or an invented
cursor is ever honoured (reliability.md F61).
"""

from __future__ import annotations

import hmac
import re
from binascii import b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

_SEAL_BYTES = 5
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
MARK_LENGTH = 4
MOST_MARKS = 64
LONGEST = 500
"""More characters than any cursor of ours has."""
_ORDER = r"\d{17}-[A-Za-z0-9_~-]{0,32}"
_CURSOR = re.compile(
    rf"({_ORDER})\.([0-9a-f]{{1,13}})(?:-([0-9a-f]{{1,13}}))?\.([A-Za-z0-9_-]{{0,256}})\.((?:{_ORDER}\*\d{{1,9}}\*[0-9a-f]{{16}})?)\.([0-9a-f]{{10}})"
)


def mark(message_id: str) -> str:
    """Four letters that stand for a message among the few behind a cursor's order."""
    letters = b2a_base64(blake2b(message_id.encode("utf-8", "replace"), digest_size=3).digest(), newline=False)
    return letters.translate(_URL_SAFE).decode("ascii")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of which is known only how many messages were handed out, and the sum of their ids' digests.

    It begins behind `start`. Nobody has compared it with upstream yet.
    """

    start: str
    count: int = 0
    total: int = 0

    def with_(self, message_ids: Iterable[str]) -> Span:
        """This span with so many messages more."""
        count, total = self.count, self.total
        for message_id in message_ids:
            digest = blake2b(message_id.encode("utf-8", "replace"), digest_size=8).digest()
            count, total = count + 1, total ^ int.from_bytes(digest)
        return Span(self.start, count, total)

    def __str__(self) -> str:
        return f"{self.start}*{self.count}*{self.total:016x}"

    @classmethod
    def read(cls, text: str) -> Span:
        start, count, total = text.split("*")
        return cls(start, int(count), int(total, 16))


@dataclass(frozen=True, slots=True)
class Cursor:
    """`order`: everything up to it was handed to the holder; `marks`: of what stands behind it, these; `sent_at`.

    With a `span`, what stands between its start and the order was handed out only as far as count and sum agree.
    `sure_at`: what stands before the order and became known after that moment may have been left out.
    """

    order: str
    sent_at: datetime
    marks: frozenset[str] = frozenset()
    span: Span | None = None
    sure_at: datetime | None = None


class Sealer:
    """Writes and reads the cursors of one inbox. `secret` is shared by every process of the application."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes, inbox_key: str) -> None:
        self._key = hmac.digest(secret, inbox_key.encode(), "sha256")  # what blake2b takes for its key is shorter

    def write(self, order: str, sent_at_ms: int, marks: str = "", span: str = "", *, sure_at_ms: int = 0) -> str:
        """A cursor; `marks` are those of the messages behind `order`, one after the other, `span` a Span as text.

        `sure_at_ms`: 0 where the order is sure of all that was known when it was sent (so never beside a span).
        """
        sent = f"{sent_at_ms:x}-{sure_at_ms:x}" if sure_at_ms else f"{sent_at_ms:x}"
        position = f"{order}.{sent}.{marks}.{span}"
        return f"{position}.{self._seal(position)}"

    def read(self, text: str) -> Cursor | None:
        """The cursor that `text` stands for; None when it is not one that this inbox gave out."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            return None
        order, sent, sure, marks, span, seal = found.groups()
        if not hmac.compare_digest(seal, self._seal(text.removesuffix(f".{seal}"))):
            return None
        several = frozenset(marks[at : at + MARK_LENGTH] for at in range(0, len(marks), MARK_LENGTH))
        return Cursor(order, _moment(sent), several, Span.read(span) if span else None, _moment(sure) if sure else None)

    def _seal(self, position: str) -> str:
        return blake2b(position.encode(), digest_size=_SEAL_BYTES, key=self._key).hexdigest()


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(int(text, 16) / 1000, UTC)
