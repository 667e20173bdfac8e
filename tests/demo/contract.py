"""The wire contract's own examples, and a world in which they hold."""

import json
from pathlib import Path
from typing import Any

from demo.xians import Activation, Agent, ApiKey, Person, Tenant, World
from demo.xians.messages import Draft, Thread
from demo.xians.notation import moment

EXAMPLES: dict[str, Any] = json.loads((Path(__file__).parent / "xians-examples.json").read_text("utf-8"))
ENDPOINTS: dict[str, Any] = EXAMPLES["endpoints"]
IDS: dict[str, str] = EXAMPLES["ids"]
KEY = IDS["apiKey"]
TENANT_KEY = "sk-Xnai-a-tenant-admins-key-a-tenant-admins-key-xx"
WEAK_KEY = "sk-Xnai-a-key-of-somebody-without-a-good-role-xxxx"
BASE = "/api/v1/admin/tenants/acme"


def ada_world() -> World:
    """Tenants, agents and activations with the names and ids of the examples."""
    return World(
        tenants=[
            Tenant("6800c0ffee00000000000d01", "acme", "Acme AS", "acme.example", "fjord"),
            Tenant("6800c0ffee00000000000d02", "globex", "Globex"),
        ],
        people=[
            Person(
                "ada.lovelace@example.com",
                "Ada Lovelace",
                {"acme": "TenantParticipant", "globex": "TenantAdmin"},
            ),
            Person("root@acme.example", "Root", is_system_admin=True),
            Person("locked@acme.example", "Locked", {"acme": "TenantUser"}, is_locked_out=True),
        ],
        agents=[
            Agent("6850c0ffee00000000000b01", "acme", "Invoice Helper", category="Finance"),
            Agent("6850c0ffee00000000000b02", "acme", "Mute", flows=[]),
            Agent("6850c0ffee00000000000b03", "acme", "Importer", flows=["Invoice Importer", "Nightly Report"]),
        ],
        activations=[
            Activation("6861c0ffee00000000000a01", "acme", "Invoice Helper", "Invoice Helper - Nordic"),
            Activation("6861c0ffee00000000000a02", "acme", "Invoice Helper", "Off", is_active=False),
            Activation("6861c0ffee00000000000a03", "acme", "Mute", "Mute"),
            Activation("6861c0ffee00000000000a04", "acme", "Importer", "Importer"),
            Activation("6861c0ffee00000000000a05", "globex", "Invoice Helper", "Elsewhere"),
        ],
        keys=[
            ApiKey(KEY, IDS["apiKeyOwner"]),
            ApiKey(TENANT_KEY, "admin@acme.example", "TenantAdmin", "acme"),
            ApiKey(WEAK_KEY, "user@acme.example", "TenantUser", "acme"),
        ],
    )


def tell_the_story(world: World) -> None:
    """Store the messages of the example conversation under their own ids and times."""
    names = ("threadId", "tenantId", "workflowId", "workflowType", "participantStored")
    thread = world.messages.keep_thread(Thread(*(IDS[name] for name in names)))
    for told in reversed(ENDPOINTS["messaging.history"]["response"]["body"]):
        draft = Draft(
            direction=told["direction"],
            type=told["messageType"],
            text=told["text"],
            data="Looking up invoice INV-1001" if told["messageType"] == "Reasoning" else told["data"],
            scope=told["scope"],
            request_id=told["requestId"],
            created_by=told["createdBy"],
            id=told["id"],
            created_at=told["createdAt"],
        )
        message = world.messages.add(thread, draft)
        assert message.created_at == moment(told["createdAt"])
