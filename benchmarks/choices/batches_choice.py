"""Unread writes, and what opening a stream asks, on real PostgreSQL: together and one by one (batched.py)."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.choices.rig import database
from benchmarks.peers.portal import environment, sign_everybody_in
from tests.services.process import ROOT

_PEOPLE = 500
_NO_UPSTREAM = 9


def main(rounds: int) -> None:
    with database() as postgres:
        sign_everybody_in(postgres, _PEOPLE)
        command = (sys.executable, "-m", "benchmarks.choices.batched", str(rounds), str(_PEOPLE))
        env = environment(postgres.url("people"), _NO_UPSTREAM)
        subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=True)
