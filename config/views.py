"""For machines: alive, ready, metrics. And what is answered to a forged form and after an error of ours."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

from django.contrib.auth.decorators import login_not_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from messaging import runtime
from messaging.errors import MessagingError
from messaging.runtime import Runtime

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_CHECK_SECONDS = 6.0
_latest: dict[Runtime, tuple[float, dict[str, str]]] = {}
_asking: dict[Runtime, asyncio.Task[dict[str, str]]] = {}


@login_not_required
@never_cache
async def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: this process answers."""
    return JsonResponse({"status": "alive"})


@login_not_required
@never_cache
async def readyz(request: HttpRequest) -> HttpResponse:
    """Ready: the database, the channel layer and upstream can be reached; each with its state.

    Looked at once a second at most, however many people wait for it.
    """
    now = runtime.current()
    looked_at, states = _latest.get(now, (float("-inf"), {}))
    if time.monotonic() - looked_at > _FRESH_SECONDS:
        if now not in _asking:
            _asking[now] = asyncio.create_task(_look(now))
        states = await asyncio.shield(_asking[now])
    if now.draining.is_set():
        states = {**states, "process": "draining"}
    is_ready = all(state == "ok" for state in states.values())
    body = {"status": "ready" if is_ready else "unavailable", "checks": states}
    return JsonResponse(body, status=200 if is_ready else 503)


async def _look(now: Runtime) -> dict[str, str]:
    try:
        checks: dict[str, Callable[[], Awaitable[object]]] = {
            "database": lambda: now.ledger.run(_ask_database),
            "channelLayer": now.bus.ping,
            "upstream": now.client.reachable,
        }
        states = await asyncio.gather(*(_state(check) for check in checks.values()))
        found = dict(zip(checks, states, strict=True))
        _latest[now] = (time.monotonic(), found)
        return found
    finally:
        _asking.pop(now, None)


async def _state(check: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except MessagingError:
        return "unavailable"
    except (OSError, TimeoutError, *Runtime.channel_layer_errors):
        return "unavailable"
    return "ok"


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@login_not_required
@never_cache
async def metrics(request: HttpRequest) -> HttpResponse:
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """A form without its token: JSON for the API, a page for people."""
    if request.path.startswith("/api/"):
        details = {"field": "X-CSRFToken"}
        sentence = "The request came without a valid CSRF token. Reload the page and try again."
        return JsonResponse({"error": sentence, "code": "CSRF_FAILED", "details": details}, status=403)
    return render(request, "403_csrf.html", status=403)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """After an error that nobody foresaw: a number that also stands in the log, and nothing of the inside."""
    request_id = uuid.uuid4().hex[:12]
    problem = sys.exc_info()[0]
    log.error("%s INTERNAL_ERROR: %s at %s", request_id, problem.__name__ if problem else "error", request.path)
    if request.path.startswith("/api/"):
        details = {"requestId": request_id}
        sentence = MessagingError.sentence
        body = {"error": sentence, "code": MessagingError.code, "details": details}
        response: HttpResponse = JsonResponse(body, status=500)
    else:
        response = HttpResponse(render_to_string("500.html", {"request_id": request_id}), status=500)
    response["Cache-Control"] = "no-store"
    return response
