"""Counts as people read them."""

from typing import Final

CAP: Final = 99


def text(count: int) -> str:
    """At most "99+"; "" for none."""
    if count <= 0:
        return ""
    return str(count) if count <= CAP else f"{CAP}+"
