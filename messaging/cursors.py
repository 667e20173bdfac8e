"""Cursors: the position of a message in an inbox, as the `id:` that our streams write and take back.

A cursor is `<order>.<sent>.<seal>`: the message's place (creation time, then id), the moment at which we sent it
(milliseconds, base 36: what became known to us later cannot have been seen), and a seal that binds both to
one inbox, so that nobody else's or an invented cursor is ever honoured (reliability.md F61).
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

_SEAL_LENGTH = 10
_CURSOR = re.compile(r"(\d{17}-[A-Za-z0-9_~-]{0,32})\.([0-9a-z]{1,10})\.([0-9a-f]{10})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Cursor:
    """`order`: everything up to it was sent to the holder; `sent_at`: when."""

    order: str
    sent_at: datetime


class Sealer:
    """Writes and reads the cursors of one inbox. `secret` is shared by every process of the application."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes, inbox_key: str) -> None:
        self._key = hmac.digest(secret, inbox_key.encode(), "sha256")

    def write(self, order: str, sent_at_ms: int) -> str:
        position = f"{order}.{_base36(sent_at_ms)}"
        return f"{position}.{self._seal(position)}"

    def read(self, text: str) -> Cursor | None:
        """The cursor that `text` stands for; None when it is not one that this inbox gave out."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            return None
        order, sent, seal = found.groups()
        if not hmac.compare_digest(seal, self._seal(f"{order}.{sent}")):
            return None
        return Cursor(order, datetime.fromtimestamp(int(sent, 36) / 1000, UTC))

    def _seal(self, position: str) -> str:
        return hmac.new(self._key, position.encode(), sha256).hexdigest()[:_SEAL_LENGTH]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, last = divmod(number, 36)
        digits = _DIGITS[last] + digits
    return digits or "0"
