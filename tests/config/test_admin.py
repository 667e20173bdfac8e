"""Unread state in the admin: to look at, to mark as read, to compare with upstream; nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from html import unescape
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from demo.world import INVOICES
from tests.messaging.conftest import Site
from tests.messaging.people import Person
from tests.services.app import AppServer, manage
from tests.services.postgres import Postgres
from tests.services.standins import Xians

PASSWORD = "only-for-tests"
UNREAD = {"Q2 review": 2, None: 1}


class Administrator:
    """Somebody at /admin/, signed in with a password."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def sign_in(self) -> None:
        await self.client.get("/admin/login/")
        answer = await self.post("/admin/login/?next=/admin/", username="root", password=PASSWORD)
        assert answer.headers["location"] == "/admin/", answer.text[:500]

    async def post(self, path: str, **form: str) -> httpx.Response:
        form["csrfmiddlewaretoken"] = self.client.cookies["csrftoken"]
        return await self.client.post(path, data=form)

    async def rows(self, model: str, **query: str) -> list[dict[str, str]]:
        """The cells of a list by field, with `pk`."""
        page = await self.client.get(f"/admin/messaging/{model}/", params=query)
        assert page.status_code == 200, page.headers
        found = []
        for row in re.findall(r"<tr>(.*?)</tr>", page.text, re.DOTALL):
            cells = re.findall(r'class="(?:field-(\w+)[^"]*)">(.*?)</t[dh]>', row, re.DOTALL)
            told = {name: unescape(re.sub(r"<[^>]+>", "", cell)).strip() for name, cell in cells}
            pk = re.search(r'name="_selected_action" value="(\d+)"', row)
            if told:
                found.append({**told, "pk": pk[1] if pk else ""})
        return found

    async def act(self, model: str, action: str, pk: str) -> str:
        """Run an action on one row; what the admin says then."""
        path = f"/admin/messaging/{model}/"
        answer = await self.post(path, action=action, _selected_action=pk, index="0")
        assert answer.status_code == 302, answer.text[:500]
        said = re.search(r'<ul class="messagelist">(.*?)</ul>', (await self.client.get(path)).text, re.DOTALL)
        return unescape(re.sub(r"<[^>]+>", "", said[1])).strip() if said else ""


