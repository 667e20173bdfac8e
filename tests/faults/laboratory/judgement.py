"""What must be shown and counted after all that happened, and where the application differs.

What is allowed to be either is exactly this: a read that failed, or was confirmed by a process that was killed before
it could have written it; an answer that arrived while a read of everything, the opening of its topic or a deletion was
going on; what was sent to a tab that had just gone; what claims to be older than a deletion of its topic; and for one
tab what it was told to fetch anew (`resync`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tests.faults.laboratory.books import NEVER, Books, Connection, Deletion, Inbox, Reading, Stored
from tests.faults.laboratory.rig import Node
from tests.faults.laboratory.tab import Tab

_WRITTEN_SECONDS = 10
"""After this a process that was killed had written what it confirmed: no fault of ours lasts so long."""
_GONE_SECONDS = 5
"""So long a process may take a tab that has gone for one that reads."""
_SURELY_SENT = timedelta(milliseconds=500)
_OVERTAKING = timedelta(milliseconds=5)
_CERTAINTY = ("unread", "either", "read")
_CALM_SECONDS = 6
"""A feed has surely compared so long after it was disturbed."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that must not be. `what`: lost, twice, count, order, send or other."""

    what: str
    sentence: str
    message_id: str = ""
    tab: Tab | None = None


@dataclass(slots=True)
class Snapshot:
    """What the application says in the end: of each inbox, the unread ids in the database and the API's counts."""

    unread_ids: dict[Inbox, set[str]]
    api_counts: dict[Inbox, dict[str, dict[str, int]]] = field(default_factory=dict)
    """Unread by topic, by where it was asked."""
    truth: dict[str, dict[str, object]] = field(default_factory=dict)
    """Everything that upstream has stored, by id."""


