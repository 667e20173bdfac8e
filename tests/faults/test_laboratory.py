"""Random people, tabs, processes and faults; then what was stored, shown and counted are compared (issue 3, D1-D7)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.faults.laboratory.rig import Rig
from tests.faults.laboratory.run import run
from tests.services.redis import Redis
from tests.services.standins import Oidc

_STEPS = 100


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str], redis: Redis, oidc: Oidc
) -> Iterator[Rig]:
    rig = Rig(database_url=fresh_database(), redis=redis, oidc=oidc, folder=tmp_path_factory.mktemp("laboratory"))
    yield rig
    rig.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, None], ids=["seed 1", "a seed of today"])
async def test_nothing_is_lost_nothing_is_shown_twice_and_no_count_is_wrong(rig: Rig, seed: int | None) -> None:
    """F76, F83, F101: whatever fails, with two processes; `python -m tests.faults.laboratory` is the long run.

    F76 asks for a lease of the upstream stream. Here both processes read it, and the unique receipt makes one of two.
    """
    verdict = await run(rig, seed or random.randrange(1_000, 1_000_000), _STEPS)
    print(verdict)
    assert not verdict.deviations, verdict.report
