"""The demo world: two tenants, a handful of agents, and a little history to begin with."""

from datetime import timedelta

from demo import people
from demo.xians import conversation, notation
from demo.xians.messages import Draft
from demo.xians.world import Activation, Agent, ApiKey, Tenant, World

API_KEY = "sk-Xnai-demo-key-demo-key-demo-key-demo-key-demo"
KEY_OWNER = "svc-portal@acme.example"

INVOICES = "Invoice Helper"
NEWS = "Newsroom"
GALLERY = "Markdown Gallery"
ARCHIVE = "Archive Keeper"
IMPORTER = "Nightly Importer"


def bare() -> World:
    """The tenants, the people and the key, and nothing to talk to: tests add what they need."""
    return World(tenants=_tenants(), people=people.everyone(), keys=[ApiKey(API_KEY, KEY_OWNER)])


def demo() -> World:
    """Everything `manage.py demo` shows, without messages; see `seed`."""
    return World(
        tenants=_tenants(),
        people=people.everyone(),
        agents=_agents(),
        activations=_activations(),
        keys=[ApiKey(API_KEY, KEY_OWNER)],
    )


def _tenants() -> list[Tenant]:
    return [
        Tenant("6800c0ffee00000000000d01", "acme", "Acme AS", "acme.example", "fjord"),
        Tenant("6800c0ffee00000000000d02", "globex", "Globex", "globex.example"),
    ]


def _agents() -> list[Agent]:
    return [
        _invoice_agent("6850c0ffee00000000000b01", "acme"),
        Agent(
            "6850c0ffee00000000000b02",
            "acme",
            NEWS,
            summary="Writes to you first",
            description="Sends short news into several topics while you do something else.",
            category="Media",
            sample_prompts=["What is new?", "More about the weather"],
        ),
        Agent(
            "6850c0ffee00000000000b03",
            "acme",
            GALLERY,
            summary="Answers in every Markdown there is",
            description="Tables, code, task lists, quotes, and one message that tries to break the page.",
            category="Examples",
            sample_prompts=["Show me a table", "Show me everything", "Show me something hostile"],
        ),
        Agent("6850c0ffee00000000000b04", "acme", ARCHIVE, summary="Switched off", category="Operations"),
        Agent(
            "6850c0ffee00000000000b05",
            "acme",
            IMPORTER,
            summary="Runs at night, does not talk",
            category="Operations",
            flows=["Import Workflow", "Nightly Report"],
        ),
        _invoice_agent("6850c0ffee00000000000b06", "globex"),
    ]


def _invoice_agent(agent_id: str, tenant_id: str) -> Agent:
    return Agent(
        agent_id,
        tenant_id,
        INVOICES,
        summary="Ask about any invoice",
        description="Finds invoices, explains them and chases approvals. Shows its steps while it works.",
        category="Finance",
        sample_prompts=["Which invoices are overdue?", "When is INV-1001 due?", "Summarise last month"],
    )


def _activations() -> list[Activation]:
    rows = [
        ("acme", INVOICES, "Nordic desk", "Invoices in Norway, Sweden and Denmark", True),
        ("acme", INVOICES, "Benelux desk", "Invoices in Belgium and the Netherlands", True),
        ("acme", NEWS, "Morning wire", "News every few seconds", True),
        ("acme", GALLERY, "Showcase", "One of everything", True),
        ("acme", ARCHIVE, "Old files", "Deactivated in spring", False),
        ("acme", IMPORTER, "Nightly run", None, True),
        ("globex", INVOICES, "Head office", "Invoices of Globex", True),
    ]
    return [
        Activation(f"6861c0ffee00000000000a{number:02d}", tenant, agent, name, description, is_active)
        for number, (tenant, agent, name, description, is_active) in enumerate(rows, start=1)
    ]


_QUARTER = """\
| Month | Invoices | Overdue |
| --- | ---: | ---: |
| April | 41 | 2 |
| May | 38 | 5 |
| June | 44 | 1 |"""

_HISTORY: list[tuple[str, str | None, bool, str]] = [
    (INVOICES, None, False, "Good morning! Which of our open invoices are the most urgent?"),
    (INVOICES, None, True, "Three are due this week: **INV-1001**, **INV-1007** and **INV-1012**."),
    (INVOICES, None, False, "Thanks. Please remind me on Thursday."),
    (INVOICES, None, True, "I will. The approver of INV-1007 is on leave, I have asked her deputy."),
    (INVOICES, "Q2 review", False, "How did the second quarter go?"),
    (INVOICES, "Q2 review", True, _QUARTER),
    (INVOICES, "Q2 review", False, "Why was May so bad?"),
    (INVOICES, "Q2 review", True, "Four of the five came from one supplier whose bank details had changed."),
    (INVOICES, "Åse & Co", False, "What do we owe Åse & Co?"),
    (INVOICES, "Åse & Co", True, "€ 1,240.50 in two invoices; one of them is disputed. 👍 for the other."),
    (INVOICES, "Åse & Co", False, "Pay the undisputed one."),
    (INVOICES, "Åse & Co", True, "Scheduled for tomorrow, `INV-0988`, € 420.00."),
]


def seed(world: World) -> None:
    """A dozen messages for Alice, the newest an hour old."""
    now = world.clock.now()
    for number, (agent, topic, is_answer, text) in enumerate(_HISTORY):
        address = conversation.make_address("acme", agent, "Nordic desk", people.ALICE.email)
        at = now - timedelta(hours=1, minutes=17 * (len(_HISTORY) - number))
        world.messages.add(
            conversation.ensure_thread(world, address),
            Draft(
                direction="Outgoing" if is_answer else "Incoming",
                text=text,
                scope=topic,
                request_id=f"00000000-0000-4000-8000-{number // 2:012d}",
                created_by=world.agent_runner if is_answer else KEY_OWNER,
                created_at=notation.timestamp(at),
            ),
        )
