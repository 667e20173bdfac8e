"""`listen`, byte by byte over a socket."""

import asyncio
from typing import Any

import httpx
import pytest

from demo.children import StandIn
from demo.world import API_KEY
from tests.demo.contract import EXAMPLES, IDS
from tests.demo.wires import DESK, SECONDS, Wire

EVENT_KEYS = list(EXAMPLES["sse"]["events"]["Chat"]["data"])


async def control(standin: StandIn, action: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(standin.control, action, **arguments)


async def say(standin: StandIn, text: str = "Hello", **more: Any) -> dict[str, Any]:
    return await control(standin, "message", **DESK, text=text, **more)


async def attached(standin: StandIn, count: int = 1) -> None:
    await control(standin, "wait_streams", count=count, within_seconds=SECONDS)


async def test_it_connects_with_the_head_and_first_event_of_the_contract(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        head = wire.head.decode()
        for line in (
            "HTTP/1.1 200 OK",
            "content-type: text/event-stream\r\n",
            "cache-control: no-cache\r\n",
            "connection: keep-alive",
            "access-control-allow-origin: *",
            "transfer-encoding: chunked",
            "server: Kestrel",
        ):
            assert line in head
        assert "x-accel-buffering" not in head
        name, data = await wire.event()
    assert name == "connected"
    assert list(data) == ["message", "threadId", "tenantId", "timestamp"]
    assert data["message"] == "Connected to thread message stream"
    assert data["tenantId"] == "acme"


async def test_it_streams_an_agents_message_with_fourteen_keys(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        _, connected = await wire.event()
        await attached(standin)
        stored = await say(standin, "It's due: €120 👍\n+1", topic="invoices", data={"aB": [1]})
        data = await wire.chunk()
    assert b"It\\u0027s due: \\u20AC120 \\uD83D\\uDC4D\\n\\u002B1" in data
    name, event = data.decode().split("\n")[0], httpx.Response(200, content=data.split(b"data: ")[1]).json()
    assert name == "event: Chat"
    assert list(event) == EVENT_KEYS
    assert event == {key: stored[key] for key in EVENT_KEYS}
    assert event["threadId"] == connected["threadId"]
    assert event["participantId"] == "ada@acme.example"


async def test_it_does_not_echo_what_the_person_sends(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        await attached(standin)
        for direction, kind in (("Incoming", "Chat"), ("Incoming", "Handoff"), ("Outgoing", "Chat")):
            await say(standin, direction=direction, type=kind)
        seen = [await wire.event(), await wire.event()]
    assert [(name, data["direction"]) for name, data in seen] == [
        ("Handoff", "Incoming"),
        ("Chat", "Outgoing"),
    ]


async def test_only_listeners_of_the_thread_hear_it(standin: StandIn) -> None:
    async with (
        await Wire.listen(standin.port) as ada,
        await Wire.listen(standin.port, participant="bob@acme.example") as bob,
    ):
        await ada.event()
        await bob.event()
        await attached(standin, 2)
        await say(standin, "for Ada")
        await control(standin, "message", **{**DESK, "participant": "BOB@acme.example"}, text="for Bob")
        assert (await ada.event())[1]["text"] == "for Ada"
        assert (await bob.event())[1]["text"] == "for Bob"


async def test_an_untyped_message_is_called_unknown(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        await attached(standin)
        await say(standin, type=None)
        name, data = await wire.event()
    assert (name, data["messageType"]) == ("unknown", None)


@pytest.mark.parametrize("pair", EXAMPLES["dataRoundTrips"], ids=lambda pair: repr(pair["sent"]))
async def test_data_is_streamed_as_the_contract_says(standin: StandIn, pair: dict[str, Any]) -> None:
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        await attached(standin)
        await say(standin, data=pair["sent"])
        assert (await wire.event())[1]["data"] == pair["sse"]


async def test_what_falls_into_the_blind_window_is_only_in_history(standin: StandIn) -> None:
    await control(standin, "behave", blind_seconds=0.3)
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        lost = await say(standin, "too early")
        await attached(standin)
        await say(standin, "in time")
        assert (await wire.event())[1]["text"] == "in time"
    assert lost["id"] in [one["id"] for one in (await control(standin, "truth"))["messages"]]


async def test_heartbeats_come_after_each_interval_and_count_everyone(standin: StandIn) -> None:
    async with (
        await Wire.listen(standin.port, heartbeat=-5) as wire,
        await Wire.listen(standin.port, participant="bob@acme.example") as other,
    ):
        await other.event()
        started = asyncio.get_running_loop().time()
        await wire.event()
        name, data = await wire.event()
        took = asyncio.get_running_loop().time() - started
    assert name == "heartbeat"
    assert list(data) == ["timestamp", "subscriberCount"]
    assert data["subscriberCount"] == 3
    assert took > 0.8


async def test_listening_creates_the_thread(standin: StandIn) -> None:
    url = f"{standin.url}/api/v1/admin/tenants/acme/messaging/topics"
    names = {"agentName": "Helper", "activationName": "Desk", "participantId": "ada@acme.example"}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        before = (await client.get(url, params=names)).json()
        async with await Wire.listen(standin.port) as wire:
            await wire.event()
        after = (await client.get(url, params=names)).json()
    assert [one["messageCount"] for one in before["topics"]] == [0]
    assert after["topics"] == []


async def test_leaving_frees_the_listener(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        await attached(standin)
    assert (await control(standin, "wait_streams", count=0, exactly=True))["open"] == 0


async def test_deactivation_leaves_the_stream_open(standin: StandIn) -> None:
    async with await Wire.listen(standin.port) as wire:
        await wire.event()
        await attached(standin)
        await control(standin, "activation", tenant="acme", agent="Helper", name="Desk", active=False)
        await say(standin)
        assert (await wire.event())[0] == "Chat"
        async with await Wire.listen(standin.port) as refused:
            assert b"409 Conflict" in refused.head


async def test_a_refused_stream_is_an_ordinary_error(standin: StandIn) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(
            f"{standin.url}/api/v1/admin/tenants/acme/messaging/listen",
            params={"agentName": "Helper", "activationName": IDS["activationName"], "participantId": "a"},
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
    assert response.status_code == 404
    assert response.json() == {"error": f"Activation '{IDS['activationName']}' not found for agent 'Helper'"}
