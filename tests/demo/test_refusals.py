"""Every way in which the server says no, against the contract's examples."""

from typing import Any

import httpx
import pytest

from demo.xians import XiansApp
from demo.xians.world import World
from tests.demo.contract import BASE, EXAMPLES, KEY, TENANT_KEY, WEAK_KEY

COMMON: dict[str, Any] = EXAMPLES["commonErrors"]
ACTIVATION: dict[str, Any] = EXAMPLES["activationErrors"]
NORDIC = {
    "agentName": "Invoice Helper",
    "activationName": "Invoice Helper - Nordic",
    "participantId": "a@b.c",
}
SEND = {**NORDIC, "text": "Hello"}


def assert_answers(response: httpx.Response, example: dict[str, Any]) -> None:
    assert response.status_code == example["status"]
    if example.get("bodyIsEmpty"):
        assert response.content == b""
    else:
        assert response.json() == example["body"]
    for name, value in example["headers"].items():
        assert response.headers[name] == value


@pytest.mark.parametrize(
    ("authorization", "example"),
    [
        (None, "noToken"),
        ("Basic abc", "noToken"),
        ("Bearer eyJhbGciOi.a.b", "notAnApiKey"),
        ("Bearer SK-XNAI-wrong-prefix", "notAnApiKey"),
        ("Bearer sk-Xnai-unknown", "unknownOrRevokedKey"),
        (f"Bearer {WEAK_KEY}", "keyOwnerNotAdmin"),
    ],
)
async def test_it_names_what_is_wrong_with_a_key(app: XiansApp, authorization: str | None, example: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://xians") as anyone:
        response = await anyone.get(f"{BASE}/messaging/topics", headers=headers)
    assert_answers(response, COMMON[example])
    assert response.headers["content-length"] == str(len(response.content))
    assert "www-authenticate" not in response.headers


async def test_it_takes_the_scheme_in_any_case(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{BASE}/agentActivations", headers={"Authorization": f"bEARER  {KEY} "})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("key", "path", "example"),
    [
        (TENANT_KEY, "/api/v1/admin/tenants/globex/agentActivations", "tenantAdminKeyOtherTenant"),
        (KEY, "/api/v1/admin/tenants/ac%20me/agentActivations", "authInternal"),
        (KEY, "/api/v1/admin/tenants/acmee/agentActivations", "sysAdminKeyUnknownTenant"),
        (KEY, "/api/v1/admin/tenants/acme/agentActivations?tenantId=globex", "tenantScopeMismatch"),
    ],
)
async def test_it_guards_the_tenant(client: httpx.AsyncClient, key: str, path: str, example: str) -> None:
    assert_answers(await client.get(path, headers={"Authorization": f"Bearer {key}"}), COMMON[example])


@pytest.mark.parametrize(
    "path",
    [
        f"{BASE}/messaging/send/file",
        f"{BASE}/messaging/files/6864fa3bc0ffee0000000f01",
        "/api/v1/admin/participants/ada.lovelace%40example.com/tenants",
        "/api/v2/admin/tenants",
        "/",
    ],
)
async def test_it_knows_no_other_route_and_asks_for_no_key_there(client: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST"):
        response = await client.request(method, path, headers={"Authorization": ""})
        assert_answers(response, COMMON["noSuchRoute"])


async def test_it_names_the_allowed_verbs(client: httpx.AsyncClient) -> None:
    assert_answers(await client.delete("/api/v1/admin/tenants"), COMMON["wrongVerb"])
    both = await client.put(f"{BASE}/feedback")
    assert (both.status_code, both.headers["allow"], both.content) == (405, "POST, GET", b"")


async def test_it_matches_literals_and_parameter_names_in_any_case(client: httpx.AsyncClient) -> None:
    response = await client.get(
        "/API/v1/Admin/Tenants/acme/MESSAGING/Topics/",
        params={
            "AGENTNAME": "Invoice Helper",
            "activationname": "Invoice Helper - Nordic",
            "participantID": "a",
        },
    )
    assert response.status_code == 200


@pytest.mark.parametrize("name", ["agentName", "activationName", "participantId"])
@pytest.mark.parametrize("route", ["listen", "topics", "history"])
async def test_it_tells_absent_from_blank(client: httpx.AsyncClient, route: str, name: str) -> None:
    absent = {key: value for key, value in NORDIC.items() if key != name}
    response = await client.get(f"{BASE}/messaging/{route}", params=absent)
    assert_answers(response, COMMON["missingOrIllTypedParameter_nonDevelopment"])
    blank = await client.get(f"{BASE}/messaging/{route}", params={**NORDIC, name: " "})
    assert (blank.status_code, blank.json()) == (400, f"{name} query parameter is required")


@pytest.mark.parametrize(
    ("route", "extra"),
    [
        ("listen", {"heartbeatSeconds": "ten"}),
        ("topics", {"page": "abc"}),
        ("history", {"chatOnly": "1"}),
        ("history", {"pageSize": "1.5"}),
    ],
)
async def test_it_refuses_ill_typed_parameters_without_a_word(
    client: httpx.AsyncClient, route: str, extra: dict[str, str]
) -> None:
    response = await client.get(f"{BASE}/messaging/{route}", params={**NORDIC, **extra})
    assert_answers(response, COMMON["missingOrIllTypedParameter_nonDevelopment"])


@pytest.mark.parametrize("route", ["listen", "topics", "history"])
@pytest.mark.parametrize(
    ("agent", "activation", "example"),
    [
        ("Invoice Helper", "Nowhere", "activationNotFound"),
        ("Invoice Helper", "Off", "activationInactive"),
        ("Mute", "Mute", "agentHasNoFlows"),
        ("Importer", "Importer", "workflowTypeNotRegistered"),
    ],
)
async def test_it_checks_the_activation(
    client: httpx.AsyncClient, route: str, agent: str, activation: str, example: str
) -> None:
    names = {"agentName": agent, "activationName": activation, "participantId": "a@b.c"}
    answers = [
        await client.get(f"{BASE}/messaging/{route}", params=names),
        await client.post(f"{BASE}/messaging/send", json={**names, "text": "x"}),
        await client.delete(f"{BASE}/messaging/messages", params=names),
    ]
    told = ACTIVATION[example]["body"]["error"]
    told = told.replace("Invoice Helper - Nordic", activation).replace("Invoice Helper", agent)
    for answer in answers:
        assert answer.status_code == ACTIVATION[example]["status"]
        assert answer.json() == {"error": told}


@pytest.mark.parametrize(
    ("changes", "status", "body"),
    [
        ({"agentName": " "}, 400, {"error": "AgentName is required"}),
        ({"agentName": None}, 400, {"error": "AgentName is required"}),
        ({"activationName": ""}, 400, {"error": "ActivationName is required"}),
        ({"participantId": None}, 500, COMMON["unhandled"]["body"]),
        ({"type": "Sparkle"}, 400, None),
        ({"type": 8}, 400, None),
        ({"text": 5}, 400, None),
        ({"topic": ["a"]}, 400, None),
    ],
)
async def test_it_reads_the_body_strictly(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, body: Any
) -> None:
    response = await client.post(f"{BASE}/messaging/send", json={**SEND, **changes})
    assert response.status_code == status
    assert (response.json() if response.content else None) == body


@pytest.mark.parametrize("name", SEND)
async def test_it_wants_every_required_key(client: httpx.AsyncClient, name: str) -> None:
    body = {key: value for key, value in SEND.items() if key != name}
    assert_answers(await client.post(f"{BASE}/messaging/send", json=body), COMMON["invalidJson_nonDevelopment"])


async def test_it_refuses_other_content_types_and_broken_json(client: httpx.AsyncClient) -> None:
    url, text = f"{BASE}/messaging/send", {"Content-Type": "text/plain"}
    assert_answers(await client.post(url, content=b"{}", headers=text), COMMON["notJsonContentType"])
    json_type = {"Content-Type": "application/json"}
    for broken in (b"", b"{", b"[]", b'{"text": NaN}'):
        response = await client.post(url, content=broken, headers=json_type)
        assert_answers(response, COMMON["invalidJson_nonDevelopment"])


async def test_it_has_limits(client: httpx.AsyncClient) -> None:
    too_long = await client.get(f"{BASE}/messaging/history", params={**NORDIC, "topic": "x" * 8200})
    assert_answers(too_long, COMMON["uriTooLong"])
    many = await client.get(f"{BASE}/agentActivations", headers={"X-Filler": "x" * 33_000})
    assert_answers(many, COMMON["headersTooLarge"])
    big = await client.post(
        f"{BASE}/messaging/send", content=b"x" * 31_457_281, headers={"Content-Type": "application/json"}
    )
    assert_answers(big, COMMON["bodyTooLarge"])


async def test_only_a_system_administrators_key_sees_people_and_tenants(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {TENANT_KEY}"}
    people = EXAMPLES["endpoints"]["participants.get"]["errors"]
    tenants = EXAMPLES["endpoints"]["tenants.list"]["errors"]
    tenant = EXAMPLES["endpoints"]["tenants.get"]["errors"]
    response = await client.get("/api/v1/admin/participants/ada.lovelace%40example.com", headers=headers)
    assert_answers(response, people["keyNotSysAdmin"])
    assert_answers(await client.get("/api/v1/admin/tenants", headers=headers), tenants["notSysAdmin"])
    assert_answers(await client.get("/api/v1/admin/tenants/acme", headers=headers), tenant["notSysAdmin"])


async def test_errors_of_the_exception_handler_lose_the_security_headers(
    client: httpx.AsyncClient, world: World
) -> None:
    lost = await client.get("/api/v1/admin/tenants/acmee")
    kept = await client.get(f"{BASE}/agentActivations")
    assert "x-frame-options" not in lost.headers
    assert kept.headers["x-frame-options"] == "DENY"
    assert "content-length" not in kept.headers
