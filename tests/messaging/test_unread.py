"""Unread state as promised (interfaces.md section 4, D1-D7)."""

from __future__ import annotations

import asyncio
import json
import re

from tests.messaging.conftest import Site
from tests.messaging.people import PATIENCE, Person
from tests.services.app import manage

NO_TOPICS = {
    "topics": [],
    "pagination": {"currentPage": 1, "pageSize": 200, "totalTopics": 0, "totalPages": 0, "hasMore": False},
}


async def test_it_starts_at_zero_whatever_upstream_holds_already(site: Site, alice: Person) -> None:
    """D7"""
    site.answer("older than the first visit")
    assert await alice.unread() == {}
    site.answer("newer")
    await _eventually(alice, {None: 1})


async def test_it_counts_each_answer_once_and_remembers_over_a_restart(own_site: Site, alice: Person) -> None:
    """D1, D5"""
    async with alice.listening(topic="") as stream:
        for number in range(3):
            own_site.answer(f"a{number}", topic="Q2 review")
        own_site.answer("shown", topic=None)
        await stream.next("Chat", 4)
        await stream.until(lambda me: any(told["unreadCount"] == 3 for told in me.told("unread")))
    await _eventually(alice, {"Q2 review": 3})
    own_site.app.kill()
    own_site.app.start()
    assert await alice.unread() == {"Q2 review": 3}


async def test_it_counts_what_came_while_nobody_was_connected(site: Site, alice: Person) -> None:
    """D6"""
    assert await alice.unread() == {}
    for number in range(4):
        site.answer(f"away {number}", topic=f"topic {number % 2}")
    site.answer("", type="Reasoning", data="thinking")
    await _eventually(alice, {"topic 0": 2, "topic 1": 2})
    listed = (await alice.client.get("/api/tenants/acme/activations/")).json()
    assert [a["unreadCount"] for a in listed if a["name"] == site.activation] == [4]


async def test_it_counts_what_came_since_it_was_asked_a_moment_ago(site: Site, alice: Person) -> None:
    """D6: an answer of the last milliseconds is no exception, wherever the counts are shown."""
    assert await alice.unread() == {}
    others = await _total(alice)
    for expected in range(1, 5):
        site.answer("just now")
        assert (await alice.unread())[None] == expected
        site.answer("and another", topic="t")
        assert await _total(alice) == others + 3 * expected - 1
        site.answer("and one more", topic="u")
        listed = (await alice.client.get("/api/tenants/acme/activations/")).json()
        assert [a["unreadCount"] for a in listed if a["name"] == site.activation] == [3 * expected]


async def test_it_counts_what_came_while_an_earlier_question_was_under_way(site: Site, alice: Person) -> None:
    """D6: that one has been told by upstream already what there is, and waits for the answer."""
    assert await alice.unread() == {}
    asked = site.xians.control("requests")["last"]
    held = {"route": "topics", "count": 1, "status": 200, "delay_seconds": 1, "body": json.dumps(NO_TOPICS)}
    site.xians.refuse(**held)
    earlier = asyncio.create_task(alice.unread())
    await asyncio.to_thread(site.xians.control, "wait_requests", route="topics", after=asked)
    site.answer("stored since")
    assert await alice.unread() == {None: 1}
    await earlier


async def test_the_list_of_activations_knows_what_was_just_heard(site: Site, alice: Person) -> None:
    """D5: while receipts wait to be written."""
    async with alice.listening(topic="") as stream:
        for number in range(1, 6):
            site.answer("heard", topic="t")
            await stream.next("Chat", number)
            listed = (await alice.client.get("/api/tenants/acme/activations/")).json()
            assert [a["unreadCount"] for a in listed if a["name"] == site.activation] == [number]


async def test_it_counts_only_chat_from_the_agent(site: Site, alice: Person) -> None:
    """D2"""
    async with alice.listening() as stream:
        for kind in ("Data", "Reasoning", "Tool", "Webhook", "File"):
            site.answer("x", type=kind)
        site.answer("x", direction="Incoming")
        site.answer("counts")
        await stream.next("Chat")
    await _eventually(alice, {None: 1})


async def test_it_reads_a_topic_that_a_listener_shows(site: Site, alice: Person) -> None:
    """D3, D4"""
    await alice.unread()
    site.answer("before it is opened", topic="t")
    await _eventually(alice, {"t": 1})
    async with alice.listening(topic="t") as stream:
        await _eventually(alice, {})
        site.answer("while it is shown", topic="t")
        site.answer("elsewhere", topic="u")
        await stream.next("Chat", 2)
        await _eventually(alice, {"u": 1})


async def test_it_tells_every_tab_of_a_read_within_a_second(site: Site, alice: Person) -> None:
    """D5"""
    async with alice.listening() as one, alice.listening() as two:
        site.answer("x", topic="t")
        for stream in (one, two):
            await stream.until(lambda me: {"topic": "t", "unreadCount": 1, "total": 1} in me.told("unread"))
        answer = await alice.post("read", topic="t")
        assert answer.json() == {"topic": "t", "unreadCount": 0, "total": 0}
        for stream in (one, two):
            await stream.until(
                lambda me: me.told("unread")[-1] == {"topic": "t", "unreadCount": 0, "total": 0}, within=1
            )


