"""Whatever upstream or a browser says: wire and cursors read it, or refuse it with the error that they document."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging import directory, wire
from messaging.cursors import Cursor, Sealer
from messaging.errors import UpstreamMisbehaved
from tests.fuzz.cases import EXAMPLES

often = settings(max_examples=EXAMPLES // 3, deadline=None)

texts = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=4
)
times = st.datetimes().map(datetime.isoformat) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
keys = st.sampled_from([*wire.STREAM_KEYS, "tenantId", "Id", "CreatedAt", "Scope", "Text", "MessageType"])
known_values = st.sampled_from(["Outgoing", "Incoming", "Chat", "Data", "65a", "", "2026-07-02T09:15:04.4123456Z"])
objects = st.dictionaries(keys | st.text(max_size=3), known_values | times | values, max_size=16)
messages = st.builds(
    lambda raw, identity: {**raw, "id": identity}, objects, st.text(min_size=1) | known_values | values
)
usual = st.fixed_dictionaries(
    {key: st.none() | known_values | st.text(max_size=8) | times for key in wire.STREAM_KEYS}
    | {"id": st.text(min_size=1, max_size=40), "data": values}
)
documents = (
    st.text() | st.binary() | st.binary().map(lambda noise: b'{"id": "' + noise + b'"}') | values.map(json.dumps)
)
numbers = st.sampled_from(
    ["1e999", "-1e999", "1E400", "0.1e-999", "-0", "1" * 400, "18446744073709551616", "Infinity", "NaN"]
)


@given(documents | numbers)
@often
def test_anything_is_json_or_refused(document: str | bytes) -> None:
    """F20, F37, F38: what is JSON to us stays JSON when it is written on."""
    for load in (wire.load_json, wire.load_json_exactly):
        try:
            found = load(document)
        except UpstreamMisbehaved:
            continue
        json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [100, 1_000, 1_025, 20_000, 200_000])
def test_no_depth_of_json_breaks_it(opening: str, depth: int) -> None:
    """F38"""
    for load in (wire.load_json, wire.load_json_exactly):
        with pytest.raises(UpstreamMisbehaved):
            load(opening * depth)


@given(messages | values)
@often
def test_any_object_is_a_message_or_refused(raw: Any) -> None:
    """F22, F36: what it places can be stored, sorted and sent."""
    try:
        message = wire.message(raw, event="Chat")
    except UpstreamMisbehaved:
        return
    for text in (message.id, message.scope, message.kind, message.direction, message.text or "", message.order):
        assert "\x00" not in text
        text.encode()
    assert message.id
    assert len(message.id) <= 200
    assert message.created_at.tzinfo is not None
    text = json.dumps(raw)
    assert wire.streamed(text, "Chat")[0] == wire.message(wire.load_json(text), event="Chat", keeps_raw=False)
    assert set(json.loads(wire.stream_json(message.raw))) == set(wire.STREAM_KEYS)
    assert "\n" not in wire.stream_json(message.raw)
    sealer = Sealer(b"secret", "inbox")
    assert sealer.read(sealer.write(message.order, 1_800_000_000_000)) == Cursor(
        message.order, datetime.fromtimestamp(1_800_000_000, UTC)
    )


@given(usual)
@often
def test_a_usual_message_is_read_as_any_other(raw: dict[str, Any]) -> None:
    """Read into place or by way of an object: the same message, and the same names."""
    for text in (json.dumps(raw), json.dumps(raw, ensure_ascii=False)):
        message, names = wire.streamed(text, "Chat")
        assert message == wire.message(wire.load_json(text), event="Chat", keeps_raw=False)
        assert names == (None, raw["workflowId"], raw["participantId"], raw["threadId"])
        assert wire.stranger(names, ADDRESS, "6a46") in ("", "tenant", "participant", "thread", "activation")


@given(times | st.text() | values)
@often
def test_any_value_is_a_moment_or_none(value: Any) -> None:
    moment = wire.timestamp(value)
    assert moment is None or moment.utcoffset() == UTC.utcoffset(None)


moments = st.datetimes(timezones=st.just(UTC))


@given(moments, moments, st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
@often
def test_places_sort_as_their_moments_do(one: datetime, other: datetime, its_id: str, others_id: str) -> None:
    """Whatever date a message bears, it never stands before an earlier one (1970 to 5000), nor beyond what sorts."""
    first, second = sorted((one, other))
    assert wire.order_at(first) <= wire.order_at(second)
    if first < second and first.year >= 1970 and second.year < 5000:
        assert wire.order_of(first, its_id) < wire.order_of(second, others_id)
        assert wire.order_at(first) < wire.order_of(first, its_id) < wire.order_at(second)


ADDRESS = wire.ThreadAddress("acme", "Invoice Helper", "Nordic desk", "alice@acme.example")
READERS: list[Callable[[Any], object]] = [
    wire.topic_page,
    directory.tenants,
    directory.users,
    directory.activations,
    directory.agent_detail,
]
rows = st.sampled_from(
    [
        "topics",
        "pagination",
        "tenants",
        "data",
        "agent",
        "page",
        "pageSize",
        "total",
        "tenantId",
        "samplePrompts",
        "scope",
        "messageCount",
        "lastMessageAt",
        "currentPage",
        "totalPages",
        "hasMore",
        "agentName",
        "name",
    ]
)
answers = st.recursive(
    values | times, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(rows, inner, max_size=5), max_leaves=8
)


@pytest.mark.parametrize("read", READERS, ids=lambda read: str(read.__name__))
@given(answers)
@often
def test_any_answer_is_read_or_refused(read: Callable[[Any], object], answer: Any) -> None:
    """F21: no list, page or agent that upstream could answer raises anything but the documented error."""
    with suppress(UpstreamMisbehaved):
        read(answer)


@given(st.binary() | values.map(json.dumps).map(str.encode))
@often
def test_any_complaint_is_a_sentence(body: bytes) -> None:
    assert isinstance(wire.complaint(body), str)


cursor_like = st.builds(
    "{}-{}.{}.{}.{}.{}".format,
    st.sampled_from(["0" * 17, "01782982144412000", "٠" * 17, "9" * 18, "1"]),
    st.text("azAZ09_~-é", max_size=33),
    st.sampled_from(["0", "z" * 10, "z" * 11, "", "mywpiww0", "é"]),
    st.text("azAZ09_-é", max_size=9),
    st.sampled_from(["", "0*1*2", "01782982144412000-x*3*0123456789abcdef", "01782982144412000-x*٣*0123456789abcdef"]),
    st.text("0123456789abcdef", min_size=9, max_size=11),
)


@given(st.text() | cursor_like)
@often
def test_any_text_is_a_cursor_that_we_wrote_or_none(text: str) -> None:
    """F61"""
    assert Sealer(b"secret", "inbox").read(text) is None


@given(st.text(max_size=40), st.integers(0, 60), st.text(max_size=3))
@often
def test_a_changed_cursor_is_none(message_id: str, position: int, change: str) -> None:
    """F61: a changed, cut or lengthened cursor stands for nothing; it never raises."""
    sealer = Sealer(b"secret", "inbox")
    written = sealer.write(wire.order_of(datetime(2026, 7, 2, tzinfo=UTC), message_id or "x"), 1_800_000_000_000)
    changed = written[:position] + change + written[position + 1 :]
    assert (sealer.read(changed) is None) == (changed != written)
