"""A message as HTML for the page: rendered once and shared by all tabs, or once for each of them."""

from __future__ import annotations

import itertools
import time

from benchmarks.choices.inside import cpu_us, set_up
from benchmarks.choices.table import Table

_TABS = 5
_TIMES = 300
_TEXT = """Your order **{number}** has left the warehouse.

- carrier: [Northwind](https://northwind.example/track)
- parcels: 2

It should be with you on *Thursday* before noon. Shall I remind you?"""


def main(rounds: int) -> None:
    set_up()
    from benchmarks.threads import ACTIVATION, AGENT, TENANT, Thread, participant
    from conversations import fragments
    from messaging import items, outlet, streams, wire

    address = wire.ThreadAddress(TENANT, AGENT, ACTIVATION, participant(1))
    encoders = {"a page's HTML": fragments.encoder(address), "an API client's JSON": streams.for_api}
    thread = Thread(1, participant(1))
    thread.write(time.perf_counter_ns(), b"")
    [row] = thread.history(page=1, page_size=1, newest_first=True)
    numbers = itertools.count()
    table = Table(f"One message for {_TABS} tabs of one person", chosen="once, bytes shared")

    def item(*, is_shared: bool) -> items.StreamItem:
        text = _TEXT.format(number=next(numbers))  # no two alike: what is cached by text doesn't help
        made = outlet.item_of(wire.message({**row, "text": text}), cursor="a-cursor")
        made.is_shared = is_shared
        return made

    for _ in range(max(rounds, 5)):
        for name, is_shared in (("once, bytes shared", True), ("once per tab", False)):
            found = {}
            for what, encode in encoders.items():

                def tell(*, is_shared: bool = is_shared, encode: streams.Encoder = encode) -> None:
                    shown = item(is_shared=is_shared)
                    for _ in range(_TABS):
                        shown.bytes_for(encode)

                def make(*, is_shared: bool = is_shared) -> None:
                    item(is_shared=is_shared)

                found[f"CPU us, {what}"] = cpu_us(tell, times=_TIMES) - cpu_us(make, times=_TIMES)
            table.add(name, found)
    table.show()
