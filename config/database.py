"""PostgreSQL connections that give up: no server, however stuck, is waited for longer than a limit.

A time-out at the server is no help where the server itself stands still (reliability.md F66), and start-up options are
not for every pooler; so the limit is kept here, in the client.
"""

from __future__ import annotations

import select
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, ClassVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg_pool import ConnectionPool

_QUICK_SECONDS = 0.5
_JUST_NOW_SECONDS = 1.0


class LimitedConnection(psycopg.Connection[Any]):
    """As psycopg's; but where `limit_seconds` is set, a wait that takes longer ends in an OperationalError.

    The connection is then of no use any more: what it was waiting for is cancelled if the server can still hear it,
    and the connection is closed. Only servers set the limit (`config.asgi`): a migration may take its time.
    """

    limit_seconds: ClassVar[float | None] = None
    worked_at = float("-inf")
    """When the server last answered on it (monotonic)."""
    lost_at: ClassVar[float] = float("-inf")
    """When one of them was last found dead in use (monotonic)."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        limited = gen if self.limit_seconds is None else self._limited(gen, time.monotonic() + self.limit_seconds)
        try:
            answer = super().wait(limited, *args, **kwargs)
        except psycopg.OperationalError:
            if self.broken:
                LimitedConnection.lost_at = time.monotonic()
            raise
        self.worked_at = time.monotonic()
        return answer

    def is_sure(self) -> bool:
        """Whether it worked just now, none was lost since, and the server has said nothing unasked: not good-bye."""
        if time.monotonic() - self.worked_at > _JUST_NOW_SECONDS or self.worked_at <= LimitedConnection.lost_at:
            return False
        news = select.poll()
        news.register(self.pgconn.socket, select.POLLIN)
        return not news.poll(0)

    def _limited(self, gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg asks every tenth of a second, with nothing ready
                if not ready and time.monotonic() > deadline:
                    self._give_up()
                    raise psycopg.OperationalError(f"no answer from the database within {self.limit_seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

    def _give_up(self) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=1.0)
        self.pgconn.finish()


def check(connection: psycopg.Connection[Any]) -> None:
    """Whether a connection of the pool still works: raises where it doesn't. One that is sure isn't asked.

    So when all are lost at once one request may find out, and its repeat works. One that is found dead is seldom alone
    (a failover, a restart): the pool would find the others one by one, with pauses that grow, so all are looked at now.
    """
    started = time.monotonic()
    if isinstance(connection, LimitedConnection) and connection.is_sure():
        return
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        if time.monotonic() - started < _QUICK_SECONDS:  # otherwise the server is stuck, and each would take as long
            connections[DEFAULT_DB_ALIAS].pool.check()  # type: ignore[attr-defined]  # PostgreSQL's has one
        raise
