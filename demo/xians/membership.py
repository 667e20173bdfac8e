"""Participants, tenants and users: who belongs where."""

import re

from demo.xians import auth, errors, reply
from demo.xians.call import Call
from demo.xians.clock import Clock
from demo.xians.notation import Json
from demo.xians.reply import Reply
from demo.xians.site import Site
from demo.xians.world import LONG_AGO, ROLES, Person, Tenant

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


async def participant(site: Site, call: Call) -> Reply:
    """The enabled tenants of a person, by e-mail; an unknown person is a 404 like one without tenants."""
    if call.key is None or call.key.role != "SysAdmin":
        text = "Access denied: Only system administrators can retrieve participant information across tenants"
        raise errors.problem(403, text)
    email = " ".join(call.parameters["email"].split()).lower()
    if not _EMAIL.fullmatch(email) or len(email) > 254:
        text = "Invalid email address. Email must be well-formed and not exceed 254 characters."
        raise errors.problem(400, text)
    person = site.world.people.get(email)
    if person is not None and person.is_locked_out:
        raise errors.problem(403, "Access denied: the user account is locked out")
    member_of = _memberships(site, person) if person else []
    if not member_of:
        raise errors.not_in_scope(404, f"User with email '{email}' has no matching tenants")
    tenants = [
        {"tenantId": one.tenant_id, "tenantName": one.name, "logo": None, "role": role, "theme": one.theme}
        for one, role in sorted(member_of, key=lambda pair: pair[0].name)
        if one.is_enabled
    ]
    if not tenants:
        raise errors.not_in_scope(404, f"User with email '{email}' has no enabled tenants")
    return reply.of_json({"isSystemAdmin": bool(person and person.is_system_admin), "tenants": tenants})


def _memberships(site: Site, person: Person) -> list[tuple[Tenant, str]]:
    fallback = "SysAdmin" if person.is_system_admin else None
    roles = {tenant_id: person.roles.get(tenant_id, fallback) for tenant_id in site.world.tenants}
    return [(site.world.tenants[tenant_id], role) for tenant_id, role in roles.items() if role in ROLES]


def _tenant(one: Tenant, clock: Clock) -> dict[str, Json]:
    return {
        "id": one.id,
        "tenantId": one.tenant_id,
        "name": one.name,
        "domain": one.domain,
        "description": None,
        "logo": None,
        "theme": one.theme,
        "timezone": one.timezone,
        "agents": None,
        "permissions": None,
        "createdAt": clock.written(one.created_at),
        "createdBy": "system",
        "updatedAt": clock.written(LONG_AGO),
        "enabled": one.is_enabled,
    }


async def tenants(site: Site, call: Call) -> Reply:
    auth.require_sys_admin(call, "Access denied: Only system administrators can list all tenants")
    return reply.of_json([_tenant(one, site.world.clock) for one in site.world.tenants.values()])


async def tenant(site: Site, call: Call) -> Reply:
    text = "Access denied: Only system administrators can retrieve tenant details by ID"
    auth.require_sys_admin(call, text)
    return reply.of_json(_tenant(site.world.tenants[call.tenant_id], site.world.clock))


async def tenant_logo(site: Site, call: Call) -> Reply:
    raise errors.not_in_scope(404, "Tenant has no logo")


def _user(person: Person, tenant_id: str) -> dict[str, Json]:
    return {
        "userId": person.email,
        "email": person.email,
        "name": person.name,
        "role": person.roles[tenant_id],
        "isApproved": not person.is_locked_out,
    }


async def users(site: Site, call: Call) -> Reply:
    page, size = call.integer("page"), call.integer("pageSize")
    page, size = page if page > 0 else 1, size if size > 0 else 20
    wanted = (call.optional("search") or "").lower()
    found = [
        _user(person, call.tenant_id)
        for person in site.world.people.values()
        if call.tenant_id in person.roles and wanted in f"{person.email} {person.name}".lower()
    ]
    shown = found[(page - 1) * size : page * size]
    return reply.of_json({"users": shown, "totalCount": len(found), "page": page, "pageSize": size})


async def user(site: Site, call: Call) -> Reply:
    person = site.world.people.get(call.parameters["userId"])
    if person is None:
        raise errors.failed(404, "User not found")
    if call.tenant_id not in person.roles:
        raise errors.failed(404, "User not found in this tenant")
    return reply.of_json(_user(person, call.tenant_id))
