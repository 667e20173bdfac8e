"""What goes wrong with upstream, as errors of ours with a reason, counted and told to whoever can mend it.

Of httpx's exceptions only this module knows. Beneath httpx's interface runs aiohttp, too, whose own
exceptions say more than those that httpx's transport makes of them, so these are looked at first.
"""

from __future__ import annotations

import email.utils
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import httpx

from messaging import errors, metrics, wire
from messaging.tap import Truncated

log = logging.getLogger(__name__)

_MAX_RETRY_AFTER = 60
_CANNOT_CONVERSE = ("not registered", "no agent process registered", "conversational")
_SAY_AGAIN_SECONDS = 60
_REFUSALS = 5
"""After so many answers in a row that refuse our key, it is tried only once in `_PROBE_SECONDS`."""
_PROBE_SECONDS = 60

HINTS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "up_dns": (logging.WARNING, "the name in XIANS_SERVER_URL does not resolve"),
        "up_tls": (
            logging.ERROR,
            "the Xians server's TLS certificate is not to be trusted, and nothing is sent without it: check the "
            "certificate, this machine's authorities and XIANS_SERVER_URL",
        ),
        "up_key_refused": (logging.ERROR, "the Xians server refuses our credential: check XIANS_API_KEY"),
        "up_forbidden": (logging.WARNING, "security: the Xians server forbids our credential this tenant or role"),
        "up_redirect": (logging.ERROR, "the Xians server redirects, which is never followed: check XIANS_SERVER_URL"),
        "up_bad_type": (logging.WARNING, "something that is no Xians server answers: check XIANS_SERVER_URL"),
        "up_bad_encoding": (logging.WARNING, "something between us and the Xians server compresses its stream"),
    }
)
"""What an operator can do, by reason; each is said once a minute at most, whoever meets it how often."""


class translated:
    """`with translated():` the one place where httpx's and aiohttp's exceptions become ours.

    `silence` is the reason when the time is up in which something had to come.
    """

    def __init__(self, silence: str = "up_timeout") -> None:
        self._silence = silence

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _type: type[BaseException] | None, problem: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(problem, Exception) and not isinstance(problem, errors.MessagingError):
            known = _known(problem, self._silence)
            if known is not None:
                raise known from problem


def _known(problem: Exception, silence: str) -> errors.UpstreamError | None:
    told = problem.__cause__ if isinstance(problem.__cause__, aiohttp.ClientError) else problem
    match told:
        case aiohttp.ClientError():
            return _of_aiohttp(told, silence)
        case httpx.ConnectTimeout() | httpx.ConnectError() | httpx.ReadError() | httpx.RemoteProtocolError():
            return _of_tap(told)
        case TimeoutError() | httpx.TimeoutException():
            return errors.UpstreamTimeout(_said(told), reason=silence)
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.DecodingError() | ValueError():
            return errors.UpstreamMisbehaved(_said(told))
        case httpx.HTTPError() | OSError():
            return errors.UpstreamUnavailable(_said(told), reason="up_reset")
    return None


def _of_tap(problem: httpx.TransportError) -> errors.UpstreamError:
    match problem, problem.__cause__:
        case httpx.ConnectTimeout(), _:
            return errors.UpstreamUnconnected(_said(problem), reason="up_connect_timeout")
        case httpx.ConnectError(), socket.gaierror():
            return errors.UpstreamUnconnected(_said(problem), reason="up_dns")
        case httpx.ConnectError(), ssl.SSLError():
            return errors.UpstreamMisconfigured(_said(problem), reason="up_tls")
        case httpx.ConnectError(), _:
            return errors.UpstreamUnconnected(_said(problem))
        case Truncated(), _:
            return errors.UpstreamUnavailable(_said(problem), reason="up_truncated")
        case httpx.RemoteProtocolError(), _:
            return errors.UpstreamMisbehaved(_said(problem), reason="up_bad_http")
    return errors.UpstreamUnavailable(_said(problem), reason="up_reset")


def _of_aiohttp(problem: aiohttp.ClientError, silence: str) -> errors.UpstreamError:
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return errors.UpstreamUnconnected(_said(problem), reason="up_dns")
        case aiohttp.ClientSSLError():
            return errors.UpstreamMisconfigured(_said(problem), reason="up_tls")
        case aiohttp.ClientConnectorError():
            return errors.UpstreamUnconnected(_said(problem))
        case aiohttp.ConnectionTimeoutError():
            return errors.UpstreamUnconnected(_said(problem), reason="up_connect_timeout")
        case aiohttp.ServerTimeoutError():
            return errors.UpstreamTimeout(_said(problem), reason=silence)
        case aiohttp.ClientPayloadError():
            return errors.UpstreamUnavailable(_said(problem), reason="up_truncated")
        case aiohttp.ClientConnectionError():
            return errors.UpstreamUnavailable(_said(problem), reason="up_reset")
    return errors.UpstreamMisbehaved(_said(problem), reason="up_bad_http")


