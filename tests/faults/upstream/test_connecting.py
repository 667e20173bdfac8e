"""Connecting to upstream: everything that can stand in the way of its stream (reliability.md F1-F14)."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demo.world import API_KEY
from tests.faults.upstream.desk import Desk, eventually, failures, page_stream, told
from tests.faults.upstream.hostile import Exchange, Hostile, Script, Then
from tests.messaging.people import Person
from tests.services.app import AppServer
from tests.services.ports import free_port

CONNECTS = 6  # the first, and five tries more
LONGEST = 60
SECRET = "not-for-any-log"


def answer(status: int, body: bytes = b"", content_type: str = "text/html", **headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head(status, content_type, **headers)
        for start in range(0, len(body), 65536):
            await exchange.chunk(body[start : start + 65536])
        await exchange.finish()

    return script


def raw(data: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(data)

    return script


async def flapping(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.event("connected", {"tenantId": "acme"})
    await exchange.finish()


async def zipped(exchange: Exchange) -> None:
    await exchange.head(Content_Encoding="gzip")
    await exchange.hang()


async def mute(exchange: Exchange) -> None:
    await exchange.hang()


async def dripping(exchange: Exchange) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Slow: " + b"x" * LONGEST:
        await exchange.raw(bytes([byte]))
        await asyncio.sleep(0.5)


HUGE_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(1000)) + b"\r\n"
LOGIN_PAGE = f"<html><title>Log in {SECRET}</title>data: {{}}\n\n".encode() * 100

OUTAGES: dict[str, tuple[str, Script]] = {
    "F8 500": ("up_5xx", answer(500, SECRET.encode() * 700_000)),  # 10 MiB
    "F8 502": ("up_5xx", answer(502, LOGIN_PAGE)),
    "F8 503": ("up_5xx", answer(503)),
    "F8 504": ("up_5xx", answer(504)),
    "F9 html": ("up_bad_type", answer(200, LOGIN_PAGE)),
    "F9 json": ("up_bad_type", answer(200, b'{"text":"not-for-any-log"}', "application/json")),
    "F12 headers without end": ("up_bad_http", raw(HUGE_HEADERS)),
    "F12 no HTTP": ("up_bad_http", raw(b"SSH-2.0-not-for-any-log\r\n\r\n")),
    "F13 flapping": ("up_flap", flapping),
    "F14 gzip": ("up_bad_encoding", zipped),
    "dropped": ("up_reset", raw(b"")),
}


async def outage(desk: Desk, person: Person, script: Then) -> list[dict[str, Any]]:
    """Watch a page's stream to its end; what it said of itself."""
    async with page_stream(desk.of(person), desk.app) as stream:
        script.begin()
        await stream.until(lambda me: me.is_over, within=LONGEST)
        return [status for status in told(stream, "status") if status["state"] == "reconnecting"]


