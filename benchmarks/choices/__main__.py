"""`python -m benchmarks.choices NAME...`: measure a choice again, and print its table. Without names: all of them."""

from __future__ import annotations

import argparse
import importlib

_CHOICES = ("servers", "transports", "json", "fragments", "batches", "gate", "collections", "writing", "threads")
"""Each is the module `NAME_choice`; plain names would hide the standard library's."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(_CHOICES)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured: medians are printed")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(_CHOICES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(_CHOICES)}")
    for name in options.names or _CHOICES:
        importlib.import_module(f"benchmarks.choices.{name}_choice").main(options.rounds)


if __name__ == "__main__":
    main()
