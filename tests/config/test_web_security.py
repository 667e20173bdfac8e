"""Cookies and headers with the settings of production."""

from __future__ import annotations

import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from http.cookies import Morsel, SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psycopg
import pytest

from config.logs import OneLine
from tests.config.visitor import Portal
from tests.services.app import AppServer, AppServers, environment
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
        self.app = app
        self._client = httpx.Client(base_url=app.url, timeout=30)
        self._held: dict[str, str] = {}
        self.set: list[Morsel[str]] = []

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self._held.items())
        answer = self._client.get(path, headers={**HTTPS, "Cookie": cookies, **(headers or {})})
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.set.append(morsel)
                self._held[name] = morsel.value
        return answer

    def post(self, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self._held.items())
        form = {**form, "csrfmiddlewaretoken": self._held.get("__Host-csrftoken", "")}
        own = {**HTTPS, "Cookie": cookies, "Referer": str(self._client.base_url).replace("http:", "https:")}
        return self._client.post(path, data=form, headers={**own, **(headers or {})})


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
    """F127, F128: no frame, and a policy under which nothing inline runs."""
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
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        assert "access-control-allow-origin" not in headers, path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "script-src 'self';" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert f"form-action 'self' {portal.provider.issuer};" in policy, path
    assert answers["/nowhere/"].status_code in (302, 404)
    for path in ("/login/", "/api/tenants/"):
        assert "no-" in answers[path].headers.get("cache-control", ""), path


def test_a_page_of_another_site_may_link_here_and_nothing_more(browser: Browser) -> None:
    """F113: what a browser says of other sites' scripts, images and frames is believed."""
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame, script = {**link, "Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    for site in ("cross-site", "same-site"):
        assert browser.get("/login/", {**link, "Sec-Fetch-Site": site}).status_code == 200
        for path, how in (("/login/", frame), ("/login/", script), ("/api/tenants/", link), ("/api/tenants/", script)):
            answer = browser.get(path, {**how, "Sec-Fetch-Site": site})
            assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_SITE"), path
    for site in ("same-origin", "none", "nonsense"):
        assert browser.get("/api/tenants/", {**script, "Sec-Fetch-Site": site}).status_code == 401


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


def spoken(app: AppServer, request: bytes) -> bytes:
    """What is answered to these very bytes, until the server has no more to say."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as connection:
        connection.sendall(request)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
    return said


@pytest.mark.parametrize(
    "headers",
    [
        b"X_Forwarded_Proto: https",
        b"X_FORWARDED_PROTO: https",
        b"HTTP_X_FORWARDED_PROTO: https",
        b"X-Forwarded_Proto: https",
        b"X-Forwarded-Scheme: https",
        b"Forwarded: proto=https;host=evil.example",
        b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 666\r\nX-Original-URL: /admin/\r\nX-Rewrite-URL: /admin/",
    ],
)
def test_a_header_that_only_looks_like_the_proxys_is_ignored(production: AppServer, headers: bytes) -> None:
    """F132: spelled with underscores, or one that we never believe. The proxy's own is X-Forwarded-Proto."""
    head = b"GET /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    answer = spoken(production, head + headers + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 301"), answer[:200]
    assert b"location: https://127.0.0.1/login/\r\n" in answer.lower()
    assert b"evil" not in answer


def test_a_forged_identity_header_makes_nobody_of_anybody(production: AppServer) -> None:
    """F132: no header names a person."""
    forged = b"Remote-User: admin\r\nREMOTE_USER: admin\r\nX_Forwarded_User: admin\r\nX-Forwarded-For: 127.0.0.1\r\n"
    head = b"GET /api/tenants/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n"
    assert spoken(production, head + forged + b"\r\n").startswith(b"HTTP/1.1 401")


