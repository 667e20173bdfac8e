"""A place in the stream of one process, taken to another: nothing that the first one had missed is skipped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.faults.proxy import FaultProxies
from tests.messaging.conftest import Site, alice, own_site, signed_in, site_env  # noqa: F401 - fixtures
from tests.messaging.people import Person


@pytest.mark.parametrize("is_known_there", [True, False], ids=["the other had it", "nobody had it"])
async def test_a_reader_who_moves_is_shown_what_its_first_process_had_missed(
    own_site: Site,  # noqa: F811
    alice: Person,  # noqa: F811
    fault_proxy: FaultProxies,
    *,
    is_known_there: bool,
) -> None:
    """F16, F83: upstream's stream of one process has a gap; its reader goes on at another process, which has none."""
    link = fault_proxy(own_site.xians.port)
    gappy = own_site.another_process(XIANS_SERVER_URL=link.url)
    assert await alice.unread() == {}
    async with alice.listening() as beside, alice.listening(base_url=gappy.url) as stream:
        await asyncio.to_thread(own_site.xians.wait_streams, count=2)
        own_site.answer("before")
        await stream.next("Chat")
        await beside.next("Chat")
        own_site.xians.control("freeze_reads", on=True)  # so that no comparison closes the gap in time
        link.down()
        own_site.xians.wait_streams(count=1, exactly=True)
        missed = [own_site.answer(f"missed {number}", withhold=not is_known_there, at_once=True) for number in range(3)]
        if is_known_there:
            await beside.next("Chat", 4)
        link.up()
        await asyncio.to_thread(own_site.xians.wait_streams, count=2)
        own_site.answer("after")
        event = await stream.next("Chat", 2)
        assert stream.texts() == ["before", "after"]
    own_site.xians.control("freeze_reads", on=False)
    async with alice.listening(last_event_id=event.id) as moved:
        await moved.until(lambda me: len(me.named("Chat")) >= len(missed) or me.named("resync"))
        own_site.answer("live again")
        await moved.until(lambda me: "live again" in me.texts())
        if not moved.named("resync"):  # which would be honest, too: it says that something may be missing
            assert moved.texts() == [message["text"] for message in missed] + ["live again"]


async def test_a_reader_who_moves_is_shown_what_was_stored_late_while_its_first_feed_was_young(
    own_site: Site,  # noqa: F811
    alice: Person,  # noqa: F811
    fault_proxy: FaultProxies,
) -> None:
    """F16, F83: it claims to be older than that feed, which could not compare; the other process has shown it."""
    link = fault_proxy(own_site.xians.port)
    gappy = own_site.another_process(XIANS_SERVER_URL=link.url)
    assert await alice.unread() == {}
    async with alice.listening() as beside:
        made_at = datetime.now(UTC)
        own_site.xians.control("refuse", route="topics", status=503)
        async with alice.listening(base_url=gappy.url) as stream:
            await asyncio.to_thread(own_site.xians.wait_streams, count=2)
            link.down()
            own_site.xians.wait_streams(count=1, exactly=True)
            own_site.answer("late", at_once=True, created_at=made_at.isoformat())
            await beside.until(lambda me: [told["total"] for told in me.told("unread")] == [1])
            link.up()
            await asyncio.to_thread(own_site.xians.wait_streams, count=2)
            own_site.answer("after")
            event = await stream.next("Chat")
            assert stream.texts() == ["after"]
    own_site.xians.control("forgive")
    async with alice.listening(last_event_id=event.id) as moved:
        await moved.next("Chat")
        own_site.answer("live again")
        await moved.next("Chat", 2)
        assert moved.texts() == ["late", "live again"]