async def test_it_tries_five_times_and_says_so_whatever_is_in_the_way(site: Desk, alice: Person) -> None:
    """F1, F8, F9, F10, F12, F13, F14: waits of 1, 2, 4, 8, 16 s, six connections, then the stream ends.

    The page hears each attempt with its wait, and goes to the waiting room when the stream ends (test_outage.py). None
    of it resets the count: not `connected` (F13), not an answer of 200 (F9). A redirect leads nowhere (F10). What the
    answers hold is in no log.
    """
    elsewhere = Hostile(0)
    elsewhere.script(answer(200), call="*")
    outages = {**OUTAGES, "F10 redirect": ("up_redirect", answer(302, Location=f"{elsewhere.url}/listen?user=alice"))}
    before = failures(site.app)
    scripts = {name: Then(fault) for name, (_, fault) in outages.items()}
    desks = {name: site.another(script) for name, script in scripts.items()}
    stories = await asyncio.gather(*(outage(desks[name], alice, script) for name, script in scripts.items()))
    for name, story in zip(desks, stories, strict=True):
        assert [status["attempt"] for status in story] == [1, 2, 3, 4, 5], name
        for status in story:
            least = 2 ** (status["attempt"] - 1)
            assert least <= status["retryInSeconds"] <= least * 1.2 + 0.1, name
        # aiohttp asks once more, at once, where there was no answer at all
        assert CONNECTS <= desks[name].connects <= (2 * CONNECTS - 1 if name == "dropped" else CONNECTS), name
        times = site.hostile.times(activation=desks[name].activation)
        assert 31 <= times[-1] - times[0] <= 31 * 1.2 + 10, name
    after = failures(site.app)
    for reason in {reason for reason, _ in outages.values()}:
        rows = sum(row == reason for row, _ in outages.values())
        assert after[reason] - before.get(reason, 0) == rows * (CONNECTS - 1), reason
    log = site.app.log_text()
    assert all(reason in log for reason in after)
    assert SECRET not in log
    assert not elsewhere.asked
    elsewhere.close()


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "Text/Event-Stream;charset=latin-1"), (200, "text/event-stream")]
)
async def test_it_reads_utf8_whatever_the_type_says_beside_its_essence(
    site: Desk, alice: Person, status: int, content_type: str
) -> None:
    """F9: parameters of the content type are ignored: event streams are UTF-8."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(status, content_type)
        await exchange.event("connected", {"tenantId": "acme"})
        await exchange.event("Chat", await asyncio.to_thread(desk.stored, "Grüße, 東京"))
        await exchange.stay()

    desk = site.another(script)
    async with desk.of(alice).listening() as stream:
        await stream.next("Chat")
        assert stream.texts() == ["Grüße, 東京"]


async def test_it_asks_for_a_plain_stream_under_its_own_key(site: Desk, alice: Person) -> None:
    """F14: `Accept-Encoding: identity`."""

    async def script(exchange: Exchange) -> None:
        await exchange.live()
        await exchange.stay()

    desk = site.another(script)
    async with desk.of(alice).listening():
        asked = [
            asked for asked in site.hostile.asked if asked.activation == desk.activation and asked.call == "listen"
        ]
        assert asked[0].headers["accept-encoding"] == "identity"
        assert asked[0].headers["accept"] == "text/event-stream"
        assert "last-event-id" not in asked[0].headers


async def test_headers_have_ten_seconds_in_all(site: Desk, alice: Person) -> None:
    """F11, F12: no headers, or one byte at a time: 504 after 10 s, and the connection is closed on our side."""
    gone: list[str] = []

    def watched(fault: Script) -> Script:
        async def script(exchange: Exchange) -> None:
            try:
                await fault(exchange)
            finally:
                gone.append(exchange.asked.activation)

        return script

    before = failures(site.app)
    desks = [site.another(watched(fault)) for fault in (mute, dripping)]
    for desk in desks:
        await desk.of(alice).unread()
    started = time.monotonic()
    answers = await asyncio.gather(*(desk.of(alice).get("listen") for desk in desks))
    assert 9 < time.monotonic() - started < 20
    for refused in answers:
        assert (refused.status_code, refused.json()["code"]) == (504, "UPSTREAM_TIMEOUT")
    await eventually(lambda: set(gone) == {desk.activation for desk in desks})
    assert failures(site.app)["up_header_timeout"] - before.get("up_header_timeout", 0) == len(desks)


async def test_a_throttle_is_waited_for_and_takes_none_of_the_five_tries(site: Desk, alice: Person) -> None:
    """F7: `Retry-After` in seconds, as a date, absent, garbage, negative, 10⁹: the longer wait, 60 s at most."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)
    asked: list[tuple[str | None, float, float]] = [
        ("2", 2, 2),
        ("soon", 1, 6),
        ("-5", 1, 6),
        (None, 1, 6),
        ("0", 1, 2),
        (email.utils.format_datetime(soon, usegmt=True), 1, 9),
        ("1000000000", 60, 60),
    ]

    async def throttled(exchange: Exchange) -> None:
        wait = asked[exchange.number - 2][0]
        refuse = answer(429, Retry_After=wait) if wait else answer(429)
        await refuse(exchange)

    script = Then(throttled)
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as stream:
        script.begin()
        count = 1 + len(asked)
        await stream.until(
            lambda me: len([s for s in told(me, "status") if s["state"] == "reconnecting"]) == count, within=LONGEST
        )
        first, *throttles = [s for s in told(stream, "status") if s["state"] == "reconnecting"]
    assert first["attempt"] == 1
    for (wait, least, most), status in zip(asked, throttles, strict=True):
        assert status["attempt"] == 1, wait
        assert least <= status["retryInSeconds"] <= most + 0.5, wait
    assert "up_throttled" in site.app.log_text()


