"""The stream as clients see it (interfaces.md section 3)."""

from __future__ import annotations

import json
from typing import Literal

from tests.messaging.conftest import Site
from tests.messaging.people import Person

STREAM_KEYS = 14


async def test_it_greets_and_passes_a_message_on_as_upstream_sent_it(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        stored = site.answer("Hello Ünïcode 👋", topic="Q2 review", data={"a": [1, 2.5, None], "Key": "x"})
        event = await stream.next("Chat")
    message = json.loads(event.data)
    assert len(message) == STREAM_KEYS
    assert {key: stored[key] for key in message} == message
    assert event.id
    assert stream.response.headers["content-type"] == "text/event-stream"
    assert stream.response.headers["cache-control"] == "no-cache, no-transform"
    assert stream.response.headers["x-accel-buffering"] == "no"
    assert [e.event for e in stream.events if not e.id] != []


async def test_it_replays_exactly_what_came_after_an_id(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        for number in range(5):
            site.answer(f"n{number}", topic=f"t{number % 2}")
        await stream.next("Chat", 5)
    third = stream.named("Chat")[2]
    site.answer("n5")
    async with alice.listening(last_event_id=third.id) as again:
        site.answer("n6")
        await again.until(lambda me: "n6" in me.texts())
        assert again.texts() == ["n3", "n4", "n5", "n6"]
        assert not again.named("resync")


async def test_it_replays_from_history_after_a_restart_of_the_application(own_site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        sent = [own_site.answer(f"n{number}", topic=None if number % 2 else "t") for number in range(4)]
        await stream.next("Chat", 4)
    first = stream.named("Chat")[0]
    own_site.app.kill()
    sent.append(own_site.answer("n4", topic="new topic"))
    own_site.app.start()
    async with alice.listening(last_event_id=first.id) as again:
        own_site.answer("n5")
        await again.until(lambda me: "n5" in me.texts())
        assert again.texts() == ["n1", "n2", "n3", "n4", "n5"]
        replayed = again.told("Chat")[0]
        assert {key: sent[1][key] for key in replayed} == replayed
        assert len(replayed) == STREAM_KEYS


async def test_it_says_resync_for_an_id_that_it_never_gave_out(alice: Person) -> None:
    for forged in ("garbage", "1" * 3000, "00000000000000000-x.1.0123456789"):
        async with alice.listening(last_event_id=forged) as stream:
            await stream.next("resync")
            assert [event.event for event in stream.events][:2] == ["connected", "resync"]


async def test_it_says_resync_for_somebody_elses_id(site: Site, alice: Person, bob: Person) -> None:
    """F125"""
    async with alice.listening() as stream:
        site.answer("for Alice")
        event = await stream.next("Chat")
    async with bob.listening(last_event_id=event.id) as stream:
        await stream.next("resync")


async def test_it_keeps_one_upstream_stream_for_many_readers(site: Site, alice: Person) -> None:
    async with alice.listening() as one, alice.listening() as two, alice.listening(topic="") as three:
        assert [
            thread["count"] for thread in site.xians.streams()["threads"] if thread["activation"] == site.activation
        ] == [1]
        site.answer("to all")
        for stream in (one, two, three):
            await stream.next("Chat")


async def test_it_beats_at_the_clients_own_pace(alice: Person) -> None:
    async with alice.listening(heartbeatSeconds=1) as stream, alice.listening(heartbeatSeconds=300) as quiet:
        beat = json.loads((await stream.next("heartbeat")).data)
        assert set(beat) == {"timestamp", "subscriberCount"}
        assert beat["subscriberCount"] == 2
        assert not quiet.named("heartbeat")


async def test_it_passes_every_type_on_under_its_own_name(site: Site, alice: Person) -> None:
    types = ["Data", "Reasoning", "Tool", "Webhook", "File", "Sparkle"]
    async with alice.listening() as stream:
        for kind in types:
            site.answer("x", type=kind)
        await stream.next("Sparkle")
        assert [e.event for e in stream.events if e.id] == types
    assert await alice.unread() == {}


async def test_it_finds_what_falls_into_the_blind_window(site: Site, alice: Person) -> None:
    site.xians.control("behave", blind_seconds=0.4)
    async with alice.listening() as stream:
        site.answer("while upstream was deaf", at_once=True)
        await stream.next("Chat")
        assert stream.texts() == ["while upstream was deaf"]


async def test_it_survives_a_break_of_the_upstream_stream(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        site.answer("before")
        await stream.next("Chat")
        modes: list[Literal["eof", "truncate", "reset"]] = ["eof", "truncate", "reset"]
        for count, mode in enumerate(modes, start=2):
            site.xians.cut(mode)
            site.answer(f"during {mode}", at_once=True)
            await stream.next("Chat", count)
        site.answer("after")
        await stream.until(lambda me: "after" in me.texts())
        assert stream.texts() == ["before", "during eof", "during truncate", "during reset", "after"]


async def test_it_shows_a_repeated_message_once(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        message = site.answer("once")
        await stream.next("Chat")
        site.xians.control("again", id=message["id"])
        site.xians.control("again", id=message["id"], pascal_case=True)
        site.answer("end")
        await stream.until(lambda me: "end" in me.texts())
        assert stream.texts() == ["once", "end"]
    assert await alice.unread() == {None: 2}


async def test_it_drops_what_it_cannot_read_and_what_names_somebody_else(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        message = site.answer("mine")
        await stream.next("Chat")
        for raw in ("event: Chat\ndata: {\n\n", "event: Chat\ndata: [1]\n\n", 'event: Chat\ndata: {"text":"x"}\n\n'):
            site.xians.control("emit", raw=raw)
        for changes in (
            {"id": "a1", "participantId": "bob@acme.example"},
            {"id": "a2", "threadId": "6a462c14c0ffee0000009999"},
            {"id": "a3", "tenantId": "globex"},
            {"id": "a4", "workflowId": "globex:Invoice Helper:Supervisor Workflow:Nordic desk"},
        ):
            site.xians.control("again", id=message["id"], changes={**changes, "text": "stray"})
        site.answer("still here")
        await stream.until(lambda me: "still here" in me.texts())
        assert stream.texts() == ["mine", "still here"]


async def test_a_burst_is_not_taken_for_a_slow_reader(site: Site, alice: Person) -> None:
    """F43"""
    count = 1000
    async with alice.listening() as stream:
        thread = {key: value for key, value in site.thread.items() if key != "participant"}
        site.settle()
        site.xians.control("burst", count=count, participants=[alice.email], topics=["a", "b"], **thread)
        await stream.next("Chat", count, within=30)
        assert len({message["id"] for message in stream.told("Chat")}) == count
        assert not stream.named("goodbye")
    assert await alice.unread() == {"a": count // 2, "b": count // 2}


async def test_it_reads_keys_of_any_casing_side_by_side(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        stored = site.answer("one")
        await stream.next("Chat")
        kept = {key: stored[key] for key in ("threadId", "workflowId", "participantId", "createdAt")}
        mixed = {
            **kept,
            "id": "0" * 23 + "1",
            "Direction": "Outgoing",
            "MessageType": "Chat",
            "Text": "two",
            "Scope": "t",
        }
        site.xians.control("emit", event="Chat", payload=mixed, thread=site.thread)
        await stream.next("Chat", 2)
    assert await alice.unread() == {None: 1, "t": 1}


async def test_it_passes_on_json_that_upstream_wrote_over_several_lines(site: Site, alice: Person) -> None:
    """To the standard, `data` may be any number of lines: what comes out is one message, the same as JSON."""
    async with alice.listening() as stream:
        stored = site.answer("one")
        await stream.next("Chat")
        first = {key: stored[key] for key in stream.told("Chat")[0]}
        second = {**first, "id": "f" * 24, "text": "two"}
        lines = "".join(f"data: {line}\n" for line in json.dumps(second, indent=1).splitlines())
        site.xians.control("emit", raw=f"event: Chat\n{lines}\n", thread=site.thread)
        await stream.next("Chat", 2)
        assert stream.told("Chat") == [first, second]
