"""What the stand-in server knows: tenants, people, agents, activations, keys, and the messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from demo.xians.clock import Clock
from demo.xians.messages import MessageStore

ROLES = ("SysAdmin", "TenantAdmin", "TenantUser", "TenantParticipantAdmin", "TenantParticipant")
DEFAULT_FLOW = "Supervisor Workflow"
LONG_AGO = datetime(2026, 1, 10, 8, tzinfo=UTC)


@dataclass(slots=True)
class Tenant:
    id: str
    tenant_id: str
    name: str
    domain: str | None = None
    theme: str | None = None
    timezone: str = "Europe/Oslo"
    is_enabled: bool = True
    created_at: datetime = LONG_AGO


@dataclass(slots=True)
class Person:
    """Someone with a role in some tenants; `roles` maps a tenant id to the role there."""

    email: str
    name: str
    roles: dict[str, str] = field(default_factory=dict)
    is_system_admin: bool = False
    is_locked_out: bool = False


@dataclass(slots=True)
class Agent:
    """An agent of one tenant; without `flows` it can't converse, without a worker it never answers."""

    id: str
    tenant_id: str
    name: str
    summary: str | None = None
    description: str | None = None
    category: str | None = None
    sample_prompts: list[str] = field(default_factory=list)
    flows: list[str] = field(default_factory=lambda: [DEFAULT_FLOW])
    has_worker: bool = True
    created_at: datetime = LONG_AGO


@dataclass(slots=True)
class Activation:
    id: str
    tenant_id: str
    agent_name: str
    name: str
    description: str | None = None
    is_active: bool = True
    created_at: datetime = LONG_AGO
    deactivated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    key: str
    owner: str
    role: str = "SysAdmin"
    tenant_id: str = "acme"


class World:
    """Everything one stand-in server holds. Build it in code, then hand it to `create_app`."""

    def __init__(
        self,
        *,
        tenants: Iterable[Tenant] = (),
        people: Iterable[Person] = (),
        agents: Iterable[Agent] = (),
        activations: Iterable[Activation] = (),
        keys: Iterable[ApiKey] = (),
        agent_runner: str = "agent-runner@acme.example",
    ) -> None:
        self.tenants = {tenant.tenant_id: tenant for tenant in tenants}
        self.people = {person.email.lower(): person for person in people}
        self.agents = {(agent.tenant_id, agent.name): agent for agent in agents}
        self.activations = {(one.tenant_id, one.agent_name, one.name): one for one in activations}
        self.keys = {key.key: key for key in keys}
        self.agent_runner = agent_runner
        self.clock = Clock()
        self.messages = MessageStore(self.clock)

    def switch_activation(self, tenant_id: str, agent_name: str, name: str, *, is_active: bool) -> Activation:
        """Activate or deactivate, creating agent and activation where they are missing."""
        key = (tenant_id, agent_name, name)
        if (tenant_id, agent_name) not in self.agents:
            self.agents[tenant_id, agent_name] = Agent(self.messages.new_id(), tenant_id, agent_name)
        if key not in self.activations:
            self.activations[key] = Activation(self.messages.new_id(), *key, created_at=self.clock.now())
        activation = self.activations[key]
        activation.is_active = is_active
        activation.deactivated_at = None if is_active else self.clock.now()
        return activation

    def set_role(self, email: str, tenant_id: str, role: str | None) -> Person:
        """Give a person a role in a tenant, or with `None` take it away; strangers are created."""
        person = self.people.setdefault(email.lower(), Person(email.lower(), email))
        if role is None:
            person.roles.pop(tenant_id, None)
        else:
            person.roles[tenant_id] = role
        return person
