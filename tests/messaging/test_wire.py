"""What upstream says, in every casing, timestamp and error shape it is known to use (xians-api.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from messaging import wire
from messaging.errors import UpstreamMisbehaved

MESSAGE: dict[str, Any] = {
    "id": "6a462c1bc0ffee0000000013",
    "threadId": "6a462c14c0ffee0000000001",
    "participantId": "ada@example.com",
    "direction": "Outgoing",
    "messageType": "Chat",
    "text": "Due on 15 July",
    "data": None,
    "scope": "invoices",
    "requestId": "9b2f",
    "createdAt": "2026-07-02T09:15:07.98Z",
    "createdBy": "agent@acme.example",
}


def test_it_reads_a_message_in_either_casing() -> None:
    pascal = {key[0].upper() + key[1:]: value for key, value in MESSAGE.items()}
    for raw in (MESSAGE, pascal):
        message = wire.message(raw)
        assert (message.id, message.scope, message.kind, message.text) == (
            MESSAGE["id"],
            "invoices",
            "Chat",
            "Due on 15 July",
        )
        assert message.created_at == datetime(2026, 7, 2, 9, 15, 7, 980_000, tzinfo=UTC)
        assert message.is_answer
        assert message.raw is raw


@pytest.mark.parametrize("scope", [None, "", 5])
def test_it_takes_anything_but_a_name_for_the_general_topic(scope: object) -> None:
    assert wire.message({**MESSAGE, "scope": scope}).scope == wire.GENERAL


@pytest.mark.parametrize("key", [key for key in MESSAGE if key != "id"])
@pytest.mark.parametrize("value", [None, 7, [], {}, True])
def test_it_places_a_message_with_any_other_part_missing_or_odd(key: str, value: object) -> None:
    """F22"""
    message = wire.message({**MESSAGE, key: value}, event="Chat")
    assert message.id == MESSAGE["id"]
    assert message.is_answer == (key != "direction")


@pytest.mark.parametrize("raw", [None, 1, "x", [], {}, {"id": None}, {"id": ""}, {"id": 5}, {"id": "x" * 300}])
def test_it_refuses_a_message_that_cannot_be_placed(raw: object) -> None:
    """F21, F22"""
    with pytest.raises(UpstreamMisbehaved):
        wire.message(raw)


def test_it_cleans_what_no_database_takes() -> None:
    """F36, F37"""
    raw = wire.load_json('{"id": "a\\u0000b", "text": "x\\ud800y\\u0000", "scope": "t\\u0000"}')
    message = wire.message(raw)
    assert (message.id, message.text, message.scope) == ("a\ufffdb", "x\ufffdy\ufffd", "t\ufffd")


@pytest.mark.parametrize(
    "text", ["{", "", "NaN", '{"a": NaN}', "[" * 200_000, '{"a": ' + "1" * 5_000 + "}", "\ufeff{}"]
)
def test_it_refuses_what_is_not_json(text: str) -> None:
    """F38"""
    with pytest.raises(UpstreamMisbehaved):
        wire.load_json(text)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-07-02T09:15:04Z", 0),
        ("2026-07-02T09:15:04.4Z", 400_000),
        ("2026-07-02T09:15:04.41Z", 410_000),
        ("2026-07-02T09:15:04.412Z", 412_000),
        ("2026-07-02T09:15:04.4123Z", 412_300),
        ("2026-07-02T09:15:04.41234Z", 412_340),
        ("2026-07-02T09:15:04.412345Z", 412_345),
        ("2026-07-02T09:15:04.4123456Z", 412_345),
        ("2026-07-02T09:15:04.4123456", 412_345),
        ("2026-07-02T11:15:04.412+02:00", 412_000),
    ],
)
def test_it_reads_timestamps_with_none_to_seven_digits(text: str, micros: int) -> None:
    assert wire.timestamp(text) == datetime(2026, 7, 2, 9, 15, 4, micros, tzinfo=UTC)


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00", "", "soon", None, 5, "9999-12-31T23:59:59-23:00"])
def test_it_takes_year_one_and_nonsense_for_no_date(value: object) -> None:
    assert wire.timestamp(value) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b"  ", ""),
        (b'{"error":"Activation not found"}', "Activation not found"),
        (b'"agentName query parameter is required"', "agentName query parameter is required"),
        (b'{"error":"Unauthorized","message":"Invalid API key"}', "Invalid API key"),
        (b'{"message":"Tenant scope mismatch"}', "Tenant scope mismatch"),
        (b'{"type":"x","title":"Forbidden","status":403,"detail":"locked out"}', "locked out"),
        (b"<html>502</html>", ""),
        (b"[1]", ""),
    ],
)
def test_it_reads_a_complaint_in_every_shape(body: bytes, said: str) -> None:
    assert wire.complaint(body) == said


def test_it_writes_a_history_row_as_the_stream_would_have() -> None:
    row = {"feedback": None, **MESSAGE, "tenantId": "acme", "origin": None, "workflowId": "w", "hint": None}
    written = wire.load_json(wire.stream_json(wire.message(row).raw))
    assert set(written) == set(wire.STREAM_KEYS)
    assert written["workflowType"] is None
    assert written["text"] == MESSAGE["text"]


@pytest.mark.parametrize("keys", [("currentPage", "totalTopics"), ("page", "total")])
def test_it_reads_topic_pages_of_both_versions(keys: tuple[str, str]) -> None:
    page = wire.topic_page(
        {
            "topics": [{"scope": None, "messageCount": 2, "lastMessageAt": "2026-07-02T09:15:04Z"}],
            "pagination": {keys[0]: 2, "pageSize": 1, keys[1]: 5, "totalPages": 5, "hasMore": True},
        }
    )
    assert (page.page, page.page_size, page.total_topics, page.total_pages, page.has_more) == (2, 1, 5, 5, True)
    assert page.topics[0].scope == wire.GENERAL
