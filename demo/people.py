"""The two people who can sign in to the demo. They exist in the stand-in server and at the OIDC provider."""

from demo.xians.notation import Json
from demo.xians.world import Person

ALICE = Person("alice@acme.example", "Alice Andersen", {"acme": "TenantUser", "globex": "TenantParticipant"})
BOB = Person("bob@acme.example", "Bob Berg", {"acme": "TenantUser"})


def everyone() -> list[Person]:
    """Fresh copies, so that one world's role changes don't reach another."""
    return [Person(one.email, one.name, dict(one.roles)) for one in (ALICE, BOB)]


def claims(person: Person) -> dict[str, Json]:
    """What the OIDC provider says about a person; the subject is the e-mail address."""
    given, _, family = person.name.partition(" ")
    return {
        "email": person.email,
        "email_verified": True,
        "name": person.name,
        "given_name": given,
        "family_name": family,
    }
