"""The stand-in at its worst: each fault does what its name says, over a real socket."""

import asyncio
import json
import zlib
from typing import Any

import httpx
import pytest

from demo.children import ChildError, StandIn
from demo.world import API_KEY
from tests.demo.test_stream import attached, control, say
from tests.demo.wires import DESK, Wire

NAMES = {"agentName": "Helper", "activationName": "Desk", "participantId": "ada@acme.example"}
MESSAGING = "/api/v1/admin/tenants/acme/messaging"


async def ask(standin: StandIn, route: str = "history", **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=standin.url, headers=headers, timeout=5) as client:
        if route == "send":
            return await client.post(f"{MESSAGING}/send", json={**NAMES, "text": "Hello", "authorization": ""})
        return await client.get(f"{MESSAGING}/{route}", params={**NAMES, **options})


async def open_stream(standin: StandIn) -> Wire:
    before: int = (await control(standin, "streams"))["attached"]
    wire = await Wire.listen(standin.port)
    await wire.event()
    await attached(standin, before + 1)
    return wire


async def test_a_withheld_message_is_stored_and_never_streamed(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        await say(standin, "withheld", withhold=True)
        await say(standin, "seen")
        assert (await wire.event())[1]["text"] == "seen"
    assert [one["text"] for one in (await ask(standin, sortOrder="asc")).json()] == ["withheld", "seen"]


async def test_a_broken_change_stream_stores_and_forgets(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        await control(standin, "change_stream_down", seconds=30)
        await say(standin, "lost")
        await control(standin, "change_stream_down", seconds=0)
        await say(standin, "seen")
        assert (await wire.event())[1]["text"] == "seen"


async def test_it_repeats_and_edits(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        stored = await say(standin, "one")
        await control(standin, "again", id=stored["id"])
        await control(standin, "again", id=stored["id"], changes={"scope": "other", "participantId": "eve@x.y"})
        await control(standin, "again", id=stored["id"], pascal_case=True)
        await control(standin, "edit", id=stored["id"], text="two")
        seen = [(await wire.event())[1] for _ in range(5)]
    assert [one.get("text", one.get("Text")) for one in seen] == ["one", "one", "one", "one", "two"]
    assert (seen[2]["scope"], seen[2]["participantId"]) == ("other", "eve@x.y")
    assert seen[3]["ThreadId"] == stored["threadId"]
    assert {one.get("id", one.get("Id")) for one in seen} == {stored["id"]}
    assert [one["text"] for one in (await ask(standin)).json()] == ["two"]


async def test_it_emits_raw_bytes_and_foreign_events(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        await control(standin, "emit", raw="data: {\n\n")
        await control(standin, "emit", raw_base64="/w==")
        await control(standin, "emit", event="Sparkle", payload={"tenantId": "globex"}, thread=DESK)
        assert [await wire.chunk() for _ in range(2)] == [b"data: {\n\n", b"\xff"]
        assert await wire.event() == ("Sparkle", {"tenantId": "globex"})


async def test_it_falls_silent(standin: StandIn) -> None:
    await control(standin, "behave", heartbeats=False)
    async with await Wire.listen(standin.port, heartbeat=1) as wire:
        await wire.event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.3):
                await wire.reader.read(1)


@pytest.mark.parametrize(("mode", "left"), [("eof", b"0\r\n\r\n"), ("truncate", b"")])
async def test_it_ends_streams(standin: StandIn, mode: str, left: bytes) -> None:
    async with await open_stream(standin) as wire:
        assert await control(standin, "cut", mode=mode) == {"listeners": 1}
        assert await wire.reader.read(5) == left


async def test_it_resets_a_stream_inside_an_event(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        await control(standin, "cut", mode="reset", after_bytes=9)
        await say(standin)
        assert await wire.chunk() == b"event: Ch"
        with pytest.raises(ConnectionResetError):
            await wire.rest()


async def test_it_says_connected_and_closes(standin: StandIn) -> None:
    await control(standin, "refuse", route="listen", close_after_sends=1, count=2)
    for _ in range(2):
        async with await Wire.listen(standin.port) as wire:
            assert (await wire.event())[0] == "connected"
            assert await wire.chunk() == b""
    async with await open_stream(standin):
        assert (await control(standin, "rules"))["rules"] == []


async def test_it_refuses_a_route_some_times(standin: StandIn) -> None:
    await control(standin, "refuse", route="topics", status=503, headers={"Retry-After": "7"}, count=1, skip=1)
    answers = [await ask(standin, "topics") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 503, 200]
    assert answers[1].headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "rule",
    [
        {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<h1>Sign in</h1>"},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/elsewhere"}},
        {"status": 500, "body_base64": "gA=="},
        {"status": 429, "delay_seconds": 0.1},
    ],
)
async def test_it_answers_anything(standin: StandIn, rule: dict[str, Any]) -> None:
    await control(standin, "refuse", route="*", count=1, **rule)
    response = await ask(standin)
    assert response.status_code == rule["status"]
    assert all(response.headers[name] == value for name, value in rule.get("headers", {}).items())


async def test_send_may_store_and_then_fail_or_hang(standin: StandIn) -> None:
    await control(standin, "refuse", route="send", runs_handler_first=True, status=500, count=1)
    assert (await ask(standin, "send")).status_code == 500
    await control(standin, "refuse", route="send", runs_handler_first=True, hang=True, count=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await ask(standin, "send")
    assert len((await control(standin, "truth"))["messages"]) == 2


async def test_it_aborts_and_drips(standin: StandIn) -> None:
    await control(standin, "refuse", route="history", abort=True, count=1)
    with pytest.raises(httpx.TransportError):
        await ask(standin)
    await control(standin, "refuse", route="history", drip_seconds=0.001, body="[]", count=1)
    assert (await ask(standin)).json() == []


async def test_it_resets_an_answer_half_way(standin: StandIn) -> None:
    await say(standin)
    await control(standin, "refuse", route="history", reset_after_bytes=20, count=1)
    with pytest.raises(httpx.TransportError):
        await ask(standin)
    assert len((await ask(standin)).json()) == 1


async def test_it_compresses_unasked(standin: StandIn) -> None:
    await control(standin, "refuse", route="history", gzip=True, count=1)
    response = await ask(standin)
    assert response.headers["content-encoding"] == "gzip"
    assert response.json() == []
    await control(standin, "refuse", route="listen", gzip=True, count=1)
    async with await Wire.listen(standin.port) as wire:
        first = zlib.decompressobj(wbits=31).decompress(await wire.chunk())
    assert first.startswith(b"event: connected\n")


async def test_reads_may_lag_or_stand_still(standin: StandIn) -> None:
    await say(standin, "old")
    await control(standin, "freeze_reads")
    await say(standin, "new")
    assert [one["text"] for one in (await ask(standin)).json()] == ["old"]
    assert (await ask(standin, "topics")).json()["topics"][0]["messageCount"] == 1
    await control(standin, "freeze_reads", on=False)
    assert len((await ask(standin)).json()) == 2
    await control(standin, "behave", lag_seconds=60)
    assert (await ask(standin)).json() == []


async def test_clock_and_digits(standin: StandIn) -> None:
    await control(standin, "behave", clock_skew_seconds=-86_400 * 365 * 10)
    await control(standin, "digits", count=7)
    stored = await say(standin)
    assert stored["createdAt"].startswith("2016-") or stored["createdAt"] < "2025"
    assert len(stored["createdAt"]) == len("2026-07-02T09:15:00.1834502Z")
    overridden = await say(standin, created_at="2026-07-02T09:15:08", id="f" * 24)
    assert (overridden["createdAt"], overridden["id"]) == ("2026-07-02T09:15:08", "f" * 24)


async def test_pascal_case_for_everyone(standin: StandIn) -> None:
    await control(standin, "behave", pascal_case=True)
    async with await open_stream(standin) as wire:
        await say(standin, data={"aB": 1})
        name, data = await wire.event()
    assert name == "Chat"
    assert data["Data"] == {"aB": 1}
    assert all(key[0].isupper() for key in data)


async def test_switched_off_it_resets_everybody_and_remembers(standin: StandIn) -> None:
    await say(standin)
    async with await open_stream(standin) as wire:
        await control(standin, "power", on=False)
        with pytest.raises(ConnectionResetError):
            await wire.rest()
    with pytest.raises(httpx.TransportError):
        await ask(standin)
    await control(standin, "power", on=True)
    assert len((await ask(standin)).json()) == 1


async def test_killed_and_started_again_it_remembers(standin: StandIn) -> None:
    stored = await say(standin, "kept", topic="x", data={"n": 1})
    await ask(standin, "send")
    before = (await control(standin, "truth"))["messages"]
    port = standin.port
    await asyncio.to_thread(standin.kill)
    with pytest.raises(httpx.ConnectError):
        await ask(standin)
    await asyncio.to_thread(standin.start)
    assert standin.port == port
    assert (await control(standin, "truth"))["messages"] == before
    await control(standin, "activation", tenant="acme", agent="Helper", name="Desk", active=True)
    assert (await say(standin))["id"] > stored["id"]


async def test_it_logs_requests_to_the_letter(standin: StandIn) -> None:
    await ask(standin, topic="a b+c", **{"chatOnly": "false"})
    [request] = (await control(standin, "wait_requests", route="history"))["requests"]
    assert request["query"].endswith("&topic=a+b%2Bc&chatOnly=false")
    assert ["authorization", f"Bearer {API_KEY}"] in request["headers"]
    await ask(standin, "send")
    [sent] = (await control(standin, "requests", route="send"))["requests"]
    assert json.loads(sent["body"])["authorization"] == ""
    assert (sent["status"], sent["path"]) == (200, f"{MESSAGING}/send")


async def test_memberships_and_keys_change(standin: StandIn) -> None:
    await control(standin, "membership", email="New@acme.example", tenant="acme", role="TenantUser")
    url = f"{standin.url}/api/v1/admin/participants/new%40acme.example"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(headers=headers) as client:
        assert (await client.get(url)).json()["tenants"][0]["role"] == "TenantUser"
        await control(standin, "membership", email="new@acme.example", tenant="acme")
        assert (await client.get(url)).status_code == 404
        await control(standin, "revoke_key", key=API_KEY)
        assert (await client.get(url)).json()["message"] == "Invalid API key"
        await control(standin, "add_key", key=API_KEY, owner="svc-portal@acme.example")
        assert (await client.get(url)).status_code == 404


async def test_a_burst_is_stored_and_streamed(standin: StandIn) -> None:
    async with await open_stream(standin) as wire:
        place = {key: value for key, value in DESK.items() if key != "participant"}
        people = [DESK["participant"]]
        burst = await control(standin, "burst", **place, participants=people, count=50, topics=["a", None])
        seen = [(await wire.event())[1] for _ in range(50)]
    assert [one["id"] for one in seen] == burst["ids"]
    assert [one["scope"] for one in seen[:3]] == ["a", None, "a"]


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("nonsense", {}),
        ("message", {}),
        ("again", {"id": "0" * 24}),
        ("refuse", {"sparkle": 1}),
        ("emit", {}),
        ("message", {**DESK, "created_at": "yesterday"}),
    ],
)
async def test_it_refuses_senseless_control_calls(standin: StandIn, action: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ChildError, match=f"{action}: 40[04]"):
        await control(standin, action, **arguments)
