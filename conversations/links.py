"""Addresses of conversations. Every link names its tenant, so that two tabs can be in two tenants."""

from django.urls import reverse
from django.utils.http import urlencode

from messaging.wire import ThreadAddress


def page(tenant_id: str, agent_name: str, activation_name: str, topic: str = "") -> str:
    """The conversation's page with `topic` open."""
    path = reverse("conversations:conversation", args=[agent_name, activation_name])
    return f"{path}?{query(tenant_id, topic)}"


def part(address: ThreadAddress, name: str, topic: str = "", **more: str | int) -> str:
    """A sub-address of a conversation: `name` is a URL name of ours, `more` goes into the query."""
    path = reverse(f"conversations:{name}", args=[address.agent_name, address.activation_name])
    return f"{path}?{query(address.tenant_id, topic, **more)}"


def conversation(address: ThreadAddress, topic: str = "") -> str:
    return page(address.tenant_id, address.agent_name, address.activation_name, topic)


def query(tenant_id: str, topic: str = "", **more: str | int) -> str:
    named: dict[str, str | int] = {"tenant": tenant_id}
    if topic:
        named["topic"] = topic
    return urlencode({**named, **more})
