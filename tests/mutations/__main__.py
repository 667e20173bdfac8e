"""Break each promise on purpose and see that its tests fail: python -m tests.mutations [part of a mutant's name ...]

Each mutant gets a copy of the repository in a temporary folder; this one is never changed. The tests are run there
without any mutant first, when all of them have to pass.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutations.mutant import ROOT, Mutant
from tests.mutations.table import MUTANTS

_SLOWEST_RUN_SECONDS = 900


def copy(folder: Path) -> Path:
    """The repository as it is now, committed or not, without what Git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run(tests: Iterable[str], folder: Path) -> tuple[set[str], set[str], str]:
    """Run tests in a copy: which of them failed, which passed, and what pytest said."""
    tests = sorted(set(tests))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-rA", *tests]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_SLOWEST_RUN_SECONDS)
    outcomes = re.findall(r"^(PASSED|FAILED) ([^\s\[]+)", ran.stdout, re.MULTILINE)
    failed = {name for outcome, name in outcomes if outcome == "FAILED"}
    passed = {name for outcome, name in outcomes if outcome == "PASSED"} - failed
    return failed, passed, ran.stdout + ran.stderr


def judge(mutant: Mutant, original: Path) -> tuple[str, str]:
    """What became of a mutant ("killed", "SURVIVED"), and what pytest said if that is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = shutil.copytree(original, Path(name, "portal"))
        for edit in mutant.edits:
            if edit.occurrences(folder) != 1:
                return "STALE", f"not once in {edit.file}: {edit.text}"
            edit.apply(folder)
        failed, _, said = run(mutant.tests, folder)
    survived_at = sorted(set(mutant.tests) - failed)
    return ("SURVIVED", said) if survived_at else ("killed", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only mutants whose name holds one of these words")
    parser.add_argument("--at-once", type=int, default=2, help="how many at a time (default: %(default)s)")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.names or any(word in m.name for word in arguments.names)]
    wanted = {test for mutant in chosen for test in mutant.tests}
    with tempfile.TemporaryDirectory(prefix="unmutated-") as name:
        original = copy(Path(name, "portal"))
        failed, passed, said = run(wanted, original)
        if failed or passed != wanted:
            print(said[-20_000:])
            print(f"these don't pass without any mutant: {sorted(wanted - passed)}")
            return 1
        print(f"{len(wanted)} tests pass as it is. {len(chosen)} mutants:", flush=True)
        return try_all(chosen, original, at_once=arguments.at_once)


def try_all(mutants: Sequence[Mutant], original: Path, *, at_once: int) -> int:
    """Judge each mutant and print a table; the number of survivors."""
    started, survivors = time.monotonic(), 0
    with ThreadPoolExecutor(at_once) as pool:
        verdicts = pool.map(lambda mutant: judge(mutant, original), mutants)
        for mutant, (verdict, said) in zip(mutants, verdicts, strict=True):
            survivors += verdict != "killed"
            tests = ", ".join(test.partition("::")[2] for test in mutant.tests)
            print(f"{verdict:<9} {mutant.promise:<8} {mutant.name:<66} {tests}", flush=True)
            if said:
                print(said[-6_000:])
    print(f"{len(mutants) - survivors} of {len(mutants)} killed in {time.monotonic() - started:.0f} s")
    return survivors


if __name__ == "__main__":
    sys.exit(min(main(), 1))
