"""The three OIDC views of mozilla-django-oidc, with every failure turned into the login page and a reason."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

import requests
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.signals import user_logged_out
from django.core.exceptions import SuspiciousOperation
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from mozilla_django_oidc.views import (
    OIDCAuthenticationCallbackView,
    OIDCAuthenticationRequestView,
    OIDCLogoutView,
)

from config import provider, tokens
from config.auth import SignInRefused
from conversations import returns
from messaging import runtime

log = logging.getLogger(__name__)


def failed(request: HttpRequest, reason: str) -> HttpResponse:
    """Back to the login page, which says why in its own words and keeps where the person wanted to go."""
    target = request.session.get("oidc_login_next") or ""
    query = {"failed": reason, **({"next": target} if target else {})}
    return HttpResponseRedirect(f"{reverse('conversations:login')}?{urlencode(query)}")


@method_decorator(login_not_required, name="dispatch")
class SignInView(OIDCAuthenticationRequestView):  # type: ignore[misc]  # the library has no types
    """Sends the person to the provider."""

    get_settings = staticmethod(provider.setting)

    def __init__(self, **kwargs: Any) -> None:
        """Don't ask the provider yet, so that its failure is an answer and not an exception in the URL resolver."""
        super(OIDCAuthenticationRequestView, self).__init__(**kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        target = returns.safe(request.GET.get("next"))
        request.session["oidc_login_next"] = target
        try:
            self.OIDC_OP_AUTH_ENDPOINT = provider.endpoint("authorization_endpoint")
        except provider.ProviderUnavailable as problem:
            log.warning("sign-in: %s", problem)
            return failed(request, "provider_error")
        self.OIDC_RP_CLIENT_ID = self.get_settings("OIDC_RP_CLIENT_ID")
        response: HttpResponse = super().get(request)
        request.session["oidc_login_next"] = target
        return response


@method_decorator(login_not_required, name="dispatch")
class CallbackView(OIDCAuthenticationCallbackView):  # type: ignore[misc]  # the library has no types
    """Takes the person back from the provider."""

    get_settings = staticmethod(provider.setting)

    def get(self, request: HttpRequest) -> HttpResponse:
        if request.GET.get("state") not in request.session.get("oidc_states", {}):
            return failed(request, "expired")  # before anything else: what a stranger links to must change nothing
        if request.GET.get("error"):
            log.info("sign-in: the provider says %s", request.GET["error"][:100])
            super().get(request)
            return failed(request, "denied" if request.GET["error"] == "access_denied" else "provider_error")
        try:
            response: HttpResponse = super().get(request)
        except SignInRefused as problem:
            log.warning("sign-in refused: %s", problem.reason)
            return failed(request, problem.reason)
        except (requests.RequestException, provider.ProviderUnavailable, SuspiciousOperation, ValueError) as problem:
            log.warning("sign-in failed: %s", type(problem).__name__)
            return failed(request, "provider_error")
        return response

    def login_success(self) -> HttpResponse:
        """A new session key at every sign-in (F97), and the tokens only in the session of whom they belong to."""
        target = self.success_url
        auth.login(self.request, self.user)
        self.request.session.cycle_key()
        tokens.store(self.request.session, self.request.token_answer)
        return HttpResponseRedirect(target)

    def login_failure(self) -> HttpResponse:
        return failed(self.request, "unknown")


class SignOutView(OIDCLogoutView):  # type: ignore[misc]  # the library has no types
    """Ends the session and its streams, and the one at the provider where it offers that."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        target = self._provider_logout(request)
        response: HttpResponse = super().post(request)
        if target:
            response = HttpResponseRedirect(target)
        response.delete_cookie(settings.TENANT_COOKIE_NAME, samesite="Lax")
        return response

    def _provider_logout(self, request: HttpRequest) -> str:
        hint = tokens.id_token(request.session)
        if hint is None:
            return ""
        try:
            address = provider.endpoint("end_session_endpoint")
        except provider.ProviderUnavailable:
            return ""
        back = request.build_absolute_uri(reverse("conversations:login"))
        query = {"id_token_hint": hint, "post_logout_redirect_uri": back}
        return f"{address}?{urlencode(query)}"


@receiver(user_logged_out)
def end_streams(request: HttpRequest | None, **_: Any) -> None:
    """Whoever signs out, wherever: the streams of that session end."""
    if request is not None and request.session.session_key:
        async_to_sync(_end_streams)(request.session.session_key)


async def _end_streams(session_key: str) -> None:
    runtime.current().end_session(session_key)
