"""Readers of environment variables that fail loudly: one sentence that names the variable, and the start stops."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, default).strip()


def flag(name: str, *, default: bool) -> bool:
    value = text(name, "1" if default else "0").lower()
    if value not in ("0", "1", "true", "false", ""):
        raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}.")
    return value in ("1", "true")


def number(name: str, default: float, *, at_least: float, at_most: float) -> float:
    value = text(name) or str(default)
    try:
        found = float(value)
    except ValueError as problem:
        raise ImproperlyConfigured(f"{name} must be a number, not {value!r}.") from problem
    if not at_least <= found <= at_most:
        raise ImproperlyConfigured(f"{name} must be from {at_least:g} to {at_most:g}, not {value}.")
    return found


def whole_number(name: str, default: int, *, at_least: int, at_most: int) -> int:
    found = number(name, default, at_least=at_least, at_most=at_most)
    if found != int(found):
        raise ImproperlyConfigured(f"{name} must be a whole number, not {found:g}.")
    return int(found)


def names(name: str) -> list[str]:
    return [part.strip() for part in text(name).split(",") if part.strip()]


def web_address(name: str) -> str:
    """An http(s) address without a trailing slash, or "" (a system check says whether it may be absent)."""
    value = text(name).rstrip("/")
    if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
        raise ImproperlyConfigured(f"{name} must be an address that begins with https:// or http://.")
    return value
