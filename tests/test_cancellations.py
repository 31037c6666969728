"""Every public await, cancelled at each of its checkpoints in turn; four things must hold afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from trio_session import LocalStore, Session, SessionConfig, SessionManager, open_session_manager

Use = Callable[[Session], Awaitable[object]]


class Instants(trio.abc.Instrument):
    """Cancels a scope just before the task takes its k-th step."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._task = trio.lowlevel.current_task()
        self._scope = scope
        self._left = step

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()

    @property
    def struck(self) -> bool:
        return self._left <= 0


async def read(session: Session) -> None:
    await session.read()


async def change(session: Session) -> None:
    async with session.locked() as data:
        data["n"] += 10
        await trio.lowlevel.checkpoint()


async def nest(session: Session) -> None:
    async with session.locked() as data:
        data["n"] += 5
        async with session.locked():
            data["n"] += 5
        await session.increment("n", 0)


async def change_explicitly(session: Session) -> None:
    await session.lock()
    try:
        await session.lock()
        session["n"] += 10
        await session.commit()
        await session.commit()
    finally:
        if session.is_locked:
            await session.unlock_all()


async def roll_back(session: Session) -> None:
    await session.lock()
    try:
        await session.lock()
        session["n"] += 10
        await session.rollback()
        await session.unlock()
    finally:
        if session.is_locked:
            await session.unlock_all()


USES: dict[str, Use] = {
    "read": read,
    "locked": change,
    "nested": nest,
    "lock and commit": change_explicitly,
    "lock and rollback": roll_back,
    "put": lambda session: session.put("n", 11),
    "increment": lambda session: session.increment("n", 10),
    "pull": lambda session: session.pull("n"),
    "delete": lambda session: session.delete("n"),
    "clear": lambda session: session.clear(),
    "refresh": lambda session: session.refresh(),
}


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[SessionManager, LocalStore, str]]:
    store = LocalStore()
    async with open_session_manager(SessionConfig(), store=store) as manager:
        session = manager.session()
        await session.put("n", 1)
        assert session.id is not None
        yield manager, store, session.id


@pytest.mark.parametrize("contended", [False, True], ids=["free", "contended"])
@pytest.mark.parametrize("name", USES)
async def test_cancelled_at_each_checkpoint(name: str, contended: bool, autojump_clock: MockClock) -> None:
    """The lock is free, nobody waits, the data is whole (all of the change or nothing), and the next call works."""
    use = USES[name]
    step = 0
    outcomes: set[str] = set()
    while "done" not in outcomes:
        step += 1
        async with opened() as (manager, store, id), trio.open_nursery() as nursery:
            if contended:
                await nursery.start(hold_a_while, manager.session(id))
            outcomes.add(await cancelled_at(step, use, manager.session(id)))
            await check(manager, store, id)
        assert step < 100
    assert ("cancelled" in outcomes) or step == 1
    assert step > 1, "it has no checkpoint at all"


async def hold_a_while(session: Session, *, task_status: trio.TaskStatus[None]) -> None:
    async with session.locked():
        task_status.started()
        await trio.sleep(1)


async def cancelled_at(step: int, use: Use, session: Session) -> str:
    before = (await session.read())["n"]
    scope = trio.CancelScope()
    instants = Instants(scope, step)
    with scope:
        trio.lowlevel.add_instrument(instants)
        try:
            await use(session)
        finally:
            trio.lowlevel.remove_instrument(instants)
    if scope.cancelled_caught:
        assert session["n"] == before
        return "cancelled"
    # The step came after the point of no return, or was one too many.
    return "finished" if instants.struck else "done"


async def check(manager: SessionManager, store: LocalStore, id: str) -> None:
    with trio.fail_after(5):
        await manager.session(id).read()
        async with manager.session(id).locked() as data:
            assert data.get("n") in (None, 1, 11)
    fresh = manager.session()
    await fresh.put("n", 1)
    statistics = manager.statistics()
    assert (statistics.locks_held, statistics.tasks_waiting) == (0, 0)
    assert repr(manager._engine.locks._gate) == "<Gate 0 passed, 0 waiting>"
    assert repr(store).endswith(" 0 locks>")


@pytest.mark.parametrize("name", USES)
async def test_every_public_await_is_a_checkpoint(name: str) -> None:
    """Each can be cancelled and lets others run, on every call."""
    async with opened() as (manager, _, id):
        with assert_checkpoints():
            await USES[name](manager.session(id))
        unknown = manager.session()
        with assert_checkpoints():
            await unknown.read()
        session = manager.session()
        await session.put("n", 1)
        async with session.locked():
            with assert_checkpoints():
                await session.read()
            for call in (session.put("m", 1), session.clear(), session.lock(), session.commit()):
                with assert_checkpoints():
                    await call
        await session.lock()
        with assert_checkpoints():
            await session.commit()
        await session.lock()
        with assert_checkpoints():
            await session.rollback()


async def test_a_body_cancelled_without_a_checkpoint_does_not_write() -> None:
    """Leaving the block notices what the body did not."""
    async with opened() as (manager, store, id):
        with trio.CancelScope() as scope:
            async with manager.session(id).locked() as data:
                scope.cancel()
                data["n"] = 11
        assert scope.cancelled_caught
        assert (await manager.session(id).read())["n"] == 1
        await check(manager, store, id)


async def test_an_explicit_commit_that_is_cancelled_rolls_back() -> None:
    """Cancelled out of commit() means that nothing was written, and the level is over; so for an inner one."""
    async with opened() as (manager, store, id):
        session = manager.session(id)
        for levels in (1, 2):
            for _ in range(levels):
                await session.lock()
            session["n"] = 100
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.commit()
            assert scope.cancelled_caught
            assert session["n"] == 1
            assert session.is_locked == (levels == 2)
        await session.commit()
        await check(manager, store, id)


async def test_a_waiter_that_is_cancelled_with_its_turn_passes_it_on(autojump_clock: MockClock) -> None:
    """Ten waiters, cancelled at the very moment the lock comes free: nobody's turn gets lost."""
    async with opened() as (manager, store, id), trio.open_nursery() as nursery:
        scopes: list[trio.CancelScope] = []

        async def wait(number: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await manager.session(id).increment("n", 0 if number % 2 else 10)

        async with manager.session(id).locked():
            for number in range(10):
                nursery.start_soon(wait, number)
                await trio.testing.wait_all_tasks_blocked()
        for scope in scopes[::2]:
            scope.cancel()
        await trio.sleep(1)
        await check(manager, store, id)


async def test_opening_and_closing_a_manager_cancelled_at_each_checkpoint() -> None:
    """The store is left without locks, and the tasks are gone."""
    step, done = 0, False
    while not done:
        step += 1
        store = LocalStore()
        scope = trio.CancelScope()
        instants = Instants(scope, step)
        with scope:
            trio.lowlevel.add_instrument(instants)
            try:
                async with open_session_manager(SessionConfig(), store=store) as manager:
                    session = manager.session()
                    await session.lock()
                    session["n"] = 1
            finally:
                trio.lowlevel.remove_instrument(instants)
        done = not instants.struck
        assert repr(store) == "<LocalStore 0 records, 0 locks>"
        assert not trio.lowlevel.current_task().child_nurseries[1:]
        assert step < 50
