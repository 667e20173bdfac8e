"""Which tenants a person belongs to: asked of upstream, remembered for minutes, asked once at a time.

This is the only gate between people: upstream trusts whatever participant and tenant we name (xians-api.md 10.1).
"""

from __future__ import annotations

import asyncio
import time

from django.conf import settings

from messaging.directory import Tenant
from messaging.upstream import UpstreamClient

_MOST_PEOPLE = 20_000


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
        if time.monotonic() - known_at < limit:
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
