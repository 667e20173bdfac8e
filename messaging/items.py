"""What travels from a feed to the streams of its readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

import msgspec

from messaging.wire import GENERAL, Message, ThreadAddress

_NONE: Mapping[str, int] = MappingProxyType({})


class StreamItem(msgspec.Struct, gc=False):
    """One thing that a stream tells its reader; shared by all readers, so encoded once per encoder.

    `kind` is "message" (`message`, `event`, `cursor`, `json`; `is_edit`: its id was shown before; `came_late`: cursors
    that went out before it may stand behind it), "sent" (the
    person's own `message`, from any tab or device), "unread" (`topic`, `unread_count`, `total`, `address`),
    "counts" (at the start of a stream: unread by topic, those that have any),
    "recovered" (`count` messages came late after a break `since`..`until`), "status" (`state`, `attempt`,
    `retry_in_seconds`), "gone" (`topic`: its messages were deleted) or "resync" (`reason`).
    """

    kind: str
    message: Message | None = None
    event: str = ""
    cursor: str = ""
    sent_ms: int = 0
    json: str = ""
    is_edit: bool = False
    came_late: bool = False
    address: ThreadAddress | None = None
    topic: str = GENERAL
    unread_count: int = 0
    total: int = 0
    counts: Mapping[str, int] = _NONE
    count: int = 0
    since: datetime | None = None
    until: datetime | None = None
    state: str = ""
    attempt: int = 0
    retry_in_seconds: float = 0.0
    reason: str = ""
    is_shared: bool = False
    encoded: dict[Callable[[StreamItem], bytes], bytes] | None = None

    def bytes_for(self, encode: Callable[[StreamItem], bytes]) -> bytes:
        """This item as `encode` writes it; kept for the others where it `is_shared` by several readers."""
        if not self.is_shared:
            return encode(self)
        if self.encoded is None:
            self.encoded = {}
        written = self.encoded.get(encode)
        if written is None:
            written = self.encoded[encode] = encode(self)
        return written
