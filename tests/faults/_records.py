"""What the workers have written down, read back. Pure: text in, records out.

All times are those of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Final

__all__ = ["FIRST", "Attempt", "History", "Last", "Pause", "Read", "Rest", "parse"]

#: The version with which every session begins.
FIRST: Final = "first"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to change a session.

    Attributes:
        worker: whose it was.
        session: which session it meant.
        outcome: "ok"; "unknown", "killed": nobody can tell; "unconfirmed": written, and it may have been lost with its
            server; anything else: not written.
        asked: when it asked for the lock.
        done: when it was told its outcome; None if never.
        read: the version it has read; None if it did not get as far as its commit.
        written: the version it wanted to write.
        count: the counter it has read.
        began: when its body began; 0 if it did not get the lock.
        ended: when its body ended; 0 if it did not get as far as its commit.
    """

    worker: str
    session: str
    outcome: str
    asked: float
    done: float | None
    read: str | None = None
    written: str = ""
    count: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def wait(self) -> float:
        """How long it waited for the lock."""
        return self.began - self.asked


@dataclass(frozen=True, slots=True)
class Read:
    """A session was read, without its lock; or could not be.

    Attributes:
        session: which session it meant.
        outcome: "ok", or what went wrong.
        asked: when it asked.
        done: when it was told.
    """

    session: str
    outcome: str
    asked: float
    done: float


@dataclass(frozen=True, slots=True)
class Pause:
    """So long a worker could not run: it was stopped, or others had the processor."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Last:
    """What the server has of a session in the end."""

    version: str
    count: int


@dataclass(frozen=True, slots=True)
class Rest:
    """What a worker still had when it was done; all of it should be 0."""

    worker: str
    left: dict[str, int]


@dataclass(slots=True)
class History:
    """All that a worker has written down.

    Attributes:
        attempts: to change sessions.
        reads: of sessions.
        pauses: in which it could not run.
        rest: what it had in the end; None if it did not live to tell.
    """

    attempts: list[Attempt] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    rest: Rest | None = None


def parse(worker: str, text: str) -> History:
    """Read what a worker wrote down."""
    history = History()
    tries: dict[int, Attempt] = {}
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # the last words of a killed process
        match json.loads(line):
            case ["try", int(number), str(session), str(read), str(written), int(count), asked, began, ended]:
                tries[number] = Attempt(
                    worker, session, "killed", asked, None, read, written, count, float(began), float(ended)
                )
            case ["end", int(number), str(session), str(outcome), asked, began, done]:
                tried = tries.pop(number, Attempt(worker, session, "", asked, None, began=float(began)))
                history.attempts.append(replace(tried, outcome=outcome, done=float(done)))
            case ["read", str(session), str(outcome), asked, done]:
                history.reads.append(Read(session, outcome, float(asked), float(done)))
            case ["pause", began, ended]:
                history.pauses.append(Pause(float(began), float(ended)))
            case ["rest", dict(left)]:
                history.rest = Rest(worker, left)
            case other:
                raise ValueError(f"{worker} wrote {other!r}")
    history.attempts += tries.values()
    return history
