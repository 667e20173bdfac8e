"""Which conversation a request means, and whether it may be had: shared by all messaging routes."""

from dataclasses import dataclass

from demo.xians import errors
from demo.xians.call import Call, Fields
from demo.xians.messages import Thread
from demo.xians.world import DEFAULT_FLOW, World


@dataclass(frozen=True, slots=True)
class Address:
    tenant_id: str
    agent_name: str
    activation_name: str
    participant_id: str
    flow: str

    @property
    def workflow_id(self) -> str:
        return f"{self.tenant_id}:{self.agent_name}:{self.flow}:{self.activation_name}"

    @property
    def workflow_type(self) -> str:
        return f"{self.agent_name}:{self.flow}"


def make_address(
    tenant_id: str, agent_name: str, activation_name: str, participant_id: str, flow: str | None = None
) -> Address:
    """The participant is folded to lower case, and not trimmed; a blank flow means the default."""
    folded = participant_id.lower()
    return Address(tenant_id, agent_name, activation_name, folded, (flow or "").strip() or DEFAULT_FLOW)


def addressed_by_query(call: Call) -> Address:
    names = ("agentName", "activationName", "participantId")
    agent_name, activation_name, participant_id = (call.required(name) for name in names)
    for name, value in zip(names, (agent_name, activation_name, participant_id), strict=True):
        if not value.strip():
            raise errors.blank(f"{name} query parameter is required")
    return make_address(call.tenant_id, agent_name, activation_name, participant_id, call.optional("workflowType"))


def addressed_by_body(call: Call, fields: Fields) -> Address:
    agent_name = fields.text("agentName", is_required=True)
    activation_name = fields.text("activationName", is_required=True)
    participant_id = fields.text("participantId", is_required=True)
    if agent_name is None or not agent_name.strip():
        raise errors.failed(400, "AgentName is required")
    if activation_name is None or not activation_name.strip():
        raise errors.failed(400, "ActivationName is required")
    if participant_id is None:
        raise errors.unhandled()
    return make_address(call.tenant_id, agent_name, activation_name, participant_id, fields.text("workflowType"))


def check_activation(world: World, address: Address) -> None:
    """Refuse what does not exist, is switched off, or can't converse, in the server's order."""
    agent_name, name = address.agent_name, address.activation_name
    activation = world.activations.get((address.tenant_id, agent_name, name))
    if activation is None:
        raise errors.failed(404, f"Activation '{name}' not found for agent '{agent_name}'")
    if not activation.is_active:
        raise errors.failed(409, f"Activation '{name}' is deactivated")
    agent = world.agents.get((address.tenant_id, agent_name))
    if agent is None or not agent.flows:
        text = f" No agent process registered for agent '{agent_name}'."
        raise errors.failed(400, f"{text} Unable to use this agent for this purpose.")
    if address.flow not in agent.flows:
        raise errors.failed(
            400,
            f"Workflow type '{address.workflow_type}' is not registered for agent '{agent_name}'. "
            f"Registered workflow types: {', '.join(agent.flows)}.",
        )


def find_thread(world: World, address: Address) -> Thread | None:
    return world.messages.find_thread(address.tenant_id, address.workflow_id, address.participant_id)


def ensure_thread(world: World, address: Address) -> Thread:
    return world.messages.ensure_thread(
        address.tenant_id, address.workflow_id, address.workflow_type, address.participant_id
    )
