"""When each call has to be over, and by how much it was late. Pure: records in, figures out.

    what                                  has to be over
    the wait for a lock                   `lock_timeout` after it was asked for
    a body that lost its lock             by itself, at its next checkpoint
    the commit, when the body has ended   `commit_timeout` later
    a read                                when its server has been silent, or away, for long enough (see `READ`)

A process that could not run when it should have is not late: what it wrote down of that is subtracted. So figures of a
busy machine are those of an idle one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ._invariants import Violation
from ._records import Attempt, History, Pause

__all__ = ["PUNCTUAL", "READ", "Deadlines", "Delay", "check_time", "paused"]

#: So late may a call be.
PUNCTUAL: Final = 0.5  # seconds
#: A server that owes an answer is given up after two seconds of silence, and who waits for a connection after two more.
#: Before its silence a busy one may have answered others first.
READ: Final = 4.5  # seconds


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What was agreed with a worker, in seconds.

    Attributes:
        wait: for a lock.
        body: how long one takes at most.
        commit: for the end of a block.
    """

    wait: float
    body: float
    commit: float


@dataclass(frozen=True, slots=True, order=True)
class Delay:
    """A call was late by so many seconds; less than 0: it was in time."""

    seconds: float
    what: str


def check_time(histories: Sequence[History], deadlines: Deadlines) -> Delay:
    """Check I6.

    Returns:
        The greatest delay.

    Raises:
        Violation: it is too great.
    """
    worst = max((delay for history in histories for delay in _delays(history, deadlines)), default=Delay(0.0, "none"))
    if worst.seconds > PUNCTUAL:
        raise Violation(f"I6: {worst.seconds:.2f} s after its deadline a call was not over: {worst.what}")
    return worst


def paused(pauses: Iterable[Pause], began: float, ended: float) -> float:
    """For how long of a time a process could not run."""
    return sum(max(0.0, min(pause.ended, ended) - max(pause.began, began)) for pause in pauses)


def _delays(history: History, deadlines: Deadlines) -> Iterator[Delay]:
    for attempt in history.attempts:
        for what, due, over in _phases(attempt, deadlines):
            if over > due - PUNCTUAL:  # nearly all are far from it
                yield Delay(over - due - paused(history.pauses, due, over), f"{what} of {attempt}")
    for read in history.reads:
        due = read.asked + READ
        if read.done > due - PUNCTUAL:
            yield Delay(read.done - due - paused(history.pauses, due, read.done), str(read))


def _phases(attempt: Attempt, deadlines: Deadlines) -> Iterator[tuple[str, float, float]]:
    """What there was to do, when it had to be over, and when it was."""
    if attempt.began:
        yield "wait", attempt.asked + deadlines.wait, attempt.began
        if attempt.done is not None and attempt.ended:
            yield "commit", attempt.ended + deadlines.commit, attempt.done
        elif attempt.done is not None:
            yield "body", attempt.began + deadlines.body, attempt.done
    elif attempt.done is not None:
        yield "wait", attempt.asked + deadlines.wait, attempt.done
