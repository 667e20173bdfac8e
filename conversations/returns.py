"""Where `/server-unavailable/` may send a person back to: pages of ours and nothing else."""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from django.urls import Resolver404, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme

MAX_LENGTH: Final = 2_000
PAGES: Final = frozenset(
    {
        "conversations:home",
        "conversations:dashboard",
        "conversations:picker",
        "conversations:conversation",
    }
)
"""Views that are pages a person can be on; fragments, streams and forms are not."""

_SUSPECT = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


def fallback() -> str:
    return reverse("conversations:dashboard")


def safe(return_url: str | None) -> str:
    """`return_url` if it is a page of this site, otherwise the dashboard.

    It must start with exactly one `/`, hold no white space, backslash or control character (encoded or not), pass
    Django's own check and resolve to a page. Django's check alone accepts `conversations` and ` /x`.
    """
    if return_url and _is_ours(return_url):
        return return_url
    return fallback()


def _is_ours(url: str) -> bool:
    if len(url) > MAX_LENGTH or not url.startswith("/") or url.startswith("//") or _SUSPECT.search(url):
        return False
    if not url_has_allowed_host_and_scheme(url, allowed_hosts=None):
        return False
    try:
        path = urlsplit(url).path
    except ValueError:
        return False
    decoded = unquote(path)
    if "\\" in decoded or decoded.startswith("//"):
        return False
    try:
        return resolve(decoded).view_name in PAGES
    except Resolver404:
        return False
