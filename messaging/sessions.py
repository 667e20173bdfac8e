"""Who is asking: the signed-in person behind a request, and whether their session still stands.

The session carries tokens under the keys that mozilla-django-oidc uses, sealed by `config.auth`; here they are only
read through the opener that `config` installs (`open_token`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from messaging import errors
from messaging.statements import among

if TYPE_CHECKING:
    from django.http import HttpRequest

_MAX_PARTICIPANT = 320


@dataclass(frozen=True, slots=True)
class Access:
    """A signed-in person, as every use case needs them.

    `participant_id` is the account's verified e-mail in lower case; `token` the person's own access token, if there is
    one that is still good; `session_key` and `user_id` say which sign-in a stream hangs on.
    """

    participant_id: str
    name: str
    token: str | None
    session_key: str
    user_id: int


async def access(request: HttpRequest) -> Access:
    """The person behind a request. Raises Unauthenticated or NoParticipant."""
    ready: Access | None = getattr(request, "access", None)
    if ready is not None:
        return ready
    user = await request.auser()
    if not user.is_authenticated or not user.is_active:
        raise errors.Unauthenticated
    token = import_string(settings.ACCESS_TOKEN_READER)(request.session)
    return access_of(user, request.session.session_key or "", token)


def access_of(user: AbstractBaseUser, session_key: str, token: str | None) -> Access:
    """The person that an account is. Raises NoParticipant."""
    email: str = user.email  # type: ignore[attr-defined]
    participant_id = email.strip().lower()
    if "@" not in participant_id or len(participant_id) > _MAX_PARTICIPANT or not participant_id.isprintable():
        raise errors.NoParticipant(f"account {user.pk} has no e-mail")
    name = user.get_full_name() or email  # type: ignore[attr-defined]
    return Access(participant_id, name, token, session_key, user.pk)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session that stands, and the account that it is of."""

    user: AbstractBaseUser
    session: dict[str, Any]


def load(session_keys: Sequence[str]) -> dict[str, SignIn]:
    """The sign-ins of these sessions; those that don't stand are left out (as django.contrib.auth.get_user has it)."""
    sessions = _decoded(session_keys)
    model = get_user_model()
    owners = {key: model._meta.pk.to_python(session[SESSION_KEY]) for key, session in sessions.items()}
    users = model.objects.in_bulk(set(owners.values()))
    found = {}
    for key, session in sessions.items():
        user = users.get(owners[key])
        if user is not None and user.is_active and _is_theirs(session, user):
            found[key] = SignIn(user, session)
    return found


def _decoded(session_keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    store = session_store()
    if hasattr(store, "get_model_class"):
        rows = _standing(store.get_model_class(), session_keys)
        sessions = {row.session_key: store().decode(row.session_data) for row in rows}
    else:
        sessions = {key: store(key).load() for key in session_keys}
    return {key: session for key, session in sessions.items() if SESSION_KEY in session}


def _standing(model: type[AbstractBaseSession], session_keys: Iterable[str]) -> models.QuerySet[AbstractBaseSession]:
    keys = among(model, "session_key", session_keys)
    return model._default_manager.filter(session_key__in=keys, expire_date__gt=timezone.now())


def _is_theirs(session: dict[str, Any], user: AbstractBaseUser) -> bool:
    if session.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
        return False
    return constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())


def session_store() -> type[SessionBase]:
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    return store


def ended(sign_ins: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which of these (session key, user id) are no longer good: expired, signed out, or a deactivated account."""
    sign_ins = set(sign_ins)
    model = get_user_model()
    users = among(model, model._meta.pk.name, {user_id for _, user_id in sign_ins})
    active = set(model.objects.filter(Q(is_active=True), pk__in=users).values_list("pk", flat=True))
    alive = _alive({session_key for session_key, _ in sign_ins})
    return {sign_in for sign_in in sign_ins if sign_in[1] not in active or sign_in[0] not in alive}


def _alive(session_keys: set[str]) -> set[str]:
    store = session_store()
    if hasattr(store, "get_model_class"):  # sessions in the database: one query for all of them
        return set(_standing(store.get_model_class(), session_keys).values_list("session_key", flat=True))
    return {key for key in session_keys if store(key).load()}
