"""Everything that can go wrong between a browser and the Xians server, as one tree.

    MessagingError                    .code .status .sentence: what a client is told (interfaces.md, section 2)
    ├── Unauthenticated               401  nobody is signed in, or the sign-in has ended
    ├── TenantForbidden               403  the tenant is not this person's
    ├── NoParticipant                 403  the account has no verified e-mail, so there is no inbox to show
    ├── Invalid                       400  a parameter is missing, over-long or malformed; names the field
    ├── TooManyStreams                429  this participant has as many streams open as we allow
    ├── Draining                      503  this process is shutting down
    ├── Crowded                       503  this process has as many streams, or is opening as many, as it can
    ├── LedgerUnavailable             503  our own database cannot be reached
    └── UpstreamError
        ├── UpstreamUnavailable       503  connect, cut stream, 5xx, 429      -> back off, retry
        │   ├── UpstreamUnconnected   503  not one byte of the request got there
        │   └── UpstreamTimeout       504  no answer in time                  -> back off, retry
        ├── UpstreamMisbehaved        502  wrong content type, bad JSON, redirect, oversize
        └── UpstreamRefused           502  401, 403 and every other 4xx       -> stop; a person must act
            ├── UpstreamMisconfigured 502  its certificate is not to be trusted; nothing was sent
            ├── ActivationNotFound    404
            ├── ActivationInactive    409
            └── AgentCannotConverse   422

`sentence` is for the person; `detail` (what upstream really said) is for the log only and never leaves the server.
An UpstreamError's `reason` says in one word what happened ("up_refused"): it begins the detail, and /metrics counts it.
"""

from __future__ import annotations

import random


class MessagingError(Exception):
    """Base of the tree. `detail` goes to the log, `sentence` to the person."""

    code = "INTERNAL_ERROR"
    status = 500
    sentence = "Something went wrong on our side."
    retry_after: int | None = None
    field: str | None = None

    def __init__(self, detail: str = "", *, sentence: str | None = None) -> None:
        super().__init__(detail or self.sentence)
        self.detail = detail
        if sentence is not None:
            self.sentence = sentence


class Unauthenticated(MessagingError):
    code = "UNAUTHENTICATED"
    status = 401
    sentence = "Please sign in again."


class TenantForbidden(MessagingError):
    code = "TENANT_FORBIDDEN"
    status = 403
    sentence = "You don't have access to this workspace."


class NoParticipant(TenantForbidden):
    sentence = "Your account has no verified e-mail address, so it has no conversations."


class Invalid(MessagingError):
    """A value that a client sent; `field` is its name as the client spelled it."""

    code = "VALIDATION_ERROR"
    status = 400

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", sentence=f"{field} {problem}.")
        self.field = field


class TooManyStreams(MessagingError):
    code = "TOO_MANY_STREAMS"
    status = 429
    sentence = "This conversation is open in too many places. Close a tab and try again."
    retry_after = 10


class Crowded(MessagingError):
    """Too much at once for this process: those who are told to wait come back spread over some seconds."""

    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    sentence = "Many people are coming in at once. It goes on in a moment."

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.retry_after = random.randint(2, 8)


class UpstreamError(MessagingError):
    code = "UPSTREAM_REJECTED"
    status = 502
    sentence = "The agent server gave an unexpected answer."
    reason = "up_bad_answer"

    def __init__(self, detail: str = "", *, reason: str | None = None) -> None:
        if reason is not None:
            self.reason = reason
        super().__init__(f"{self.reason}: {detail}" if detail else self.reason)


class UpstreamUnavailable(UpstreamError):
    """Worth another try later; `retry_after` is in seconds."""

    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    sentence = "The agent server can't be reached right now."
    retry_after = 5
    reason = "up_unavailable"

    def __init__(
        self, detail: str = "", *, reason: str | None = None, retry_after: int | None = None, throttled: bool = False
    ) -> None:
        super().__init__(detail, reason=reason)
        self.throttled = throttled
        if retry_after is not None:
            self.retry_after = retry_after


class UpstreamUnconnected(UpstreamUnavailable):
    """No connection at all: what was to be sent has certainly not arrived."""

    reason = "up_refused"


class Draining(MessagingError):
    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    sentence = "The server is restarting. Try again in a moment."
    retry_after = 2


class LedgerUnavailable(MessagingError):
    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    sentence = "Our database can't be reached right now."
    retry_after = 5


class UpstreamTimeout(UpstreamUnavailable):
    code = "UPSTREAM_TIMEOUT"
    status = 504
    sentence = "The agent server took too long to answer."
    reason = "up_timeout"


class UpstreamMisbehaved(UpstreamError):
    """Not what the wire contract says: logged; a stream's reader skips the event or reconnects."""


class UpstreamRefused(UpstreamError):
    """Upstream said no to us (its 401 and 403 mean our key, never the person)."""

    sentence = "The agent server refused the request. An administrator has to look at the service's set-up."
    reason = "up_rejected"


class UpstreamMisconfigured(UpstreamRefused):
    """There is no connection that may be trusted, and trying again would not help."""

    sentence = "The connection to the agent server isn't secure. An administrator has to look at the service's set-up."


class ActivationNotFound(UpstreamRefused):
    code = "ACTIVATION_NOT_FOUND"
    status = 404
    sentence = "There is no such agent in this workspace."
    reason = "up_not_found"


class ActivationInactive(UpstreamRefused):
    code = "ACTIVATION_INACTIVE"
    status = 409
    sentence = "This agent is switched off."
    reason = "up_inactive"


class AgentCannotConverse(UpstreamRefused):
    code = "AGENT_CANNOT_CONVERSE"
    status = 422
    sentence = "This agent isn't made for conversations."
    reason = "up_cannot_converse"
