"""The coverage-guided fuzzer, for ten seconds: `make fuzz` gives it five minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.atheris_sse import pack, unpack
from tests.fuzz.cases import all_cases

ROOT = Path(__file__).parents[2]
SECONDS = 10
FEWEST = 500


def test_it_finds_no_difference_to_the_reference() -> None:
    command = [sys.executable, "-m", "tests.fuzz.atheris_sse", "--seconds", str(SECONDS)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stdout
    executions = re.search(r"executions: (\d+)", ran.stdout)
    assert executions is not None
    assert int(executions[1]) > FEWEST


def test_it_begins_with_the_known_cases_as_they_are_cut() -> None:
    for case in all_cases():
        if all(len(chunk) < 256 for chunk in case.chunks) and len(case.chunks) < 256:
            chunks, limit = unpack(pack(case.chunks))
            assert limit == 1 << 20
            assert [chunk for chunk in chunks if chunk] == [chunk for chunk in case.chunks if chunk]
