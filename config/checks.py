"""What must be set before we start; each complaint names its variable (interfaces.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512")


@register(Tags.compatibility)
def upstream_is_set(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    if settings.XIANS_SERVER_URL:
        return []
    return [_missing("XIANS_SERVER_URL", "the address of the Xians server", "portal.E001")]


@register(Tags.security)
def sign_in_is_set(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    values = {
        "OIDC_ISSUER_URL": (settings.OIDC_ISSUER_URL, "the address of your OIDC provider"),
        "OIDC_CLIENT_ID": (settings.OIDC_RP_CLIENT_ID, "this application's client id at the provider"),
        "OIDC_CLIENT_SECRET": (settings.OIDC_RP_CLIENT_SECRET, "this application's secret at the provider"),
    }
    found += [_missing(name, meaning, "portal.E002") for name, (value, meaning) in values.items() if not value]
    if settings.OIDC_RP_SIGN_ALGO not in _ALGORITHMS:
        found.append(Error(f"OIDC_SIGN_ALGORITHM must be one of {', '.join(_ALGORITHMS)}.", id="portal.E003"))
    return found


@register(Tags.security)
def hosts_are_set(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    if settings.ALLOWED_HOSTS:
        return []
    return [_missing("DJANGO_ALLOWED_HOSTS", "the host names that this site answers to", "portal.E004")]


@register(Tags.security, deploy=True)
def upstream_is_https(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    if settings.XIANS_SERVER_URL.startswith("https://") or not settings.XIANS_SERVER_URL:
        return []
    hint = "Our key travels with every call."
    return [Warning("XIANS_SERVER_URL should begin with https://.", hint=hint, id="portal.W001")]


def _missing(name: str, meaning: str, code: str) -> Error:
    return Error(f"{name} must be set: {meaning}.", id=code)
