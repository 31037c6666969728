"""The command behind `make bench`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from . import __path__ as here
from ._beside import FULL, QUICK, measure_peers
from ._document import files
from ._figures import Record
from ._harness import Comparison, Result, as_markdown, measure
from ._machine import describe

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = "document: all libraries beside one another, docs/benchmarks.md"

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
) -> tuple[list[Result], list[str], list[str]]:
    """Measure one after the other, and say on stderr which one it is. Who fails does not stop the others.

    Returns:
        what was compared, the texts of the reports, and what failed.
    """
    results: list[Result] = []
    texts: list[str] = []
    failed: list[str] = []

    @contextmanager
    def going_on(name: str) -> Iterator[None]:
        print(f"{name} …", file=sys.stderr)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the others shall be measured
            failed.append(f"FAILED: {name}: {type(error).__name__}: {error}")

    for comparison in chosen:
        with going_on(comparison.name):
            results.append(await measure(comparison, rounds=rounds, seconds=seconds))
    for name, report in asked.items():
        with going_on(name):
            texts.append(await report(rounds, seconds))
    return results, texts, failed


def write_document(record: Record) -> None:
    """Put the page and its plots where the docs are."""
    for path, text in files(record).items():
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")


def redraw() -> None:
    """Write the document anew from the numbers that it has."""
    write_document(Record.from_json((DOCS / "_static/benchmarks.json").read_text(encoding="utf-8")))


def main() -> int:
    """Print a Markdown report of the chosen comparisons, and write the document if it is among them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("words", nargs="*", help="only what has one of these in its name")
    parser.add_argument("--list", action="store_true", help="name the comparisons, measure nothing")
    parser.add_argument("--quick", action="store_true", help="a few short turns: a glance")
    parser.add_argument("--rounds", type=int, help="turns for each candidate of a comparison, per start (15)")
    parser.add_argument("--seconds", type=float, help="length of a turn in a comparison (0.1)")
    parser.add_argument("--redraw", action="store_true", help="write the document anew from its numbers, and end")
    options = parser.parse_args()

    def is_asked_for(name: str) -> bool:
        return not options.words or any(word in name for word in options.words)

    if options.redraw:
        redraw()
        return 0
    chosen = [comparison for comparison in comparisons() if is_asked_for(comparison.name)]
    asked = {name: report for name, report in reports().items() if is_asked_for(name)}
    if not chosen and not asked and not is_asked_for(DOCUMENT):
        print("no comparison has such a name", file=sys.stderr)
        return 1
    if options.list:
        print(*(comparison.name for comparison in chosen), *asked, *filter(is_asked_for, [DOCUMENT]), sep="\n")
        return 0
    if is_asked_for(DOCUMENT):  # first: the load that it tells is not yet our own
        write_document(measure_peers(QUICK if options.quick else FULL))
        print(f"written: {DOCS / 'benchmarks.md'}\n")
    rounds = options.rounds or (5 if options.quick else 15)
    seconds = options.seconds or (0.05 if options.quick else 0.1)
    failed: list[str] = []
    if chosen or asked:
        run = partial(measure_all, rounds=rounds, seconds=seconds)
        results, texts, failed = trio.run(run, chosen, asked)
        tables = [as_markdown(results)] if results else []
        print(describe(), *tables, *texts, *failed, sep="\n\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
