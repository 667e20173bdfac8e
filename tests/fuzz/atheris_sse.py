"""Coverage-guided fuzzing of the event-stream decoder: python -m tests.fuzz.atheris_sse --seconds 300

The fuzzer (libFuzzer, through atheris) chooses the bytes, the cuts and the limit, guided by which lines of
messaging.sse it reaches; what the decoder makes of them must be what the reference does. An input is the limit's byte,
the number of cuts, the sizes of the pieces, and the stream.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["messaging.sse"]):
    import messaging.sse  # noqa: F401 - so that atheris sees which lines are reached

from tests.fuzz.cases import PIECES, all_cases, cut
from tests.fuzz.compare import difference

_ROOT = Path(__file__).parents[2]
_CHILD = "import sys; from tests.fuzz.atheris_sse import fuzz; fuzz(sys.argv[1:])"
_LIMITS = (1 << 20, 8, 16, 33, 64, 200)
_LONGEST = 2_048
_MEMORY_MB = 400
_GRACE_SECONDS = 60


def unpack(packed: bytes) -> tuple[list[bytes], int]:
    """The chunks and the limit that an input stands for; any bytes are an input."""
    limit = _LIMITS[packed[0] % len(_LIMITS)] if packed else _LIMITS[0]
    pieces = packed[1] if len(packed) > 1 else 0
    sizes, stream = packed[2 : 2 + pieces], packed[2 + pieces :]
    return list(cut(stream, sizes)), limit


def pack(chunks: tuple[bytes, ...], limit: int = 0) -> bytes:
    """The input for these chunks, as far as a byte can say their sizes."""
    sizes = bytes(min(len(chunk), 255) for chunk in chunks[:255])
    return bytes([limit, len(sizes)]) + sizes + b"".join(chunks)


def try_one(packed: bytes) -> None:
    chunks, limit = unpack(packed)
    found = difference(chunks, limit)
    if found:
        raise AssertionError(f"limit {limit}, chunks {chunks}: {found}")


def fuzz(options: list[str]) -> None:
    """Never returns: libFuzzer ends the process when its time is over, or at the first difference."""
    atheris.Setup([sys.argv[0], *options], try_one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300, help="for how long (default: %(default)s)")
    seconds: int = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="sse-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, case in enumerate(all_cases()):
            for limit in range(len(_LIMITS)):
                Path(corpus, f"{number}-{limit}").write_bytes(pack(case.chunks, limit)[:_LONGEST])
        words = Path(folder, "words")
        words.write_text("".join(f'"{"".join(f"\\x{byte:02x}" for byte in piece)}"\n' for piece in PIECES))
        options = [
            str(corpus),
            f"-dict={words}",
            f"-max_total_time={seconds}",
            f"-max_len={_LONGEST}",
            f"-rss_limit_mb={_MEMORY_MB}",
            f"-artifact_prefix={folder}/",
            "-timeout=10",
            "-print_final_stats=1",
        ]
        ran = subprocess.run(  # libFuzzer ends by itself; the time-out is for one that hangs
            [sys.executable, "-c", _CHILD, *options],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + _GRACE_SECONDS,
        )
    return _report(ran)


def _report(ran: subprocess.CompletedProcess[str]) -> int:
    said = ran.stdout + ran.stderr
    numbers = dict(re.findall(r"^stat::(\w+):\s+(\d+)", said, re.MULTILINE))
    coverage = re.findall(r"\bcov: (\d+) ft: (\d+) corp: (\d+)", said)
    if ran.returncode != 0 or not numbers or not coverage:
        print(said[-8_000:])
        print("result: FAILED")
        return 1
    edges, features, inputs = coverage[-1]
    print(f"executions: {numbers['number_of_executed_units']} ({numbers['average_exec_per_sec']} a second)")
    print(f"coverage: {edges} edges, {features} features, {inputs} inputs kept")
    print(f"memory: {numbers['peak_rss_mb']} MB at most")
    print("result: no crash, no difference to the reference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
