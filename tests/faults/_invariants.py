"""What has to hold after every fault, checked on what the workers wrote down. Pure: records in, `Violation` out.

Each attempt to change a session leaves up to two lines: `try`, in the last moment before its commit, and `end`, with
its outcome, before anything else happens. A process that was killed leaves a `try` without an `end`: its commit may
have landed or not.

    I1  acknowledged commits <= counter <= acknowledged and unknown ones
    I2  what was written forms one chain: each version replaces the one that its body has read
    I3  bodies that were acknowledged do not overlap
    I4  nobody sees another session's data
    I5  in the end nothing is held, waited for or under way
    I6  every call ends in time (see _deadlines)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from ._records import FIRST, Attempt, Last, Read, Rest

__all__ = ["Violation", "check", "check_rest", "check_survivor", "check_words", "report"]

#: The outcomes after which a commit may be there; all others but "ok" promise that it is not.
UNSURE: Final = frozenset({"unknown", "unconfirmed", "killed"})


class Violation(AssertionError):
    """An invariant does not hold."""


def check(attempts: Iterable[Attempt], last: dict[str, Last]) -> None:
    """Check I1 to I3.

    Args:
        attempts: of all workers.
        last: what the server has, by session.

    Raises:
        Violation: one does not hold.
    """
    by_session: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_session[attempt.session].append(attempt)
    for session, mine in by_session.items():
        check_count(mine, last[session])
        check_chain(mine, last[session])
        check_overlap(mine)


def check_words(calls: Iterable[Attempt | Read]) -> None:
    """I4, as they have seen for themselves."""
    for call in calls:
        if call.outcome == "mixup":
            raise Violation(f"I4: {call} has got the data of another session")


def check_count(attempts: Sequence[Attempt], last: Last) -> None:
    """I1 of one session."""
    ok = sum(attempt.outcome == "ok" for attempt in attempts)
    unsure = sum(attempt.outcome in UNSURE for attempt in attempts)
    if not ok <= last.count <= ok + unsure:
        raise Violation(
            f"I1: {attempts[0].session}: counter {last.count}, but {ok} commits were acknowledged, {unsure} unsure"
        )


def check_chain(attempts: Sequence[Attempt], last: Last) -> None:
    """I2 of one session: walking back from the last version to the first one meets all acknowledged commits."""
    tries = {attempt.written: attempt for attempt in attempts if attempt.read is not None}
    replaced: dict[str, Attempt] = {}
    for attempt in tries.values():
        assert attempt.read is not None
        count = 0
        if attempt.read != FIRST:
            before = tries.get(attempt.read)
            if before is None:
                raise Violation(f"I2: {attempt} has read a version that nobody has written")
            if before.outcome != "ok" and before.outcome not in UNSURE:
                raise Violation(f"I2: {attempt} has read what was never to be written, by {before}")
            count = before.count + 1
        if attempt.count != count:
            raise Violation(f"I2: {attempt} has read counter {attempt.count}, not {count}")
        if attempt.outcome == "ok" and replaced.setdefault(attempt.read, attempt) is not attempt:
            raise Violation(f"I2: {attempt} and {replaced[attempt.read]} replace the same version")
    path: set[str] = set()
    version = last.version
    while version != FIRST:
        if version not in tries:
            raise Violation(f"I2: {attempts[0].session} has the version {version!r}, which nobody has written")
        attempt = tries[version]
        if attempt.outcome != "ok" and attempt.outcome not in UNSURE:
            raise Violation(f"I2: {attempt} has landed")
        path.add(version)
        assert attempt.read is not None
        version = attempt.read
    for attempt in tries.values():
        if attempt.outcome == "ok" and attempt.written not in path:
            raise Violation(f"I2: {attempt} has been lost")
    if len(path) != last.count:
        raise Violation(f"I2: {attempts[0].session}: {len(path)} versions, but the counter is {last.count}")


def check_survivor(attempts: Sequence[Attempt], last: Last) -> list[Attempt]:
    """I2 of one session whose primary was lost, perhaps with its last commits: what has survived is one chain.

    Returns:
        Acknowledged commits that have not survived.
    """
    tries = {attempt.written: attempt for attempt in attempts if attempt.read is not None}
    path: list[Attempt] = []
    version = last.version
    while version != FIRST:
        attempt = tries.get(version)
        if attempt is None or (attempt.outcome != "ok" and attempt.outcome not in UNSURE):
            raise Violation(f"I2: {attempts[0].session} has the version {version!r} of {attempt}")
        assert attempt.read is not None
        path.append(attempt)
        version = attempt.read
    if [attempt.count for attempt in path] != list(reversed(range(last.count))):
        raise Violation(f"I2: {attempts[0].session}: the counter is {last.count}, and {len(path)} versions lead there")
    survivors = {attempt.written for attempt in path}
    return [attempt for attempt in tries.values() if attempt.outcome == "ok" and attempt.written not in survivors]


def check_overlap(attempts: Sequence[Attempt]) -> None:
    """I3 of one session. A body ends with its last own action: the lock is free before its owner has heard so."""
    bodies = sorted((attempt for attempt in attempts if attempt.outcome == "ok"), key=lambda attempt: attempt.began)
    for one, next_one in pairwise(bodies):
        if next_one.began < one.ended:
            raise Violation(f"I3: {one} and {next_one} overlap by {(one.ended - next_one.began) * 1000:.1f} ms")


def check_rest(rests: Iterable[Rest], keys: Sequence[str]) -> None:
    """I5.

    Args:
        rests: what the workers had in the end.
        keys: of locks and queues, that the server still has.

    Raises:
        Violation: something is left.
    """
    for rest in rests:
        if any(rest.left.values()):
            raise Violation(f"I5: {rest.worker} is done, and yet has {rest.left}")
    if keys:
        raise Violation(f"I5: all are done, and yet there are the keys {keys}")


def report(attempts: Sequence[Attempt]) -> str:
    """Figures for people: outcomes, who had how much, and how long they waited."""
    outcomes = Counter(attempt.outcome for attempt in attempts)
    ok = [attempt for attempt in attempts if attempt.outcome == "ok"]
    if not ok:
        return f"outcomes {dict(outcomes)}"
    shares = Counter(attempt.worker for attempt in ok)
    waits = sorted(attempt.wait * 1000 for attempt in ok)
    spent = max(attempt.ended for attempt in ok) - min(attempt.asked for attempt in ok)
    share = ", ".join(f"{worker} {100 * count / len(ok):.0f} %" for worker, count in sorted(shares.items()))
    return (
        f"outcomes {dict(outcomes)} in {spent:.1f} s; shares {share}; waits p50 {waits[len(waits) // 2]:.1f} "
        f"p99 {waits[len(waits) * 99 // 100]:.1f} max {waits[-1]:.1f} ms"
    )
