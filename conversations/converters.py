"""Agent and activation names as path segments: any Unicode, spaces, even slashes."""

import re
from typing import Final

MAX_LENGTH: Final = 1_000
"""Longer names are no name that upstream could know."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPED = re.compile(r"%(2[fF5])")
_SPECIAL = re.compile(r"[/%]")


class NameConverter:
    """A `/` or `%` inside a name is percent-encoded before Django encodes the whole: `a/b` is `a%252Fb`.

    Servers decode a path once and Django matches what is left, so an escape of ours is still there for us to
    read. `.` and `..` are refused (a client that folds paths would turn them into another endpoint), so are
    control characters: both are "no such page".
    """

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        name = _ESCAPED.sub(lambda found: "%" if found[1] == "25" else "/", value)
        if name in {".", ".."} or len(name) > MAX_LENGTH or _FORBIDDEN.search(name):
            raise ValueError("not a name")
        return name

    def to_url(self, value: str) -> str:
        return _SPECIAL.sub(lambda found: "%2F" if found[0] == "/" else "%25", value)
