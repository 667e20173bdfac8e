"""The HTTP API (interfaces.md section 2): what it answers, and how it says no."""

from __future__ import annotations

import asyncio
import html
import json
from typing import Any
from urllib.parse import parse_qs, quote

import httpx
import pytest

from tests.messaging.conftest import Site
from tests.messaging.people import Person

STRANGER_GETS = ["listen", "topics", "history", "unread"]


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    """Every refusal has the same shape, and says nothing of what is behind us."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["code"] == code
    assert told["error"].endswith(".")
    assert told["details"]["requestId"]
    assert told["details"].get("field") == field
    if field:
        assert field in told["error"]
    for secret in ("sk-Xnai", "Traceback", "127.0.0.1:"):
        assert secret not in answer.text


async def test_a_stranger_gets_401_json_and_the_login_from_a_page(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.app.url) as stranger:
        for path in ["/api/tenants/", "/api/tenants/acme/activations/"]:
            refused(await stranger.get(path), 401, "UNAUTHENTICATED")
        for call in STRANGER_GETS:
            answer = await stranger.get(f"/api/tenants/acme/messaging/{call}", params=site.names)
            refused(answer, 401, "UNAUTHENTICATED")
        for call in ("send", "read"):
            answer = await stranger.post(f"/api/tenants/acme/messaging/{call}", json=site.names)
            refused(answer, 401, "UNAUTHENTICATED")
        page = await stranger.get("/conversations/Invoice%20Helper/Nordic%20desk/?topic=t")
        assert page.status_code == 302
        assert page.headers["location"].startswith("/login/?next=%2Fconversations%2FInvoice")
        for open_to_all in (
            "/login/",
            "/server-unavailable",
            "/server-unavailable/",
            "/healthz",
            "/readyz",
            "/metrics",
        ):
            assert (await stranger.get(open_to_all)).status_code == 200


async def test_it_lists_tenants_and_activations(alice: Person) -> None:
    assert (await alice.client.get("/api/tenants/")).json() == [
        {"tenantId": "acme", "name": "Acme AS", "role": "TenantUser"},
        {"tenantId": "globex", "name": "Globex", "role": "TenantParticipant"},
    ]
    found = (await alice.client.get("/api/tenants/acme/activations/")).json()
    assert set(found[0]) == {"agentName", "name", "description", "isActive", "unreadCount"}
    assert {a["name"]: a["isActive"] for a in found}["Old files"] is False


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"agentName": ""}, "agentName"),
        ({"activationName": " "}, "activationName"),
        ({"agentName": "x" * 300}, "agentName"),
        ({"activationName": "a\x00b"}, "activationName"),
        ({"topic": "x" * 10_000}, "topic"),
        ({"topic": "a\x07b"}, "topic"),
        ({"page": "0"}, "page"),
        ({"page": "-1"}, "page"),
        ({"page": "abc"}, "page"),
        ({"pageSize": "201"}, "pageSize"),
        ({"sortOrder": "up"}, "sortOrder"),
        ({"chatOnly": "1"}, "chatOnly"),
    ],
)
async def test_it_names_the_field_that_is_wrong(alice: Person, query: dict[str, str], field: str) -> None:
    refused(await alice.get("history", **query), 400, "VALIDATION_ERROR", field)


@pytest.mark.parametrize("beats", ["0", "301", "ten", "1.5", "-1"])
async def test_it_refuses_a_heartbeat_out_of_range(alice: Person, beats: str) -> None:
    refused(await alice.get("listen", heartbeatSeconds=beats), 400, "VALIDATION_ERROR", "heartbeatSeconds")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": "  "}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x" * 100_001}, "text"),
        ({"text": "x", "topic": 5}, "topic"),
        ({"text": "x", "topic": "\x1b[31m"}, "topic"),
        ({"text": "x", "topic": "t" * 10_000}, "topic"),
        ({"text": "x", "requestId": "r" * 101}, "requestId"),
        ({"text": "x", "type": "Heartbeat"}, "type"),
        ({"text": "x", "origin": "app:slack"}, "origin"),
        ({"text": "x", "agentName": None}, "agentName"),
    ],
)
async def test_it_sends_nothing_that_is_malformed(site: Site, alice: Person, body: dict[str, Any], field: str) -> None:
    refused(await alice.post("send", **body), 400, "VALIDATION_ERROR", field)
    assert not site.xians.requests(route="send")


async def test_it_refuses_a_body_that_is_no_json_object(alice: Person) -> None:
    for body in (b"", b"{", b"[1]", b"\xff"):
        headers = {**alice.csrf(), "Content-Type": "application/json"}
        answer = await alice.client.post(alice.path("send"), content=body, headers=headers)
        refused(answer, 400, "VALIDATION_ERROR", "body")


@pytest.mark.parametrize("start", ['{"text":"\\ud800"', '{"text":"x","data":NaN', '{"text":"x","data":{"a":"\\udfff"}'])
async def test_it_refuses_what_json_cannot_carry_on(site: Site, alice: Person, start: str) -> None:
    """F37, F38"""
    body = f"{start},{json.dumps(site.names)[1:]}"
    headers = {**alice.csrf(), "Content-Type": "application/json"}
    refused(await alice.client.post(alice.path("send"), content=body, headers=headers), 400, "VALIDATION_ERROR", "body")
    huge = json.dumps({**site.names, "text": "x" * 3_000_000})
    refused(await alice.client.post(alice.path("send"), content=huge, headers=headers), 400, "VALIDATION_ERROR", "body")


async def test_a_repeat_while_the_first_is_on_its_way_hears_the_same(site: Site, alice: Person) -> None:
    site.xians.refuse(route="send", delay_seconds=0.3)
    first, again = await asyncio.gather(*(alice.post("send", text="once", requestId="r-3") for _ in range(2)))
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert len([m for m in site.xians.truth(**site.thread) if m["requestId"] == "r-3"]) == 1


async def test_a_client_that_never_saw_a_page_gets_its_csrf_token(site: Site, alice: Person) -> None:
    session = {"sessionid": alice.client.cookies["sessionid"]}
    async with httpx.AsyncClient(base_url=site.app.url, cookies=session) as script:
        await script.get("/api/tenants/")
        headers = {"X-CSRFToken": script.cookies["csrftoken"]}
        answer = await script.post(alice.path("read"), json={**site.names, "topic": None}, headers=headers)
        assert answer.status_code == 200, answer.text


async def test_it_refuses_a_change_without_its_csrf_token(site: Site, alice: Person) -> None:
    """F112"""
    answer = await alice.client.post(alice.path("send"), json={**site.names, "text": "forged"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "CSRF_FAILED"
    assert not site.xians.requests(route="send")


async def test_it_sends_with_what_is_the_persons_own(site: Site, alice: Person) -> None:
    answer = await alice.post(
        "send", text="Hello", topic=" t ", requestId="r-1", participantId="bob@acme.example", hint="h", data={"a": 1}
    )
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"threadId", "requestId"}
    (request,) = site.xians.requests(route="send")
    body = json.loads(request["body"])
    assert body["participantId"] == "alice@acme.example"
    assert (body["topic"], body["requestId"], body["hint"], body["data"]) == ("t", "r-1", "h", {"a": 1})
    assert body["authorization"]
    assert "sk-Xnai" not in body["authorization"]


async def test_the_same_request_id_sends_once(site: Site, alice: Person) -> None:
    first = (await alice.post("send", text="once", requestId="r-1")).json()
    again = (await alice.post("send", text="once", requestId="r-1")).json()
    assert again == first
    assert len(site.xians.requests(route="send")) == 1


async def test_it_looks_in_history_before_it_sends_again(site: Site, alice: Person) -> None:
    """F: upstream stores the message, then answers 500 (xians-api.md 1.2)."""
    site.xians.refuse(route="send", status=500, runs_handler_first=True, count=1)
    refused(await alice.post("send", text="stored", requestId="r-2"), 503, "UPSTREAM_UNAVAILABLE")
    answer = await alice.post("send", text="stored", requestId="r-2")
    assert answer.status_code == 200, answer.text
    stored = [m for m in site.xians.truth() if m["requestId"] == "r-2"]
    assert len(stored) == 1


async def test_a_try_that_upstream_refuses_does_not_forget_the_one_before(site: Site, alice: Person) -> None:
    """The first may have arrived (it has); the second only says that it has not; the third has to look again."""
    site.xians.refuse(route="send", status=500, runs_handler_first=True, count=1)
    refused(await alice.post("send", text="stored", requestId="refused once"), 503, "UPSTREAM_UNAVAILABLE")
    site.xians.refuse(route="history", status=403, body='{"message":"Tenant scope mismatch"}', count=1)
    refused(await alice.post("send", text="stored", requestId="refused once"), 502, "UPSTREAM_REJECTED")
    answer = await alice.post("send", text="stored", requestId="refused once")
    assert answer.status_code == 200, answer.text
    assert len([message for message in site.xians.truth() if message["requestId"] == "refused once"]) == 1


@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        ({"status": 401, "body": '{"error":"Unauthorized","message":"Invalid API key"}'}, 502, "UPSTREAM_REJECTED"),
        ({"status": 403, "body": '{"message":"Tenant scope mismatch"}'}, 502, "UPSTREAM_REJECTED"),
        ({"status": 500, "body": '{"error":"Internal server error"}'}, 503, "UPSTREAM_UNAVAILABLE"),
        ({"status": 502, "body": "<html>"}, 503, "UPSTREAM_UNAVAILABLE"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, 502, "UPSTREAM_REJECTED"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, 503, "UPSTREAM_UNAVAILABLE"),
    ],
)
async def test_it_says_what_upstream_means(
    site: Site, alice: Person, rule: dict[str, Any], status: int, code: str
) -> None:
    await alice.unread()
    site.xians.refuse(route="history", **rule)
    answer = await alice.get("history")
    refused(answer, status, code)
    if status == 503:
        assert int(answer.headers["retry-after"]) == (7 if rule["status"] == 429 else 5)
    assert (await alice.client.get("/api/tenants/")).status_code == 200  # still signed in


async def test_it_says_what_is_the_matter_with_an_activation(alice: Person) -> None:
    for names, status, code in (
        ({"activationName": "nobody"}, 404, "ACTIVATION_NOT_FOUND"),
        ({"agentName": "Archive Keeper", "activationName": "Old files"}, 409, "ACTIVATION_INACTIVE"),
        ({"agentName": "Nightly Importer", "activationName": "Nightly run"}, 422, "AGENT_CANNOT_CONVERSE"),
        ({"agentName": "..", "activationName": ".."}, 404, "ACTIVATION_NOT_FOUND"),
    ):
        for call in ("listen", "topics", "unread"):
            refused(await alice.get(call, **names), status, code)


async def test_it_says_when_upstream_is_gone(own_site: Site, alice: Person) -> None:
    await alice.unread()
    own_site.xians.kill()
    for call in ("listen", "history", "topics"):
        answer = await alice.get(call)
        refused(answer, 503, "UPSTREAM_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
    assert await alice.unread() == {}  # what is stored can still be told
    ready = await alice.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["upstream"]) == (503, "unavailable")


async def test_a_smuggled_tenant_reaches_nothing(site: Site, alice: Person, bob: Person) -> None:
    """F121, F122"""
    for tenant in ("globex", "GLOBEX", "acme/../globex", "..", "acme%2F..%2Fglobex", "x" * 500):
        answer = await bob.client.get(f"/api/tenants/{tenant}/messaging/unread", params=site.names)
        assert answer.status_code in (403, 404), answer.text
    await bob.get("history", tenantId="globex", participantId="alice@acme.example", heartbeatSeconds="1")
    for request in site.xians.requests(route="history"):
        asked = parse_qs(request["query"])
        assert asked["participantId"] == ["bob@acme.example"]
        assert "tenantId" not in asked


async def test_general_is_always_first_and_counts_are_beside_topics(site: Site, alice: Person) -> None:
    await alice.unread()
    for number in range(3):
        site.answer("x", topic=f"t{number}")
    answer = (await alice.get("topics", pageSize=2)).json()
    assert [topic["scope"] for topic in answer["topics"]][0] is None
    assert {t["scope"]: t["unreadCount"] for t in answer["topics"]}["t2"] == 1
    assert set(answer["pagination"]) == {"currentPage", "pageSize", "totalTopics", "totalPages", "hasMore"}
    second = (await alice.get("topics", pageSize=2, page=2)).json()
    assert None not in [topic["scope"] for topic in second["topics"]]


async def test_history_is_upstreams_and_chat_only_is_honoured(site: Site, alice: Person) -> None:
    await alice.unread()
    for number in range(3):  # no two at one millisecond: upstream promises no order then
        at = f"2026-11-26T20:00:0{number}"
        site.answer(f"step {number}", topic="t", type="Reasoning", created_at=f"{at}.100Z")
        site.answer(f"chat {number}", topic="t", created_at=f"{at}.200Z")
    full = (await alice.get("history", topic="t")).json()
    assert full == list(reversed(site.xians.truth(**site.thread)[-6:]))
    chats = (await alice.get("history", topic="t", chatOnly="true", pageSize=2, sortOrder="asc")).json()
    assert [message["text"] for message in chats] == ["chat 0", "chat 1"]
    rest = (await alice.get("history", topic="t", chatOnly="true", pageSize=2, page=2, sortOrder="asc")).json()
    assert [message["text"] for message in rest] == ["chat 2"]


@pytest.mark.parametrize("name", ["R&D +50 % / Ünï=#?", "a;b", "100%25", "日本 語", "q'\"<b>", "a/../b"])
async def test_names_may_hold_anything_printable(site: Site, alice: Person, name: str) -> None:
    site.xians.control("activation", tenant="acme", agent="Invoice Helper", name=name, active=True)
    for topic in ("to+pic & co", "50%25", "general-discussions", "Ärger 🙂"):
        site.xians.message(**{**site.thread, "activation": name}, text="before", topic=topic)
        assert (await alice.get("unread", activationName=name)).status_code == 200
        answer = await alice.get("history", activationName=name, topic=topic)
        assert [message["text"] for message in answer.json()] == ["before"]
        assert (await alice.post("read", activationName=name, topic=topic)).json()["total"] == 0
    address = name.replace("%", "%25").replace("/", "%2F")
    page = await alice.client.get(f"/conversations/Invoice%20Helper/{quote(address, safe='')}/?tenant=acme")
    assert page.status_code == 200
    assert html.escape(name) in page.text
