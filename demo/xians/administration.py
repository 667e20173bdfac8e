"""Changing what the world holds while the stand-in runs: activations, roles, tenants and keys."""

from demo.xians.notation import Json
from demo.xians.site import Site
from demo.xians.world import ApiKey


class Administration:
    """What an administrator of the real server would do, as plain JSON values in and out."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def activation(self, *, tenant: str, agent: str, name: str, active: bool) -> dict[str, Json]:
        """Switch an activation on or off; a missing one is created."""
        one = self._site.world.switch_activation(tenant, agent, name, is_active=active)
        return {"id": one.id, "isActive": one.is_active}

    def worker(self, *, tenant: str, agent: str, alive: bool) -> dict[str, Json]:
        """Let an agent's worker live or die, which `heartbeat` shows."""
        self._site.world.agents[tenant, agent].has_worker = alive
        return {}

    def membership(self, *, email: str, tenant: str, role: str | None = None) -> dict[str, Json]:
        """Give a person a role in a tenant, or take it away."""
        return {"roles": dict(self._site.world.set_role(email, tenant, role).roles)}

    def tenant_enabled(self, *, tenant: str, enabled: bool) -> dict[str, Json]:
        self._site.world.tenants[tenant].is_enabled = enabled
        return {}

    def add_key(self, *, key: str, owner: str, role: str = "SysAdmin", tenant: str = "acme") -> dict[str, Json]:
        self._site.world.keys[key] = ApiKey(key, owner, role, tenant)
        return {}

    def revoke_key(self, *, key: str) -> dict[str, Json]:
        self._site.world.keys.pop(key, None)
        return {}
