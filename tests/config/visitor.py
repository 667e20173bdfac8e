"""The portal with the scripted provider, and somebody's browser at it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.contrib.sessions.backends.db import SessionStore

from demo.world import INVOICES
from tests.config.provider import Provider
from tests.services.app import AppServer
from tests.services.postgres import Postgres
from tests.services.standins import Xians

ACTIVATION = "Nordic desk"
NAMES = {"agentName": INVOICES, "activationName": ACTIVATION}


@dataclass
class Portal:
    """The application, its provider and its upstream; the database as an administrator sees it.

    `log_begins`: how much was in the application's log when this test began.
    """

    app: AppServer
    provider: Provider
    xians: Xians
    postgres: Postgres
    log_begins: int = 0

    def log_text(self) -> str:
        """What the application has logged in this test; its process serves others, too."""
        return self.app.log_text()[self.log_begins :]

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one SQL statement."""
        with self.postgres.connect(urlsplit(self.app.database_url).path.strip("/")) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def session(self, key: str) -> dict[str, Any]:
        """What a session holds."""
        rows = self.rows("SELECT session_data FROM django_session WHERE session_key = %s", key)
        return SessionStore().decode(rows[0][0]) if rows else {}

    def let_pass(self, key: str, seconds: float) -> None:
        """Make a session that much older."""
        held = self.session(key)
        older = {name: value - seconds if name.endswith("_at") else value for name, value in held.items()}
        data = SessionStore().encode(older)
        self.rows("UPDATE django_session SET session_data = %s WHERE session_key = %s", data, key)


class Visitor:
    """A browser: keeps cookies, and looks at each redirect before following it."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.client = httpx.AsyncClient(base_url=portal.app.url, timeout=30)

    @property
    def key(self) -> str:
        """Of the session, as the cookie has it."""
        return self.client.cookies.get("sessionid") or ""

    async def start(self, **query: str) -> str:
        """Press "Sign in"; the address at the provider."""
        answer = await self.client.get("/oidc/authenticate/", params=query)
        assert answer.status_code == 302
        return answer.headers["location"]

    async def sign_in(self, **query: str) -> httpx.Response:
        """Through the provider, which agrees to everything; the answer to the callback."""
        return await self.client.get(self.portal.provider.accept(await self.start(**query)))

    async def is_signed_in(self) -> bool:
        answer = await self.client.get("/api/tenants/")
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200

    async def send(self, text: str) -> httpx.Response:
        await self.client.get("/dashboard/")
        headers = {"X-CSRFToken": self.client.cookies.get("csrftoken") or ""}
        body = {**NAMES, "text": text}
        return await self.client.post("/api/tenants/acme/messaging/send", json=body, headers=headers)

    def account(self) -> tuple[Any, ...]:
        """(username, e-mail, first name, last name) of who is signed in."""
        user = self.portal.session(self.key)["_auth_user_id"]
        return self.portal.rows(
            "SELECT username, email, first_name, last_name FROM auth_user WHERE id = %s", int(user)
        )[0]


def failed_because(answer: httpx.Response) -> str:
    """The reason with which a sign-in ended at the login page."""
    assert answer.status_code in (302, 303), answer.text[:500]
    target = urlsplit(answer.headers["location"])
    assert (target.netloc, target.path) == ("", "/login/"), answer.headers["location"]
    return parse_qs(target.query)["failed"][0]


def authorization_sent(xians: Xians, text: str) -> str:
    """What `send` handed the agent with this text."""
    bodies = [json.loads(request["body"]) for request in xians.requests(route="send")]
    (found,) = [body["authorization"] for body in bodies if body["text"] == text]
    assert isinstance(found, str)
    return found
