"""Messages as the page shows them: what each kind becomes, how steps fold, where days begin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conversations import badges, entries, flow
from conversations.entries import Entry
from messaging import wire

NOON = datetime(2026, 7, 2, 12, tzinfo=UTC)


def entry(number: int = 1, *, at: datetime = NOON, **fields: Any) -> Entry:
    raw = {
        "id": f"{number:024x}",
        "createdAt": at.isoformat(),
        "direction": "Outgoing",
        "messageType": "Chat",
        "text": None,
        **fields,
    }
    return entries.of(wire.message(raw), agent="Nordic desk")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("thinking", "thinking"),
        ('"quoted \\u00e5"', "quoted å"),
        ('{"a": 1}', '{\n  "a": 1\n}'),
        ({"a": 1}, '{\n  "a": 1\n}'),
        (None, "Tool"),
        ("", ""),
    ],
)
def test_it_shows_a_step_by_its_text_or_its_data(data: object, shown: str) -> None:
    step = entry(messageType="Tool", data=data)
    assert step.is_step
    assert step.body == shown or (shown == "" and step.body == "Tool")


def test_it_shows_flat_data_as_fields_and_deep_data_as_code() -> None:
    assert entry(messageType="Data", data={"a": 1, "b": True}).fields == [("a", "1"), ("b", "true")]
    assert "[\n" in entry(messageType="Data", data={"a": [1, 2]}).code
    assert entry(messageType="Data", data="[1]").code == "[\n  1\n]"


def test_it_names_files_and_never_shows_what_is_in_them() -> None:
    shown = entry(messageType="File", data={"files": [{"fileName": "a.pdf", "content": "c2VjcmV0"}]})
    assert shown.files == ["a.pdf"]
    assert "c2VjcmV0" not in repr(shown)


def test_it_shows_an_unknown_kind_as_plain_text() -> None:
    shown = entry(messageType="Surprise", text="**not** <b>bold</b>")
    assert shown.label == "Surprise"
    assert shown.body == "<p>**not** &lt;b&gt;bold&lt;/b&gt;</p>"


def test_it_gives_the_persons_own_message_the_id_that_its_bubble_had() -> None:
    assert entry(direction="Incoming", text="hi", requestId="r-1").dom_id == "request-r-1"
    assert entry(direction="Incoming", text="hi").dom_id == f"message-{1:024x}"
    assert entry(direction="Outgoing", text="hi", requestId="r-1").dom_id == f"message-{1:024x}"


def test_it_folds_consecutive_steps() -> None:
    kinds = ["Chat", "Reasoning", "Tool", "Tool", "Chat", "Tool"]
    items = flow.arrange((entry(n, messageType=kind, text="x") for n, kind in enumerate(kinds)), now=NOON)
    assert [len(item.steps) if isinstance(item, flow.StepGroup) else type(item).__name__ for item in items] == [
        "Day",
        "Entry",
        3,
        "Entry",
        1,
    ]


@pytest.mark.parametrize(("age", "is_working"), [(timedelta(seconds=5), True), (timedelta(minutes=3), False)])
def test_it_shows_an_agent_as_working_after_a_recent_step(age: timedelta, *, is_working: bool) -> None:
    items = flow.arrange([entry(messageType="Tool", at=NOON - age)], now=NOON)
    assert isinstance(items[-1], flow.StepGroup)
    assert items[-1].is_working is is_working


def test_it_draws_a_line_where_a_day_begins() -> None:
    moments = [NOON, NOON + timedelta(hours=11), NOON + timedelta(hours=13)]
    items = flow.arrange((entry(n, at=at, text="x") for n, at in enumerate(moments)), now=NOON)
    assert [type(item).__name__ for item in items] == ["Day", "Entry", "Entry", "Day", "Entry"]


@pytest.mark.parametrize(("count", "text"), [(-1, ""), (0, ""), (1, "1"), (99, "99"), (100, "99+"), (10_000, "99+")])
def test_it_caps_a_badge(count: int, text: str) -> None:
    assert badges.text(count) == text