class Judge:
    """Judges one seed's books. Made anew for every look, so that what is expected follows from what is known."""

    def __init__(self, books: Books, tabs: list[Tab], nodes: list[Node], snapshot: Snapshot) -> None:
        self._books = books
        self._tabs = tabs
        self._snapshot = snapshot
        self._deaths = {node.name: node.deaths for node in nodes}
        self._upsets = {node.name: node.upsets for node in nodes}
        self.edges = 0
        self.undecided = 0
        self._shown_first: dict[str, float] = {}
        for tab in tabs:
            for showing in tab.showings:
                self._shown_first[showing.id] = min(showing.at, self._shown_first.get(showing.id, NEVER))
        self._readings: dict[tuple[Inbox, str], list[Reading]] = defaultdict(list)
        for reading in books.readings:
            self._readings[reading.inbox, reading.topic].append(reading)
        self._connections: dict[tuple[Inbox, str], list[Connection]] = defaultdict(list)
        for tab in tabs:
            for connection in tab.connections:
                if connection.shows is not None:
                    self._connections[tab.inbox, connection.shows].append(connection)
                    self._readings[tab.inbox, connection.shows].append(self._opening(tab.inbox, connection))
        self._deletions: dict[tuple[Inbox, str], list[Deletion]] = defaultdict(list)
        for deletion in books.deletions:
            self._deletions[deletion.inbox, deletion.topic].append(deletion)

    def deviations(self) -> list[Deviation]:
        self.edges = self.undecided = 0
        found = [*self._stored(), *self._counted(), *self._asked(), *self._sent()]
        for tab in self._tabs:
            found += [*self._shown(tab), *self._told(tab)]
        return found + [Deviation("other", sentence) for sentence in self._books.unexpected]

    # -- stored -----------------------------------------------------------------------------------------------

    def _stored(self) -> Iterator[Deviation]:
        """The laboratory's own books are right."""
        for stored in self._books.stored.values():
            if stored.id not in self._snapshot.truth and not self._deletions[stored.inbox, stored.topic]:
                yield Deviation("other", "upstream itself has forgotten a message", stored.id)

    def _is_hidden(self, stored: Stored) -> bool:
        """Whether it claims to be older than a deletion of its topic, but came during or after it."""
        for deletion in self._deletions[stored.inbox, stored.topic]:
            deleted = (
                other.created_at
                for other in self._books.stored.values()
                if (other.inbox, other.topic) == (stored.inbox, stored.topic)
                and other.begun <= deletion.done
                and other is not stored
            )
            if stored.done > deletion.begun and stored.created_at <= max(deleted, default=stored.created_at):
                return True
        return False

    # -- counted ----------------------------------------------------------------------------------------------

    def _counted(self) -> Iterator[Deviation]:
        for inbox, unread in self._snapshot.unread_ids.items():
            for message_id in unread - self._books.stored.keys():
                yield Deviation("count", f"{inbox}: counted, but no answer of this inbox", message_id)
        for stored in self._books.stored.values():
            is_unread = stored.id in self._snapshot.unread_ids[stored.inbox]
            where = f"{stored.inbox} {stored.topic[:20]!r}"
            match self._expected(stored):
                case "either":
                    self.undecided += 1
                case "unread" if not is_unread:
                    yield Deviation("lost", f"{where}: not read by anybody, not counted", stored.id)
                case "read" if is_unread:
                    yield Deviation("count", f"{where}: counted, although it was read", stored.id)
                case "gone" if is_unread:
                    yield Deviation("count", f"{where}: counted, although it is deleted or no answer", stored.id)

    def _expected(self, stored: Stored) -> str:
        if not stored.is_answer or stored.id not in self._snapshot.truth:
            return "gone"
        if self._is_hidden(stored):
            return "either"
        reads = [self._covers(reading, stored) for reading in self._readings[stored.inbox, stored.topic]]
        reads += [self._shows(connection, stored) for connection in self._connections[stored.inbox, stored.topic]]
        return max(reads, key=_CERTAINTY.index, default="unread")

    def _covers(self, reading: Reading, stored: Stored) -> str:
        """What a wish to read means for one answer."""
        if stored.begun > reading.over or (reading.up_to is not None and stored.order > reading.up_to):
            return "unread"
        was_shown = self._shown_first.get(stored.id, NEVER) < reading.begun
        return "read" if reading.is_sure and (was_shown or reading.up_to == stored.order) else "either"

    def _shows(self, connection: Connection, stored: Stored) -> str:
        """What a stream that shows the answer's topic means for it."""
        if stored.id in connection.received:
            return "either" if self._died(connection.node, self._shown_first[stored.id]) else "read"
        is_maybe_sent = connection.connected < NEVER and stored.begun < connection.ended + _GONE_SECONDS
        return "either" if is_maybe_sent else "unread"

    def _opening(self, inbox: Inbox, connection: Connection) -> Reading:
        """Opening a stream with a topic reads the topic."""
        shows = connection.shows or ""
        reading = Reading(inbox, shows, connection.node, connection.begun, done=connection.connected)
        if connection.connected < NEVER:
            reading.is_sure = not self._died(connection.node, connection.connected)
        else:
            reading.done = connection.ended
        return reading

    def _died(self, node: str, at: float) -> bool:
        """Whether a process was killed so soon after a moment that it need not have written what it did then."""
        return any(at - 1 <= death <= at + _WRITTEN_SECONDS for death in self._deaths[node])

    def _asked(self) -> Iterator[Deviation]:
        """Whoever asks is told what the database says."""
        for inbox, by_asked in self._snapshot.api_counts.items():
            counted = self._counts(inbox)
            for asked, told in by_asked.items():
                if told != counted:
                    yield Deviation("count", f"{inbox}: {asked} says {told}, the database {counted}")

    def _told(self, tab: Tab) -> Iterator[Deviation]:
        """What an open tab was told last is what is true."""
        connection = tab.current
        if connection is None:
            yield Deviation("other", f"{tab} is not connected")
            return
        counted = self._counts(tab.inbox)
        for topic, count in connection.told.items():
            if count != counted.get(topic, 0):
                yield Deviation("count", f"{tab} was told {count} for {topic[:20]!r}, true is {counted.get(topic, 0)}")
        if connection.total not in (None, sum(counted.values())):
            yield Deviation("count", f"{tab} was told {connection.total} in all, true is {sum(counted.values())}")

    def _counts(self, inbox: Inbox) -> dict[str, int]:
        topics = Counter(self._topic_of(message_id) for message_id in self._snapshot.unread_ids[inbox])
        return dict(topics)

    def _topic_of(self, message_id: str) -> str:
        stored = self._books.stored.get(message_id)
        return stored.topic if stored is not None else "?"

    # -- shown ------------------------------------------------------------------------------------------------

    def _shown(self, tab: Tab) -> Iterator[Deviation]:
        times = Counter(showing.id for showing in tab.showings)
        afresh = [at for connection in tab.connections for at in connection.resyncs]  # it then shows all of it anew
        chapters = Counter((showing.id, sum(at < showing.at for at in afresh)) for showing in tab.showings)
        for (message_id, _), count in chapters.items():
            stored = self._books.stored.get(message_id)
            if stored is None or stored.inbox != tab.inbox:
                yield Deviation("other", f"{tab} was shown a message that isn't of this inbox", message_id)
            if count > 1:
                yield Deviation("twice", f"{tab} was shown it {count} times", message_id, tab)
        for stored in self._books.stored.values():
            if stored.inbox == tab.inbox and stored.id not in times and self._is_due(tab, stored):
                if self._is_edge(tab, stored):
                    self.edges += 1
                else:
                    kind = "" if stored.is_answer else f" ({stored.kind})"
                    yield Deviation("lost", f"{tab} was never shown it{kind}", stored.id, tab)
        yield from self._order(tab)

    def _is_due(self, tab: Tab, stored: Stored) -> bool:
        if stored.begun <= tab.fresh_since or stored.created_at < tab.fresh_at:
            return False
        if stored.id not in self._snapshot.truth or self._is_hidden(stored):
            return False
        told_anew = max((at for connection in tab.connections for at in connection.resyncs), default=0.0)
        return stored.begun > told_anew

    def _is_edge(self, tab: Tab, stored: Stored) -> bool:
        """docs/delivery.md, "Known edges": withheld, and hardly older than the cursor that a tab came back with."""
        return not stored.is_plain and any(
            0 <= _micros(connection.last_id) - _micros(stored.order) < _SURELY_SENT / timedelta(microseconds=1)
            for connection in tab.connections
            if connection.last_id and connection.begun > stored.begun
        )

    def _order(self, tab: Tab) -> Iterator[Deviation]:
        """In order, but for what came late: wherever the way from upstream was undisturbed."""
        newest: Stored | None = None
        for connection in tab.connections:
            for message_id in connection.received:
                stored = self._books.stored.get(message_id)
                if stored is None or not stored.is_plain or not self._is_calm(connection, stored):
                    continue
                if newest is not None and stored.created_at < newest.created_at - _OVERTAKING:
                    yield Deviation("order", f"{tab} was shown it after {newest.id[-6:]}", stored.id)
                newest = stored

    def _is_calm(self, connection: Connection, stored: Stored) -> bool:
        since, until = stored.begun - _CALM_SECONDS, stored.done + _CALM_SECONDS
        return connection.connected < since and not any(
            begun <= until and ended >= since for begun, ended in self._upsets[connection.node]
        )

    # -- sent -------------------------------------------------------------------------------------------------

    def _sent(self) -> Iterator[Deviation]:
        copies = Counter(
            str(told["requestId"]) for told in self._snapshot.truth.values() if told["direction"] == "Incoming"
        )
        for sending in self._books.sendings.values():
            count = copies[sending.request_id]
            is_deleted = any(
                deletion.done >= sending.begun for deletion in self._deletions[sending.inbox, sending.topic]
            )
            if count > 1:
                yield Deviation("send", f"{sending.inbox}: {sending.request_id} is stored {count} times")
            elif count == 0 and 200 in sending.statuses and not is_deleted:
                yield Deviation("send", f"{sending.inbox}: {sending.request_id} was answered 200 and is not stored")

    # -- for people -------------------------------------------------------------------------------------------

    def story(self, message_id: str) -> Iterator[str]:
        """Everything that is known about one message."""
        stored = self._books.stored.get(message_id)
        if stored is None:
            yield f"  {message_id}: not in the books"
            return
        since = self._books.start
        yield f"  {stored.id}: {stored.inbox} topic {stored.topic[:20]!r} {stored.kind} {' '.join(stored.ways)}"
        yield f"  created {stored.created_at:%H:%M:%S.%f}, stored at {stored.done - since:.3f}, order {stored.order}"
        for tab in self._tabs:
            for showing in tab.showings:
                if showing.id == message_id:
                    yield f"  shown to {tab} at {showing.node}, {showing.at - since:.3f}"
        for reading in self._readings[stored.inbox, stored.topic]:
            sure = "sure" if reading.is_sure else "unsure"
            upto = f" up to {reading.up_to}" if reading.up_to else ""
            yield f"  read{upto} at {reading.node}, {reading.begun - since:.3f} to {reading.done - since:.3f}, {sure}"
        for deletion in self._deletions[stored.inbox, stored.topic]:
            yield f"  its topic was deleted {deletion.how}, {deletion.begun - since:.3f} to {deletion.done - since:.3f}"
        yield "  around its storing:"
        yield from self._around(stored, stored.begun - 1.5, stored.done + 1.5)
        times = [showing.at for tab in self._tabs for showing in tab.showings if showing.id == message_id]
        if times and max(times) > stored.done + 1.5:
            yield "  around the last time that it was shown:"
            yield from self._around(stored, max(times) - 3, max(times) + 0.2)

    def _around(self, stored: Stored, since: float, until: float) -> list[str]:
        """What happened to its inbox, and to everybody's processes."""
        others = [str(inbox) for inbox in self._books.inboxes if inbox != stored.inbox]
        lines = self._books.lines(since, until)
        return [f"    {line}" for line in lines if not any(other in line for other in others)][:80]

    def life(self, tab: Tab) -> Iterator[str]:
        """The connections of one tab."""
        start = self._books.start
        for connection in tab.connections:
            if connection.connected < NEVER:
                shows = "" if connection.shows is None else f" showing {connection.shows[:20]!r}"
                received = " ".join(message_id[-6:] for message_id in connection.received)
                yield f"    {connection.connected - start:.3f} at {connection.node}{shows}, from {connection.last_id}:"
                yield f"      {received}, until {connection.ended - start:.3f}"


def _micros(order: str) -> int:
    return int(order.partition("-")[0])
