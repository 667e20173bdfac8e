"""Topic names as people type and see them. A topic's name is its identity; "" is General Discussions."""

import re
from typing import Final

from messaging import wire

GENERAL_TITLE: Final = "General Discussions"
MAX_LENGTH: Final = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def key(topic: str) -> str:
    """A short token for a topic: safe in attributes and ids, the same in every process."""
    return "t" + wire.topic_key(topic)[:16]


def title(topic: str) -> str:
    """What to show for a topic: control characters become spaces, and what is over-long is cut."""
    shown = _CONTROL.sub(" ", topic).strip() or GENERAL_TITLE
    return shown if len(shown) <= MAX_LENGTH else shown[:MAX_LENGTH] + "…"
