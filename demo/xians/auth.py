"""Who is calling: the API key, the tenant it resolves to, and the tenant-scope filter."""

import re

from demo.xians import errors
from demo.xians.call import Call
from demo.xians.world import ApiKey, World

_SCHEME = re.compile(r"bearer\s+(\S.*)", re.IGNORECASE)
_TENANT_ID = re.compile(r"[A-Za-z0-9._-]+")


def authenticate(world: World, call: Call) -> None:
    """Set `call.key`, or refuse with the reason that the real server gives."""
    call.key = key = _key(world, call)
    _check_tenant(world, key, _candidate(call))


def _key(world: World, call: Call) -> ApiKey:
    match = _SCHEME.fullmatch(call.header("authorization").strip())
    if match is None:
        raise errors.unauthorized("No access token found for AdminApi Endpoint connection")
    token = match[1].strip()
    if not token.startswith("sk-Xnai-"):
        raise errors.unauthorized("Invalid API key format")
    key = world.keys.get(token)
    if key is None:
        raise errors.unauthorized("Invalid API key")
    if key.role not in ("SysAdmin", "TenantAdmin"):
        raise errors.unauthorized("User does not have required admin role")
    return key


def _check_tenant(world: World, key: ApiKey, candidate: str) -> None:
    if key.role == "TenantAdmin":
        if candidate and candidate != key.tenant_id:
            raise errors.unauthorized("Tenant ID does not match API key tenant")
    elif candidate:
        if not _TENANT_ID.fullmatch(candidate):
            raise errors.unauthorized("Error processing access token for AdminApi Endpoint connection")
        if candidate not in world.tenants:
            raise errors.unhandled(404, "Not found", f"Tenant '{candidate}' was not found")


def _candidate(call: Call) -> str:
    return call.query.get("tenantid") or call.parameters.get("tenantId") or call.header("x-tenant-id")


def check_scope(call: Call) -> None:
    """The route's tenant must be the resolved one; only a stray `?tenantId=` can break this."""
    if call.key is None or "tenantId" not in call.parameters:
        return
    resolved = _candidate(call) or call.key.tenant_id
    if resolved.lower() != call.tenant_id.lower():
        raise errors.not_in_scope(403, "Tenant scope mismatch")


def require_sys_admin(call: Call, text: str) -> None:
    """E4 for keys that are not a system administrator's."""
    if call.key is None or call.key.role != "SysAdmin":
        raise errors.not_in_scope(403, text)
