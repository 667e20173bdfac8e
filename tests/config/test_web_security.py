"""Cookies and headers with the settings of production."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookies import Morsel, SimpleCookie

import httpx
import pytest

from tests.config.visitor import Portal
from tests.services.app import AppServer
from tests.services.ports import free_port

HTTPS = {"X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def production(_shared_portal: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """One more process of the portal, with the settings of production."""
    app = AppServer(
        "uvicorn",
        application="config.asgi:application",
        port=free_port(),
        env={**_shared_portal.app.env, "DJANGO_DEBUG": "0", "DJANGO_PLAIN_HTTP": "0", "DJANGO_LOG_LEVEL": "INFO"},
        log=tmp_path_factory.mktemp("production") / "app.log",
        ready_path="/healthz",
    )
    yield app
    app.kill()


class Browser:
    """Talks to a proxy that ends TLS; it returns every cookie, since a jar would hold Secure ones back here."""

    def __init__(self, app: AppServer) -> None:
        self._client = httpx.Client(base_url=app.url, timeout=30)
        self._held: dict[str, str] = {}
        self.set: list[Morsel[str]] = []

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self._held.items())
        answer = self._client.get(path, headers={**HTTPS, "Cookie": cookies})
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.set.append(morsel)
                self._held[name] = morsel.value
        return answer

    def post(self, path: str, form: dict[str, str]) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self._held.items())
        form = {**form, "csrfmiddlewaretoken": self._held["__Host-csrftoken"]}
        headers = {**HTTPS, "Cookie": cookies, "Referer": str(self._client.base_url).replace("http:", "https:")}
        return self._client.post(path, data=form, headers=headers)


@pytest.fixture
def browser(production: AppServer) -> Iterator[Browser]:
    browser = Browser(production)
    yield browser
    browser.close()


def test_every_cookie_is_for_this_host_and_for_https_only(portal: Portal, browser: Browser) -> None:
    """F129"""
    at_provider = browser.get("/oidc/authenticate/").headers["location"]
    assert "redirect_uri=https%3A%2F%2F" in at_provider
    assert browser.get(portal.provider.accept(at_provider)).headers["location"] == "/dashboard/"
    assert browser.get("/dashboard/").status_code == 200
    assert browser.get("/admin/login/").status_code in (200, 302)
    assert {morsel.key for morsel in browser.set} == {"__Host-sessionid", "__Host-csrftoken"}
    for morsel in browser.set:
        assert morsel["secure"]
        assert bool(morsel["httponly"]) == (morsel.key == "__Host-sessionid")
        assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("Lax", "/", "")
    assert browser.post("/oidc/logout/", {}).headers["location"] == "/login/"


def test_every_answer_carries_the_security_headers(portal: Portal, browser: Browser) -> None:
    answers = {
        path: browser.get(path)
        for path in (
            *("/login/", "/server-unavailable/", "/healthz", "/api/tenants/", "/dashboard/", "/nowhere/"),
            *("/admin/login/", "/oidc/authenticate/", "/oidc/callback/", "/static/css/tokens.css"),
        )
    }
    for path, answer in answers.items():
        headers = answer.headers
        assert headers["strict-transport-security"].startswith("max-age=31536000"), path
        assert headers["x-content-type-options"] == "nosniff", path
        if path.startswith("/static/"):
            continue
        assert headers["referrer-policy"] == "same-origin", path
        assert headers["x-frame-options"] == "DENY", path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "script-src 'self';" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert f"form-action 'self' {portal.provider.issuer};" in policy, path
    assert answers["/nowhere/"].status_code in (302, 404)
    for path in ("/login/", "/api/tenants/"):
        assert "no-" in answers[path].headers.get("cache-control", ""), path


def test_it_answers_in_https_only(production: AppServer) -> None:
    with httpx.Client(base_url=production.url) as client:
        answer = client.get("/login/")
        assert (answer.status_code, answer.headers["location"][:8]) == (301, "https://")
        for machines in ("/healthz", "/readyz", "/metrics"):
            assert client.get(machines).status_code in (200, 503)


def test_it_answers_to_its_own_hosts_only(production: AppServer) -> None:
    with httpx.Client(base_url=production.url) as client:
        answer = client.get("/login/", headers={**HTTPS, "Host": "evil.example"})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_an_error_page_shows_nothing_of_the_inside(portal: Portal, browser: Browser) -> None:
    """F134"""
    for path in ("/nowhere/", "/static/nowhere", "/oidc/callback/?state=x", "/%00", "/conversations/%ff/"):
        answer = browser.get(path)
        assert answer.status_code in (302, 400, 404), path
        for inside in ("Traceback", "Django", "settings", "config.", portal.xians.url, "canary"):
            assert inside not in answer.text, path
