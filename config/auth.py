"""The OIDC backend: claims become an account. Overrides hooks of mozilla-django-oidc, never its flow.

What the library leaves out (traps.md section 4): audience and issuer, a leeway for clocks, a verified e-mail,
accounts by (issuer, subject), refresh tokens.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, ClassVar

import jwt
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db.models import QuerySet
from mozilla_django_oidc.auth import OIDCAuthenticationBackend

from config import provider

_LEEWAY_SECONDS = 60
_MAX_EMAIL = 254

type Claims = dict[str, Any]


class SignInRefused(Exception):
    """The provider vouches for somebody whom we can't let in; `reason` is a code for the login page.

    Not a SuspiciousOperation: the library catches those, and the reason would be lost.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OIDCBackend(OIDCAuthenticationBackend):  # type: ignore[misc]  # the library has no types
    """Signs people in whom the provider vouches for, by issuer and subject, with a verified e-mail."""

    get_settings = staticmethod(provider.setting)
    required_claims: ClassVar = ["exp", "iat", "iss", "aud", "sub"]

    def __init__(self) -> None:
        """Ask nothing of the provider yet: Django builds backends for every request that needs permissions."""
        self.UserModel = User
        self._answer: Claims = {}

    def authenticate(self, request: Any, **kwargs: Any) -> AbstractBaseUser | None:
        if request is None or "nonce" not in kwargs:  # somebody else's credentials, a password say
            return None
        super().__init__()
        user: AbstractBaseUser | None = super().authenticate(request, **kwargs)
        return user

    def retrieve_matching_jwk(self, token: str) -> Any:
        """The provider's key for this token. Key sets and token headers may hold anything at all."""
        try:
            return super().retrieve_matching_jwk(token)
        except (jwt.PyJWTError, LookupError, TypeError) as problem:
            raise SignInRefused("provider_error") from problem

    def _verify_jws(self, payload: str, key: Any) -> Claims:
        try:
            if jwt.get_unverified_header(payload).get("alg") != self.OIDC_RP_SIGN_ALGO:
                raise SignInRefused("provider_error")
            claims: Claims = jwt.decode(
                payload,
                key,
                algorithms=[self.OIDC_RP_SIGN_ALGO],
                audience=self.OIDC_RP_CLIENT_ID,
                issuer=provider.document()["issuer"],
                leeway=_LEEWAY_SECONDS,
                options={"require": self.required_claims},
            )
        except (jwt.PyJWTError, TypeError) as problem:
            raise SignInRefused("provider_error") from problem
        if claims.get("azp", self.OIDC_RP_CLIENT_ID) != self.OIDC_RP_CLIENT_ID:
            raise SignInRefused("provider_error")
        return claims

    def get_token(self, payload: dict[str, Any]) -> Claims:
        answer = super().get_token(payload)
        if not isinstance(answer, dict) or not isinstance(answer.get("id_token"), str):
            raise SignInRefused("provider_error")
        self._answer = answer
        return self._answer

    def store_tokens(self, access_token: str, id_token: str) -> None:
        """Not yet: who may come in is decided later, and the login starts another session (see CallbackView)."""
        self.request.token_answer = self._answer

    def get_or_create_user(self, access_token: str, id_token: str, payload: Claims) -> AbstractBaseUser | None:
        """The account of the token's subject. What userinfo adds must be about the same subject."""
        told = self.get_userinfo(access_token, id_token, payload)
        if not isinstance(told, dict) or told.get("sub") != payload["sub"]:
            raise SignInRefused("provider_error")
        if told.get("email", payload.get("email")) != payload.get("email"):
            payload = {**payload, "email_verified": False}  # that was said of another address
        claims = {**payload, **told, "iss": payload["iss"]}
        self.require_verified_email(claims)
        users = list(self.filter_users_by_claims(claims))
        return self.update_user(users[0], claims) if users else self.create_user(claims)

    def require_verified_email(self, claims: Claims) -> None:
        """The e-mail is the participant: one that nobody verified would open somebody else's conversations."""
        email = claims.get("email")
        if not isinstance(email, str) or "@" not in email or len(email) > _MAX_EMAIL or not email.isprintable():
            raise SignInRefused("email_missing")
        if claims.get("email_verified") not in (True, "true"):
            raise SignInRefused("email_unverified")

    def filter_users_by_claims(self, claims: Claims) -> QuerySet[User]:
        return User.objects.filter(username=self.get_username(claims))

    def get_username(self, claims: Claims) -> str:
        """Stands for (issuer, subject); 43 characters."""
        digest = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def create_user(self, claims: Claims) -> AbstractBaseUser:
        found = {"email": claims["email"].strip().lower(), "password": make_password(None)}
        user, _ = User.objects.get_or_create(username=self.get_username(claims), defaults=found)
        return self.update_user(user, claims)  # two browsers may have been first at once

    def update_user(self, user: User, claims: Claims) -> User:
        """Take over a changed e-mail or name."""
        name = str(claims.get("name") or "").strip()
        given = str(claims.get("given_name") or name.partition(" ")[0])[:150]
        family = str(claims.get("family_name") or name.partition(" ")[2])[:150]
        found = (claims["email"].strip().lower(), given, family)
        if (user.email, user.first_name, user.last_name) != found:
            user.email, user.first_name, user.last_name = found
            user.save(update_fields=["email", "first_name", "last_name"])
        return user


def client_credentials() -> dict[str, str]:
    """How we name ourselves to the token endpoint."""
    return {"client_id": settings.OIDC_RP_CLIENT_ID, "client_secret": settings.OIDC_RP_CLIENT_SECRET}
