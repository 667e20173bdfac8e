"""What every request passes: it is our own, the sign-in is kept fresh, and without one there is nothing to see.

A database that is away is an outage to come back from, and no error page.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

import requests
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY, alogout
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import cache
from django.db import InterfaceError, InternalError, OperationalError, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse

from config import provider, tokens
from config.auth import client_credentials
from conversations.answers import outage
from messaging import errors
from messaging.answers import refusal
from messaging.runtime import Runtime

log = logging.getLogger(__name__)

type GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)  # the last: it takes no writes (a failover)
_SAY_AGAIN_SECONDS = 10
_LOCK_SECONDS = 20
_WAIT_SECONDS = 0.1


class OwnPagesOnly:
    """Pages of other sites may link to our pages, and that is all: no script, image or frame of theirs gets an answer.

    The browser says where a request comes from (Sec-Fetch-Site); other clients don't, and other browsers' scripts
    can't read what we answer. A `listen` that shows a topic reads it, so that even opening one matters.
    """

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = await self.get_response(request) if self._is_welcome(request) else self._refused()
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    def _is_welcome(self, request: HttpRequest) -> bool:
        if request.headers.get("Sec-Fetch-Site") not in ("cross-site", "same-site"):
            return True
        is_page = request.headers.get("Sec-Fetch-Dest") == "document" and not request.path.startswith("/api/")
        return is_page and request.headers.get("Sec-Fetch-Mode") == "navigate"

    def _refused(self) -> HttpResponse:
        sentence = "This address answers to pages of this site only."
        return JsonResponse({"error": sentence, "code": "CROSS_SITE", "details": {}}, status=403)


class DatabaseAway:
    """Answers 503 with Retry-After while the database can't be reached: JSON to scripts, a page to people."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._said_at = float("-inf")
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and not request.path.startswith(_NO_SESSION):
            try:
                await request.auser()  # loads the session
            except _DATABASE_AWAY as problem:
                return self._unavailable(request, problem)
        return await self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        return self._unavailable(request, exception) if isinstance(exception, _DATABASE_AWAY) else None

    def _unavailable(self, request: HttpRequest, problem: Exception) -> HttpResponseBase:
        reason = str(problem).strip().partition("\n")[0][:300]
        if time.monotonic() - self._said_at > _SAY_AGAIN_SECONDS:
            self._said_at = time.monotonic()
            log.error("the database can't be used: %s", reason)
        error = errors.LedgerUnavailable(reason)
        return refusal(error) if _is_script(request) else outage(request, error)


class KeepSignedIn:
    """Renews the person's access token before it expires; a provider that refuses to has signed them out."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and not request.path.startswith(_NO_SESSION):
            await request.auser()  # loads the session
            if request.session.session_key and tokens.is_due(request.session):
                try:
                    await _release_connection()
                    await self._renew(request)
                except _DATABASE_AWAY as problem:  # the next request tries again
                    log.warning("access token not renewed: %s", type(problem).__name__)
        return await self.get_response(request)

    async def _renew(self, request: HttpRequest) -> None:
        key = request.session.session_key or ""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            is_signed_in = await sync_to_async(self._renew_now)(
                request, f"renew:{hashlib.sha256(key.encode()).hexdigest()}"
            )
        if not is_signed_in:
            await alogout(request)

    def _renew_now(self, request: HttpRequest, lock: str) -> bool:
        """Whether the person is still signed in."""
        if not _takes(lock):  # another process is at it; the old token still has a while
            return True
        try:
            fresh = request.session.__class__(request.session.session_key)
            if tokens.is_due(fresh):
                return self._ask(request, fresh)
            is_signed_in = SESSION_KEY in fresh  # another request has renewed it, or has signed them out
            request.session = fresh
            return is_signed_in
        finally:
            _drops(lock)

    def _ask(self, request: HttpRequest, session: Any) -> bool:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh_token(session) or "",
            **client_credentials(),
        }
        try:
            answer = requests.post(provider.endpoint("token_endpoint"), data=form, timeout=settings.OIDC_TIMEOUT)
            told = answer.json() if answer.status_code in (200, 400, 401) else {}
        except (requests.RequestException, ValueError, provider.ProviderUnavailable) as problem:
            log.warning("access token not renewed: %s", type(problem).__name__)
            told = {}
        session = session.__class__(session.session_key)  # as it is by now: that took a while
        if SESSION_KEY not in session:  # they signed out in another tab meanwhile
            return False
        if isinstance(told, dict) and "access_token" in told:
            tokens.store(session, told)
        elif isinstance(told, dict) and told.get("error") == "invalid_grant":  # nothing else is about this person
            log.info("the provider refuses to renew an access token: signed out")
            session.delete()  # while the lock is held: whoever waits for it must not ask again
            return False
        else:
            tokens.note_failure(session)
        try:
            session.save()
        except UpdateError:  # they signed out this very moment
            return False
        request.session = session
        return True


def _takes(lock: str) -> bool:
    """Not while the cache is away: a refresh token that two processes use at once may be revoked."""
    try:
        return cache.add(lock, 1, _LOCK_SECONDS)
    except Runtime.channel_layer_errors as problem:
        log.warning("access token not renewed: %s", type(problem).__name__)
        return False


def _drops(lock: str) -> None:
    with suppress(*Runtime.channel_layer_errors):  # it ends by itself
        cache.delete(lock)


async def _release_connection() -> None:
    """Give the connection that the session was loaded over back to the pool.

    Django would keep it until the answer is sent, while the view waits for upstream, or for another connection of the
    same pool: eight such requests, and everybody waits for everybody.
    """
    await sync_to_async(_release)()


def _release() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def _is_script(request: HttpRequest) -> bool:
    """Whether the answer is for a program, which wants a status and JSON."""
    return request.path.startswith("/api/") or request.headers.get("Accept", "").startswith("text/event-stream")


_NO_SESSION = ("/server-unavailable", "/healthz", "/readyz", "/metrics", "/static/")


class SignInRequired:
    """Everything but what is `login_not_required` needs a sign-in: scripts are told 401, people get the login."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return await self.get_response(request)

    async def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        if not getattr(view, "login_required", True) or request.path.startswith("/admin/"):
            return None  # the admin asks for its own sign-in, of staff
        user = await request.auser()
        if user.is_authenticated:
            request.user = user
            await _release_connection()
            return None
        if _is_script(request):
            return refusal(errors.Unauthenticated())
        login = f"{settings.LOGIN_URL}?{urlencode({'next': self._way_back(request)})}"
        if request.headers.get("HX-Request"):
            return HttpResponse(status=401, headers={"HX-Redirect": login})
        return HttpResponseRedirect(login)

    def _way_back(self, request: HttpRequest) -> str:
        """The address in the browser's bar, as far as we know it."""
        return request.get_full_path() if request.method == "GET" else settings.LOGIN_REDIRECT_URL
