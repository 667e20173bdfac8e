"""The conversation page and what is loaded into it: a topic, earlier messages, the list of topics."""

import uuid

from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET

from conversations import activation_cards, answers, links, people, places, thread, topic_rows
from conversations.places import Place
from messaging import inboxes, parameters, wire
from messaging.directory import Activation
from messaging.errors import ActivationNotFound, Invalid
from messaging.wire import ThreadAddress

TEMPLATE = "conversations/conversation.html"
HEARTBEAT_SECONDS = 15
BEFORE_LENGTH = 100


@require_GET
@answers.refusable
async def conversation(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """The page of one conversation, or for htmx the thread of one topic."""
    place = await places.find(request, holding=(agent_name, activation_name))
    address = place.address(agent_name, activation_name)
    if "new" in request.GET:
        return HttpResponseRedirect(links.conversation(address, request.GET["new"].strip()))
    return await show(request, place, address, request.GET.get("topic", ""))


async def show(
    request: HttpRequest,
    place: Place,
    address: ThreadAddress,
    topic: str,
    *,
    kept: dict[str, object] | None = None,
    status: int = 200,
) -> HttpResponseBase:
    """Answer with a topic. `kept` puts back what a form without scripts could not send, and says why."""
    tenant_id, access = address.tenant_id, place.access
    found = await inboxes.activations(tenant_id, access=access)
    activation = places.named(found, address.agent_name, address.activation_name)
    if activation is None:
        raise ActivationNotFound(f"{address.agent_name}/{address.activation_name}")
    before = parameters.optional(request.GET, "before", BEFORE_LENGTH)
    loaded = await thread.load(address, topic, before=before, access=access)
    context = {
        **thread.context(loaded),
        "card": activation_cards.of(tenant_id, activation),
        "is_inactive": loaded.is_inactive or not activation.is_active,
        "request_id": str(uuid.uuid4()),
        "draft_key": _draft_key(address),
        "is_part": answers.wants_part(request),
        **(kept or {}),
    }
    context["can_write"] = context["can_write"] and not context["is_inactive"]
    status = 400 if loaded.problem and status == 200 else status
    if answers.wants_part(request):
        return await answers.page(request, f"{TEMPLATE}#thread", context, status=status)
    context |= {**people.top_bar(place), **_around(loaded, activation, found)}
    return await answers.page(request, TEMPLATE, context, status=status)


def _around(loaded: thread.Thread, activation: Activation, found: list[Activation]) -> dict[str, object]:
    """What stays on the page when the topic changes: the list of topics, the other agents, the stream's settings."""
    address = loaded.address
    cards = (
        activation_cards.of(address.tenant_id, each, is_current=each == activation)
        for each in found
        if each.is_active or each == activation
    )
    return {
        "topic_list": thread.topic_list(loaded),
        "groups": activation_cards.grouped(cards),
        "total_unread": loaded.total_unread,
        "newest": _newest(loaded),
        "cursor": loaded.cursor,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "is_live": not (loaded.is_inactive or loaded.cannot_converse),
        "stream_url": links.part(address, "stream"),
        "topics_url": links.part(address, "topics"),
        "unavailable_url": reverse("conversations:unavailable"),
        "login_url": reverse("conversations:login"),
    }


def _newest(loaded: thread.Thread) -> str:
    """The place of the newest message that was there when the page was drawn, which counts it already."""
    moments = [topic.last_message_at for topic in loaded.topics.topics] if loaded.topics else []
    return max((wire.order_at(moment) for moment in moments if moment), default="")


def _draft_key(address: ThreadAddress) -> str:
    """What the browser files typed text under: never another person's, never another conversation's."""
    return address.key[:24]


@require_GET
@answers.refusable
async def messages(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """The messages before a place in a topic, with the link to those before them."""
    address, access = await places.address(request, agent_name, activation_name)
    before = parameters.optional(request.GET, "before", BEFORE_LENGTH)
    if not before:
        raise Invalid("before", "is required")
    topic = await parameters.existing_topic(request.GET, address)
    loaded = await thread.messages(address, topic, before=before, access=access)
    context = {
        "items": loaded.items,
        "earlier": loaded.earlier,
        "earlier_page": loaded.earlier.replace("/messages/?", "/?", 1),
    }
    return await answers.page(request, "conversations/conversation.html#history", context)


@require_GET
@answers.refusable
async def topics(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """One page of the list of topics; `topic` is the one that is open."""
    address, access = await places.address(request, agent_name, activation_name)
    found = await inboxes.topics(address, page=parameters.page(request.GET), access=access)
    rows = topic_rows.of(address, found, current=request.GET.get("topic", ""))
    context = {"topic_list": rows, "topics_url": links.part(address, "topics")}
    return await answers.page(request, "conversations/conversation.html#topics", context)
