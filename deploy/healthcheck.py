"""`python deploy/healthcheck.py URL [--wait SECONDS]`: ends with 0 when the URL answers 200; the standard library only.

Containers and systemd ask with it whether a process is alive (/healthz) or ready (/readyz). The request names the
first of DJANGO_ALLOWED_HOSTS as its host: the application answers to no other, least of all to a bare address.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import time
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 4
_PAUSE_SECONDS = 0.2


def host() -> str:
    """A name that the application answers to; "" where none is set."""
    first = os.environ.get("DJANGO_ALLOWED_HOSTS", "").partition(",")[0].strip()
    return first.removeprefix(".") if first != "*" else ""


def answer(url: str) -> str:
    """ "200", another status, or what went wrong."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", parts.path or "/", headers={"Host": host()} if host() else {})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as problem:
        return f"{type(problem).__name__}: {problem}"
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--wait", type=float, default=0, help="try again for so many seconds")
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    while (said := answer(options.url)) != "200":
        if time.monotonic() >= deadline:
            print(f"{options.url}: {said}", file=sys.stderr)
            return 1
        time.sleep(_PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
