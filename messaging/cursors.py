"""Cursors: what a reader of an inbox has been handed, as the `id:` that our streams write and take back.

A cursor is `<order>.<sent>.<marks>.<seal>`. Everything up to the order was handed to its holder; of what stands behind
it, the messages whose marks are listed (four letters each) and no other. An order alone would not do: the newest
message that a reader got says nothing about an older one that its process had not heard of (upstream's stream
leaves messages out), and another process may have known that one for long. `sent` is the moment of writing
(milliseconds, base 36), and the seal binds all of it to one inbox, so that nobody else's or an invented cursor
is ever honoured (reliability.md F61).
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

_SEAL_LENGTH = 10
MARK_LENGTH = 4
MOST_MARKS = 64
LONGEST = 400
"""More characters than any cursor of ours has."""
_CURSOR = re.compile(r"(\d{17}-[A-Za-z0-9_~-]{0,32})\.([0-9a-z]{1,10})\.([A-Za-z0-9_-]{0,256})\.([0-9a-f]{10})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def mark(message_id: str) -> str:
    """Four letters that stand for a message among the few behind a cursor's order."""
    digest = blake2b(message_id.encode("utf-8", "replace"), digest_size=3).digest()
    return urlsafe_b64encode(digest).decode("ascii")


@dataclass(frozen=True, slots=True)
class Cursor:
    """`order`: everything up to it was handed to the holder; `marks`: of what stands behind it, these; `sent_at`."""

    order: str
    sent_at: datetime
    marks: frozenset[str] = frozenset()

    def covers(self, order: str, message_id: str) -> bool:
        """Whether its holder had this message, as far as the cursor alone can tell."""
        return order <= self.order or mark(message_id) in self.marks


class Sealer:
    """Writes and reads the cursors of one inbox. `secret` is shared by every process of the application."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes, inbox_key: str) -> None:
        self._key = hmac.digest(secret, inbox_key.encode(), "sha256")

    def write(self, order: str, sent_at_ms: int, marks: str = "") -> str:
        """A cursor; `marks` are those of the messages behind `order`, one after the other."""
        position = f"{order}.{_base36(sent_at_ms)}.{marks}"
        return f"{position}.{self._seal(position)}"

    def read(self, text: str) -> Cursor | None:
        """The cursor that `text` stands for; None when it is not one that this inbox gave out."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            return None
        order, sent, marks, seal = found.groups()
        if not hmac.compare_digest(seal, self._seal(f"{order}.{sent}.{marks}")):
            return None
        several = frozenset(marks[at : at + MARK_LENGTH] for at in range(0, len(marks), MARK_LENGTH))
        return Cursor(order, datetime.fromtimestamp(int(sent, 36) / 1000, UTC), several)

    def _seal(self, position: str) -> str:
        return hmac.digest(self._key, position.encode(), "sha256").hex()[:_SEAL_LENGTH]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, last = divmod(number, 36)
        digits = _DIGITS[last] + digits
    return digits or "0"
