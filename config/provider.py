"""What the OIDC provider says of itself, from its discovery document; asked when first needed, never at start."""

from __future__ import annotations

import time
from typing import Any

import requests
from django.conf import settings

_LIFETIME_SECONDS = 3600
_known: dict[str, tuple[float, dict[str, Any]]] = {}


class ProviderUnavailable(Exception):
    """The provider can't be asked, or its answer can't be used."""


def document() -> dict[str, Any]:
    """The discovery document of OIDC_ISSUER_URL, at most an hour old."""
    issuer = settings.OIDC_ISSUER_URL
    fetched_at, found = _known.get(issuer, (float("-inf"), {}))
    if time.monotonic() - fetched_at < _LIFETIME_SECONDS:
        return found
    try:
        answer = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=settings.OIDC_TIMEOUT)
        answer.raise_for_status()
        found = answer.json()
    except (requests.RequestException, ValueError) as problem:
        raise ProviderUnavailable(f"no discovery document: {type(problem).__name__}") from problem
    if not isinstance(found, dict) or str(found.get("issuer", "")).rstrip("/") != issuer:
        raise ProviderUnavailable("the discovery document names another issuer")
    _known[issuer] = (time.monotonic(), found)
    return found


def endpoint(name: str) -> str:
    """One endpoint by its name in the document. Raises ProviderUnavailable when it isn't there."""
    value = document().get(name)
    if not isinstance(value, str) or not value:
        raise ProviderUnavailable(f"the discovery document has no {name}")
    return value


_FROM_DOCUMENT = {
    "OIDC_OP_AUTHORIZATION_ENDPOINT": "authorization_endpoint",
    "OIDC_OP_TOKEN_ENDPOINT": "token_endpoint",
    "OIDC_OP_USER_ENDPOINT": "userinfo_endpoint",
    "OIDC_OP_JWKS_ENDPOINT": "jwks_uri",
}


def setting(name: str, *default: Any) -> Any:
    """mozilla-django-oidc's settings, with the provider's endpoints taken from its document."""
    if name in _FROM_DOCUMENT:
        return endpoint(_FROM_DOCUMENT[name])
    if default:
        return getattr(settings, name, default[0])
    return getattr(settings, name)
