"""The long run: `python -m tests.faults.laboratory --seeds 20 --steps 500`. Ends with 1 on any deviation."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.laboratory.rig import Rig
from tests.faults.laboratory.run import PATIENCE, Verdict, run
from tests.services import environment
from tests.services.app import manage
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.redis import Redis
from tests.services.standins import Oidc


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # or what was started would stay
    folder = Path(options.folder or tempfile.mkdtemp(prefix="laboratory-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"logs and reports: {folder}", flush=True)
    postgres, redis, oidc = Postgres(environment.DATABASE_PORT), Redis(free_port()), Oidc(log=folder / "oidc.log")
    try:
        url = postgres.create_database()
        manage("migrate", "--verbosity", "0", env={"DATABASE_URL": url})
        rig = Rig(database_url=url, redis=redis, oidc=oidc, folder=folder)
        try:
            verdicts = asyncio.run(_seeds(rig, options, folder))
        finally:
            rig.close()
    finally:
        oidc.kill()
        redis.close()
        postgres.close()
    steps = sum(verdict.steps for verdict in verdicts)
    messages = sum(verdict.messages for verdict in verdicts)
    lost, twice = sum(v.count("lost") for v in verdicts), sum(v.count("twice") for v in verdicts)
    wrong = sum(len(v.deviations) for v in verdicts) - lost - twice
    print(
        f"total: {len(verdicts)} seeds, {steps} steps, {messages} messages, {sum(v.faults for v in verdicts)} faults: "
        f"{lost} lost, {twice} shown twice, {wrong} wrong counts"
    )
    sys.exit(1 if any(verdict.deviations for verdict in verdicts) else 0)


async def _seeds(rig: Rig, options: argparse.Namespace, folder: Path) -> list[Verdict]:
    verdicts = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        verdict = await run(rig, seed, options.steps, patience=options.patience)
        verdicts.append(verdict)
        print(verdict, flush=True)
        if verdict.deviations:
            (folder / f"seed-{seed}.txt").write_text(verdict.report)
            print(verdict.report, file=sys.stderr, flush=True)
    await rig.aclose()
    return verdicts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.laboratory", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds until all has to be right again")
    parser.add_argument("--folder", help="for logs and reports; default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
