"""The command behind `make bench`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from . import __path__ as here
from ._harness import Comparison, Result, as_markdown, measure
from ._machine import describe

# Takes a number of rounds and the seconds of a turn, gives Markdown.
Report = Callable[[int, float], Awaitable[str]]


def comparisons() -> list[Comparison]:
    """All there are, module by module."""
    found: list[Comparison] = []
    for module in pkgutil.iter_modules(here):
        if module.name.startswith("bench_"):
            found += importlib.import_module(f"{__package__}.{module.name}").COMPARISONS
    return found


def reports() -> dict[str, Report]:
    """Measurements that are more than a comparison, by name."""
    found: dict[str, Report] = {}
    for module in pkgutil.iter_modules(here):
        if module.name.startswith("bench_"):
            found |= getattr(importlib.import_module(f"{__package__}.{module.name}"), "REPORTS", {})
    return found


async def measure_all(
    chosen: Sequence[Comparison], asked: dict[str, Report], *, rounds: int, seconds: float
) -> tuple[list[Result], list[str]]:
    """Measure one after the other, and say on stderr which one it is."""
    results: list[Result] = []
    for comparison in chosen:
        print(f"{comparison.name} …", file=sys.stderr)
        results.append(await measure(comparison, rounds=rounds, seconds=seconds))
    texts: list[str] = []
    for name, report in asked.items():
        print(f"{name} …", file=sys.stderr)
        texts.append(await report(rounds, seconds))
    return results, texts


def main() -> int:
    """Print a Markdown report of the chosen comparisons."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("words", nargs="*", help="only comparisons with one of these in the name")
    parser.add_argument("--list", action="store_true", help="name the comparisons, measure nothing")
    parser.add_argument("--rounds", type=int, default=15, help="turns for each candidate")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    options = parser.parse_args()

    def is_asked_for(name: str) -> bool:
        return not options.words or any(word in name for word in options.words)

    chosen = [comparison for comparison in comparisons() if is_asked_for(comparison.name)]
    asked = {name: report for name, report in reports().items() if is_asked_for(name)}
    if not chosen and not asked:
        print("no comparison has such a name", file=sys.stderr)
        return 1
    if options.list:
        print(*(comparison.name for comparison in chosen), *asked, sep="\n")
        return 0
    run = partial(measure_all, rounds=options.rounds, seconds=options.seconds)
    results, texts = trio.run(run, chosen, asked)
    tables = [as_markdown(results)] if results else []
    print(describe(), *tables, *texts, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
