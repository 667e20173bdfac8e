"""1, 2, 4, 8, 16 seconds with up to 20 % more, then it is over (interfaces.md section 5)."""

from __future__ import annotations

import pytest

from messaging import backoff


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)])
def test_it_doubles_with_a_little_jitter(failures: int, seconds: int) -> None:
    assert backoff.delay(failures, chance=lambda: 0.0) == seconds
    assert backoff.delay(failures, chance=lambda: 1.0) == pytest.approx(seconds * 1.2)


def test_it_gives_up_after_the_fifth() -> None:
    assert backoff.delay(6) is None
