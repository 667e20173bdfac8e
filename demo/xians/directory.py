"""Activations, agents and whether their workers live."""

import asyncio

from demo.xians import conversation, errors, reply
from demo.xians.call import Call
from demo.xians.clock import Clock
from demo.xians.errors import Refusal
from demo.xians.notation import Json
from demo.xians.reply import Reply
from demo.xians.site import Site
from demo.xians.world import Activation, Agent

_CREATOR = "svc-portal@acme.example"


def _activation(one: Activation, clock: Clock) -> dict[str, Json]:
    written = clock.written
    return {
        "id": one.id,
        "name": one.name,
        "agentName": one.agent_name,
        "description": one.description,
        "participantId": None,
        "createdBy": _CREATOR,
        "createdAt": written(one.created_at),
        "tenantId": one.tenant_id,
        "workflowConfiguration": None,
        "workflowIds": [f"{one.tenant_id}:{one.agent_name}:Supervisor Workflow:{one.name}"],
        "active": one.is_active,
        "isActive": one.is_active,
        "activatedAt": written(one.created_at),
        "deactivatedAt": written(one.deactivated_at) if one.deactivated_at else None,
    }


async def activations(site: Site, call: Call) -> Reply:
    agent_name = call.optional("agentName")
    found = [
        _activation(one, site.world.clock)
        for one in site.world.activations.values()
        if one.tenant_id == call.tenant_id and (not agent_name or one.agent_name == agent_name)
    ]
    return reply.of_json(found)


async def activation(site: Site, call: Call) -> Reply:
    wanted = call.parameters["activationId"]
    for one in site.world.activations.values():
        if one.id == wanted:
            if one.tenant_id != call.tenant_id:
                raise errors.not_in_scope(404, "Activation not found in the specified tenant")
            return reply.of_json(_activation(one, site.world.clock))
    raise errors.failed(404, f"Activation with ID '{wanted}' not found")


def _agent(one: Agent, clock: Clock, runner: str) -> dict[str, Json]:
    return {
        "id": one.id,
        "name": one.name,
        "tenant": one.tenant_id,
        "createdBy": runner,
        "createdAt": clock.written(one.created_at),
        "ownerAccess": [runner],
        "readAccess": [],
        "writeAccess": [],
        "systemScoped": False,
        "onboardingJson": None,
        "description": one.description,
        "summary": one.summary,
        "version": "1.0.0",
        "author": None,
        "category": one.category,
        "samplePrompts": one.sample_prompts,
        "flows": None,
    }


def _definition(one: Agent, number: int, flow: str, clock: Clock, runner: str) -> dict[str, Json]:
    written_at = clock.written(one.created_at)
    return {
        "id": f"{one.id[:-4]}{number:04x}",
        "workflowType": f"{one.name}:{flow}",
        "agent": one.name,
        "name": flow,
        "hash": f"{number:06x}",
        "source": "",
        "markdown": "",
        "activityDefinitions": [],
        "parameterDefinitions": [],
        "createdAt": written_at,
        "updatedAt": written_at,
        "createdBy": runner,
        "tenant": one.tenant_id,
        "systemScoped": False,
        "activable": True,
        "summary": None,
        "onboardingJson": None,
    }


async def deployments(site: Site, call: Call) -> Reply:
    page, size = max(call.integer("page", 1), 1), min(max(call.integer("pageSize", 20), 1), 100)
    world = site.world
    found = [
        _agent(one, world.clock, world.agent_runner) for one in world.agents.values() if one.tenant_id == call.tenant_id
    ]
    pages = -(-len(found) // size)
    pagination = {
        "page": page,
        "pageSize": size,
        "totalPages": pages,
        "totalItems": len(found),
        "hasNext": page < pages,
        "hasPrevious": page > 1,
    }
    return reply.of_json({"agents": found[(page - 1) * size : page * size], "pagination": pagination})


async def deployment(site: Site, call: Call) -> Reply:
    world, name = site.world, call.parameters["agentName"]
    agent = world.agents.get((call.tenant_id, name))
    if agent is None:
        raise errors.failed(404, f"Agent with name '{name}' not found in tenant '{call.tenant_id}'")
    definitions = [
        _definition(agent, number, flow, world.clock, world.agent_runner)
        for number, flow in enumerate(agent.flows, start=1)
    ]
    return reply.of_json(
        {
            "agent": _agent(agent, world.clock, world.agent_runner),
            "definitions": definitions,
        }
    )


async def heartbeat(site: Site, call: Call) -> Reply:
    """Whether a worker answers; a dead one is waited for, anything else that is wrong is a quick no."""
    agent_name, name = call.required("agentName"), call.required("activationName")
    seconds = call.integer("timeoutSeconds", 10)
    for parameter, value in (("agentName", agent_name), ("activationName", name)):
        if not value.strip():
            raise errors.blank(f"{parameter} query parameter is required")
    if not 1 <= seconds <= 30:
        raise errors.blank("timeoutSeconds must be between 1 and 30")
    flow = call.optional("workflowType")
    address = conversation.make_address(call.tenant_id, agent_name, name, "heartbeat", flow)
    try:
        conversation.check_activation(site.world, address)
    except Refusal:
        return reply.of_json({"available": False})
    handed = call.key.key if call.key else ""
    site.signals.append({"route": call.path, "requestId": None, "authorization": handed})
    is_available = site.world.agents[call.tenant_id, agent_name].has_worker
    if not is_available:
        await asyncio.sleep(seconds)
    return reply.of_json({"available": is_available})


async def health(site: Site, call: Call) -> Reply:
    return reply.of_text("Healthy")
