"""The checks themselves: each invariant can be broken, and is then found to be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ._deadlines import Deadlines, Delay, check_time, paused
from ._invariants import Violation, check, check_rest, check_words, report
from ._records import FIRST, Attempt, History, Last, Pause, Read, Rest, parse


def attempt(number: int, outcome: str = "ok", **changes: object) -> Attempt:
    """The `number`-th of a chain, one second after the one before."""
    read = FIRST if number == 1 else f"v{number - 1}"
    body = Attempt("w", "s", outcome, number, number + 0.9, read, f"v{number}", number - 1, number + 0.1, number + 0.8)
    return replace(body, **changes)  # type: ignore[arg-type]


def judge(*attempts: Attempt, version: str, count: int) -> None:
    check(attempts, {"s": Last(version, count)})


def test_a_chain_is_a_chain() -> None:
    """Acknowledged commits one after the other, and refused ones in between, are as it should be."""
    refused = [
        attempt(2, outcome, written=f"x{outcome}") for outcome in ("lost", "timeout", "unavailable", "cancelled")
    ]
    judge(attempt(1), *refused, attempt(2), attempt(3), version="v3", count=3)


@pytest.mark.parametrize("outcome", ["unknown", "killed"])
def test_an_unsure_commit_may_be_there_or_not(outcome: str) -> None:
    """Both are the truth about a commit that nobody knows the outcome of."""
    judge(attempt(1), attempt(2, outcome), version="v2", count=2)
    judge(attempt(1), attempt(2, outcome), version="v1", count=1)
    judge(attempt(1), attempt(2, outcome, written="?"), attempt(2), version="v2", count=2)


def test_a_counter_that_is_too_low_is_found() -> None:
    """I1: acknowledged, and not there."""
    with pytest.raises(Violation, match="I1"):
        judge(attempt(1), attempt(2), version="v1", count=1)


def test_a_counter_that_is_too_high_is_found() -> None:
    """I1: there, and nobody has done it."""
    with pytest.raises(Violation, match="I1"):
        judge(attempt(1), version="v1", count=2)


def test_a_fork_is_found() -> None:
    """I2: two commits replace the same version, although the counter looks right."""
    with pytest.raises(Violation, match=r"I2.*same version"):
        judge(attempt(1), attempt(1, written="other"), attempt(2, "unknown"), version="v2", count=2)


def test_a_lost_commit_is_found() -> None:
    """I2: an unsure commit that landed does not make up for an acknowledged one that did not."""
    with pytest.raises(Violation, match=r"I2.*has been lost"):
        judge(attempt(1), attempt(2), attempt(2, "unknown", written="other"), version="other", count=2)


def test_a_refused_commit_that_landed_is_found() -> None:
    """I2: nobody may read what was never to be written, nor may it be there in the end."""
    with pytest.raises(Violation, match=r"I2.*never to be written"):
        judge(attempt(1), attempt(2, "lost"), attempt(3, "timeout"), version="v1", count=1)
    with pytest.raises(Violation, match=r"I2.*has landed"):
        judge(attempt(1, "lost"), attempt(1, "unknown", written="other"), version="v1", count=1)


def test_a_version_from_nowhere_is_found() -> None:
    """I2: what is read, and what is there in the end, was written by somebody."""
    with pytest.raises(Violation, match=r"I2.*nobody"):
        judge(attempt(1), attempt(2, read="nowhere"), version="v2", count=2)
    with pytest.raises(Violation, match=r"I2.*nobody"):
        judge(attempt(1), version="nowhere", count=1)


def test_a_counter_that_does_not_fit_its_version_is_found() -> None:
    """I2: a body that reads somebody's version reads that one's counter."""
    with pytest.raises(Violation, match=r"I2.*has read counter"):
        judge(attempt(1), attempt(2, count=0), version="v2", count=2)


def test_bodies_that_overlap_are_found() -> None:
    """I3: unless one of them was refused."""
    with pytest.raises(Violation, match="I3"):
        judge(attempt(1), attempt(2, began=1.7), version="v2", count=2)
    judge(attempt(1), attempt(2, "lost", began=1.7, written="x"), attempt(2), version="v2", count=2)


def test_the_data_of_another_session_is_found() -> None:
    """I4."""
    check_words([attempt(1), Read("s", "ok", 1.0, 1.1)])
    with pytest.raises(Violation, match="I4"):
        check_words([attempt(1, "mixup")])
    with pytest.raises(Violation, match="I4"):
        check_words([Read("s", "mixup", 1.0, 1.1)])


def test_what_is_left_is_found() -> None:
    """I5: in a worker, and on the server."""
    check_rest([Rest("w", {"locks held": 0})], [])
    with pytest.raises(Violation, match="I5"):
        check_rest([Rest("w", {"locks held": 1})], [])
    with pytest.raises(Violation, match="I5"):
        check_rest([], ["faults:x:l"])


def worst(*calls: Attempt | Read, pauses: tuple[Pause, ...] = ()) -> Delay:
    """The greatest delay of calls that may take a second for each thing they do."""
    attempts = [call for call in calls if isinstance(call, Attempt)]
    reads = [call for call in calls if isinstance(call, Read)]
    return check_time([History(attempts, reads, list(pauses))], Deadlines(wait=1.0, body=1.0, commit=1.0))


def test_calls_in_time_are_in_time() -> None:
    """I6: and so is one that is late by less than half a second; by how much is told."""
    assert worst() == worst(attempt(1)) == Delay(0.0, "none")
    assert worst(attempt(1, done=3.1)).seconds == pytest.approx(0.3)
    assert worst(Read("s", "ok", 1.0, 5.4)).seconds == pytest.approx(-0.1)
    assert worst(attempt(1, "killed", done=None)).seconds == 0.0


@pytest.mark.parametrize(
    "late",
    [
        attempt(1, "timeout", read=None, began=0.0, ended=0.0, done=2.6),
        attempt(1, "lost", read=None, ended=0.0, done=2.7),
        attempt(1, began=2.6, ended=2.7, done=2.8),
        attempt(1, done=3.4),
        Read("s", "unavailable", 1.0, 6.1),
    ],
    ids=["wait in vain", "body", "wait", "commit", "read"],
)
def test_a_call_that_takes_too_long_is_found(late: Attempt | Read) -> None:
    """I6: whatever it is that takes so long; unless its process could not run when it was due."""
    with pytest.raises(Violation, match="I6"):
        worst(attempt(2), late)
    assert worst(late, pauses=(Pause(0.0, 9.0),)).seconds <= 0.0
    with pytest.raises(Violation, match="I6"):
        worst(late, pauses=(Pause(0.0, 2.0), Pause(9.0, 10.0)))


def test_only_what_a_pause_has_of_a_time_counts() -> None:
    """What was before, and what came after, is no excuse."""
    assert paused([Pause(1.0, 2.0), Pause(3.0, 4.0), Pause(8.0, 9.0)], 1.5, 3.25) == pytest.approx(0.75)


def test_the_log_of_a_killed_worker_can_be_read() -> None:
    """A commit without its outcome is one that nobody can tell about; half a line is none."""
    lines = [
        ["try", 1, "s", FIRST, "w-1", 0, 1.0, 1.1, 1.2],
        ["end", 1, "s", "ok", 1.0, 1.1, 1.3],
        ["end", 2, "s", "timeout", 1.0, 0.0, 1.5],
        ["read", "s", "ok", 1.0, 1.1],
        ["pause", 1.2, 1.3],
        ["try", 3, "s", "w-1", "w-3", 1, 1.0, 1.4, 1.5],
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    history = parse("w", text + '["end", 3, "s", "o')
    assert [one.outcome for one in history.attempts] == ["ok", "timeout", "killed"]
    assert history.attempts[0] == Attempt("w", "s", "ok", 1.0, 1.3, FIRST, "w-1", 0, 1.1, 1.2)
    assert history.reads == [Read("s", "ok", 1.0, 1.1)]
    assert history.pauses == [Pause(1.2, 1.3)]
    assert history.rest is None
    assert parse("w", '["rest", {"waiters": 1}]\n') == History(rest=Rest("w", {"waiters": 1}))
    assert "ok" in report(history.attempts)
    assert report([]) == "outcomes {}"
    with pytest.raises(ValueError, match="w wrote"):
        parse("w", '["nonsense"]\n')
