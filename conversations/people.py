"""What the top bar shows: who is signed in, and where."""

from dataclasses import dataclass

from conversations.places import Place
from messaging.directory import Tenant


@dataclass(frozen=True, slots=True)
class TenantChoice:
    tenant: Tenant
    is_current: bool


def top_bar(place: Place) -> dict[str, object]:
    """The context that every page of a signed-in person shares."""
    choices = [TenantChoice(each, each == place.tenant) for each in place.tenants]
    return {
        "person": place.access,
        "initials": initials(place.access.name or place.access.participant_id),
        "tenant": place.tenant,
        "tenant_choices": choices if len(choices) > 1 else [],
    }


def initials(name: str) -> str:
    """Two letters for a round picture: of the first and the last word, or of the only one."""
    words = [word for word in name.replace("@", " ").replace(".", " ").split() if word[0].isalnum()]
    letters = [words[0][0], words[-1][0]] if len(words) > 1 else [word[0] for word in words]
    return "".join(letters).upper()
