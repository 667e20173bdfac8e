"""Pages for people who are not signed in, or whose server is away. They need no session, database or upstream."""

from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from conversations import answers, returns

FAILED: Final = {
    "provider_error": "Your company’s sign-in service reported a problem. Try again in a moment.",
    "email_missing": "Your account has no e-mail address, and conversations belong to one. Ask your administrator.",
    "email_unverified": "Your e-mail address isn’t verified yet. Verify it with your company account, then try again.",
    "denied": "Access was not granted. Sign in again and allow it, or ask your administrator.",
    "expired": "That sign-in took too long. Start again.",
    "unknown": "The sign-in didn’t work. Try again.",
}
"""Why a sign-in failed, as `?failed=` names it; any other code reads as "unknown"."""

ERRORS: Final = {
    "UPSTREAM_UNAVAILABLE": "The server that your agents run on isn’t answering.",
    "UPSTREAM_TIMEOUT": "The server that your agents run on takes too long to answer.",
    "UPSTREAM_REJECTED": "The server that your agents run on gave an unexpected answer.",
    "STREAM_LOST": "The live connection broke, and five attempts to bring it back failed.",
}
UNKNOWN_ERROR: Final = "The live connection was interrupted."


@login_not_required
@never_cache
@require_GET
def login(request: HttpRequest) -> HttpResponse:
    """One button. Where to go afterwards is checked here already and again by the sign-in itself."""
    target = request.GET.get("next", "")
    start = f"{reverse('oidc_authentication_init')}?{urlencode({'next': returns.safe(target)})}"
    failed = request.GET.get("failed")
    context = {
        "start_url": start,
        "problem": FAILED.get(failed, FAILED["unknown"]) if failed else "",
        "is_returning": bool(target) and not failed,
    }
    return render(request, "conversations/login.html", context, status=200)


@login_not_required
@never_cache
@require_GET
def unavailable(request: HttpRequest) -> HttpResponse:
    """A calm page that looks by itself whether the server is back. Drawn without the request's context:
    nothing here may touch a session."""
    code = request.GET.get("error", "")
    sentence = ERRORS.get(code, UNKNOWN_ERROR)
    known = code if code in ERRORS else "UNKNOWN"
    return HttpResponse(answers.waiting_page(request.GET.get("returnUrl"), sentence, known))
