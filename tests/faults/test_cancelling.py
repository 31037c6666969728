"""Fault 2: callers that are cancelled at any moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.redis_servers import redis_server
from tests.test_cancellations import Instants
from trio_session import Session, SessionManager

from ._harness import amount, crew, eventually, keys_left, make_sessions, manager_on

Use = Callable[[Session], Awaitable[object]]


async def test_a_storm_of_cancellations() -> None:
    """Visitors who hang up at any moment: nobody gets another's data, no lock stays behind, no change is half made."""
    with redis_server() as server:
        async with crew(server, processes=amount(1, 2), tasks=100, sessions=20, step=3, cancel_within=0.2) as storm:
            calm = storm.hire(cancel_within=0.0, tasks=5)
            await calm.ready()
            calm.begin()
            await trio.sleep(amount(1.0, 60.0))
            attempts = await storm.finish()
        outcomes = Counter(attempt.outcome for attempt in attempts)
        assert outcomes.keys() == {"ok", "cancelled"}
        assert all(attempt.outcome == "ok" for attempt in attempts if attempt.worker == calm.name)


async def change(session: Session) -> None:
    async with session.locked() as data:
        data["count"] += 1
        await trio.lowlevel.checkpoint()


USES: dict[str, Use] = {
    "read": lambda session: session.read(),
    "change": change,
    "refresh": lambda session: session.refresh(),
    "clear": lambda session: session.clear(),
}


@pytest.mark.parametrize("contended", [False, True], ids=["free", "contended"])
@pytest.mark.parametrize("name", USES)
async def test_cancelled_at_each_step(name: str, contended: bool) -> None:
    """Whenever a request is cancelled, another process gets the lock at once, and finds all of the change or none."""
    with redis_server() as server:
        async with manager_on(server, lock_lease=20.0) as mine, manager_on(server, lock_lease=20.0) as other:
            outcome, step = "", 0
            while outcome != "done":
                step += 1
                assert step < 100
                ((_, id),) = await make_sessions(other, 1)
                async with trio.open_nursery() as nursery:
                    if contended:
                        await nursery.start(hold_a_while, other.session(id))
                    with trio.fail_after(5):
                        session = mine.session(id)
                        outcome = await cancelled_at(step, USES[name], session)
                await look_after(name, outcome, session, id, other)
            await eventually(lambda: not keys_left(server), within=5)
            statistics = mine.statistics()
            assert (statistics.locks_held, statistics.tasks_waiting) == (0, 0)


async def hold_a_while(session: Session, *, task_status: trio.TaskStatus[None]) -> None:
    async with session.locked():
        task_status.started()
        await trio.sleep(0.005)


async def cancelled_at(step: int, use: Use, session: Session) -> str:
    scope = trio.CancelScope()
    instants = Instants(scope, step)
    with scope:
        trio.lowlevel.add_instrument(instants)
        try:
            await use(session)
        finally:
            trio.lowlevel.remove_instrument(instants)
    if scope.cancelled_caught:
        return "cancelled"
    return "finished" if instants.struck else "done"  # it struck after the point of no return


async def look_after(name: str, outcome: str, session: Session, id: str, other: SessionManager) -> None:
    """Another process looks; were the lock still held, it would take 20 s to get it."""
    if name == "clear" and outcome != "cancelled":
        assert session.id is None
        return
    with trio.fail_after(5):
        async with other.session(session.id or id).locked() as data:
            assert data["count"] == (1 if name == "change" and outcome != "cancelled" else 0)
