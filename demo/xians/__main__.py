"""`python -m demo.xians --port 0 --world demo`: serve a stand-in; says its port as JSON when it is ready."""

import argparse
import json
import os
from pathlib import Path

from demo import agents, world
from demo.xians import server
from demo.xians.app import create_app
from demo.xians.journal import Journal
from demo.xians.switchboard import Behaviour


def main() -> None:
    options = _options()
    built = world.demo() if options.world == "demo" else world.bare()
    journal = Journal(options.state) if options.state else None
    is_restored = journal.restore(built.messages) if journal else False
    if options.world == "demo" and not is_restored:
        world.seed(built)
    app = create_app(built, behaviour=Behaviour(blind_seconds=options.blind_seconds))
    if options.agents if options.agents is not None else options.world == "demo":
        agents.install(app, seed=options.seed, news_seconds=options.news_seconds, pace=options.pace)
    if options.stop_with_stdin:
        server.stop_when_orphaned()
    server.serve(app, host="127.0.0.1", port=options.port, announce=_announce)
    if journal:
        journal.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.xians", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--world", choices=("demo", "empty"), default="demo")
    parser.add_argument("--state", type=Path, help="file that keeps the messages over restarts")
    parser.add_argument("--agents", action=argparse.BooleanOptionalAction, help="default: in the demo world only")
    parser.add_argument("--seed", type=int, default=7, help="what the agents' dice start from")
    parser.add_argument("--news-seconds", type=float, default=6.0, help="between two pieces of news")
    parser.add_argument("--pace", type=float, default=1.0, help="stretches the pauses of answering agents")
    parser.add_argument("--blind-seconds", type=float, default=0.02, help="deaf time after `connected`")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input is closed")
    return parser.parse_args()


def _announce(port: int) -> None:
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    main()
