"""How long to wait before the next try: 1, 2, 4, 8, 16 s, each with up to 20 % jitter (interfaces.md section 5)."""

from __future__ import annotations

import random
from collections.abc import Callable

TRIES = 5
_JITTER = 0.2


def delay(failures: int, *, chance: Callable[[], float] = random.random) -> float | None:
    """Seconds to wait after so many failures in a row; None when it is time to give up. `failures` counts from 1."""
    if failures > TRIES:
        return None
    return float(2 ** (failures - 1) * (1 + _JITTER * chance()))
