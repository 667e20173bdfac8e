"""Fills a database with signed-in people: `python -m benchmarks.people COUNT` prints their session keys, one a line.

Each has been here before: an account, a session as the sign-in leaves it behind, an inbox.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import django
from django.core.management import call_command
from django.utils import timezone

from benchmarks.threads import ACTIVATION, AGENT, TENANT, participant

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_BATCH = 1000


def main(count: int) -> None:
    django.setup()
    call_command("migrate", verbosity=0)
    users = _accounts(count)
    keys = _sign_in(users)
    _visit(users)
    print("\n".join(keys))


def _accounts(count: int) -> list[User]:
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User

    password = make_password(None)
    people = [User(username=f"bench-{n}", email=participant(n), password=password) for n in range(count)]
    return User.objects.bulk_create(people, batch_size=_BATCH)


def _sign_in(users: list[User]) -> list[str]:
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session

    store = SessionStore()
    rows = []
    for number, user in enumerate(users):
        told = {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: "config.auth.OIDCBackend",
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
        expires = timezone.now() + timedelta(days=1)
        rows.append(Session(f"bench{number:027d}", store.encode(told), expires))
    Session.objects.bulk_create(rows, batch_size=_BATCH)
    return [row.session_key for row in rows]


def _visit(users: list[User]) -> None:
    from django.db import transaction

    from messaging import unread
    from messaging.wire import ThreadAddress

    with transaction.atomic():
        for user in users:
            unread.open_inbox(ThreadAddress(TENANT, AGENT, ACTIVATION, user.email), [], {})


if __name__ == "__main__":
    main(int(sys.argv[1]))
