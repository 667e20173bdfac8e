"""Which path is answered by what. Literals match in any case; a wrong verb is a 405 without a body."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from demo.xians import directory, errors, feedback, membership, messaging
from demo.xians.call import Call, segment_of
from demo.xians.reply import Reply
from demo.xians.site import Site

type Handler = Callable[[Site, Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and verb. Without a handler it is the stream; `is_open` means that no key is asked for."""

    name: str
    method: str
    segments: tuple[str, ...]
    handler: Handler | None
    is_open: bool = False


def _route(name: str, method: str, path: str, handler: Handler | None, *, is_open: bool = False) -> Route:
    return Route(name, method, tuple(path.strip("/").split("/")), handler, is_open)


_ADMIN = "/api/v1/admin"
_TENANT = _ADMIN + "/tenants/{tenantId}"

ROUTES = (
    _route("listen", "GET", _TENANT + "/messaging/listen", None),
    _route("send", "POST", _TENANT + "/messaging/send", messaging.send),
    _route("topics", "GET", _TENANT + "/messaging/topics", messaging.topics),
    _route("history", "GET", _TENANT + "/messaging/history", messaging.history),
    _route("delete", "DELETE", _TENANT + "/messaging/messages", messaging.delete),
    _route("activations", "GET", _TENANT + "/agentActivations", directory.activations),
    _route("activation", "GET", _TENANT + "/agentActivations/{activationId}", directory.activation),
    _route("deployments", "GET", _TENANT + "/agentDeployments", directory.deployments),
    _route("deployment", "GET", _TENANT + "/agentDeployments/{agentName}", directory.deployment),
    _route("heartbeat", "GET", _TENANT + "/heartbeat", directory.heartbeat),
    _route("feedback-create", "POST", _TENANT + "/feedback", feedback.create),
    _route("feedback-list", "GET", _TENANT + "/feedback", feedback.listing),
    _route("feedback-stats", "GET", _TENANT + "/feedback/stats", feedback.stats),
    _route("feedback", "GET", _TENANT + "/feedback/{feedbackId}", feedback.detail),
    _route("users", "GET", _TENANT + "/users", membership.users),
    _route("user", "GET", _TENANT + "/users/{userId}", membership.user),
    _route("tenant-logo", "GET", _TENANT + "/logo", membership.tenant_logo),
    _route("tenant", "GET", _TENANT, membership.tenant),
    _route("tenants", "GET", _ADMIN + "/tenants", membership.tenants),
    _route("participant", "GET", _ADMIN + "/participants/{email}", membership.participant),
    _route("health", "GET", "/health", directory.health, is_open=True),
)


def _bind(template: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(template) != len(segments):
        return None
    parameters = {}
    for pattern, raw in zip(template, segments, strict=True):
        if pattern.startswith("{"):
            if not raw:
                return None
            parameters[pattern[1:-1]] = segment_of(raw)
        elif pattern.lower() != segment_of(raw).lower():
            return None
    return parameters


def find(call: Call) -> Route:
    """The route of a request, its path parameters set; refuses with an empty 404 or 405."""
    segments = call.path.removesuffix("/")[1:].split("/")
    allowed: list[str] = []
    for route in ROUTES:
        parameters = _bind(route.segments, segments)
        if parameters is None:
            continue
        if route.method == call.method:
            call.parameters = parameters
            return route
        allowed.append(route.method)
    if allowed:
        raise errors.empty(405, allow=", ".join(allowed))
    raise errors.empty(404)
