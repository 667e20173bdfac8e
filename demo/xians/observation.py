"""What tests and benchmarks ask of a stand-in: the truth, the open streams, and what it was asked."""

import asyncio
from collections import Counter

from demo.xians.messages import Message
from demo.xians.notation import Json
from demo.xians.site import Record, Site


class Observation:
    """The questions; none of them changes anything. Waiting ones end with `TimeoutError`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def truth(
        self,
        *,
        tenant: str | None = None,
        agent: str | None = None,
        activation: str | None = None,
        participant: str | None = None,
    ) -> dict[str, Json]:
        """Every stored message that fits, in the order of storing, as history shows them."""

        def fits(message: Message) -> bool:
            thread = message.thread
            held = (thread.tenant_id, thread.agent_name, thread.activation_name, thread.participant_id)
            wanted = (tenant, agent, activation, participant.lower() if participant else None)
            return all(want in (None, have) for want, have in zip(wanted, held, strict=True))

        clock = self._site.world.clock
        return {"messages": [one.as_history(clock) for one in self._site.world.messages.all() if fits(one)]}

    def streams(self) -> dict[str, Json]:
        """The open streams, per thread and in all, and how many were ever opened."""
        open_ = list(self._site.switchboard.listeners())
        counted = Counter(listener.thread for listener in open_)
        threads = [
            {
                "threadId": thread.id,
                "tenant": thread.tenant_id,
                "agent": thread.agent_name,
                "activation": thread.activation_name,
                "participant": thread.participant_id,
                "count": count,
            }
            for thread, count in counted.items()
        ]
        attached = sum(1 for listener in open_ if listener.is_attached)
        return {
            "open": len(open_),
            "attached": attached,
            "opened": self._site.switchboard.opened,
            "threads": threads,
        }

    def requests(self, *, route: str | None = None, after: int = 0) -> dict[str, Json]:
        """The logged requests, of one route and after a number if wanted."""
        return {
            "requests": [_shown(record) for record in self._requests(route, after)],
            "last": self._site.log.count,
        }

    def signals(self) -> dict[str, Json]:
        """What the agents were handed, the `authorization` of every `/send` included."""
        return {"signals": list(self._site.signals)}

    def rules(self) -> dict[str, Json]:
        """The rules in force and how many requests each has met."""
        rules = self._site.faults.rules
        return {"rules": [{"rule": number, "route": one.route, "met": one.met} for number, one in rules.items()]}

    async def wait_streams(
        self,
        *,
        count: int = 1,
        exactly: bool = False,
        opened: int | None = None,
        within_seconds: float = 5.0,
    ) -> dict[str, Json]:
        """Wait until so many streams hear events (and, if given, so many were ever opened)."""
        async with asyncio.timeout(within_seconds):
            while True:
                seen = self.streams()
                attached: int = seen["open"] if exactly and count == 0 else seen["attached"]
                is_enough = attached == count if exactly else attached >= count
                if is_enough and (opened is None or seen["opened"] >= opened):
                    return seen
                await self._site.bell.wait()

    async def wait_requests(
        self, *, route: str | None = None, count: int = 1, after: int = 0, within_seconds: float = 5.0
    ) -> dict[str, Json]:
        """Wait until so many requests of a route were logged after a number."""
        async with asyncio.timeout(within_seconds):
            while len(self._requests(route, after)) < count:
                await self._site.bell.wait()
        return self.requests(route=route, after=after)

    def _requests(self, route: str | None, after: int) -> list[Record]:
        records = self._site.log.records
        return [one for one in records if one.number > after and route in (None, one.route)]


def _shown(record: Record) -> dict[str, Json]:
    return {
        "number": record.number,
        "route": record.route,
        "method": record.method,
        "path": record.path,
        "query": record.query_string,
        "headers": [list(pair) for pair in record.headers],
        "body": record.body,
        "status": record.status,
        "at": record.at,
    }
