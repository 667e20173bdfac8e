"""Where the programs are that tests start: PostgreSQL, Redis, Chromium, nginx.

`python -m tests.services.programs NAME ...` prints the names that were not found, one a line; that is how
`scripts/services` knows what to install.
"""

import glob
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

# name: environment variable that overrides, names on PATH, places beside it (later versions last)
PROGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "postgresql": (
        "POSTGRES_BIN",
        ("postgres",),
        (
            "/usr/lib/postgresql/*/bin/postgres",
            "/usr/pgsql-*/bin/postgres",
            "/opt/homebrew/opt/postgresql*/bin/postgres",
            "/usr/local/opt/postgresql*/bin/postgres",
            "/Applications/Postgres.app/Contents/Versions/latest/bin/postgres",
        ),
    ),
    "redis": (
        "REDIS_SERVER",
        ("redis-server", "valkey-server"),
        ("/usr/sbin/redis-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server"),
    ),
    "chromium": (
        "CHROMIUM",
        ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
        (
            "/Applications/Chromium.app/Contents/MacOS/Chromium",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        ),
    ),
    "nginx": ("NGINX", ("nginx",), ("/usr/sbin/nginx", "/opt/homebrew/bin/nginx", "/usr/local/bin/nginx")),
}


class ProgramMissing(RuntimeError):
    """A program that a test needs is not on this machine; the message says how to get it."""


def find(name: str) -> Path:
    """Return the executable of one of `PROGRAMS`; raise `ProgramMissing` where there is none."""
    path = _search(name)
    if path is None:
        variable = PROGRAMS[name][0]
        raise ProgramMissing(f"{name} was not found: run `scripts/services {name}`, or set {variable}.")
    return path


def _search(name: str) -> Path | None:
    variable, commands, places = PROGRAMS[name]
    if override := os.environ.get(variable):
        return Path(override) if os.access(override, os.X_OK) else None
    for command in commands:
        if found := shutil.which(command):
            return Path(found)
    for place in places:
        if matches := sorted(glob.glob(place), key=_version):
            return Path(matches[-1])
    return _browser_of_playwright() if name == "chromium" else None


def _version(path: str) -> list[int]:
    digits = "".join(c if c.isdigit() else " " for c in path)
    return [int(number) for number in digits.split()]


def _browser_of_playwright() -> Path | None:
    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.exists() else None


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(PROGRAMS))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    for name in names:
        if _search(name) is None:
            print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
