"""What upstream's stream says, and shouldn't (reliability.md F20-F30, F34-F43, F46), over real sockets."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.upstream.desk import Desk, eventually, metric, page_stream, told
from tests.faults.upstream.hostile import Exchange, Script, frame
from tests.messaging.people import Listener, Person
from tests.services.standins import Json

OURS = {"connected", "heartbeat", "message", "toast", "unread", "counts", "recovered", "status", "resync", "goodbye"}


def saying(*pieces: bytes, once: threading.Event | None = None) -> Script:
    """A stream that says this, one chunk each (`once` that is set), and stays."""

    async def script(exchange: Exchange) -> None:
        await exchange.live()
        if once is not None:
            await exchange.until(once)
        for piece in pieces:
            await exchange.chunk(piece)
        await exchange.stay()

    return script


def message(number: int, **changes: Any) -> Json:
    """A message that the stream alone brings."""
    return {
        "id": f"{number:024x}",
        "threadId": None,
        "workflowId": None,
        "workflowType": None,
        "participantId": "alice@acme.example",
        "direction": "Outgoing",
        "messageType": "Chat",
        "text": f"message {number}",
        "data": None,
        "hint": None,
        "scope": None,
        "requestId": None,
        "createdAt": (datetime.now(UTC) + timedelta(seconds=2, milliseconds=number)).isoformat(),
        "createdBy": "agent",
        **changes,
    }


def chat(number: int, **changes: Any) -> bytes:
    return frame("Chat", message(number, **changes))


async def counts(person: Person, expected: dict[str | None, int]) -> None:
    async with asyncio.timeout(20):
        while await person.unread() != expected:
            await asyncio.sleep(0.1)


def heard(stream: Listener) -> list[str]:
    """The names of upstream's events, as an API client has them."""
    return [event.event for event in stream.events if event.event not in ("connected", "heartbeat", "unread", "resync")]


def dropped(desk: Desk, reason: str) -> float:
    return metric(desk.app, f'portal_messages_dropped_total{{reason="{reason}"}}')


UNREADABLE = {
    "F20": ["{", "", "{'a': 1}", "secret-not-json", '{"id": "1"} {}', "\x0b\x0c"],
    "F21": ["[]", '["secret"]', '"secret"', "17", "null", "true"],
    "F38": [
        "[" * 200_000,
        '{"id":"1","text":' + "9" * 5_000 + "}}",
        '{"id":"1","data":NaN}',
        '{"id":"1","data":-Infinity}',
    ],
}


async def test_what_is_no_message_is_dropped_and_the_stream_goes_on(site: Desk, alice: Person) -> None:
    """F20, F21, F38: logged with its length, never with its text; counted; compared with history: nothing is lost."""
    bad = [frame("Chat", text) for texts in UNREADABLE.values() for text in texts]
    before = dropped(site, "unreadable")
    desk = site.another(saying(*bad, chat(1)))
    person = desk.of(alice)
    async with person.listening() as stream:
        await stream.next("Chat")
        assert stream.texts() == ["message 1"]
        looks = site.hostile.count(call="topics", activation=desk.activation)
        await eventually(lambda: site.hostile.count(call="topics", activation=desk.activation) > looks)
        assert desk.connects == 1
    assert dropped(site, "unreadable") - before == len(bad)
    assert re.search(
        r"WARNING messaging\.feeds unreadable event on inbox \d+: \S+ not JSON \(1 characters\)",
        site.app.log_text(),
    )
    assert "secret" not in site.app.log_text()
    await counts(person, {None: 1})


async def test_a_flood_of_rubbish_is_not_a_flood_of_log_lines(site: Desk, alice: Person) -> None:
    """F20: one line in ten seconds for each stream says what matters; the metric has the rest."""
    floods = 300
    start = len(site.app.log_text())
    desk = site.another(saying(*[frame("Chat", "{")] * floods, chat(1)))
    before = dropped(site, "unreadable")
    async with desk.of(alice).listening() as stream:
        await stream.next("Chat")
    assert dropped(site, "unreadable") - before == floods
    assert 1 <= site.app.log_text()[start:].count("unreadable event") <= 3


