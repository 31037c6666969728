"""The checks themselves: each invariant can be broken, and is then found to be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ._invariants import FIRST, Attempt, Last, Rest, Violation, check, check_rest, parse, report


def attempt(number: int, outcome: str = "ok", **changes: object) -> Attempt:
    """The `number`-th of a chain, one second after the one before."""
    read = FIRST if number == 1 else f"v{number - 1}"
    body = Attempt("w", "s", outcome, number, number + 0.9, read, f"v{number}", number - 1, number + 0.1, number + 0.8)
    return replace(body, **changes)  # type: ignore[arg-type]


def judge(*attempts: Attempt, version: str, count: int) -> None:
    check(attempts, {"s": Last(version, count)}, limit=2.0)


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
    with pytest.raises(Violation, match="I4"):
        judge(attempt(1, "mixup"), version=FIRST, count=0)


def test_what_is_left_is_found() -> None:
    """I5: in a worker, and on the server."""
    check_rest([Rest("w", {"locks held": 0})], [])
    with pytest.raises(Violation, match="I5"):
        check_rest([Rest("w", {"locks held": 1})], [])
    with pytest.raises(Violation, match="I5"):
        check_rest([], ["faults:x:l"])


def test_a_call_that_takes_too_long_is_found() -> None:
    """I6."""
    with pytest.raises(Violation, match="I6"):
        judge(attempt(1, done=3.1), version="v1", count=1)


def test_the_log_of_a_killed_worker_can_be_read() -> None:
    """A commit without its outcome is one that nobody can tell about; half a line is none."""
    lines = [
        ["try", 1, "s", FIRST, "w-1", 0, 1.0, 1.1, 1.2],
        ["end", 1, "s", "ok", 1.0, 1.3],
        ["end", 2, "s", "timeout", 1.0, 1.5],
        ["try", 3, "s", "w-1", "w-3", 1, 1.0, 1.4, 1.5],
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    attempts, rest = parse("w", text + '["end", 3, "s", "o')
    assert [one.outcome for one in attempts] == ["ok", "timeout", "killed"]
    assert rest is None
    assert parse("w", '["rest", {"waiters": 1}]\n') == ([], Rest("w", {"waiters": 1}))
    assert "ok" in report(attempts)
    assert report([]) == "outcomes {}"
    with pytest.raises(ValueError, match="w wrote"):
        parse("w", '["nonsense"]\n')
