"""Activations as cards: for the dashboard, the picker and the switcher beside a conversation."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from conversations import badges, links
from conversations.people import initials
from messaging.directory import Activation

HUES = 6


@dataclass(frozen=True, slots=True)
class Card:
    """One activation; `hue` chooses the colour of its round picture, the same one everywhere."""

    name: str
    agent_name: str
    description: str
    href: str
    is_active: bool
    unread_count: int
    badge: str
    letters: str
    hue: int
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class AgentGroup:
    """The activations of one agent."""

    agent_name: str
    cards: list[Card]


def of(tenant_id: str, activation: Activation, *, is_current: bool = False) -> Card:
    return Card(
        name=activation.name,
        agent_name=activation.agent_name,
        description=activation.description,
        href=links.page(tenant_id, activation.agent_name, activation.name),
        is_active=activation.is_active,
        unread_count=activation.unread_count,
        badge=badges.text(activation.unread_count),
        letters=initials(activation.name) or "•",
        hue=sum(activation.agent_name.encode("utf-8", "replace")) % HUES,
        is_current=is_current,
    )


def grouped(cards: Iterable[Card]) -> list[AgentGroup]:
    """Cards by agent, both in the order of their names, letters' case aside."""
    ordered = sorted(cards, key=lambda card: (card.agent_name.casefold(), card.agent_name, card.name.casefold()))
    return [AgentGroup(name, list(found)) for name, found in groupby(ordered, key=lambda card: card.agent_name)]


def matching(activations: Iterable[Activation], words: str, *, is_active_only: bool) -> list[Activation]:
    """Those whose name, agent or description holds every word of a search."""
    wanted = words.casefold().split()
    return [
        each
        for each in activations
        if (each.is_active or not is_active_only) and all(word in _searched(each) for word in wanted)
    ]


def _searched(activation: Activation) -> str:
    return f"{activation.name} {activation.agent_name} {activation.description}".casefold()
