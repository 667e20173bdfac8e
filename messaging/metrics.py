"""What operations see at /metrics. No label ever names a person, a topic or an agent."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """Counts what the event loop does with every message, for which a Counter's lock and checks are too slow."""

    def __init__(self, name: str, documentation: str, label: str, values: tuple[str, ...]) -> None:
        self._described = name, documentation, label
        self.counts = dict.fromkeys(values, 0)
        REGISTRY.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        name, documentation, label = self._described
        family = CounterMetricFamily(name, documentation, labels=[label])
        for value, count in self.counts.items():
            family.add_metric([value], count)
        yield family


streams_open = Gauge("portal_streams_open", "Streams open in this process.")
streams_opened = Counter("portal_streams_opened", "Streams opened, by how they resumed.", ["resumed"])
streams_closed = Counter("portal_streams_closed", "Streams closed, by reason.", ["reason"])
feeds_open = Gauge("portal_feeds_open", "Upstream streams that this process keeps.")
upstream_connects = Counter("portal_upstream_connects", "Tries to open an upstream stream, by outcome.", ["outcome"])
upstream_failures = Counter(
    "portal_upstream_failures", "Calls and streams that upstream let down, by reason.", ["reason"]
)
messages_received = Tally(
    "portal_messages_received", "Messages accepted from upstream, by source.", "source", ("stream", "history")
).counts
messages_dropped = Counter("portal_messages_dropped", "Upstream events not passed on, by reason.", ["reason"])
bus_away = Gauge("portal_bus_away", "1 while the channel layer carries nothing to other processes.")
ledger_batch_seconds = Histogram("portal_ledger_batch_seconds", "Time to write one batch of receipts.")
ledger_failures = Counter("portal_ledger_failures", "Batches that the database refused and that were tried again.")
ledger_waiting = Gauge("portal_ledger_waiting", "Receipts and reads that wait to be written.")
loop_lag_seconds = Histogram(
    "portal_event_loop_lag_seconds",
    "How much later than planned the event loop got to its beat.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
loop_blocked = Counter("portal_event_loop_blocked", "Times that something held the event loop up for long.")