_EVENT = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?P<level>[A-Z]+) [\w.]+ |INFO:     ")
FAKE = "2026-01-01 00:00:00,000 ERROR root fake-event"
POISON = [
    f"\r\n{FAKE}",
    f"\n{FAKE}",
    f"\r{FAKE}",
    f"\x85{FAKE}",
    f"\u2028{FAKE}",
    "\x1b[2J\x1b[31mred",
    "\x07\x08",
    "x" * 20_000,
]


@pytest.mark.parametrize("poison", POISON, ids=lambda text: repr(text[:6]))
def test_whatever_a_stranger_writes_stays_inside_one_line_of_the_log(browser: Browser, poison: str) -> None:
    """F133: in paths, queries, headers, forms and the provider's answer; every line at the margin is one of ours."""
    app = browser.app
    before = len(app.log_text())
    quoted = quote(poison[:6_000])
    browser.get(f"/nowhere/{quoted}")
    browser.get(f"/oidc/callback/?error={quoted}&state={quoted}")
    at_provider = browser.get("/oidc/authenticate/").headers["location"]
    state = parse_qs(urlsplit(at_provider).query)["state"][0]
    browser.get(f"/oidc/callback/?error={quoted}&state={state}")
    browser.get(f"/conversations/{quoted}/x/?topic={quoted}&tenant={quoted}")
    browser.post("/oidc/logout/", {"csrf": poison}, {"Origin": f"https://{quoted[:500]}"})
    browser.post("/login/", {"x": poison})
    written = app.log_text()[before:]
    assert written
    for line in written.split("\n")[1:-1]:
        assert _EVENT.match(line) or line.startswith("    "), line[:300]
        assert not line.startswith(FAKE)
        assert len(line) < 10_000 or line.startswith("INFO:     ")  # uvicorn's own
    assert not set(written) & (set(map(chr, range(32))) | {"\x7f", "\x85", "\u2028"}) - {"\n", "\t"}


def test_a_traceback_is_part_of_its_event() -> None:
    """F133: an exception may quote a stranger; each of its lines is indented, so that none can pose as an event."""
    formatter = OneLine("%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        raise ValueError(f"cut\n{FAKE}\r\x1b[31m")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "failed: %s\n%s", ("x", FAKE), sys.exc_info())
    first, *rest = formatter.format(record).split("\n")
    assert first.endswith(f"failed: x\\x0a{FAKE}")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in first + "".join(rest)


def test_an_error_of_ours_has_a_number_and_no_secret(
    portal: Portal, app_server: AppServers, fresh_database: Callable[[], str]
) -> None:
    """F134: the page and the API say a number that the log has, too; no canary is in either."""
    env = {**portal.app.env, "DATABASE_URL": fresh_database(), "DJANGO_DEBUG": "0", "DJANGO_PLAIN_HTTP": "1"}
    app = app_server(env={**env, "DJANGO_LOG_LEVEL": "DEBUG"})
    with psycopg.connect(app.database_url, autocommit=True) as database:
        database.execute("ALTER TABLE django_session RENAME TO taken_away")
    headers = {"Cookie": "sessionid=canary-session-0123456789; csrftoken=x", "Authorization": "Bearer canary-header"}
    with httpx.Client(base_url=app.url, headers=headers, timeout=30) as client:
        page = client.get("/dashboard/")
        told = client.get("/api/tenants/")
    assert (page.status_code, told.status_code) == (500, 500)
    assert told.json()["code"] == "INTERNAL_ERROR"
    number = re.search(r"<code>(\w{12})</code>", page.text)
    assert number
    log = app.log_text()
    for request_id in (number[1], told.json()["details"]["requestId"]):
        assert f"{request_id} INTERNAL_ERROR" in log
    secrets = [env["XIANS_API_KEY"], env["OIDC_CLIENT_SECRET"], environment({})["DJANGO_SECRET_KEY"], "canary"]
    for place in (page.text, told.text, log, str(page.headers)):
        for secret in secrets:
            assert secret not in place
    for place in (page.text, told.text):
        assert "Traceback" not in place
        assert "django_session" not in place