async def test_it_reads_up_to_a_message(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        messages = [site.answer(f"m{number}", topic="t") for number in range(4)]
        await stream.next("Chat", 4)
    answer = await alice.post("read", topic="t", upToMessageId=messages[1]["id"])
    assert answer.json() == {"topic": "t", "unreadCount": 2, "total": 2}
    for unknown in ("nobody-knows", messages[1]["id"]):
        answer = await alice.post("read", topic="t", upToMessageId=unknown)
        assert answer.json()["unreadCount"] == 2


async def test_it_forgets_a_deleted_topic(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        site.answer("x", topic="gone")
        site.answer("y", topic="kept")
        await stream.until(lambda me: {told["topic"] for told in me.told("unread")} == {"gone", "kept"})
        assert (await alice.delete("messages", topic="gone")).json() == {"success": True}
        await stream.until(lambda me: {"topic": "gone", "unreadCount": 0, "total": 1} in me.told("unread"))
    assert await alice.unread() == {"kept": 1}


async def test_bob_sees_nothing_of_alices(site: Site, alice: Person, bob: Person) -> None:
    """F125"""
    await bob.unread()
    async with alice.listening() as hers, bob.listening(participantId="alice@acme.example") as his:
        site.answer("for Alice only", topic="secret")
        await hers.next("Chat")
        site.answer("for Bob", participant="bob@acme.example")
        await his.next("Chat")
        assert his.texts() == ["for Bob"]
    assert await bob.unread(participantId="alice@acme.example") == {None: 1}
    history = await bob.get("history", topic="secret", participantId="alice@acme.example", tenantId="globex")
    assert history.json() == []
    for call in ("unread", "topics", "history", "listen"):
        answer = await bob.client.get(f"/api/tenants/globex/messaging/{call}", params=site.names)
        assert answer.status_code == 403
        assert answer.json()["code"] == "TENANT_FORBIDDEN"


async def test_the_command_shows_the_same_numbers(site: Site, alice: Person) -> None:
    await alice.unread()
    site.answer("x", topic="t")
    await _eventually(alice, {"t": 1})
    printed = await asyncio.to_thread(manage, "unread", "--json", env=site.app.env)
    rows = [row for row in json.loads(printed) if row["activation"] == site.activation]
    assert [(row["participant"], row["topic"], row["unreadCount"]) for row in rows] == [("alice@acme.example", "t", 1)]


async def test_opening_a_topic_reads_what_came_while_nobody_listened(site: Site, alice: Person) -> None:
    """D4, D6"""
    assert await alice.unread() == {}
    site.answer("missed", topic="t")
    site.answer("missed, too", topic="t")
    site.answer("elsewhere", topic="u")
    async with alice.listening(topic="t"):
        assert await alice.unread() == {"u": 1}


async def test_a_lagging_replica_takes_no_count_away(own_site: Site, alice: Person) -> None:
    """F45"""
    await alice.unread()
    own_site.xians.control("freeze_reads", on=True)
    async with alice.listening() as stream:
        own_site.answer("in a topic that the list does not show yet", topic="new")
        await stream.next("Chat")
        seen = len(own_site.xians.requests(route="topics"))
        await alice.post("send", text="look again")
        async with asyncio.timeout(PATIENCE):
            while len(own_site.xians.requests(route="topics")) == seen:
                await asyncio.sleep(0.05)
        own_site.xians.control("freeze_reads", on=False)
    assert await alice.unread() == {"new": 1}


async def test_it_reads_up_to_the_persons_own_message(site: Site, alice: Person) -> None:
    async with alice.listening() as stream:
        site.answer("an answer", topic="t")
        await stream.next("Chat")
        await alice.post("send", text="thanks", topic="t")
        (mine, _) = (await alice.get("history", topic="t")).json()
        assert (await alice.post("read", topic="t", upToMessageId=mine["id"])).json()["total"] == 0


async def test_a_topic_with_spaces_around_its_name_can_be_read(site: Site, alice: Person) -> None:
    """F107"""
    async with alice.listening() as stream:
        site.answer("spacious", topic=" t ")
        await stream.next("Chat")
        await _eventually(alice, {" t ": 1})
        assert (await alice.post("read", topic=" t ")).json() == {"topic": " t ", "unreadCount": 0, "total": 0}


async def _eventually(person: Person, counts: dict[str | None, int]) -> None:
    """The API looks at upstream at most every few seconds while nobody listens."""
    async with asyncio.timeout(8):
        while await person.unread() != counts:
            await asyncio.sleep(0.05)


async def _total(person: Person) -> int:
    """What the dashboard's title says."""
    found = re.search(r"<title>(?:\((\d+)\) )?Dashboard", (await person.client.get("/dashboard/")).text)
    assert found is not None
    return int(found[1] or 0)
