"""Activations, agents, participants, tenants and users, shaped as in the contract's examples."""

from typing import Any

import httpx
import pytest

from demo.xians import World
from tests.demo.contract import BASE, ENDPOINTS
from tests.demo.test_refusals import assert_answers


def shape(value: Any) -> Any:
    """The keys of a JSON value, in order, all the way down; lists by their first element."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


async def test_activations_have_the_contracts_keys(client: httpx.AsyncClient) -> None:
    example = ENDPOINTS["agentActivations.list"]["response"]["body"][1]
    listed = (await client.get(f"{BASE}/agentActivations")).json()
    assert list(listed[0]) == list(example)
    assert [one["name"] for one in listed] == ["Invoice Helper - Nordic", "Off", "Mute", "Importer"]
    assert [one["isActive"] for one in listed] == [True, False, True, True]
    of_one = (await client.get(f"{BASE}/agentActivations", params={"agentName": "Mute"})).json()
    assert [one["name"] for one in of_one] == ["Mute"]
    got = (await client.get(f"{BASE}/agentActivations/{listed[0]['id']}")).json()
    assert got == listed[0]


async def test_it_tells_an_unknown_activation_from_another_tenants(client: httpx.AsyncClient) -> None:
    errors = ENDPOINTS["agentActivations.get"]["errors"]
    assert_answers(await client.get(f"{BASE}/agentActivations/6861c0ffee00000000000aff"), errors["unknown"])
    assert_answers(await client.get(f"{BASE}/agentActivations/6861c0ffee00000000000a05"), errors["otherTenant"])


async def test_an_agents_detail_has_the_contracts_keys(client: httpx.AsyncClient) -> None:
    example = ENDPOINTS["agentDeployments.get"]["response"]["body"]
    detail = (await client.get(f"{BASE}/agentDeployments/Invoice%20Helper")).json()
    assert list(detail["agent"]) == list(example["agent"])
    assert list(detail["definitions"][0]) == list(example["definitions"][0])
    assert detail["definitions"][0]["workflowType"] == "Invoice Helper:Supervisor Workflow"
    listed = (await client.get(f"{BASE}/agentDeployments", params={"pageSize": 2})).json()
    assert shape(listed["pagination"]) == shape(ENDPOINTS["agentDeployments.list"]["response"]["body"]["pagination"])
    assert (len(listed["agents"]), listed["pagination"]["hasNext"]) == (2, True)
    unknown = await client.get(f"{BASE}/agentDeployments/Nobody")
    assert_answers(unknown, ENDPOINTS["agentDeployments.get"]["errors"]["unknown"])


async def test_a_worker_is_alive_or_not(client: httpx.AsyncClient, world: World) -> None:
    names = {"agentName": "Invoice Helper", "activationName": "Invoice Helper - Nordic"}
    url = f"{BASE}/heartbeat"
    assert (await client.get(url, params=names)).json() == {"available": True}
    assert (await client.get(url, params={**names, "activationName": "Off"})).json() == {"available": False}
    errors = ENDPOINTS["heartbeat"]["errors"]
    assert_answers(await client.get(url, params={**names, "timeoutSeconds": 31}), errors["badTimeout"])
    assert_answers(await client.get(url, params={**names, "agentName": ""}), errors["blankAgentName"])


async def test_a_participant_has_tenants_and_roles(client: httpx.AsyncClient, world: World) -> None:
    example = ENDPOINTS["participants.get"]["response"]["body"]
    url = "/api/v1/admin/participants/"
    ada = (await client.get(url + "%20Ada.Lovelace%40Example.com")).json()
    assert [list(one) for one in ada["tenants"]] == [list(one) for one in example["tenants"]]
    told = [(one["tenantId"], one["tenantName"], one["role"]) for one in ada["tenants"]]
    assert told == [(one["tenantId"], one["tenantName"], one["role"]) for one in example["tenants"]]
    root = (await client.get(url + "root%40acme.example")).json()
    assert root["isSystemAdmin"] is True
    assert {one["role"] for one in root["tenants"]} == {"SysAdmin"}
    world.tenants["globex"].is_enabled = False
    ada = (await client.get(url + "ada.lovelace%40example.com")).json()
    assert [one["tenantId"] for one in ada["tenants"]] == ["acme"]
    world.tenants["acme"].is_enabled = False
    nothing = await client.get(url + "ada.lovelace%40example.com")
    assert_answers(nothing, ENDPOINTS["participants.get"]["errors"]["onlyDisabledTenants"])


@pytest.mark.parametrize(("email", "example"), [("locked%40acme.example", "lockedOut"), ("not-an-address", "badEmail")])
async def test_it_refuses_some_participants(client: httpx.AsyncClient, email: str, example: str) -> None:
    response = await client.get(f"/api/v1/admin/participants/{email}")
    assert_answers(response, ENDPOINTS["participants.get"]["errors"][example])


async def test_a_stranger_is_like_somebody_without_tenants(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/admin/participants/nobody%40example.com")
    assert response.status_code == 404
    assert response.json() == {"message": "User with email 'nobody@example.com' has no matching tenants"}


async def test_tenants_and_users_have_the_contracts_keys(client: httpx.AsyncClient) -> None:
    tenants = (await client.get("/api/v1/admin/tenants")).json()
    assert list(tenants[0]) == list(ENDPOINTS["tenants.list"]["response"]["body"][0])
    assert (await client.get("/api/v1/admin/tenants/acme")).json() == tenants[0]
    users = (await client.get(f"{BASE}/users", params={"page": 1, "pageSize": 20, "search": "ADA"})).json()
    assert shape(users) == shape(ENDPOINTS["users.list"]["response"]["body"])
    assert users["users"][0]["role"] == "TenantParticipant"
    missing = await client.get(f"{BASE}/users", params={"page": 1})
    assert_answers(missing, ENDPOINTS["users.list"]["errors"]["pageMissing_nonDevelopment"])


async def test_it_says_that_it_is_well_to_anybody(client: httpx.AsyncClient) -> None:
    response = await client.get("/health", headers={"Authorization": ""})
    assert (response.status_code, response.text) == (200, "Healthy")
    assert response.headers["content-type"] == "text/plain"
