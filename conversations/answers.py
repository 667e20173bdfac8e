"""From a context to a response: whole pages, parts of them for htmx, and refusals in both shapes."""

import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate

from asgiref.sync import sync_to_async
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode

from conversations import returns
from messaging.errors import LedgerUnavailable, MessagingError

log = logging.getLogger(__name__)

type AsyncView[**P] = Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponseBase]]

REFUSED = "conversations/refused.html"
_TITLES = {
    400: "That didn’t work",
    403: "No access",
    404: "Not found",
    409: "Switched off",
    422: "No conversations here",
}


def wants_part(request: HttpRequest) -> bool:
    """Whether htmx asks, which needs no more than the region that it swaps."""
    return request.headers.get("HX-Request") == "true"


def is_scripted(request: HttpRequest) -> bool:
    """Whether one of our own scripts asks, and not a form without scripts."""
    return request.headers.get("X-Requested-With") == "fetch"


async def page(
    request: HttpRequest, template: str, context: Mapping[str, object], *, status: int = 200
) -> HttpResponse:
    """Render in a thread: a long history in Markdown would hold up everybody's streams.

    Nothing of a conversation is kept by any cache, so that nothing is left after signing out.
    """
    response = await sync_to_async(render)(request, template, dict(context), status=status)
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ("Cookie", "HX-Request"))
    return response


def refusable[**P](view: AsyncView[P]) -> AsyncView[P]:
    """Let a page's view raise messaging's errors: they become a page, or the sign-in, or the waiting room."""

    @functools.wraps(view)
    async def shown(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return await view(request, *args, **kwargs)
        except MessagingError as error:
            return await refused(request, error)

    return shown


async def refused(request: HttpRequest, error: MessagingError) -> HttpResponseBase:
    """What a person sees instead of the page."""
    if error.status >= 500:
        log.warning("%s: %s", error.code, error.detail)
    if error.status == 401:
        return redirect_to_login(request.get_full_path())
    if isinstance(error, LedgerUnavailable) and not wants_part(request):
        return outage(request, error)
    if error.status in {503, 504} and request.method == "GET" and not wants_part(request):
        return HttpResponseRedirect(waiting_room(request.get_full_path(), error.code))
    part = "#refused" if wants_part(request) else ""
    context = {
        "title": _TITLES.get(error.status, "Something is wrong"),
        "sentence": error.sentence,
        "status": error.status,
        "return_url": request.get_full_path() if request.method == "GET" and error.status >= 500 else "",
    }
    return await page(request, REFUSED + part, context, status=error.status)


def outage(request: HttpRequest, error: LedgerUnavailable) -> HttpResponse:
    """The waiting room in place of a page: it goes on to that page when all is well. Drawn without the request's
    context, which would ask the database."""
    target = request.get_full_path() if request.method == "GET" else None
    response = HttpResponse(waiting_page(target, error.sentence, error.code), status=error.status)
    response["Retry-After"] = str(error.retry_after)
    response["Cache-Control"] = "no-store"
    return response


def waiting_page(target: str | None, sentence: str, code: str) -> str:
    """What `/server-unavailable/` shows, with the way back to `target` if that is within this site."""
    context = {
        "return_url": returns.safe(target),
        "dashboard_url": returns.fallback(),
        "sentence": sentence,
        "code": code,
        "at": timezone.now(),
        "ready_url": "/readyz",
    }
    return render_to_string("conversations/server_unavailable.html", context)


def waiting_room(return_url: str, code: str) -> str:
    """The address of `/server-unavailable/` that comes back to `return_url`."""
    return f"{reverse('conversations:unavailable')}?{urlencode({'returnUrl': return_url, 'error': code})}"
