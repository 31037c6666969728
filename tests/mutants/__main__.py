"""The command behind `make mutants`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from ._runner import BaselineError, Fate, check_baseline, judge_all
from .mutants import MUTANTS


def main() -> int:
    """Judge the chosen mutants, and return 0 only if every one was killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants with one of these in name or file")
    parser.add_argument("--list", action="store_true", help="name the mutants, run nothing")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="at a time")
    options = parser.parse_args()

    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.words or any(word in f"{mutant.name} {mutant.file}" for word in options.words)
    ]
    if not chosen:
        print("no mutant has such a name", file=sys.stderr)
        return 1
    if options.list:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.name}")
        return 0

    started = time.monotonic()
    try:
        check_baseline(chosen)
    except BaselineError as error:
        print(f"{error}\nThese tests must pass before mutants can be judged by them.", file=sys.stderr)
        return 1

    width = max(len(mutant.name) for mutant in chosen)
    fates: Counter[Fate] = Counter()
    for verdict in judge_all(chosen, jobs=options.jobs):
        fates[verdict.fate] += 1
        print(f"{verdict.mutant.name:{width}} — {verdict.fate.value} {verdict.detail}", flush=True)
    seconds = time.monotonic() - started
    print(f"{fates[Fate.KILLED]} of {len(chosen)} mutants killed in {seconds:.0f} s")
    return 0 if fates[Fate.KILLED] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
