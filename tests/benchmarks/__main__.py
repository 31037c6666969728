"""The command behind `make bench`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from functools import partial

import trio

from . import __path__ as here
from ._harness import Comparison, Result, as_markdown, measure
from ._machine import describe


def comparisons() -> list[Comparison]:
    """All there are, module by module."""
    found: list[Comparison] = []
    for module in pkgutil.iter_modules(here):
        if module.name.startswith("bench_"):
            found += importlib.import_module(f"{__package__}.{module.name}").COMPARISONS
    return found


async def measure_all(chosen: Sequence[Comparison], *, rounds: int, seconds: float) -> list[Result]:
    """Measure one comparison after the other, and say on stderr which one it is."""
    results: list[Result] = []
    for comparison in chosen:
        print(f"{comparison.name} …", file=sys.stderr)
        results.append(await measure(comparison, rounds=rounds, seconds=seconds))
    return results


def main() -> int:
    """Print a Markdown report of the chosen comparisons."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("words", nargs="*", help="only comparisons with one of these in the name")
    parser.add_argument("--list", action="store_true", help="name the comparisons, measure nothing")
    parser.add_argument("--rounds", type=int, default=15, help="turns for each candidate")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    options = parser.parse_args()

    chosen = [
        comparison
        for comparison in comparisons()
        if not options.words or any(word in comparison.name for word in options.words)
    ]
    if not chosen:
        print("no comparison has such a name", file=sys.stderr)
        return 1
    if options.list:
        print(*(comparison.name for comparison in chosen), sep="\n")
        return 0
    run = partial(measure_all, rounds=options.rounds, seconds=options.seconds)
    results = trio.run(run, chosen)
    print(f"{describe()}\n\n{as_markdown(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
