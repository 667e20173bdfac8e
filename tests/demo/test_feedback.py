"""Ratings, against the contract's examples."""

from typing import Any

import httpx
import pytest

from demo.xians import World
from tests.demo.contract import BASE, ENDPOINTS, tell_the_story
from tests.demo.test_directory import shape
from tests.demo.test_refusals import assert_answers

CREATE: dict[str, Any] = ENDPOINTS["feedback.create"]
BODY: dict[str, Any] = CREATE["request"]["body"]


@pytest.fixture(autouse=True)
def _story(world: World) -> None:
    tell_the_story(world)


async def rate(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post(f"{BASE}/feedback", json={**BODY, **changes})


@pytest.mark.parametrize(
    ("changes", "example"),
    [
        ({"starRating": 0}, "rating"),
        ({"starRating": 6}, "rating"),
        ({"reasonCategory": None}, "reasonMissing"),
        ({"reasonCategory": "Other", "comment": " "}, "commentMissing"),
        ({"threadId": "x"}, "threadMismatch"),
        ({"workflowId": "x"}, "workflowIdMismatch"),
        ({"workflowType": "x"}, "workflowTypeMismatch"),
        ({"participantId": "x"}, "participantMismatch"),
        ({"agentName": "x"}, "agentMismatch"),
        ({"messageId": "6a462c18c0ffee0000000010"}, "notOutgoing"),
    ],
)
async def test_it_refuses(client: httpx.AsyncClient, changes: dict[str, Any], example: str) -> None:
    assert_answers(await rate(client, **changes), CREATE["errors"][example])


async def test_it_refuses_unknown_messages_and_reasons(client: httpx.AsyncClient) -> None:
    assert (await rate(client, messageId="temporary")).status_code == 500
    assert (await rate(client, messageId="0" * 24)).json() == {"error": "Message not found."}
    assert (await rate(client, reasonCategory="Sparkle")).content == b""


async def test_a_rating_is_made_once_and_shown_everywhere(client: httpx.AsyncClient) -> None:
    created = await rate(client)
    assert created.status_code == 201
    number = created.json()["id"]
    assert created.headers["location"] == f"{BASE}/feedback/{number}"
    assert (await rate(client)).status_code == 409
    names = {"agentName": "Invoice Helper", "activationName": "Invoice Helper - Nordic"}
    query = {**names, "participantId": BODY["participantId"], "topic": "invoices"}
    history = (await client.get(f"{BASE}/messaging/history", params=query)).json()
    [inline] = [one["feedback"] for one in history if one["id"] == BODY["messageId"]]
    assert shape(inline) == shape(ENDPOINTS["messaging.history"]["response"]["body"][1]["feedback"])
    listed = (await client.get(f"{BASE}/feedback", params={"rating": 2})).json()
    assert shape(listed) == shape(ENDPOINTS["feedback.list"]["response"]["body"])
    stats = (await client.get(f"{BASE}/feedback/stats")).json()
    assert shape(stats) == shape(ENDPOINTS["feedback.stats"]["response"]["body"])
    assert stats["ratingCounts"][1] == {"rating": 2, "count": 1}
    example = ENDPOINTS["feedback.get"]["response"]["body"]
    detail = (await client.get(f"{BASE}/feedback/{number}", params={"contextBefore": 2, "contextAfter": 1})).json()
    assert [one["id"] for one in detail["messages"]] == [one["id"] for one in example["messages"]]
    assert detail["ratedMessageId"] == example["ratedMessageId"]


async def test_a_good_rating_loses_its_reason(client: httpx.AsyncClient) -> None:
    await rate(client, starRating=5)
    [item] = (await client.get(f"{BASE}/feedback")).json()["items"]
    assert (item["starRating"], item["reasonCategory"]) == (5, None)


async def test_lists_refuse_bad_filters(client: httpx.AsyncClient) -> None:
    errors = ENDPOINTS["feedback.list"]["errors"]
    assert_answers(await client.get(f"{BASE}/feedback", params={"pageSize": 101}), errors["badPageSize"])
    assert_answers(await client.get(f"{BASE}/feedback", params={"rating": 6}), errors["badRating"])
    later = {"startDate": "2026-07-03T00:00:00Z", "endDate": "2026-07-02"}
    backwards = await client.get(f"{BASE}/feedback", params=later)
    assert backwards.json() == {"error": "startDate cannot be after endDate."}


async def test_an_unknown_rating(client: httpx.AsyncClient) -> None:
    errors = ENDPOINTS["feedback.get"]["errors"]
    assert_answers(await client.get(f"{BASE}/feedback/{'0' * 24}"), errors["unknown"])
    assert_answers(await client.get(f"{BASE}/feedback/short"), errors["malformedId"])
    assert (await client.put(f"{BASE}/feedback/{'0' * 24}")).status_code == 405