def _said(problem: BaseException) -> str:
    """An exception in one line, without the bytes of an answer that some of them quote."""
    text = str(problem)
    if isinstance(problem, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        text = text.partition("\\n")[0].partition("\n")[0].partition("b'")[0]
    return f"{type(problem).__name__}: {text[:200]}"


def refusal(response: httpx.Response, body: bytes) -> errors.UpstreamError:
    """The error that an answer of 300 or more stands for; upstream has eight shapes of them (xians-api.md 0.4)."""
    status = response.status_code
    said = wire.complaint(body)
    detail = f"{status} from {_call(response.request)}: {said[:300]}"
    if status < 400:
        return errors.UpstreamMisbehaved(f"{status} to {_host(response)}", reason="up_redirect")
    if status == 429:
        return errors.UpstreamUnavailable(
            detail, reason="up_throttled", retry_after=retry_after(response), throttled=True
        )
    if status >= 500 or status == 408:
        return errors.UpstreamUnavailable(detail, reason="up_5xx" if status >= 500 else "up_timeout")
    return _rejection(status, said, detail)


def _rejection(status: int, said: str, detail: str) -> errors.UpstreamRefused:
    if status == 401:
        return errors.UpstreamRefused(detail, reason="up_key_refused")
    if status == 403:
        return errors.UpstreamRefused(detail, reason="up_forbidden")
    if status == 409:
        return errors.ActivationInactive(detail)
    if status == 400 and any(words in said.lower() for words in _CANNOT_CONVERSE):
        return errors.AgentCannotConverse(detail)
    if status == 404 and said:  # an empty 404 is a route that this server does not have
        return errors.ActivationNotFound(detail)
    return errors.UpstreamRefused(detail)


def _call(request: httpx.Request) -> str:
    path: bytes = request.extensions["target"].partition(b"?")[0]
    return path.decode("ascii", "replace").rsplit("/", 1)[-1]


def _host(response: httpx.Response) -> str:
    try:
        host = urlsplit(response.headers.get("location", "")).hostname
    except ValueError:
        host = None
    return repr((host or "nowhere")[:100])


def retry_after(response: httpx.Response) -> int | None:
    """Seconds to wait as `Retry-After` says, 1 to 60; None when it says nothing that makes sense."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return max(1, min(int(value[:9]), _MAX_RETRY_AFTER))
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(1, min(round((moment - datetime.now(UTC)).total_seconds()), _MAX_RETRY_AFTER))


class Lookout:
    """Counts a client's failures, tells operators what they can mend, and rests with a key that is refused.

    `forbidden_at`: when upstream last answered 403 (monotonic); what was learnt of memberships before is in doubt.
    """

    def __init__(self, api_key: str) -> None:
        self.forbidden_at = float("-inf")
        self._key = api_key
        self._refusals = 0
        self._probe_at = 0.0
        self._said_at: dict[str, float] = {}

    @contextmanager
    def over(self, bearer: str) -> Iterator[None]:
        """Around one call. Raises UpstreamRefused instead, if this key was refused so often that asking is no use."""
        if self._is_ours(bearer):
            self._rest()
        try:
            yield
        except errors.UpstreamError as problem:
            self.failed(problem, bearer)
            raise

    def _is_ours(self, bearer: str) -> bool:
        return bool(self._key) and bearer == self._key

    def accepted(self, bearer: str) -> None:
        """Upstream has let a call in."""
        if bearer == self._key:
            self._refusals = 0

    def _rest(self) -> None:
        if self._refusals < _REFUSALS:
            return
        now = time.monotonic()
        if now < self._probe_at:
            raise errors.UpstreamRefused("not asked: the key was refused less than a minute ago", reason="up_key_rests")
        self._probe_at = now + _PROBE_SECONDS  # this call is the probe

    def failed(self, problem: errors.UpstreamError, bearer: str) -> None:
        """A call under this credential has failed, or a stream has ended."""
        is_ours = self._is_ours(bearer)
        metrics.upstream_failures.labels(problem.reason).inc()
        if problem.reason == "up_key_refused" and is_ours:
            self._refusals += 1
            self._probe_at = time.monotonic() + _PROBE_SECONDS
        elif problem.reason == "up_forbidden":
            self.forbidden_at = time.monotonic()
        now = time.monotonic()
        if problem.reason in HINTS and now - self._said_at.get(problem.reason, float("-inf")) > _SAY_AGAIN_SECONDS:
            self._said_at[problem.reason] = now
            level, hint = HINTS[problem.reason]
            key = f" (the key that ends in {self._key[-4:]})" if problem.reason == "up_key_refused" and is_ours else ""
            log.log(level, "%s%s: %s", hint, key, problem.detail)
