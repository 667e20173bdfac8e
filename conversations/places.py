"""Where a request is: whose it is, in which tenant, in which conversation."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from messaging import inboxes, sessions
from messaging.directory import Activation, Tenant
from messaging.errors import TenantForbidden
from messaging.sessions import Access
from messaging.wire import ThreadAddress


@dataclass(frozen=True, slots=True)
class Place:
    """A signed-in person in one of their tenants."""

    access: Access
    tenant: Tenant
    tenants: list[Tenant]

    def address(self, agent_name: str, activation_name: str) -> ThreadAddress:
        return ThreadAddress(self.tenant.tenant_id, agent_name, activation_name, self.access.participant_id)


async def find(request: HttpRequest, *, holding: tuple[str, str] | None = None) -> Place:
    """The tenant that the request names, else the person's current one, else the one that holds an activation.

    `holding` is an agent's and an activation's name. Raises TenantForbidden when a named tenant isn't theirs, or
    when they have none at all.
    """
    access = await sessions.access(request)
    theirs = await inboxes.tenants(access)
    named = request.GET.get("tenant")
    if named:
        return Place(access, await inboxes.require_tenant(named, access), theirs)
    if not theirs:
        raise TenantForbidden("no tenant at all")
    current = unquote(request.COOKIES.get(settings.TENANT_COOKIE_NAME, ""))
    preferred = sorted(theirs, key=lambda tenant: tenant.tenant_id != current)
    if holding and len(preferred) > 1:
        preferred = await _holders_first(preferred, holding, access)
    return Place(access, preferred[0], theirs)


async def _holders_first(tenants: list[Tenant], holding: tuple[str, str], access: Access) -> list[Tenant]:
    for tenant in tenants:
        found = await inboxes.activations(tenant.tenant_id, access=access)
        if named(found, *holding):
            return [tenant]
    return tenants


async def address(request: HttpRequest, agent_name: str, activation_name: str) -> tuple[ThreadAddress, Access]:
    """The conversation of a request to one of its parts, and the credentials to use it with."""
    place = await find(request, holding=(agent_name, activation_name))
    return place.address(agent_name, activation_name), place.access


def named(activations: Iterable[Activation], agent_name: str, activation_name: str) -> Activation | None:
    wanted = (agent_name, activation_name)
    return next((each for each in activations if (each.agent_name, each.name) == wanted), None)


async def remember(request: HttpRequest, tenant_id: str, response: HttpResponseBase) -> None:
    """Make a tenant of theirs the one that addresses without a tenant mean. Raises TenantForbidden.

    In a cookie and not in the session: two requests that save a session at once undo each other, and what is lost may
    be the sign-in's tokens. It is a preference only; who may be where is asked at every request.
    """
    access = await sessions.access(request)
    tenant = await inboxes.require_tenant(tenant_id, access)
    response.set_cookie(
        settings.TENANT_COOKIE_NAME,
        quote(tenant.tenant_id, safe=""),
        max_age=settings.SESSION_COOKIE_AGE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
