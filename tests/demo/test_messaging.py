"""`send`, `topics`, `history` and deletion, against the contract."""

import re
from typing import Any

import httpx
import pytest

from demo.xians import World, XiansApp
from tests.demo.contract import BASE, ENDPOINTS, EXAMPLES, IDS, KEY, tell_the_story

ADA = {
    "agentName": IDS["agentName"],
    "activationName": IDS["activationName"],
    "participantId": IDS["participantSent"],
}


async def send(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post(f"{BASE}/messaging/send", json={**ADA, "text": "Hello", **fields})


async def topics(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get(f"{BASE}/messaging/topics", params={**ADA, **query})).json()
    return answer


async def history(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = (await client.get(f"{BASE}/messaging/history", params={**ADA, **query})).json()
    return answer


async def test_history_tells_the_example_story_to_the_letter(client: httpx.AsyncClient, world: World) -> None:
    tell_the_story(world)
    example = [{**one, "feedback": None} for one in ENDPOINTS["messaging.history"]["response"]["body"]]
    told = await history(client, topic="invoices")
    assert told == example
    assert [list(one) for one in told] == [list(one) for one in example]


async def test_topics_tell_the_example_story(client: httpx.AsyncClient, world: World) -> None:
    tell_the_story(world)
    example = ENDPOINTS["messaging.topics"]["response"]["body"]["topics"][0]
    assert (await topics(client))["topics"] == [example]


async def test_history_is_written_with_the_relaxed_escaper(client: httpx.AsyncClient, world: World) -> None:
    tell_the_story(world)
    response = await client.get(f"{BASE}/messaging/history", params={**ADA, "topic": "invoices"})
    assert "€120 (it's already approved) \\uD83D\\uDC4D" in response.text
    assert 'It\'s for \\"Åse & Co\\".' in response.text
    assert '"amount":120.5,' in response.text


async def test_sending_answers_a_bare_thread_id_and_stores(client: httpx.AsyncClient) -> None:
    example = ENDPOINTS["messaging.send"]["request"]["body"]
    response = await client.post(f"{BASE}/messaging/send", json=example)
    assert re.fullmatch(r'"[0-9a-f]{24}"', response.text)
    [told] = await history(client, topic="invoices")
    assert told["threadId"] == response.json()
    assert told["participantId"] == IDS["participantStored"]
    assert told["workflowId"] == IDS["workflowId"]
    assert told["workflowType"] == IDS["workflowType"]
    assert told["requestId"] == example["requestId"]
    assert told["createdBy"] == IDS["apiKeyOwner"]
    assert (told["direction"], told["messageType"]) == ("Incoming", "Chat")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", told["createdAt"])
    assert told["updatedAt"] == told["createdAt"]


async def test_ids_grow(client: httpx.AsyncClient) -> None:
    for _ in range(20):
        await send(client)
    ids = [one["id"] for one in await history(client, sortOrder="asc")]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


@pytest.mark.parametrize(
    ("kind", "stored"), [("chat", "Chat"), ("REASONING", "Reasoning"), (1, "Data"), ("4", "Webhook")]
)
async def test_it_takes_types_by_name_and_number(client: httpx.AsyncClient, kind: object, stored: str) -> None:
    await send(client, type=kind)
    assert [one["messageType"] for one in await history(client)] == [stored]


async def test_send_and_delete_trim_the_topic_and_history_does_not(client: httpx.AsyncClient) -> None:
    await send(client, topic="  invoices ")
    assert len(await history(client, topic="invoices")) == 1
    assert await history(client, topic=" invoices") == []
    assert await history(client, topic="Invoices") == []
    answer = await client.delete(f"{BASE}/messaging/messages", params={**ADA, "topic": " invoices "})
    assert answer.json() is True
    assert await history(client, topic="invoices") == []


async def test_no_topic_means_the_default_one_and_never_all(client: httpx.AsyncClient) -> None:
    await send(client, topic="   ", text="general")
    await send(client, topic="invoices")
    assert [one["text"] for one in await history(client)] == ["general"]
    assert [one["text"] for one in await history(client, topic="")] == ["general"]
    await client.delete(f"{BASE}/messaging/messages", params=ADA)
    assert await history(client) == []
    assert len(await history(client, topic="invoices")) == 1


async def test_a_blank_participant_may_send_and_spaces_make_another_person(client: httpx.AsyncClient) -> None:
    assert (await send(client, participantId="")).status_code == 200
    await send(client, participantId=" ada.lovelace@example.com")
    assert await history(client) == []


async def test_topics_before_the_thread_after_it_and_after_deletion(client: httpx.AsyncClient) -> None:
    examples = ENDPOINTS["messaging.topics"]["otherResponses"]
    assert await topics(client) == examples["noThreadYet"]["body"]
    await send(client, topic="x")
    await client.delete(f"{BASE}/messaging/messages", params={**ADA, "topic": "x"})
    assert await topics(client) == examples["threadWithoutMessages"]["body"]


async def test_topics_are_sorted_and_paged(client: httpx.AsyncClient, app: XiansApp) -> None:
    times = {"b": "2026-07-02T09:00:00Z", "a": "2026-07-02T09:00:00Z", None: "2026-07-02T10:00:00Z"}
    for topic, at in times.items():
        app.control.message(
            tenant="acme",
            agent=IDS["agentName"],
            activation=IDS["activationName"],
            participant=IDS["participantSent"],
            topic=topic,
            created_at=at,
        )
    first, second = await topics(client, pageSize=2), await topics(client, page=2, pageSize=2)
    assert [one["scope"] for one in first["topics"] + second["topics"]] == [None, "a", "b"]
    assert first["pagination"] == {
        "currentPage": 1,
        "pageSize": 2,
        "totalTopics": 3,
        "totalPages": 2,
        "hasMore": True,
    }
    assert second["pagination"]["hasMore"] is False
    assert (await topics(client, page=9))["topics"] == []


async def test_history_pages_in_both_orders_and_ignores_chat_only(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await send(client, text=str(number), type="Tool" if number == 2 else "Chat", requestId=str(number))
    descending = [one["text"] for page in (1, 2, 3) for one in await history(client, page=page, pageSize=2)]
    ascending = [one["text"] for one in await history(client, sortOrder="ASC", chatOnly="true")]
    assert sorted(descending) == ascending == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("query", [{"page": 0}, {"pageSize": 0}, {"page": -1}])
async def test_it_refuses_bad_paging(client: httpx.AsyncClient, query: dict[str, int]) -> None:
    for route in ("topics", "history"):
        response = await client.get(f"{BASE}/messaging/{route}", params={**ADA, **query})
        assert response.status_code == 400
        assert response.json() == {"error": "Page and PageSize must be greater than 0"}


async def test_it_refuses_a_bad_sort_order(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{BASE}/messaging/history", params={**ADA, "sortOrder": "up"})
    assert (response.status_code, response.json()) == (400, "sortOrder must be either 'asc' or 'desc'")


@pytest.mark.parametrize("pair", EXAMPLES["dataRoundTrips"], ids=lambda pair: repr(pair["sent"]))
async def test_data_comes_back_as_the_contract_says(client: httpx.AsyncClient, pair: dict[str, Any]) -> None:
    await send(client, data=pair["sent"])
    assert [one["data"] for one in await history(client)] == [pair["history"]]


async def test_an_absent_authorization_hands_our_key_to_the_agent(client: httpx.AsyncClient, app: XiansApp) -> None:
    await send(client)
    await send(client, authorization="")
    await send(client, authorization="a person's token")
    handed = [signal["authorization"] for signal in app.control.signals()["signals"]]
    assert handed == [KEY, "", "a person's token"]