@pytest.fixture(scope="session")
def _superuser(shared: tuple[AppServer, Xians]) -> None:
    app, _ = shared
    env = {**app.env, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    manage("createsuperuser", "--noinput", "--username", "root", "--email", "root@portal.example", env=env)


@pytest_asyncio.fixture
async def admin(site: Site, _superuser: None) -> AsyncIterator[Administrator]:
    async with httpx.AsyncClient(base_url=site.app.url, timeout=30) as client:
        administrator = Administrator(client)
        await administrator.sign_in()
        yield administrator


@pytest_asyncio.fixture
async def unread(site: Site, alice: Person) -> None:
    """Alice has three unread answers in two topics."""
    async with alice.listening() as stream:
        for topic, count in UNREAD.items():
            for number in range(count):
                site.answer(f"{topic} {number}", topic=topic)
        await stream.until(lambda me: me.told("unread") and me.told("unread")[-1]["total"] == sum(UNREAD.values()))


async def test_it_shows_inboxes_with_counts_and_the_oldest(site: Site, admin: Administrator, unread: None) -> None:
    (row,) = await admin.rows("inbox", q=site.activation)
    assert (row["participant_id"], row["tenant_id"], row["agent_name"]) == ("alice@acme.example", "acme", INVOICES)
    assert row["unread_count"] == "3"
    assert re.search(r"\d{4}", row["oldest_unread"])


async def test_it_shows_topics_and_messages(site: Site, admin: Administrator, unread: None) -> None:
    topics = {row["name"]: row["unread_count"] for row in await admin.rows("topic", q=site.activation)}
    assert {name: count for name, count in topics.items() if count != "0"} == {
        "Q2 review": "2",
        "General Discussions": "1",
    }
    texts = [row for row in await admin.rows("receipt", q=INVOICES) if row["activation"] == site.activation]
    assert sorted(row["topic"] for row in texts) == ["General Discussions", "Q2 review", "Q2 review"]
    assert {row["participant"] for row in texts} == {"alice@acme.example"}
    assert all(row["read_at"] == "-" for row in texts)


async def test_it_searches_filters_and_sorts(
    site: Site, admin: Administrator, unread: None, signed_in: Callable[..., object]
) -> None:
    assert await admin.rows("inbox", q="nobody@acme.example") == []
    assert await admin.rows("inbox", tenant_id="globex") == []
    assert site.activation in {row["activation_name"] for row in await admin.rows("inbox", tenant_id="acme")}
    assert await admin.rows("topic", q="Q2 review", inbox__agent_name=INVOICES)
    assert await admin.rows("topic", q="Q2 review", inbox__agent_name="Newsroom") == []
    for column in range(1, 7):
        assert await admin.rows("inbox", o=f"-{column}")
    for column in range(1, 8):
        assert await admin.rows("topic", o=str(column))
    assert not [row for row in await admin.rows("receipt", state="read") if row["activation"] == site.activation]
    everything = await admin.rows("receipt", state="all")
    assert len([row for row in everything if row["activation"] == site.activation]) == 3


@pytest.mark.parametrize("model", ["inbox", "topic", "receipt"])
async def test_it_changes_nothing(site: Site, admin: Administrator, unread: None, model: str) -> None:
    rows = await admin.rows(model, q=INVOICES)
    path = f"/admin/messaging/{model}/{rows[0]['pk']}"
    if not rows[0]["pk"]:  # a model without actions has no boxes to tick
        page = await admin.client.get(f"/admin/messaging/{model}/")
        found = re.search(rf"/admin/messaging/{model}/\d+", page.text)
        assert found
        path = found[0]
    assert (await admin.client.get(f"/admin/messaging/{model}/add/")).status_code == 403
    assert (await admin.client.get(f"{path}/delete/")).status_code == 403
    shown = await admin.client.get(f"{path}/change/")
    assert shown.status_code == 200
    assert 'name="_save"' not in shown.text
    assert (await admin.post(f"{path}/change/", scope="forged", participant_id="forged")).status_code == 403
    assert (await admin.post(f"{path}/delete/", post="yes")).status_code == 403
    listed = await admin.client.get(f"/admin/messaging/{model}/")
    assert "delete_selected" not in listed.text
    assert "forged" not in listed.text


async def test_marking_an_inbox_read_reaches_an_open_stream(
    site: Site, admin: Administrator, alice: Person, unread: None
) -> None:
    """D5"""
    (row,) = await admin.rows("inbox", q=site.activation)
    async with alice.listening() as stream:
        assert "3 marked as read." in await admin.act("inbox", "mark_as_read", row["pk"])
        await stream.until(lambda me: me.told("unread")[-1]["total"] == 0)
        zeros = {told["topic"] for told in stream.told("unread") if told["unreadCount"] == 0}
        assert zeros >= set(UNREAD)
    assert await alice.unread() == {}
    assert "0 marked as read." in await admin.act("inbox", "mark_as_read", row["pk"])


async def test_it_marks_single_messages_read(site: Site, admin: Administrator, alice: Person, unread: None) -> None:
    rows = [row for row in await admin.rows("receipt") if row["activation"] == site.activation]
    one = next(row for row in rows if row["topic"] == "Q2 review")
    assert "1 marked as read." in await admin.act("receipt", "mark_as_read", one["pk"])
    assert await alice.unread() == {"Q2 review": 1, None: 1}


async def test_resync_brings_what_is_missing(
    site: Site, admin: Administrator, alice: Person, unread: None, postgres: Postgres
) -> None:
    """As after a bug or a restored backup: rows are gone, upstream still has the messages; what is read stays read."""
    await alice.post("read", topic=None)
    with postgres.connect(urlsplit(site.app.database_url).path.strip("/")) as connection:
        connection.execute(
            "DELETE FROM messaging_receipt USING messaging_inbox AS inbox"
            " WHERE inbox_id = inbox.id AND inbox.activation_name = %s AND read_at IS NULL",
            [site.activation],
        )
    (row,) = await admin.rows("inbox", q=site.activation)
    assert row["unread_count"] == "0"
    async with alice.listening() as stream:
        said = await admin.act("inbox", "resync", row["pk"])
        assert "2 unread after comparing with upstream: alice@acme.example" in said
        await stream.until(lambda me: any(told["total"] == 2 for told in me.told("unread")))
    (row,) = await admin.rows("inbox", q=site.activation)
    assert row["unread_count"] == "2"
    assert await alice.unread() == {"Q2 review": 2}


async def test_resync_says_when_upstream_does_not_answer(site: Site, admin: Administrator, unread: None) -> None:
    (row,) = await admin.rows("inbox", q=site.activation)
    site.xians.refuse(route="topics", status=500)
    said = await admin.act("inbox", "resync", row["pk"])
    assert "alice@acme.example" in said
    assert said.startswith("The agent server")
    assert "comparing" not in said
    assert "127.0.0.1" not in said


async def test_participants_cannot_enter(site: Site, alice: Person, unread: None) -> None:
    for path in ("/admin/", "/admin/messaging/inbox/", "/admin/messaging/receipt/"):
        answer = await alice.client.get(path)
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/admin/login/")
    answer = await alice.client.post("/admin/messaging/inbox/", data={"action": "mark_as_read"}, headers=alice.csrf())
    assert answer.status_code == 302
    assert await alice.unread() == UNREAD
