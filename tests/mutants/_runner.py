"""Breaks one place of the code at a time, in a copy of the repository, and runs the tests that must notice.

A mutant counts as killed only if its tests pass without it and one of them fails, or hangs, with it. A mutant
that breaks the import or the collection proves nothing about the tests, so it is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What a copy does without: histories, environments, caches and what was built.
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", ".coverage*", "build", "dist"
)

# pytest's exit codes for these; every other one means that the tests did not get to run.
_ALL_PASSED = 0
_SOME_FAILED = 1

# A mutant may make a test wait for ever; pytest's own limit comes first, this one ends what ignores it.
_TEST_LIMIT = 20  # seconds, for one test
_RUN_LIMIT = 60.0  # seconds, for the tests of one mutant
_BASELINE_LIMIT = 600.0  # seconds, for all named tests without a mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One way to break the code, and the tests that say so.

    Attributes:
        name: what is broken, in a few words.
        file: the file to change, from the root of the repository.
        old: the exact text to replace; it must be there exactly once.
        new: what to put there.
        tests: node ids of pytest, at least one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Fate(Enum):
    """What became of a mutant. All but `KILLED` fail the run."""

    KILLED = "killed by"
    SURVIVED = "SURVIVED"
    STALE = "STALE"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant, and by which test or for which reason."""

    mutant: Mutant
    fate: Fate
    detail: str


class BaselineError(Exception):
    """The named tests do not pass even without a mutant, so they would kill anything."""


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the mutant's file, broken.

    Raises:
        ValueError: the mutant does not fit the file (any more), or the result is no Python.
    """
    path = root / mutant.file
    if not path.is_file():
        raise ValueError(f"there is no {mutant.file}")
    text = path.read_text(encoding="utf-8")
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(f"the old text is there {found} times, not once")
    if mutant.old == mutant.new:
        raise ValueError("the new text is the old one")
    text = text.replace(mutant.old, mutant.new)
    if path.suffix == ".py":
        try:
            compile(text, mutant.file, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise ValueError(f"the mutant is no Python: {error.msg}, line {error.lineno}") from None
    return text


def check_baseline(mutants: Sequence[Mutant]) -> None:
    """Run all named tests on the code as it is.

    Raises:
        BaselineError: not all of them pass; the message is pytest's report.
    """
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with _copy_of_repository() as copy:
        code, report = _run_tests(copy, tests, stop_early=False, limit=_BASELINE_LIMIT)
    if code != _ALL_PASSED:
        raise BaselineError(report or f"pytest took longer than {_BASELINE_LIMIT:g} s")


def judge_all(mutants: Sequence[Mutant], *, jobs: int) -> Iterator[Verdict]:
    """Judge the mutants, `jobs` at a time; the verdicts come in the order of the mutants."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(judge, mutants)


def judge(mutant: Mutant) -> Verdict:
    """Let one mutant live in a copy of its own, and see whether its tests notice."""
    with _copy_of_repository() as copy:
        try:
            broken = mutated(mutant, copy)
        except ValueError as error:
            return Verdict(mutant, Fate.STALE, str(error))
        (copy / mutant.file).write_text(broken, encoding="utf-8")
        code, report = _run_tests(copy, mutant.tests, stop_early=True, limit=_RUN_LIMIT)
    if code is None:
        return Verdict(mutant, Fate.KILLED, f"{', '.join(mutant.tests)} (hung)")
    if code == _ALL_PASSED:
        return Verdict(mutant, Fate.SURVIVED, ", ".join(mutant.tests))
    killers = re.findall(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", report, re.MULTILINE)
    if code == _SOME_FAILED and killers:
        return Verdict(mutant, Fate.KILLED, ", ".join(killers))
    last = report.strip().splitlines()[-1:] or ["no output"]
    return Verdict(mutant, Fate.BROKEN, f"pytest ended with {code}: {last[0]}")


@contextmanager
def _copy_of_repository() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(ROOT, copy, ignore=_NOT_COPIED)
        yield copy


def _run_tests(copy: Path, tests: Sequence[str], *, stop_early: bool, limit: float) -> tuple[int | None, str]:
    """The exit code of pytest, or None if it had to be killed, and its report."""
    command = [sys.executable, "-m", "pytest", "--no-header", "--tb=line", "-q", "-rfE"]
    # Always the same order and examples: a mutant must not live or die by chance.
    command += ["-p", "no:randomly", "-p", "no:cacheprovider", f"--timeout={_TEST_LIMIT}"]
    command += ["--exitfirst"] if stop_early else []
    process = subprocess.Popen(
        [*command, *tests],
        cwd=copy,
        env=_environment(copy),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that servers a test has started die with it
    )
    try:
        report, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None, ""
    else:
        return process.returncode, report
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(copy: Path) -> dict[str, str]:
    """The environment in which the copy, not the installed package, is what gets imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return kept | {
        "PYTHONPATH": str(copy),
        "HYPOTHESIS_PROFILE": "ci",
        # Compiled files are told apart by size and full second: too coarse for files that change this fast.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