async def test_a_throttle_at_the_first_connection_reaches_the_client(site: Desk, alice: Person) -> None:
    """F7: 503 with `Retry-After`, marked so that the page doesn't count it as an attempt."""
    desk = site.another(answer(429, Retry_After="17"))
    refused = await desk.of(alice).get("listen")
    assert (refused.status_code, refused.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert refused.headers["retry-after"] == "17"
    assert refused.json()["details"]["throttled"] is True


@pytest.mark.parametrize(
    ("status", "body", "told_as"),
    [
        (404, b'{"error":"Activation not found"}', (404, "ACTIVATION_NOT_FOUND")),
        (400, b'{"error":"No agent process registered for x"}', (422, "AGENT_CANNOT_CONVERSE")),
        (409, b'{"error":"Activation is deactivated"}', (409, "ACTIVATION_INACTIVE")),
        (403, b'{"message":"Tenant scope mismatch"}', (502, "UPSTREAM_REJECTED")),
        (401, b'{"message":"Invalid API key"}', (502, "UPSTREAM_REJECTED")),
    ],
)
async def test_it_does_not_try_again_where_a_person_must_act_first(
    site: Desk, alice: Person, status: int, body: bytes, told_as: tuple[int, str]
) -> None:
    """F4, F5, F6: a live stream that is refused when it reconnects ends at once, and the client is told why.

    By interfaces.md 403 and 401 mean our key and not the person: they are 502, and the person stays signed in.
    """
    script = Then(answer(status, body, "application/json"))
    desk = site.another(script)
    async with page_stream(desk.of(alice), site.app) as stream:
        script.begin()
        await stream.until(lambda me: me.is_over)
        assert [s["attempt"] for s in told(stream, "status") if s["state"] == "reconnecting"] == [1]
    assert desk.connects == 2
    refused = await desk.of(alice).get("listen")
    assert (refused.status_code, refused.json()["code"]) == told_as
    assert refused.json()["details"]["retryable"] is False
    assert (await alice.client.get("/api/tenants/")).status_code == 200


# -- with a server of their own -------------------------------------------------------------------------------


@pytest.fixture
def strict(site: Desk) -> Iterator[tuple[AppServer, Hostile]]:
    """A process that nobody else uses, on the same database, behind an upstream that nobody else scripts."""
    hostile = Hostile(site.xians.port)
    yield site.another_process(XIANS_SERVER_URL=hostile.url, XIANS_TENANTS_CACHE_SECONDS="300"), hostile
    hostile.close()


async def listen_at(app: AppServer, person: Person, names: dict[str, str]) -> httpx.Response:
    return await person.client.get(app.url + person.path("listen"), params=names)


async def test_a_refused_key_is_not_tried_again_and_again(
    strict: tuple[AppServer, Hostile], site: Desk, alice: Person
) -> None:
    """F4: however many clients ask, upstream is asked a handful of times and then once a minute; the log has a hint."""
    app, hostile = strict
    await alice.client.get(app.url + alice.path("unread"), params=site.names)
    hostile.script(answer(401, b'{"error":"Unauthorized","message":"Invalid API key"}', "application/json"), call="*")
    asked = hostile.count(call="*")
    for _ in range(15):
        refused = await listen_at(app, alice, site.names)
        assert (refused.status_code, refused.json()["code"]) == (502, "UPSTREAM_REJECTED")
        assert "administrator" in refused.json()["error"]
    assert hostile.count(call="*") - asked <= 6
    assert (await alice.client.get(app.url + "/api/tenants/")).status_code == 200
    log = app.log_text()
    assert log.count("check XIANS_API_KEY") == 1
    assert "ERROR messaging.failures the Xians server refuses our credential: check XIANS_API_KEY" in log
    assert f"(the key that ends in {API_KEY[-4:]})" in log
    assert API_KEY not in log
    counted = failures(app)
    assert counted["up_key_refused"] <= 6
    assert "up_key_rests" not in counted  # what was not asked is no failure of upstream


async def test_a_forbidden_tenant_puts_what_we_know_of_memberships_in_doubt(
    strict: tuple[AppServer, Hostile], site: Desk, alice: Person
) -> None:
    """F5: no second try, a line for the security people, and memberships are asked for anew."""
    app, hostile = strict
    await alice.client.get(app.url + alice.path("unread"), params=site.names)
    assert hostile.count(call=alice.email) == 1
    await alice.client.get(app.url + alice.path("unread"), params=site.names)
    assert hostile.count(call=alice.email) == 1
    hostile.script(answer(403, b'{"message":"Tenant scope mismatch"}', "application/json"), activation=site.activation)
    assert (await listen_at(app, alice, site.names)).status_code == 502
    assert hostile.count() == 1
    await alice.client.get(app.url + alice.path("unread"), params=site.names)
    assert hostile.count(call=alice.email) == 2
    assert "WARNING messaging.failures security: the Xians server forbids our credential" in app.log_text()
    assert failures(app)["up_forbidden"] == 1


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_an_untrusted_certificate_is_a_matter_for_operators(
    site: Desk, alice: Person, self_signed: ssl.SSLContext
) -> None:
    """F3: refused at once in the words of configuration; not one byte of a request goes over the connection."""
    hostile = Hostile(site.xians.port, tls=self_signed)
    app = site.another_process(XIANS_SERVER_URL=hostile.url)
    refused = await listen_at(app, alice, site.names)
    assert (refused.status_code, refused.json()["code"]) == (502, "UPSTREAM_REJECTED")
    assert refused.json()["details"]["retryable"] is False
    assert "administrator" in refused.json()["error"]
    page = await alice.client.get(f"{app.url}/conversations/")
    assert page.status_code == 502
    assert "administrator" in page.text
    assert (await alice.client.get(f"{app.url}/readyz")).status_code == 503
    assert not hostile.asked
    assert "ERROR messaging.failures the Xians server's TLS certificate is not to be trusted" in app.log_text()
    assert failures(app)["up_tls"] >= 2
    hostile.close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param(lambda: f"http://127.0.0.1:{free_port()}", "up_refused", id="F1"),
        pytest.param(lambda: "http://nx.invalid", "up_dns", id="F2"),
    ],
)
async def test_an_upstream_that_is_not_there_is_told_within_the_connect_limit(
    site: Desk, alice: Person, address: Callable[[], str], reason: str
) -> None:
    """F1, F2: 503 with `Retry-After`; the log names the reason, the hint for operators comes once."""
    app = site.another_process(XIANS_SERVER_URL=address())
    started = time.monotonic()
    for _ in range(3):
        refused = await listen_at(app, alice, site.names)
        assert (refused.status_code, refused.json()["code"]) == (503, "UPSTREAM_UNAVAILABLE")
        assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - started < 3 * 5 + 3
    log = app.log_text()
    assert f"UPSTREAM_UNAVAILABLE: {reason}: " in log
    assert log.count("does not resolve") == (reason == "up_dns")
    assert failures(app)[reason] == 3
