"""Closing gaps: one inbox compared with upstream, and what its stream left out handed out after all.

Upstream's stream is deaf for a moment after `connected`, forgets what happened while its own change stream was
down, and may sit on a replica that never hears some messages (reliability.md U2, U3, U5). Its topic list and its
history know. A comparison costs one request while nothing is missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from msgspec.structs import replace

from messaging import catchup, errors, metrics, unread
from messaging.catchup import Pages
from messaging.changes import InboxRef
from messaging.items import StreamItem
from messaging.outlet import SETTLING, Outlet, Surroundings, earlier
from messaging.unread import Familiar, Settlement, TopicState
from messaging.wheel import Alarm
from messaging.wire import Message

log = logging.getLogger(__name__)

_COMPARE_SECONDS = 60
_RETRY_SECONDS = 5
_SAME_LOOK = 0.05
_MISSING_SECONDS = 12
_NO_COUNT = -(10**9)
_MOST_LATE = 256
_POSTPONED_SECONDS = 10
"""How long a look waits while many streams are being opened: these readers see nothing yet, and theirs look anyway."""
_AT_ONCE = 64
"""After so many messages the readers get their turn: a burst must not look like a slow reader."""


class Gaps:
    """Compares one inbox with upstream, when asked (`look_again`) and every minute while `is_live` says so.

    `on_refused` hears that upstream no longer lets us in; every other failure is logged and tried again soon.
    """

    def __init__(
        self,
        inbox: InboxRef,
        around: Surroundings,
        outlet: Outlet,
        is_live: Callable[[], bool],
        bearer: Callable[[], str],
        on_refused: Callable[[errors.UpstreamRefused], None],
    ) -> None:
        self.is_complete = False  # everything before the stream has been compared
        self.compared_at = datetime.min.replace(tzinfo=UTC)  # what upstream had stored by then was handed out
        self.away_since: datetime | None = None
        self._inbox = inbox
        self._around = around
        self._outlet = outlet
        self._is_live = is_live
        self._bearer = bearer
        self._on_refused = on_refused
        self._expected: dict[str, TopicState] | None = None
        self._is_settled = False  # the database knows what is expected
        self._late: list[tuple[Message, str, str]] = []
        self._missing_since: dict[str, float] = {}
        self._due: list[float] = []
        self._timer: asyncio.TimerHandle | Alarm | None = None
        self._comparing = asyncio.Lock()
        self._wanting = 0  # how many want a comparison now
        self._hurrying = 0  # how many wait for whatever is done here
        self._latest: Pages | None = None  # what it read, for those of them who have not got it yet
        self._task: asyncio.Task[None] | None = None
        self._is_behind = False  # the last comparison failed
        self._is_over = False

    async def prepare(self) -> None:
        """Learn what the database knows; to be done before the stream begins. Raises LedgerUnavailable.

        Later another process may have settled what this stream left out, and the comparison would find nothing new.
        """
        self._expected = dict(await self._around.ledger.topic_states(self._inbox))  # others are told the same ones
        self._is_settled = True

    # -- when -------------------------------------------------------------------------------------------------

    def look_again(self, seconds: float = 0) -> None:
        """Compare with upstream in so many seconds at the latest."""
        due = time.monotonic() + seconds
        if not any(abs(due - other) < _SAME_LOOK for other in self._due):
            self._due.append(due)
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_over or self._task is not None:
            return
        if self._due:
            wait = max(0.0, min(self._due) - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._begin)
        else:
            self._timer = self._around.wheel.after(_minute(), self._begin)

    def _begin(self) -> None:
        now = time.monotonic()
        if self._due and self._around.is_crowded() and now < min(self._due) + _POSTPONED_SECONDS:
            self._timer = asyncio.get_running_loop().call_later(random.uniform(0.5, 1), self._begin)
            return
        self._due = [due for due in self._due if due > now]
        self._timer = None
        if self._is_live():
            self._task = asyncio.create_task(self._look(), name=f"compare {self._inbox.pk}")
        else:
            self._set_timer()

    async def _look(self) -> None:
        try:
            await self.compare(is_awaited=False)
        finally:
            self._task = None
            self._set_timer()

    def end(self) -> None:
        """Compare no more, and know nothing of whoever compared."""
        self._is_over = True
        self._is_live, self._bearer, self._on_refused = bool, str, lambda _: None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    # -- what the stream brings -------------------------------------------------------------------------------

    def expect(self, message: Message) -> None:
        """Count a message that upstream's topic list will show, so that an even list needs no look at history."""
        if self._expected is None:
            return
        state = self._expected.get(message.scope, catchup.NOTHING_KNOWN)
        newest = message.created_at if state.last_at is None else max(state.last_at, message.created_at)
        self._expected[message.scope] = TopicState(state.floor, state.count + 1, newest, state.surveyed_at)
        self._is_settled = False

    def set_aside(self, message: Message, json: str, event: str) -> None:
        """A message from the stream that claims to be old: the comparison, which is soon, tells what it is."""
        self._late.append((message, json, event))
        del self._late[:-_MOST_LATE]  # the comparison finds them
        self.look_again()

    def forget_topic(self, topic: str) -> None:
        """The topic's messages were deleted: upstream's list will no longer show it, and nor will open pages."""
        if self._expected is not None:
            self._expected.pop(topic, None)
        self._around.hub.publish(self._inbox.address, StreamItem("gone", topic=topic))

    # -- comparing --------------------------------------------------------------------------------------------

    async def compare(self, *, is_awaited: bool = True) -> Pages | None:
        """Close every gap that can be seen from upstream's topic list; what was read for it.

        Failures are logged, and None: the next look is soon. Of those who want it at one time, one does it. Where
        nobody waits for it (not `is_awaited`) receipts are written when they would be, and not for its sake.
        """
        asked_at = time.monotonic()
        self._wanting += 1
        try:
            async with self._awaited() if is_awaited else self._comparing:
                if self._is_over:
                    return None
                if self._latest is None or self._latest.begun_at < asked_at:
                    self._latest = await self._try_to_compare()
                return self._latest
        finally:
            self._wanting -= 1
            if not self._wanting:
                self._latest = None

    async def _try_to_compare(self) -> Pages | None:
        try:
            pages = await self._compare()
        except errors.UpstreamRefused as problem:  # switched off, or our credential is no good: a person must act
            self._on_refused(problem)
        except (errors.UpstreamError, errors.LedgerUnavailable) as problem:
            log.warning("inbox %s could not be compared: %s", self._inbox.pk, problem.detail)
            self._say_behind(is_behind=True)
            self.look_again(_RETRY_SECONDS)
        except asyncio.CancelledError:  # whoever asked for it has gone; what was due with it still is
            self.look_again()
            raise
        else:
            self._say_behind(is_behind=False)
            return pages
        return None

    def _say_behind(self, *, is_behind: bool) -> None:
        """Pages say so while nobody knows whether something is missing (reliability.md I7)."""
        if is_behind != self._is_behind and self._is_live():
            state = "behind" if is_behind else "live"
            self._around.hub.publish(self._inbox.address, StreamItem("status", state=state))
        self._is_behind = is_behind

    async def _compare(self) -> Pages:
        ledger = self._around.ledger
        may_lack_receipts = self._inbox in ledger.overflowed or self._inbox in ledger.dropped
        if self._inbox in ledger.overflowed:  # what the ledger could not keep is found anew
            ledger.overflowed.discard(self._inbox)
            await ledger.run(unread.forget_survey, self._inbox)
            self._expected = None
        if self._expected is None:
            await self.prepare()
        assert self._expected is not None
        known = dict(self._expected)
        began_at, provable = datetime.now(UTC), self._outlet.provable()
        self._due = [due for due in self._due if due > time.monotonic()]  # this is that look
        pages = Pages(self._around.client, self._inbox.address, self._bearer())
        difference = await catchup.compare(pages, known)
        self._give_up_on_missing(difference)
        await self._look_back(pages)
        recovered = await self._bring_in(difference.messages, known, writes_again=may_lack_receipts)
        if recovered and self.is_complete and self.away_since is None:
            log.warning(
                "inbox %s: %s messages came from history only; upstream's stream left them out",
                self._inbox.pk,
                recovered,
            )
        if self._inbox in ledger.overflowed:
            raise errors.LedgerUnavailable("not everything that was found could be kept")
        if difference.is_news or not self._is_settled:
            self._expected |= {
                t.scope: TopicState(_floor(known, t.scope), t.message_count, t.last_message_at, t.last_message_at)
                for t in difference.topics
            }
            self._is_settled = True
            try:
                await self._settle(difference)
            except BaseException:  # the next comparison has to find the same again
                self._expected |= {t.scope: known.get(t.scope, catchup.NOTHING_KNOWN) for t in difference.topics}
                self._is_settled = False
                raise
        if self.away_since is not None:
            self._back(recovered)
        self.is_complete, self.compared_at = True, began_at
        await self._flush()
        self._outlet.prove(provable)
        self._outlet.tidy()
        return pages

    async def _look_back(self, pages: Pages) -> None:
        """What is there at a feed's first comparison is news to no reader: they had it elsewhere, or came later.

        So every cursor has to name those messages of it that it doesn't vouch for. What the stream has brought of
        them is looked at, and named, one by one.
        """
        if not self.is_complete:
            recent, _ = await catchup.after(pages, earlier(self._outlet.start, SETTLING))
            set_aside = {message.id for message, _, _ in self._late}
            self._outlet.look_back(message for message in recent if message.id not in set_aside)

    async def bring_in(self, messages: list[Message]) -> None:
        """Hand out and record what was read from history for somebody, as far as it is news here.

        Raises LedgerUnavailable. What this feed can't have missed is recorded only.
        """
        async with self._awaited():
            if self._expected is None:
                await self.prepare()
            assert self._expected is not None
            await self._bring_in(messages, dict(self._expected))

    def _give_up_on_missing(self, difference: catchup.Difference) -> None:
        """A young topic that isn't there for so long is gone, and not only late at one of upstream's replicas.

        When it is there again, its messages may be others, just as many of them: it has to look changed.
        """
        now = time.monotonic()
        for scope in difference.missing:
            if self._expected is not None and scope in self._expected:
                self._expected[scope] = replace(self._expected[scope], count=_NO_COUNT)
        self._missing_since = {scope: self._missing_since.get(scope, now) for scope in difference.missing}
        for scope, since in self._missing_since.items():
            if now - since >= _MISSING_SECONDS:
                difference.gone[scope] = difference.missing[scope]
                difference.is_news = True
            else:
                self.look_again(since + _MISSING_SECONDS - now + _SAME_LOOK)

    async def _bring_in(
        self, messages: list[Message], known: dict[str, TopicState], *, writes_again: bool = False
    ) -> int:
        """Hand out what history has and readers don't; how many answers and steps that was.

        What was handed out before has its receipt, or waits in the ledger's line for it, unless that `writes_again`.
        """
        found = {m.id: m for m in (*messages, *(message for message, _, _ in self._late))}
        recovered = 0
        await self._hear_what_was_set_aside(known)
        for part in _in_parts(sorted(found.values(), key=lambda m: m.order)):
            familiar = await self._familiar(part)
            remembered = {message.id for message in part if self._outlet.knows(message)}  # what we add makes it forget
            for message in part:
                if message.id not in remembered:
                    recovered += self._find(message, known, familiar)
                elif writes_again:
                    self._around.ledger.record(self._inbox, message)
            await self._around.ledger.flush()  # more may have been found than the line holds
        return recovered

    async def _hear_what_was_set_aside(self, known: dict[str, TopicState]) -> None:
        late, self._late = {m.id: (m, json, event) for m, json, event in self._late}, []
        try:
            for several in _in_parts(sorted(late.values(), key=lambda each: each[0].order)):
                familiar = await self._familiar([message for message, _, _ in several])
                remembered = {message.id for message, _, _ in several if self._outlet.knows(message)}
                for message, json, event in several:
                    if message.id in remembered:
                        self._outlet.repeat(message, json, event)
                    else:
                        self._hear_late(message, json, event, known, familiar)
                    del late[message.id]
        except BaseException:
            self._late = [*late.values(), *self._late]
            raise

    def _require_life(self) -> None:
        """A feed that has ended knows no more what it handed out, and another may have taken its place."""
        if self._is_over:
            raise errors.UpstreamUnavailable("the feed has ended")

    async def _familiar(self, messages: list[Message]) -> set[str]:
        """Which of these answers were handed out or settled before, where our own memory can't tell.

        It forgets while the ledger is asked; so it is looked at again until the ledger was asked about all that
        it has forgotten. What is returned holds until the next await.
        """
        asked: set[str] = set()
        familiar: set[str] = set()
        outlet, ledger = self._outlet, self._around.ledger
        while doubtful := [
            m for m in messages if m.is_answer and m.id not in asked and not outlet.knows(m) and outlet.is_old(m)
        ]:
            await ledger.flush()  # what was handed out lately may still wait to be written
            familiar |= await ledger.familiar(Familiar(self._inbox, doubtful, outlet.start, outlet.began_at))
            asked |= {message.id for message in doubtful}
        self._require_life()
        return familiar

    def _hear_late(
        self, message: Message, json: str, event: str, known: dict[str, TopicState], familiar: set[str]
    ) -> None:
        """A message from the stream that claims to be old: an edit of an old one, or a slow clock somewhere."""
        state = known.get(message.scope, catchup.NOTHING_KNOWN)
        surveyed = unread.behind(state.surveyed_at)
        is_known = message.id in familiar if message.is_answer else message.order <= surveyed
        if is_known or message.order <= state.floor:
            self._outlet.remember(message, hash(json))
            self._outlet.pass_over(message)
            self._outlet.edit(message, json, event)
        else:
            self._outlet.hand_out(message, json, event)

    def _find(self, message: Message, known: dict[str, TopicState], familiar: set[str]) -> int:
        """Place one message that history has and the stream did not bring; 1 if readers were shown it."""
        is_news = not self._outlet.is_old(message)
        if message.is_answer and not is_news:
            is_new_to_ledger = message.id not in familiar and message.order > _floor(known, message.scope)
            is_news = self.is_complete and is_new_to_ledger
        if message.is_streamed and is_news:
            metrics.messages_received["history"] += 1
            self._outlet.hand_out(message)
            return 1
        if message.is_answer and message.id not in familiar:
            self._outlet.note(message)
        else:
            self._outlet.remember(message)
        self._outlet.pass_over(message)
        if message.is_streamed:
            self._around.ledger.record(self._inbox, message)
        elif is_news:
            self._around.hub.publish(self._inbox.address, StreamItem("sent", message=message))
        return 0

    async def _settle(self, difference: catchup.Difference) -> None:
        ledger = self._around.ledger
        await self._flush()
        settlement = Settlement(
            self._inbox, difference.asked_at, difference.topics, difference.floors, difference.whole
        )
        await ledger.settle(settlement)
        if difference.floors:
            self._around.hub.publish(self._inbox.address, StreamItem("resync", reason="too-much-missed"))
        if difference.gone:
            await ledger.drop_topics(self._inbox, difference.gone)
            stored = await ledger.topic_states(self._inbox)
            for scope in difference.gone:
                self.forget_topic(scope)
                if scope in stored and self._expected is not None:  # others may have heard answers that we haven't
                    self._expected[scope] = stored[scope]

    @asynccontextmanager
    async def _awaited(self) -> AsyncIterator[None]:
        """Alone, and without the patience of a comparison by the clock that is under way, or of our own."""
        self._hurrying += 1
        try:
            if self._comparing.locked():
                self._around.ledger.hurry()
            async with self._comparing:
                yield
        finally:
            self._hurrying -= 1

    async def _flush(self) -> None:
        """Return when everything that was recorded is written; LedgerUnavailable."""
        await self._around.ledger.flush(is_urgent=self._hurrying > 0 or self.away_since is not None)

    def _back(self, recovered: int) -> None:
        since, self.away_since = self.away_since, None
        self._around.hub.publish(
            self._inbox.address, StreamItem("recovered", count=recovered, since=since, until=datetime.now(UTC))
        )


def _in_parts[T](items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _minute() -> float:
    return _COMPARE_SECONDS * random.uniform(0.85, 1.15)


def _floor(known: dict[str, TopicState], scope: str) -> str:
    return known.get(scope, catchup.NOTHING_KNOWN).floor
