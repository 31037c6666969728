"""What the doctor finds, the worst first, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import final

__all__ = ["CODES", "DeadEndError", "Finding", "Level", "as_json", "as_text", "exit_code", "sort"]


class Level(StrEnum):
    """How bad it is; the worst first."""

    WRONG = "wrong"  # a setting cannot be used
    PROBLEM = "problem"  # sessions do not work
    WARNING = "warning"  # they do, and not as they should
    SKIPPED = "skipped"  # could not be looked at
    OK = "ok"


#: The exit code, if nothing worse was found.
CODES = {Level.WRONG: 2, Level.PROBLEM: 3, Level.WARNING: 1, Level.SKIPPED: 0, Level.OK: 0}

_SEVERITY = {level: number for number, level in enumerate(Level)}


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how bad it is.
        topic: what was looked at, in a word that programs can rely on.
        text: what was found, in plain words. No passwords, keys or session ids.
        fix: what to type; empty if nothing has to be done.
    """

    level: Level
    topic: str
    text: str
    fix: str = ""


class DeadEndError(Exception):
    """Something is found that makes it useless to look any further."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, and otherwise in their order."""
    return sorted(findings, key=lambda finding: _SEVERITY[finding.level])


def exit_code(findings: Sequence[Finding]) -> int:
    """What the worst of sorted findings comes to."""
    return CODES[findings[0].level]


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line for each finding, and under it what to type."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level:8} {finding.text}")
        lines += [f"         > {line}" for line in finding.fix.splitlines()]
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """For programs: one object."""
    found = [{"level": each.level, "topic": each.topic, "text": each.text, "fix": each.fix} for each in findings]
    return json.dumps({"level": findings[0].level, "exit_code": exit_code(findings), "findings": found}, indent=2)
