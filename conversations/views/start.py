"""Before a conversation: the dashboard, the choice of an agent, the choice of a tenant."""

import asyncio
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from conversations import activation_cards, answers, badges, links, people, places
from conversations.activation_cards import Card
from messaging import inboxes
from messaging.directory import Tenant
from messaging.errors import MessagingError
from messaging.sessions import Access

ALL = "all"


@dataclass(frozen=True, slots=True)
class TenantPanel:
    """One tenant on the dashboard; `problem` says why there are no cards."""

    tenant: Tenant
    cards: list[Card]
    picker_url: str
    unread_count: int = 0
    badge: str = ""
    problem: str = ""


@require_GET
async def home(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(reverse("conversations:dashboard"))


@require_GET
@answers.refusable
async def dashboard(request: HttpRequest) -> HttpResponseBase:
    """Every tenant and activation of this person; one tenant that can't be read doesn't hide the others."""
    place = await places.find(request)
    is_part = answers.wants_part(request)
    max_age = inboxes.OVERVIEW_MAX_AGE if is_part else 0
    found = await asyncio.gather(*(_panel(tenant, place.access, max_age) for tenant in place.tenants))
    errors = [each for each in found if isinstance(each, MessagingError)]
    if errors and len(errors) == len(found):
        raise errors[0]
    panels = [
        each if isinstance(each, TenantPanel) else TenantPanel(tenant, [], "", problem=each.sentence)
        for tenant, each in zip(place.tenants, found, strict=True)
    ]
    total = sum(panel.unread_count for panel in panels)
    context = {
        **people.top_bar(place),
        "panels": panels,
        "total": total,
        "nav_dashboard": True,
        "first_name": place.access.name.split(" ")[0],
    }
    part = "#panels" if is_part else ""
    return await answers.page(request, f"conversations/dashboard.html{part}", context)


async def _panel(tenant: Tenant, access: Access, max_age: float) -> TenantPanel | MessagingError:
    try:
        found = await inboxes.activations(tenant.tenant_id, access=access, max_age=max_age)
    except MessagingError as error:
        return error
    cards = [activation_cards.of(tenant.tenant_id, each) for each in found if each.is_active or each.unread_count]
    cards.sort(key=lambda card: (-card.unread_count, card.agent_name.casefold(), card.name.casefold()))
    total = sum(card.unread_count for card in cards)
    return TenantPanel(tenant, cards, _picker(tenant.tenant_id), total, badges.text(total))


def _picker(tenant_id: str) -> str:
    return f"{reverse('conversations:picker')}?{links.query(tenant_id)}"


@require_GET
@answers.refusable
async def picker(request: HttpRequest) -> HttpResponseBase:
    """Choose an activation of the tenant: grouped by agent, searched as one types, active ones or all."""
    place = await places.find(request)
    words = request.GET.get("q", "")[:200]
    is_active_only = request.GET.get("show") != ALL
    tenant_id = place.tenant.tenant_id
    found = await inboxes.activations(tenant_id, access=place.access)
    matches = activation_cards.matching(found, words, is_active_only=is_active_only)
    context = {
        **people.top_bar(place),
        "nav_picker": True,
        "words": words,
        "is_active_only": is_active_only,
        "groups": activation_cards.grouped(activation_cards.of(tenant_id, each) for each in matches),
        "count": len(matches),
        "has_any": bool(found),
        "picker_url": reverse("conversations:picker"),
    }
    is_search = request.headers.get("HX-Target") == "activation-list"
    part = "#activation_list" if answers.wants_part(request) and is_search else ""
    return await answers.page(request, f"conversations/picker.html{part}", context)


@require_POST
@answers.refusable
async def tenant(request: HttpRequest) -> HttpResponseBase:
    """Switch to another tenant of theirs, and go and choose an agent there."""
    tenant_id = request.POST.get("tenant", "")
    response = HttpResponseRedirect(_picker(tenant_id))
    await places.remember(request, tenant_id, response)
    return response
