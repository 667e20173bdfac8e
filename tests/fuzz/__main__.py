"""All fuzzers, each for a while: python -m tests.fuzz --seconds 300"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.conftest import HAS_ATHERIS

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_EXAMPLES_A_ROUND = 1_000


def hypothesis_for(seconds: int) -> bool:
    """Try the properties with ever other examples until the time is over; whether all of them held."""
    properties = [str(path) for path in sorted(_HERE.glob("test_*_properties.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-show-statistics", "-o", "timeout=0", *properties]
    environment = os.environ | {"FUZZ_EXAMPLES": str(_EXAMPLES_A_ROUND)}
    end, rounds, examples = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        ran = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            print(ran.stdout[-20_000:])
            print("hypothesis: FAILED")
            return False
        rounds += 1
        examples += sum(int(count) for count in re.findall(r"(\d+) passing", ran.stdout))
    print(f"hypothesis: {examples} examples in {rounds} rounds, every property held")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for each of the two (default: %(default)s)")
    seconds: int = parser.parse_args().seconds
    held = hypothesis_for(seconds)
    if HAS_ATHERIS:
        command = [sys.executable, "-m", "tests.fuzz.atheris_sse", "--seconds", str(seconds)]
        held = subprocess.run(command, cwd=_ROOT, check=False).returncode == 0 and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
