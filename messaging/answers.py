"""How the API says things: JSON, and one shape for whatever is wrong (interfaces.md section 2)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from messaging.errors import Crowded, Invalid, MessagingError, Unauthenticated, UpstreamRefused, UpstreamUnavailable

log = logging.getLogger(__name__)

type Answer = Coroutine[Any, Any, HttpResponseBase]


def refusal(problem: MessagingError) -> JsonResponse:
    """An error for a client. Its `requestId` also stands in our log, beside what the client is not told."""
    request_id = uuid.uuid4().hex[:12]
    details: dict[str, object] = {"requestId": request_id}
    if problem.field:
        details["field"] = problem.field
    if isinstance(problem, UpstreamRefused):
        details["retryable"] = False  # a person must act first
    elif isinstance(problem, Crowded) or (isinstance(problem, UpstreamUnavailable) and problem.throttled):
        details["throttled"] = True  # waiting as told is no failure
    if problem.status >= 500:
        log.warning("%s %s: %s", request_id, problem.code, problem.detail)
    elif not isinstance(problem, Unauthenticated | Invalid):
        log.info("%s %s: %s", request_id, problem.code, problem.detail)
    body = {"error": problem.sentence, "code": problem.code, "details": details}
    response = JsonResponse(body, status=problem.status)
    response["Cache-Control"] = "no-store"
    if problem.retry_after is not None:
        response["Retry-After"] = str(problem.retry_after)
    return response


def fresh(body: object) -> JsonResponse:
    """A JSON answer that no cache may keep."""
    response = JsonResponse(body, safe=False)
    response["Cache-Control"] = "no-store"
    return response


def api[**P](
    *methods: str,
) -> Callable[[Callable[Concatenate[HttpRequest, P], Answer]], Callable[Concatenate[HttpRequest, P], Answer]]:
    """An API view for these methods: what it raises from our error tree becomes an answer."""

    def decorate(view: Callable[Concatenate[HttpRequest, P], Answer]) -> Callable[Concatenate[HttpRequest, P], Answer]:
        @wraps(view)
        async def answered(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if request.method not in methods:
                response = refusal(Invalid("method", f"must be {' or '.join(methods)}"))
                response.status_code = 405
                response["Allow"] = ", ".join(methods)
                return response
            try:
                return await view(request, *args, **kwargs)
            except MessagingError as problem:
                return refusal(problem)

        return answered

    return decorate