async def test_a_message_with_parts_missing_is_shown_if_it_can_be_placed(site: Desk, alice: Person) -> None:
    """F22: each key absent, null or of another type. Without an id, or with no direction: neither shown nor counted."""
    whole = message(0)
    pieces, shown, number = [], set(), 0
    for key in whole:
        values: tuple[object, ...] = ("absent", None, 17, [], {"a": 1})
        for value in values:
            number += 1
            broken = message(number)
            broken[key] = value
            if value == "absent":
                del broken[key]
            pieces.append(frame("Chat", broken))
            if key not in ("id", "direction"):
                shown.add(f"{number:024x}")
    desk = site.another(saying(*pieces, chat(999)))
    person = desk.of(alice)
    async with person.listening() as stream:
        await stream.next("Chat", len(shown) + 1)
        assert {m["id"] for m in stream.told("Chat")} == {*shown, f"{999:024x}"}
        assert len(stream.told("Chat")) == len(shown) + 1
        assert desk.connects == 1
    assert sum((await person.unread()).values()) == len(shown) + 1


async def test_types_that_are_no_answers_are_shown_and_never_counted(site: Desk, alice: Person) -> None:
    """F23, F24: an unknown type, and `Heartbeat`, which is stored, beside `heartbeat`, which is proof of life."""
    person = site.of(alice)
    async with person.listening() as stream, page_stream(person, site.app) as page:
        site.settle()
        site.answer("unheard of", type="Sparkle", topic="t")
        site.answer("alive", type="Heartbeat", topic="t")
        site.answer("counts", topic="t")
        await stream.next("Chat")
        assert heard(stream) == ["Sparkle", "Heartbeat", "Chat"]
        await page.next("message", 3)
        assert "unheard of" in page.named("message")[0].data
        assert len(page.named("toast")) == 1
    await counts(person, {"t": 1})


async def test_a_repeat_is_dropped_and_an_edit_takes_the_place_of_what_it_edits(site: Desk, alice: Person) -> None:
    """F25: the same id again: exact, edited, moved: one answer, one toast, one count, which moves along."""
    person = site.of(alice)
    before = dropped(site, "duplicate")
    async with person.listening() as stream, page_stream(person, site.app) as page:
        site.settle()
        first = site.answer("first words", topic="t")
        await page.next("message")
        site.xians.control("again", id=first["id"])
        site.xians.control("edit", id=first["id"], text="second words")
        site.xians.control("again", id=first["id"], changes={"scope": "u"})
        site.answer("end", topic="t")
        await stream.until(lambda me: "end" in me.texts())
        assert stream.texts() == ["first words", "end"]
        await page.until(lambda me: any(">end<" in event.data for event in me.named("message")))
        bubbles = [event for event in page.named("message") if first["id"] in event.data]
        assert ["first words" in event.data for event in bubbles] == [True, False, False]
        assert all("second words" in event.data for event in bubbles[1:])
        assert all(event.id == "" or event.id == bubbles[0].id for event in bubbles[1:]), "an edit moves no cursor"
        assert len(page.named("toast")) == 2
    assert dropped(site, "duplicate") - before >= 3
    await counts(person, {"t": 1, "u": 1})


