"""Requests that wait, for upstream or for what is being written, keep nobody from the database."""

from __future__ import annotations

import asyncio

from tests.messaging.conftest import Site, alice, shared, signed_in, site, site_env  # noqa: F401 - fixtures
from tests.messaging.people import Person

_MANY = 60


async def test_many_requests_at_once_dont_starve_what_they_wait_for(site: Site, alice: Person) -> None:  # noqa: F811
    """F67: far more requests than the pool has connections: each is answered, since none holds one while it waits."""
    assert await alice.unread() == {}
    async with alice.listening():
        answers = [site.answer(f"news {number}") for number in range(10)]
        done = await asyncio.gather(
            *(alice.post("read", topic=None, upToMessageId=answers[number % 10]["id"]) for number in range(_MANY)),
            *(alice.get("unread") for _ in range(_MANY)),
        )
    assert [answer.status_code for answer in done] == [200] * 2 * _MANY
    assert await alice.unread() == {}
