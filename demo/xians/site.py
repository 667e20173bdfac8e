"""One running stand-in: its world, who listens, how it misbehaves, and what it was asked."""

import time
from collections import deque
from dataclasses import dataclass, field

from demo.xians.bell import Bell
from demo.xians.call import Call
from demo.xians.faults import Faults
from demo.xians.notation import Json
from demo.xians.switchboard import Behaviour, Switchboard
from demo.xians.world import World


@dataclass(slots=True)
class Record:
    """One request as it came in, for tests that assert exact URLs or look for leaked keys."""

    number: int
    method: str
    path: str
    query_string: str
    headers: list[tuple[str, str]]
    body: str = ""
    status: int | None = None
    route: str | None = None
    at: float = field(default_factory=time.time)


class RequestLog:
    """The newest requests; older ones are dropped so that a benchmark can run for hours."""

    def __init__(self, bell: Bell, *, limit: int = 20_000) -> None:
        self.records: deque[Record] = deque(maxlen=limit)
        self.count = 0
        self._bell = bell

    def open(self, call: Call) -> Record:
        self.count += 1
        record = Record(self.count, call.method, call.path, call.query_string, call.headers)
        self.records.append(record)
        return record

    def answered(self, record: Record, status: int) -> None:
        record.status = status
        self._bell.ring()


class Site:
    """What every handler and the control surface share."""

    def __init__(self, world: World, *, behaviour: Behaviour | None = None) -> None:
        self.world = world
        self.behaviour = behaviour or Behaviour()
        self.bell = Bell()
        """Rings when a stream opens, attaches or closes, when a request is answered, and when a fault takes one."""
        self.switchboard = Switchboard(world, self.behaviour, self.bell)
        self.faults = Faults()
        self.log = RequestLog(self.bell)
        self.signals: deque[dict[str, Json]] = deque(maxlen=20_000)
        """What agents were handed for each `/send` and `/heartbeat`, the `authorization` value included."""
