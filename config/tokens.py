"""The person's OIDC tokens: in the session, on the server, sealed with a key that is not in the database (F135)."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import MutableMapping
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings

_ACCESS = "oidc_access_token"
_REFRESH = "oidc_refresh_token"
_ID = "oidc_id_token"
_EXPIRES = "oidc_access_expires_at"
_DUE = "oidc_renewal_due_at"
_TRIED = "oidc_renewal_tried_at"
_RENEW_BEFORE_SECONDS = 60
_RETRY_SECONDS = 30
_DEFAULT_LIFETIME = 300

type Session = MutableMapping[str, Any]


def _vault() -> Fernet:
    digest = hashlib.sha256(b"portal tokens\x00" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def store(session: Session, answer: dict[str, Any]) -> None:
    """Keep what a token endpoint answered. A refresh token that isn't rotated stays the old one."""
    vault = _vault()
    for key, name in ((_ACCESS, "access_token"), (_REFRESH, "refresh_token"), (_ID, "id_token")):
        if isinstance(answer.get(name), str):
            session[key] = vault.encrypt(answer[name].encode()).decode()
    lifetime = answer.get("expires_in")
    lifetime = lifetime if isinstance(lifetime, int | float) and lifetime > 0 else _DEFAULT_LIFETIME
    session[_EXPIRES] = time.time() + lifetime
    session[_DUE] = session[_EXPIRES] - min(_RENEW_BEFORE_SECONDS, lifetime / 2)
    session.pop(_TRIED, None)


def access_token(session: Session) -> str | None:
    """The person's access token, unless there is none or it has expired."""
    if session.get(_EXPIRES, 0) <= time.time():
        return None
    return _open(session.get(_ACCESS))


def refresh_token(session: Session) -> str | None:
    return _open(session.get(_REFRESH))


def id_token(session: Session) -> str | None:
    return _open(session.get(_ID))


def is_due(session: Session) -> bool:
    """Whether the access token should be renewed now: it ends within a minute (a short one: within half its life),
    and it can be."""
    if _REFRESH not in session or session.get(_DUE, 0) > time.time():
        return False
    return bool(session.get(_TRIED, 0) < time.time() - _RETRY_SECONDS)


def note_failure(session: Session) -> None:
    """The provider could not be asked: don't ask again for half a minute."""
    session[_TRIED] = time.time()


def _open(sealed: object) -> str | None:
    if not isinstance(sealed, str):
        return None
    try:
        return _vault().decrypt(sealed.encode()).decode()
    except InvalidToken:  # the secret key was changed: the person signs in again when it matters
        return None
