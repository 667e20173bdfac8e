"""What the demo's agents say."""

import random
import re

from demo.xians.messages import Draft

_NUMBER = re.compile(r"INV-\d+", re.IGNORECASE)

_HEADLINES = (
    "The krone gained half a per cent against the euro this morning.",
    "Rain until noon, then sun; **14 °C** by the fjord.",
    "The city's new tram line opens on Monday. Rides are free on the first day.",
    "A late goal sent the home side through, *2–1* after extra time.",
    "Researchers counted more puffins than in any year since 1998. 🐧",
    "Power prices fall for the third day in a row.",
    "The library extends its opening hours until ten in the evening.",
    "Ferries run every twenty minutes again after the repair of the quay.",
    "Two start-ups from the harbour district merge; nobody loses a job.",
    "The mountain road is open, but take chains above 900 metres.",
)


def invoice(question: str, dice: random.Random) -> list[Draft]:
    """Two or three visible steps, then an answer that refers to the question."""
    match = _NUMBER.search(question)
    number = match[0].upper() if match else f"INV-{dice.randint(1001, 1099)}"
    amount, day = dice.randint(80, 4000), dice.randint(1, 28)
    state = dice.choice(("It is approved.", "It still waits for an approval.", "It was paid yesterday."))
    steps = [
        Draft(type="Reasoning", data=f"Reading the question: {_short(question)}"),
        Draft(
            type="Tool",
            text="lookup_invoice",
            data={"tool": "lookup_invoice", "Arguments": {"number": number}},
        ),
    ]
    if dice.random() < 0.5:
        steps.append(Draft(type="Reasoning", data=f"{number} was found; checking who has to approve it"))
    steps.append(
        Draft(
            text=(
                f"You asked: “{_short(question)}”\n\n"
                f"**{number}** is for € {amount:,}.00 and due on {day} December. {state}"
            )
        )
    )
    return steps


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def news(dice: random.Random) -> str:
    return dice.choice(_HEADLINES)


def news_reply(question: str, dice: random.Random) -> str:
    return f"On “{_short(question)}” we have this:\n\n> {news(dice)}\n\nMore follows in the other topics."


def gallery(question: str) -> list[str]:
    """The pieces that the question names; all of them if it names none."""
    asked = question.lower()
    chosen = [text for word, text in GALLERY.items() if word in asked]
    return chosen or list(GALLERY.values())


_TABLE = """\
## A table

| Item | Quantity | Price |
| :--- | :---: | ---: |
| Paper clips | 200 | € 3.50 |
| Stapler, *blue* | 1 | € 12.00 |
| `SKU-7` | 12 | € 96.00 |
"""

_LIST = """\
### Lists

1. First
2. Second
   - nested
     - and deeper
3. Third

- [x] write the question
- [ ] read the answer
"""

_CODE = '''\
### Code

```python
def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name} & <everyone>!"
```

Inline it looks like `a < b && b > c`.
'''

_QUOTE = """\
### A quote and some links

> Simplicity is a great virtue.
>
> > And a quote within the quote.

[A link](https://example.com/path?a=1&b=2), a bare one: https://example.com/, ~~struck~~, **bold**, *italic*,
***both***, and a footnote of emoji: 🇳🇴 👩‍🔬 ✅

---
"""

_HOSTILE = (
    """\
### Everything below is meant to be harmless

<script>document.title = "script ran"</script>
<img src="x" onerror="document.title = 'onerror ran'">
<a href="javascript:document.title='link ran'">a link in HTML</a>
<div hx-get="/admin/" hx-trigger="load" hx-swap="outerHTML">htmx attributes</div>
<form action="/oidc/logout/" method="post"><button>Sign out</button></form>
<iframe src="https://tracker.example/"></iframe><style>body { display: none }</style>

[A link in Markdown](javascript:document.title='markdown')
[Another](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)
![A remote image](https://tracker.example/pixel.png)
[One more](//tracker.example/ "onmouseover=alert(1)")

`<b onclick=alert(1)>` in code, and a very long word: """
    + "W" * 300
)

GALLERY = {"table": _TABLE, "list": _LIST, "code": _CODE, "quote": _QUOTE, "hostile": _HOSTILE}
