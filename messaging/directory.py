"""Upstream's directory, typed: tenants of a person, activations of a tenant, what an agent says of itself.

Facts: shared/xians-api.md sections 3 and 4. `Any` stops here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from messaging.errors import UpstreamMisbehaved
from messaging.wire import clean, field, folded, text_or_none


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class User:
    participant_id: str
    is_approved: bool


@dataclass(frozen=True, slots=True)
class Activation:
    agent_name: str
    name: str
    description: str
    is_active: bool
    unread_count: int = 0


@dataclass(frozen=True, slots=True)
class AgentDetail:
    summary: str
    description: str
    category: str
    sample_prompts: list[str]


def tenants(raw: Any) -> list[Tenant]:
    """Read the tenants in `/participants/{email}` (xians-api.md 4.1)."""
    rows = field(raw, "tenants") if isinstance(raw, dict) else None
    found = []
    for row in _objects(rows):
        tenant_id = text_or_none(field(row, "tenantId"))
        if tenant_id:
            name = text_or_none(field(row, "tenantName")) or tenant_id
            found.append(Tenant(tenant_id, name, text_or_none(field(row, "role")) or ""))
    return found


def users(raw: Any) -> list[User]:
    """Read one page of `/tenants/{tenantId}/users` (xians-api.md 4.3); those without an e-mail are left out."""
    rows = field(raw, "users") if isinstance(raw, dict) else None
    found = []
    for row in _objects(rows):
        email = text_or_none(field(row, "email"))
        if email:
            found.append(User(email.strip().lower(), field(row, "isApproved") is True))
    return found


def activations(raw: Any) -> list[Activation]:
    """Read `/agentActivations`: a bare array (xians-api.md 3.1); an object with `data` is read too (section 12)."""
    rows = raw.get("data") if isinstance(raw, dict) else raw
    found = []
    for row in _objects(rows):
        agent_name = text_or_none(field(row, "agentName"))
        name = text_or_none(field(row, "name"))
        if agent_name and name:
            description = text_or_none(field(row, "description")) or ""
            found.append(Activation(agent_name, name, description, field(row, "isActive") is True))
    return found


def agent_detail(raw: Any) -> AgentDetail:
    """Read the parts of `/agentDeployments/{agentName}` that a page shows (xians-api.md 3.2)."""
    agent = field(raw, "agent") if isinstance(raw, dict) else None
    agent = folded(agent)
    prompts = agent.get("samplePrompts")
    return AgentDetail(
        summary=text_or_none(agent.get("summary")) or "",
        description=text_or_none(agent.get("description")) or "",
        category=text_or_none(agent.get("category")) or "",
        sample_prompts=[clean(p) for p in prompts if isinstance(p, str)] if isinstance(prompts, list) else [],
    )


def _objects(rows: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(rows, list):
        raise UpstreamMisbehaved("a list was expected")
    return (row for row in rows if isinstance(row, dict))
