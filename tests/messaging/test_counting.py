"""Counting (issue 3; reliability.md 3.6): the badge is the set of answers that nobody has seen, whatever the order."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from demo.world import API_KEY
from messaging import unread, wire
from messaging.changes import InboxRef, Read, Record
from messaging.wire import Message, ThreadAddress
from tests.messaging.conftest import Site
from tests.messaging.people import Person

SOON = 20
START = datetime(2026, 7, 2, 9, 0, tzinfo=UTC)


async def becomes(person: Person, counts: dict[str | None, int], *, within: float = SOON) -> None:
    seen: dict[str | None, int] = {}
    try:
        async with asyncio.timeout(within):
            while (seen := await person.unread()) != counts:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{seen} instead of {counts}") from None


async def burst(site: Site, person: Person, count: int, topics: Sequence[str | None]) -> list[str]:
    thread = {key: value for key, value in site.thread.items() if key != "participant"}
    told = await asyncio.to_thread(
        site.xians.control, "burst", count=count, participants=[person.email], topics=list(topics), **thread
    )
    ids: list[str] = told["ids"]
    return ids


# -- arriving while it is opened ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_listening", [True, False])
async def test_what_arrives_while_its_topic_is_opened_is_shown_or_counted(
    site: Site, alice: Person, *, is_listening: bool
) -> None:
    """F98: the page confirms up to the newest answer that it shows: what came later is unread until it is shown."""
    dice = random.Random(98)
    await alice.unread()
    outcomes = set()
    async with alice.listening() if is_listening else _nothing():
        for number in range(25):
            topic = f"t{number}"
            site.answer("there before", topic=topic)
            opening = asyncio.create_task(_open(site, alice, topic))
            await asyncio.sleep(dice.uniform(0, 0.15))
            late = await asyncio.to_thread(site.answer, "arriving", topic=topic)
            shown = await opening
            await alice.post("read", topic=topic, upToMessageId=shown[-1])
            outcomes.add(late["id"] in shown)
            await becomes(alice, {} if late["id"] in shown else {topic: 1})
            answer = await alice.post("read", topic=topic, upToMessageId=late["id"])
            assert answer.json() == {"topic": topic, "unreadCount": 0, "total": 0}
    assert outcomes == {True, False}, "both orders were to be tried"


async def _open(site: Site, person: Person, topic: str) -> list[str]:
    """The ids of the answers that the page of a topic shows."""
    path = f"/conversations/Invoice%20Helper/{site.activation.replace(' ', '%20')}/"
    page = await person.client.get(path, params={"tenant": "acme", "topic": topic})
    return re.findall(r'data-kind="answer" data-id="([^"]+)"', page.text)


def _nothing() -> Any:
    class Nothing:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    return Nothing()


def message(number: int, topic: str = "t") -> Message:
    moment = (START + timedelta(seconds=number)).isoformat()
    told = {"id": f"m{number:03d}", "createdAt": moment, "scope": topic, "messageType": "Chat", "direction": "Outgoing"}
    return wire.message(told)


@pytest.mark.django_db
def test_any_interleaving_of_opening_and_arriving_ends_right() -> None:
    """F98, F103: 40 orders of records, repeats and a read up to what was shown: only what was shown is read."""
    dice = random.Random(103)
    for round_number in range(40):
        address = ThreadAddress("acme", "Invoice Helper", f"Desk {round_number}", "alice@acme.example")
        inbox = unread.open_inbox(address, [], {})
        numbers = dice.sample(range(50), 8)
        shown = numbers[: dice.randrange(1, 7)]  # in the order of arriving, which isn't that of creation
        for number in shown:
            unread.apply([_record(inbox, number)])
        unread.apply([Read(inbox, "t", message_ids=frozenset(f"m{number:03d}" for number in shown))])
        later = [*numbers, *dice.sample(numbers, 4)]  # again from history, or from the other process
        dice.shuffle(later)
        while later:
            size = dice.randrange(1, 5)
            unread.apply([_record(inbox, number) for number in later[:size]])
            del later[:size]
        assert unread.counts([inbox])[inbox] == {"t": len(numbers) - len(shown)}


def _record(inbox: InboxRef, number: int) -> Record:
    return Record(inbox, message(number), datetime.now(UTC))


async def test_an_older_answer_that_nobody_has_seen_stays_unread(site: Site, alice: Person) -> None:
    """F103: reconciled after the newer one was read: it was never shown, so it is unread, until it has been shown."""
    async with alice.listening() as stream:
        first = site.answer("one", topic="t")
        later = datetime.fromisoformat(first["createdAt"]) + timedelta(milliseconds=9)
        newest = site.answer("three", topic="t", created_at=later.isoformat())
        await stream.next("Chat", 2)
        assert (await alice.post("read", topic="t", upToMessageId=newest["id"])).json()["unreadCount"] == 0
        moment = datetime.fromisoformat(first["createdAt"]) + timedelta(milliseconds=1)
        site.answer("two, late", topic="t", created_at=moment.isoformat())
        await stream.next("Chat", 3)
        await becomes(alice, {"t": 1})
        assert (await alice.post("read", topic="t", upToMessageId=first["id"])).json()["unreadCount"] == 1
        assert (await alice.post("read", topic="t", upToMessageId=newest["id"])).json()["unreadCount"] == 0


# -- reading --------------------------------------------------------------------------------------------------


async def test_reading_twice_late_or_what_is_not_hers_changes_nothing(site: Site, alice: Person, bob: Person) -> None:
    """F104: 60 reads in any order: only her own of that topic count. Foreign and unknown ids get the same answer."""
    await bob.unread()
    async with alice.listening() as stream:
        mine = [site.answer(f"m{number}", topic="t") for number in range(6)]
        elsewhere = site.answer("other", topic="u")
        await stream.next("Chat", 7)
    foreign = site.answer("for Bob", participant="bob@acme.example", topic="t")
    await becomes(bob, {"t": 1})
    dice = random.Random(104)
    highest = -1
    for _ in range(60):
        number = dice.randrange(9)
        stranger = [foreign["id"], elsewhere["id"], "6a462c1bc0ffee9999999999"]
        up_to = mine[number]["id"] if number < 6 else stranger[number - 6]
        highest = max(highest, number) if number < 6 else highest
        answer = await alice.post("read", topic="t", upToMessageId=up_to)
        left = 5 - highest
        assert (answer.status_code, answer.json()) == (200, {"topic": "t", "unreadCount": left, "total": left + 1})
    assert await alice.unread() == {"u": 1}
    assert await bob.unread() == {"t": 1}


async def test_a_topic_is_read_altogether_only_where_upstream_says_what_it_holds(own_site: Site, alice: Person) -> None:
    """D4: told "done", a client never asks again; what this process hasn't heard of would be unread for ever."""
    await alice.unread()
    async with alice.listening() as stream:
        own_site.answer("one", topic="t")
        await stream.next("Chat")
        await becomes(alice, {"t": 1})
        own_site.xians.refuse(route="topics", status=503)
        own_site.answer("two, which the stream leaves out", topic="t", withhold=True)
        answer = await alice.post("read", topic="t")
        assert (answer.status_code, answer.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
        assert await alice.unread() == {}
        own_site.xians.forgive()
        answer = await alice.post("read", topic="t")
        assert answer.json() == {"topic": "t", "unreadCount": 0, "total": 0}
        await stream.next("Chat", 2)
        assert await alice.unread() == {}


# -- topics that go, move, or have odd names ------------------------------------------------------------------


async def test_a_topic_deleted_upstream_takes_its_badge_along_and_no_late_event_brings_it_back(
    site: Site, alice: Person
) -> None:
    """F105: a topic of the last minute may only be unlisted yet by a replica (F45), so this one is older."""
    await alice.unread()
    moment = datetime.now(UTC) - timedelta(minutes=5)
    async with alice.listening() as stream:
        gone = site.answer("soon gone", topic="gone", created_at=moment.isoformat())
        site.answer("stays", topic="kept")
        await stream.next("Chat", 2)
        event = json_of(stream.told("Chat"), gone["id"])
        await becomes(alice, {"gone": 1, "kept": 1})
        await _delete_upstream(site, "gone")
        await alice.post("send", text="look again", topic="kept")
        await stream.until(lambda me: {"topic": "gone", "unreadCount": 0, "total": 1} in me.told("unread"), within=SOON)
        site.xians.control("emit", event="Chat", payload=event, thread=site.thread)
        site.answer("a sign that it was passed", topic="kept")
        await stream.until(lambda me: len(me.named("Chat")) >= 3)
        await becomes(alice, {"kept": 2})
    listed = (await alice.get("topics")).json()["topics"]
    assert [topic["scope"] for topic in listed] == [None, "kept"]


async def test_as_many_answers_in_a_topic_that_was_deleted_are_not_taken_for_those(site: Site, alice: Person) -> None:
    """F105, F16: its count and its newest message are what they would be if nothing had been deleted or left out."""
    await alice.unread()
    async with alice.listening() as stream:
        for text in ("old", "old, too"):
            site.answer(text, topic="t")
        await stream.next("Chat", 2)
        await becomes(alice, {"t": 2})
        await _delete_upstream(site, "t")
        assert (await alice.post("read", topic="u")).status_code == 200  # compares: the topic is missing
        for text in ("left out", "left out, too"):
            site.answer(text, topic="t", withhold=True)
        site.answer("new", topic="t")
        await stream.next("Chat", 3)
        assert (await alice.post("read", topic="u")).status_code == 200
        await stream.next("Chat", 5)
        assert sorted(stream.texts()[2:]) == ["left out", "left out, too", "new"]
        await becomes(alice, {"t": 3})


@pytest.mark.parametrize("was_listed", [False, True])
async def test_an_answer_that_only_the_stream_told_of_is_missed_after_a_restart_too(
    own_site: Site, alice: Person, *, was_listed: bool
) -> None:
    """F105: no comparison had seen it, or only the topic as it was before it; its receipt has."""
    await alice.unread()
    if was_listed:
        first = own_site.answer("first", topic="gone")
        await becomes(alice, {"gone": 1})
        await alice.post("read", topic="gone", upToMessageId=first["id"])
    own_site.xians.refuse(route="topics", status=500)
    async with alice.listening() as stream:
        own_site.answer("soon gone", topic="gone")
        await stream.until(lambda me: {"topic": "gone", "unreadCount": 1, "total": 1} in me.told("unread"), within=SOON)
    own_site.app.kill()
    await _delete_upstream(own_site, "gone")
    own_site.xians.forgive()
    own_site.app.start()
    async with alice.listening():
        await becomes(alice, {}, within=2 * SOON)  # so young a topic might be unlisted by a replica only (F45)


def json_of(messages: list[dict[str, Any]], message_id: str) -> dict[str, Any]:
    (found,) = [message for message in messages if message["id"] == message_id]
    return found


async def _delete_upstream(site: Site, topic: str) -> None:
    """As somebody does who isn't us."""
    names = {"agentName": site.names["agentName"], "activationName": site.activation, "topic": topic}
    query = {**names, "participantId": "alice@acme.example"}
    async with httpx.AsyncClient(base_url=site.xians.url, headers={"Authorization": f"Bearer {API_KEY}"}) as somebody:
        answer = await somebody.delete("/api/v1/admin/tenants/acme/messaging/messages", params=query)
        assert answer.status_code == 200, answer.text


async def test_an_answer_that_moves_to_another_topic_takes_its_count_along(site: Site, alice: Person) -> None:
    """F106: upstream delivers it again under its id, with another scope."""
    async with alice.listening() as stream:
        moving = site.answer("moves", topic="old")
        site.answer("stays", topic="old")
        await stream.next("Chat", 2)
        await becomes(alice, {"old": 2})
        site.answer("moves", topic="new", id=moving["id"], created_at=moving["createdAt"])
        await becomes(alice, {"old": 1, "new": 1})
        assert len(stream.named("Chat")) == 2
    assert (await alice.post("read", topic="new")).json() == {"topic": "new", "unreadCount": 0, "total": 1}


NAMES = [
    *("general-discussions", "General Discussions", "General", "null", "None", "undefined", "0", "false", "-", "."),
    *(
        "..",
        "a/b",
        "/",
        "a//b",
        "a\\b",
        "a?b",
        "a#b",
        "a&b=c",
        "a%20b",
        "a%2Fb",
        "%",
        "%00",
        "a+b",
        "a b",
        "a  b",
        " a",
    ),
    *("a ", " a ", "\u00a0a", "a\u00a0", "A", "a", "\u00c4", "A\u0308", "\u00e4", "a\u0308", "stra\u00dfe", "strasse"),
    *("\u0130", "i\u0307", "\u0131", "\ufb01", "fi", "\u202ertl\u202c", "\u200fabc", "a\u200bb", "a\u200db", "\ufeffa"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u65e5\u672c\u8a9e", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629"),
    *(
        "<b>x</b>",
        "\"'`",
        "'; DROP TABLE topics; --",
        "{{ x }}",
        "${x}",
        "a,b",
        "a;b",
        "a:b",
        "a|b",
        "x" * 200,
        "é" * 200,
    ),
]
"""Names that look alike, or that mean something to some layer; each is a topic of its own."""


async def test_every_name_is_a_topic_of_its_own_end_to_end(site: Site, alice: Person) -> None:
    """F107: listed, counted, shown and read, each by itself; null and its look-alikes never meet."""
    assert len(NAMES) == len(set(NAMES)) >= 60
    await alice.unread()
    async with alice.listening() as stream:
        for topic in (None, *NAMES):
            site.answer(f"in {topic!r}", topic=topic)
        await stream.next("Chat", len(NAMES) + 1, within=SOON)
        await becomes(alice, dict.fromkeys((None, *NAMES), 1))
        listed = (await alice.get("topics", pageSize="100")).json()["topics"]
        assert {topic["scope"]: topic["unreadCount"] for topic in listed} == dict.fromkeys((None, *NAMES), 1)
        page = await _open(site, alice, "general-discussions")
        assert len(page) == 1
        for left, topic in reversed(list(enumerate((None, *NAMES)))):
            history = (await alice.get("history", topic=topic or "")).json()
            assert [message["text"] for message in history] == [f"in {topic!r}"]
            answer = await alice.post("read", topic=topic)
            assert answer.json() == {"topic": topic, "unreadCount": 0, "total": left}


@pytest.mark.parametrize(
    ("given", "kept"), [("a\x00b", "a\ufffdb"), ("n" * 10_240, "n" * 10_240), ("tab\tnew\nline", "tab\tnew\nline")]
)
async def test_names_that_no_layer_likes_are_counted_and_can_be_read(
    site: Site, alice: Person, given: str, kept: str
) -> None:
    """F107: NUL, 10 KiB, control characters: nobody can make such a topic here, but one that upstream has works."""
    async with alice.listening() as stream:
        site.answer("odd", topic=given)
        site.answer("plain", topic="plain")
        await stream.until(lambda me: "plain" in me.texts())
    await becomes(alice, {kept: 1, "plain": 1})
    answer = await alice.post("read", topic=kept)
    assert (answer.status_code, answer.json()) == (200, {"topic": kept, "unreadCount": 0, "total": 1})


# -- what counts, and how much --------------------------------------------------------------------------------


async def test_nothing_but_answers_counts(site: Site, alice: Person) -> None:
    """F108: every other type and direction leaves the badge as it is, live and when it is found later."""
    others = ["Reasoning", "Tool", "Data", "File", "Heartbeat", "Handoff", "Webhook", "Sparkle", None]
    await alice.unread()
    async with alice.listening() as stream:
        for kind in others:
            site.answer("x", type=kind, topic="t")
        site.answer("x", direction="Incoming", topic="t")
        site.answer("counts", topic="t")
        await stream.until(lambda me: "counts" in me.texts())
    await becomes(alice, {"t": 1})
    for kind in others:
        site.answer("x", type=kind, topic="t", withhold=True)
    site.answer("found later", topic="t")
    await becomes(alice, {"t": 2})


async def test_a_year_of_history_is_not_news(site: Site, alice: Person) -> None:
    """F109: 10,000 old answers: the first visit starts at zero, without reading them all; then it counts by one."""
    await burst(site, alice, 10_000, [None, *(f"t{number}" for number in range(40))])
    first = site.xians.requests()[-1]["number"]
    assert await alice.unread() == {}
    asked = [request for request in site.xians.requests(after=first) if request["route"] == "history"]
    assert len(asked) <= 10
    site.answer("news", topic="t7")
    await becomes(alice, {"t7": 1})


async def test_pages_that_shift_while_they_are_read_hide_nothing(site: Site, alice: Person) -> None:
    """F110: 450 answers were missed, and more arrive at the head while page by page is fetched."""
    await alice.unread()
    await burst(site, alice, 450, ["t"])
    site.xians.refuse(route="history", delay_seconds=0.2, count=8)
    counting = asyncio.create_task(alice.unread())
    for number in range(30):
        await asyncio.to_thread(site.answer, f"meanwhile {number}", topic="t")
    await counting
    await becomes(alice, {"t": 480})


async def test_more_than_can_be_fetched_is_said_and_the_newest_are_counted(site: Site, alice: Person) -> None:
    """F110: after 2,000 in one topic it stops, says `resync`, and counts what it has: "99+" is right."""
    await alice.unread()
    await burst(site, alice, 2_300, ["t"])
    async with alice.listening() as stream:
        await stream.next("resync", within=SOON)
        await stream.until(lambda me: any(told["unreadCount"] >= 2_000 for told in me.told("unread")), within=SOON)
    (count,) = (await alice.unread()).values()
    assert 2_000 <= count <= 2_300
    assert (await alice.post("read", topic="t")).json()["total"] == 0
