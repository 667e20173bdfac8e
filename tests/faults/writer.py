"""`python -m tests.faults.writer NUMBER COUNT` writes receipts as we do; `hold SECONDS` is in the way."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django

django.setup()

from django.conf import settings  # noqa: E402 - needs Django set up
from django.db import connection, transaction  # noqa: E402

from messaging import unread, wire  # noqa: E402
from messaging.changes import Record  # noqa: E402
from messaging.wire import ThreadAddress  # noqa: E402

START = datetime(2026, 7, 2, 9, 0, tzinfo=UTC)


def write(number: str, count: int) -> None:
    inbox = unread.open_inbox(ThreadAddress("acme", "Helper", "Desk", "alice@acme.example"), [], {})
    say("ready")
    while not (Path(settings.DATABASES["default"]["NAME"]).parent / "go").exists():
        time.sleep(0.01)
    for turn in range(count):
        moment = (START + timedelta(seconds=turn)).isoformat()
        both = [
            wire.message({"id": name, "createdAt": moment, "messageType": "Chat", "direction": "Outgoing"})
            for name in (f"shared-{turn}", f"of-{number}-{turn}")
        ]
        unread.apply([Record(inbox, message, datetime.now(UTC)) for message in both])
    say("done")
    time.sleep(60)


def hold(seconds: float) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_inbox SET tenant_id = tenant_id")
        say("holding")
        time.sleep(seconds)
    say("released")
    time.sleep(60)


def say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(float(sys.argv[2]))
    else:
        write(sys.argv[1], int(sys.argv[2]))