@pytest.mark.parametrize("seed", [1, 2])
async def test_disorder_costs_nothing(site: Desk, alice: Person, seed: int) -> None:
    """F26: 200 messages in any order, some with equal times: all shown, all counted; reading up to one reads what is
    before it by (time, id) and nothing behind, and an older one that comes later is unread and un-reads nothing.
    """
    base = datetime.now(UTC) + timedelta(seconds=5)
    stored = [
        message(n, createdAt=(base + timedelta(milliseconds=n // 2)).isoformat(), scope="t") for n in range(1, 202)
    ]
    late, told_now = stored[50], stored[:50] + stored[51:]
    random.Random(seed).shuffle(told_now)
    shuffled = [frame("Chat", each) for each in told_now]
    release = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def script(exchange: Exchange) -> None:
        loops.append(asyncio.get_running_loop())
        await exchange.live()
        for piece in shuffled:
            await exchange.chunk(piece)
        await release.wait()
        await exchange.event("Chat", late)
        await exchange.stay()

    desk = site.another(script)
    person = desk.of(alice)
    async with person.listening() as stream:
        await stream.next("Chat", 200)
        assert {m["id"] for m in stream.told("Chat")} == {m["id"] for m in told_now}
        await counts(person, {"t": 200})
        middle = stored[100]["id"]
        answer = await person.post("read", topic="t", upToMessageId=middle)
        assert answer.json()["unreadCount"] == 100
        loops[0].call_soon_threadsafe(release.set)
        await stream.next("Chat", 201)
        await counts(person, {"t": 101})


async def test_what_belongs_to_somebody_else_is_dropped_and_told_to_operators(site: Desk, alice: Person) -> None:
    """F27, F28, F29: another tenant, participant, thread, activation: nothing of it anywhere but one ERROR line each.

    By interfaces.md the stream goes on. A participant in other letters is the same one (U13).
    """
    workflow = "acme:Invoice Helper:Supervisor Workflow:"
    before = dropped(site, "isolation")

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event("connected", {"tenantId": "acme", "threadId": "a" * 24})
        await exchange.until(go)
        for piece in (
            chat(1, tenantId="globex"),
            chat(2, workflowId="globex:Invoice Helper:Supervisor Workflow:" + desk.activation),
            chat(3, participantId="bob@acme.example"),
            chat(4, threadId="b" * 24),
            chat(5, workflowId=workflow + "Another desk"),
            frame("Chat", {"Id": "6", "ParticipantId": "bob@acme.example", "Text": "stray"}),
            chat(7, participantId="ALICE@Acme.Example", workflowId=workflow + desk.activation, threadId="a" * 24),
        ):
            await exchange.chunk(piece)
        await exchange.stay()

    go = threading.Event()
    desk = site.another(script)
    person = desk.of(alice)
    async with person.listening() as stream, page_stream(person, site.app) as page:
        go.set()
        await stream.next("Chat")
        assert stream.texts() == ["message 7"]
        assert "stray" not in "".join(event.data for event in page.events)
        assert desk.connects == 1
    assert dropped(site, "isolation") - before == 6
    log = site.app.log_text()
    for stranger in ("tenant", "participant", "thread", "activation"):
        assert re.search(rf"ERROR messaging\.feeds .*inbox \d+ names another {stranger}; dropped", log)
    assert "bob@acme.example" not in log
    await counts(person, {None: 1})


async def test_a_greeting_for_another_tenant_ends_the_connection(site: Desk, alice: Person) -> None:
    """F27: a stream that isn't ours from its first word on is closed."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event("connected", {"tenantId": "globex"})
        await exchange.chunk(chat(1, text="not ours"))
        await exchange.stay()

    answer = await site.another(script).of(alice).get("listen")
    assert (answer.status_code, answer.json()["code"]) == (502, "UPSTREAM_REJECTED")


async def test_an_echo_of_ones_own_words_is_no_answer(site: Desk, alice: Person) -> None:
    """F30: `Incoming` on the stream: not passed to API clients, not counted, one bubble by its request id."""
    person = site.of(alice)
    async with person.listening() as stream, page_stream(person, site.app) as page:
        site.settle()
        assert (await person.post("send", text="my words", requestId="r-30")).status_code == 200
        await page.next("message")
        (mine,) = [m for m in site.xians.truth(**site.thread) if m["requestId"] == "r-30"]
        site.xians.control("again", id=mine["id"])
        site.xians.control("emit", event="Chat", payload={**mine, "text": "my words"}, thread=site.thread)
        site.answer("an answer")
        await stream.next("Chat")
        assert stream.texts() == ["an answer"]
        await page.until(lambda me: any("an answer" in event.data for event in me.named("message")))
        bubbles = {re.search(r'id="([^"]+)"', e.data)[1] for e in page.named("message") if "my words" in e.data}  # type: ignore[index] # every bubble has one
        assert bubbles == {"request-r-30"}
    await counts(person, {None: 1})


def odd_texts() -> list[tuple[bytes, str]]:
    """A `text` as it stands in the JSON on the wire, and what readers make of it."""
    return [
        (b"\xff", "\ufffd"),
        (b"a\xc3", "a\ufffd"),
        (b"\xe2\x82", "\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),
        ("a\u2028b\u2029c\u0085d".encode(), "a\u2028b\u2029c\u0085d"),
        ("\ufeffin the middle".encode(), "\ufeffin the middle"),
        ("👋 é".encode(), "👋 é"),
        (rb"\u000b\u000c\u001e", "\x0b\x0c\x1e"),
    ]


def odd_frames() -> bytes:
    written = b""
    for number, (raw, _) in enumerate(odd_texts(), start=1):
        end = [b"\n", b"\r\n", b"\r"][number % 3]
        told_json = json.dumps(message(number, text="TEXT"), ensure_ascii=False).encode().replace(b"TEXT", raw)
        written += b"event: Chat" + end + b"data: " + told_json + end + end
    return written


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["every byte alone", "cut anywhere", "whole"])
async def test_bytes_are_read_as_the_standard_says_however_they_are_cut(site: Desk, alice: Person, size: int) -> None:
    """F34, F35, F39, F40: broken UTF-8, every line end, marks at the start, at every cut, over real sockets."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        start = b"\xef\xbb\xbf" + frame("connected", {"tenantId": "acme"})
        whole = start + odd_frames() + chat(99)
        for at in range(0, len(whole), size):
            await exchange.chunk(whole[at : at + size])
            await asyncio.sleep(0)
        await exchange.stay()

    desk = site.another(script)
    async with desk.of(alice).listening() as stream:
        await stream.until(lambda me: "message 99" in me.texts())
        assert stream.texts() == [*(text for _, text in odd_texts()), "message 99"]
        assert desk.connects == 1


async def test_a_mark_in_the_middle_is_part_of_a_name_and_harms_nothing_else(site: Desk, alice: Person) -> None:
    """F40: the line that begins with it is unknown; the event without its name is still known by its type."""
    desk = site.another(saying(b"\xef\xbb\xbf" + chat(1), b"\xef\xbb\xbf\xef\xbb\xbf\n\n", chat(2)))
    async with desk.of(alice).listening() as stream:
        await stream.next("Chat")
        assert heard(stream) == ["message", "Chat"]
        assert json.loads(stream.named("message")[0].data)["text"] == "message 1"


async def test_what_no_database_takes_is_cleaned_before_it(site: Desk, alice: Person) -> None:
    """F36, F37: NUL and half characters in id, topic and text: counted under a clean topic, shown with U+FFFD."""
    odd = json.dumps(message(1, text="TEXT", scope="TOPIC", id="ID"))
    pieces = [
        odd.replace("TEXT", r"a\u0000b").replace("TOPIC", r"t\u0000").replace("ID", r"nul\u0000"),
        odd.replace("TEXT", r"x\ud800y").replace("TOPIC", r"\udfff!").replace("ID", r"half\ud800"),
    ]
    go = threading.Event()
    desk = site.another(saying(*(frame("Chat", piece) for piece in pieces), chat(2), once=go))
    person = desk.of(alice)
    async with person.listening() as stream, page_stream(person, site.app) as page:
        go.set()
        await stream.next("Chat", 3)
        assert [json.loads(event.data) for event in stream.named("Chat")][:2] == [json.loads(piece) for piece in pieces]
        await page.next("message", 3)
        shown = "".join(event.data for event in page.named("message"))
        assert "a\ufffdb" in shown
        assert "x\ufffdy" in shown
        assert "\x00" not in shown
    await counts(person, {"t\ufffd": 1, "\ufffd!": 1, None: 1})
    for topic in ("t\ufffd", "\ufffd!"):
        assert (await person.post("read", topic=topic)).json()["unreadCount"] == 0


async def test_names_of_events_never_steer_a_browser(site: Desk, alice: Person) -> None:
    """F41: whatever upstream calls an event, the page hears names of ours; API clients hear no name of ours for it."""
    names = ["error", "open", "message", "reset", "two words", "x" * 65_536, "unread", "goodbye", "resync", "status"]
    desk = site.another(saying(*(frame(name, message(n)) for n, name in enumerate(names, start=1)), chat(99)))
    person = desk.of(alice)
    async with page_stream(person, site.app) as page:
        await page.until(lambda me: any("message 99" in event.data for event in me.named("message")))
        assert {event.event for event in page.events} <= OURS
        shown = "".join(event.data for event in page.named("message"))
        assert all(f"message {n}" in shown for n in range(1, len(names) + 1))
    async with person.listening(last_event_id=_first_cursor(page)) as stream:
        await stream.until(lambda me: len(heard(me)) >= len(names))
        assert heard(stream) == ["open", "message", "reset", "two words", *["unknown"] * 5, "Chat"]


def _first_cursor(page: Listener) -> str:
    return next(event.id for event in page.events if event.id)


async def test_upstream_steers_neither_our_timing_nor_our_ids(site: Desk, alice: Person) -> None:
    """F42: `retry:` of any kind changes no wait, an `id:` of upstream's reaches nobody."""

    async def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            await exchange.live()
            await exchange.until(go)
            for value in (b"0", b"1", b"-5", b"99999999999999999999", b"soon"):
                await exchange.chunk(b"retry: " + value + b"\n\n")
            await exchange.chunk(b"id: evil\nretry: 0\n" + chat(1))
            await exchange.hang(1.5)
            await exchange.finish()
        else:
            await exchange.live()
            await exchange.stay()

    go = threading.Event()
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as page, desk.of(alice).listening() as stream:
        go.set()
        await page.until(lambda me: [s["state"] for s in told(me, "status")][-2:] == ["reconnecting", "live"])
        lost = next(status for status in told(page, "status") if status["state"] == "reconnecting")
        assert 1 <= lost["retryInSeconds"] <= 1.2
        first, second = site.hostile.times(activation=desk.activation)
        assert second - first >= 2.4
        assert all("evil" not in event.id for event in (*page.events, *stream.events))
        asked = [asked for asked in site.hostile.asked if asked.activation == desk.activation]
        assert all("last-event-id" not in each.headers for each in asked)


async def test_a_burst_moves_each_badge_a_few_times_and_not_thousands(site: Desk, alice: Person) -> None:
    """F43: what comes in bursts is written in batches; the page hears of counts seldom, and of the last for sure."""
    count = 3000
    person = site.of(alice)
    async with person.listening() as stream:
        site.settle()
        thread = {key: value for key, value in site.thread.items() if key != "participant"}
        started = asyncio.get_running_loop().time()
        site.xians.control("burst", count=count, participants=[alice.email], topics=["a", "b"], **thread)
        done = {"topic": "b", "unreadCount": count // 2, "total": count}
        await stream.until(lambda me: any(u["total"] == count for u in me.told("unread")), within=60)
        seconds = asyncio.get_running_loop().time() - started
        for topic in ("a", "b"):
            heard = [u["unreadCount"] for u in stream.told("unread") if u["topic"] == topic]
            assert heard == sorted(heard)
            assert len(heard) <= 10 * (seconds + 1), (len(heard), seconds)
        assert done["total"] == count
        assert not stream.named("goodbye")
    await counts(person, {"a": count // 2, "b": count // 2})


async def test_text_that_is_no_text_is_passed_on_as_it_is(site: Desk, alice: Person) -> None:
    """F46: cipher or base64 (U17) is nobody's business but the reader's."""
    noise = "U2FsdGVkX1" + "9vQ/+a" * 3_000 + "=="
    person = site.of(alice)
    async with person.listening() as stream, page_stream(person, site.app) as page:
        site.answer(noise)
        await stream.next("Chat")
        assert stream.texts() == [noise]
        await page.next("message")
        assert noise in page.named("message")[0].data
    await counts(person, {None: 1})
