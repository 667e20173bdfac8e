"""Readers of environment variables that fail loudly: one sentence that names the variable, and the start stops."""

from __future__ import annotations

import logging
import os
from urllib.parse import SplitResult, urlsplit


class Misconfigured(SystemExit):
    """A setting is wrong. Ends the process with this one sentence, under manage.py and under every server alike."""


def text(name: str, default: str = "") -> str:
    """An empty variable counts as one that isn't set."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, *, default: bool) -> bool:
    value = text(name).lower()
    if value not in ("0", "1", "true", "false", ""):
        raise Misconfigured(f"{name} must be 1 or 0, not {value!r}.")
    return value in ("1", "true") if value else default


def number(name: str, default: float, *, at_least: float, at_most: float) -> float:
    value = text(name, str(default))
    try:
        found = float(value)
    except ValueError as problem:
        raise Misconfigured(f"{name} must be a number, not {value!r}.") from problem
    if not at_least <= found <= at_most:
        raise Misconfigured(f"{name} must be from {at_least:g} to {at_most:g}, not {value}.")
    return found


def whole_number(name: str, default: int, *, at_least: int, at_most: int) -> int:
    found = number(name, default, at_least=at_least, at_most=at_most)
    if found != int(found):
        raise Misconfigured(f"{name} must be a whole number, not {found:g}.")
    return int(found)


def names(name: str) -> list[str]:
    return [part.strip() for part in text(name).split(",") if part.strip()]


def origins(name: str) -> list[str]:
    """Comma-separated origins: scheme and host, nothing behind."""
    found = names(name)
    for origin in found:
        if parts(name, origin).scheme not in ("http", "https") or origin.count("/") != 2:
            raise Misconfigured(f"{name} must hold origins such as https://portal.example, not {origin!r}.")
    return found


def log_level(name: str, default: str) -> str:
    value = text(name, default).upper()
    if value not in logging.getLevelNamesMapping():
        raise Misconfigured(f"{name} must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {value!r}.")
    return value


def parts(name: str, value: str) -> SplitResult:
    """An address taken apart. What is wrong with it isn't quoted: it may hold a password."""
    try:
        found = urlsplit(value)
        _ = found.port
    except ValueError as problem:
        raise Misconfigured(f"{name} must be a well-formed address.") from problem
    return found


def web_address(name: str) -> str:
    """An http(s) address without a trailing slash, or "" (a system check says whether it may be absent)."""
    value = text(name).rstrip("/")
    if value and (parts(name, value).scheme not in ("http", "https") or not parts(name, value).hostname):
        raise Misconfigured(f"{name} must be an address that begins with https:// or http://.")
    return value
