"""Which tenants a person belongs to: asked of upstream, remembered for minutes, asked once at a time.

This is the only gate between people: upstream trusts whatever participant and tenant we name (xians-api.md 10.1).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from django.conf import settings

from messaging.directory import Tenant
from messaging.errors import UpstreamError
from messaging.upstream import UpstreamClient

log = logging.getLogger(__name__)

_MOST_PEOPLE = 20_000
_SINGLY = 10
"""So many people of one tenant are asked for one by one; of more, the tenant's list is read."""
_AT_ONCE = 8


class Tenancy:
    """The tenants of people, remembered for TENANTS_CACHE_SECONDS in each process."""

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, list[Tenant]]] = {}
        self._asking: dict[str, asyncio.Task[list[Tenant]]] = {}

    async def tenants(self, participant_id: str, token: str | None, *, max_age: float | None = None) -> list[Tenant]:
        """A person's tenants, by name. Raises UpstreamError's subclasses when upstream must be asked and can't be."""
        limit = settings.TENANTS_CACHE_SECONDS if max_age is None else max_age
        known_at, known = self._known.get(participant_id, (float("-inf"), []))
        if time.monotonic() - known_at < limit and known_at > self._client.lookout.forbidden_at:
            return known
        task = self._asking.get(participant_id)
        if task is None:
            task = self._asking[participant_id] = asyncio.create_task(self._ask(participant_id, token))
            task.add_done_callback(lambda done: self._asked(participant_id, done))
        return await asyncio.shield(task)

    async def is_member(
        self, participant_id: str, tenant_id: str, token: str | None, *, max_age: float | None = None
    ) -> bool:
        mine = await self.tenants(participant_id, token, max_age=max_age)
        return any(tenant.tenant_id == tenant_id for tenant in mine)

    async def lost(self, watched: Mapping[tuple[str, str], str | None]) -> set[tuple[str, str]]:
        """Which of these (participant, tenant), each with the person's token, are no longer a membership.

        Where many of one tenant are watched, upstream's list of its users says at once who still belongs; everybody
        else, and one of those each time in case that the tenant is switched off, is asked for singly.
        """
        by_tenant: dict[str, set[str]] = {}
        for participant_id, tenant_id in watched:
            by_tenant.setdefault(tenant_id, set()).add(participant_id)
        doubtful: list[tuple[str, str]] = []
        for tenant_id, people in by_tenant.items():
            listed = await self._listed(tenant_id) if len(people) > _SINGLY else set()
            doubtful += [(person, tenant_id) for person in people - listed]
            if people & listed:
                doubtful.append((random.choice(sorted(people & listed)), tenant_id))
        gate = asyncio.Semaphore(_AT_ONCE)

        async def is_lost(person: str, tenant_id: str) -> bool:
            async with gate:
                try:
                    return not await self.is_member(person, tenant_id, watched[person, tenant_id], max_age=0)
                except UpstreamError as problem:
                    log.warning("a membership could not be checked: %s", problem.detail)
                    return False

        answers = await asyncio.gather(*(is_lost(*each) for each in doubtful))
        lost = {each for each, is_over in zip(doubtful, answers, strict=True) if is_over}
        for tenant_id, people in by_tenant.items():
            if len(people) > _SINGLY and any((person, tenant_id) in lost for person in people):
                rest = [(person, tenant_id) for person in people if (person, tenant_id) not in doubtful]
                answers = await asyncio.gather(*(is_lost(*each) for each in rest))
                lost |= {each for each, is_over in zip(rest, answers, strict=True) if is_over}
        return lost

    async def _listed(self, tenant_id: str) -> set[str]:
        try:
            return await self._client.approved_users(tenant_id, bearer=self._client.bearer(None))
        except UpstreamError as problem:
            log.info("the users of a tenant can't be listed: %s", problem.detail)
            return set()

    async def _ask(self, participant_id: str, token: str | None) -> list[Tenant]:
        found = await self._client.tenants(participant_id, bearer=self._client.bearer(token))
        self._known[participant_id] = (time.monotonic(), found)
        if len(self._known) > _MOST_PEOPLE:
            del self._known[next(iter(self._known))]
        return found

    def _asked(self, participant_id: str, task: asyncio.Task[list[Tenant]]) -> None:
        self._asking.pop(participant_id, None)
        if not task.cancelled():
            task.exception()  # whoever waited has been told
