"""Time and loss: leases that end, bodies that are cancelled for it, and what comes out of a block."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    CommitUnknownError,
    LocalStore,
    LockLostError,
    Session,
    SessionConfig,
    SessionEndedError,
    SessionManager,
    SessionStore,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session._errors import EndReason
from trio_session.abc import Heir, Lifetime, Loaded


class FaultyStore(SessionStore):
    """A LocalStore behind a line that can fail."""

    def __init__(self) -> None:
        self.store = LocalStore()
        self.renewal: str = "works"  # or "fails", "hangs", "is refused"
        self.commit_delay = 0.0
        self.commit_error: Exception | None = None
        self.acquire_error: Exception | None = None
        self.renewed: list[float] = []

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        return await self.store.load(key, life=life)

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        if self.acquire_error is not None:
            raise self.acquire_error
        return await self.store.acquire(key, token, lease=lease, life=life)

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        await trio.sleep(self.commit_delay)
        if self.commit_error is not None:
            raise self.commit_error
        return await self.store.commit(key, token, version=version, blob=blob, life=life, heir=heir)

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        return await self.store.rotate(
            key, token, version=version, new_key=new_key, blob=blob, life=life, reason=reason
        )

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        await self.store.destroy(key, token, reason=reason)

    def release(self, key: str, token: str) -> None:
        self.store.release(key, token)

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> Sequence[bool | None]:
        self.renewed.append(trio.current_time())
        if self.renewal == "hangs":
            await trio.sleep_forever()
        if self.renewal == "fails":
            raise StorageUnavailableError("the line is cut")
        if self.renewal == "is unknown":
            return [None] * len(locks)
        if self.renewal == "is refused":
            return [False] * len(locks)
        return await self.store.renew(locks, lease=lease)


@asynccontextmanager
async def opened(store: SessionStore | None = None, **settings: float) -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig(**settings), store=store) as manager:  # type: ignore[arg-type]
        yield manager


async def stored(manager: SessionManager) -> str:
    session = manager.session()
    await session.put("n", 1)
    assert session.id is not None
    return session.id


async def n_of(manager: SessionManager, id: str) -> object:
    return (await manager.session(id).read()).get("n")


# -- the clock -------------------------------------------------------------------------------------------------------


async def test_an_idle_manager_sets_no_timer(mock_clock: MockClock) -> None:
    """Or an autojump clock would spin: neither before the first lock nor after the last."""
    async with opened() as manager:
        for _ in range(2):
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
            await manager.session().put("n", 1)


async def test_a_held_lock_is_renewed_three_times_per_lease(autojump_clock: MockClock) -> None:
    """A lease of three seconds is renewed each second, for as long as the lock is held."""
    store = FaultyStore()
    async with opened(store, lock_lease=3.0) as manager:
        id = await stored(manager)
        started = trio.current_time()
        async with manager.session(id).locked() as data:
            await trio.sleep(10.5)
            data["n"] = 2
        await trio.sleep(10)
        assert [round(time - started, 3) for time in store.renewed] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        assert await n_of(manager, id) == 2


async def test_all_held_locks_are_renewed_together(autojump_clock: MockClock) -> None:
    """One request renews them all, whenever each of them was taken; the last one ends the timer."""
    store = FaultyStore()
    async with opened(store, lock_lease=3.0) as manager:
        one, two = manager.session(), manager.session()
        await one.lock()
        await trio.sleep(0.5)
        await two.lock()
        await trio.sleep(10)
        assert len(store.renewed) == 10
        one["n"] = two["n"] = 1
        await one.commit()
        await trio.sleep(10)
        await two.commit()
        assert manager.statistics().commits == 2
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


async def test_idle_expiry_slides_with_use(autojump_clock: MockClock) -> None:
    """A session lives for its lifetime after its last use, to the millisecond."""
    async with opened(lifetime=100.0, touch_interval=0.0) as manager:
        id = await stored(manager)
        await trio.sleep(99.999)
        assert await n_of(manager, id) == 1
        await trio.sleep(99.999)
        await manager.session(id).increment("n")
        await trio.sleep(99.999)
        assert await n_of(manager, id) == 2
        await trio.sleep(100)
        assert await n_of(manager, id) is None


async def test_reads_slide_the_expiry_only_now_and_then(autojump_clock: MockClock) -> None:
    """Within touch_interval a read leaves the expiry as it was."""
    async with opened(lifetime=100.0, touch_interval=10.0) as manager:
        id = await stored(manager)
        await trio.sleep(9.999)
        assert await n_of(manager, id) == 1
        await trio.sleep(90)
        assert await n_of(manager, id) == 1  # 99.999 s after the commit, and this read does slide
        await trio.sleep(99.999)
        assert await n_of(manager, id) == 1
        await trio.sleep(0.0)
        async with opened(lifetime=100.0, touch_interval=10.0) as other:
            id = await stored(other)
            await trio.sleep(9.999)
            assert await n_of(other, id) == 1
            await trio.sleep(90.002)
            assert await n_of(other, id) is None


async def test_absolute_expiry_does_not_slide(autojump_clock: MockClock) -> None:
    """However busy, a session ends with its absolute lifetime, also under a new id."""
    async with opened(lifetime=100.0, absolute_lifetime=250.0) as manager:
        session = manager.session(await stored(manager))
        for _ in range(3):
            await trio.sleep(80)
            await session.increment("n")
            await session.refresh()
        assert session.id is not None
        await trio.sleep(9.999)
        assert await n_of(manager, session.id) == 4
        await trio.sleep(0.001)
        assert await n_of(manager, session.id) is None


async def test_a_record_that_expires_under_its_lock_stays_gone(autojump_clock: MockClock) -> None:
    """The commit is refused, and the next one begins a new session."""
    async with opened(lifetime=1.0) as manager:
        id = await stored(manager)
        session = manager.session(id)
        with pytest.raises(SessionEndedError) as caught:
            async with session.locked() as data:
                await trio.sleep(1.5)
                data["n"] = 2
        assert caught.value.reason == "expired"
        assert session.id is None
        await session.put("n", 3)
        assert session.id not in (None, id)


# -- loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renewal", ["fails", "hangs", "is unknown"])
async def test_a_lease_that_cannot_be_renewed_cancels_its_body(renewal: str, autojump_clock: MockClock) -> None:
    """The body ends before the lease does, nothing is written, and the lock is free for others."""
    store = FaultyStore()
    store.renewal = renewal
    async with opened(store, lock_lease=4.0) as manager:
        id = await stored(manager)
        started = trio.current_time()
        with pytest.raises(LockLostError) as caught:
            async with manager.session(id).locked() as data:
                data["n"] = 2
                await trio.sleep_forever()
        assert caught.value.reason == "lease_expired"
        assert trio.current_time() - started == pytest.approx(3.8)  # the lease without its margin of 200 ms
        assert await n_of(manager, id) == 1
        assert manager.statistics().locks_lost == 1
        store.renewal = "works"
        await manager.session(id).increment("n")


async def test_a_refused_renewal_cancels_the_body_at_once(autojump_clock: MockClock) -> None:
    """The store says that somebody else has the lock: there is nothing to wait for."""
    store = FaultyStore()
    store.renewal = "is refused"
    async with opened(store, lock_lease=3.0) as manager:
        id = await stored(manager)
        started = trio.current_time()
        with pytest.raises(LockLostError):
            async with manager.session(id).locked():
                await trio.sleep_forever()
        assert trio.current_time() - started == pytest.approx(1.0)
        assert manager.statistics().locks_held == 0


async def test_renewal_goes_on_when_the_store_is_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One failed renewal costs nothing but a line in the log."""
    store = FaultyStore()
    store.renewal = "fails"
    async with opened(store, lock_lease=3.0) as manager:
        id = await stored(manager)
        async with manager.session(id).locked() as data:
            await trio.sleep(1.5)
            store.renewal = "works"
            await trio.sleep(20)
            data["n"] = 2
        assert await n_of(manager, id) == 2
    assert caplog.text.count("1 session locks could not be renewed: the line is cut") == 1


async def test_the_hold_limit(autojump_clock: MockClock) -> None:
    """A body that takes longer than lock_hold_limit is cancelled, in milliseconds; waiters get the lock then."""
    async with opened(lock_hold_limit=29.5, lock_timeout=60.0) as manager:
        id = await stored(manager)
        started = trio.current_time()

        async def hold_for_ever() -> None:
            with pytest.raises(LockLostError) as caught:
                async with manager.session(id).locked() as data:
                    data["n"] = 100
                    await trio.sleep_forever()
            assert caught.value.reason == "hold_limit"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_for_ever)
            await wait_all_tasks_blocked()
            assert await manager.session(id).increment("n") == 2
        assert trio.current_time() - started == pytest.approx(29.5)


async def test_a_stuck_body_keeps_others_waiting_for_one_lease_only(autojump_clock: MockClock) -> None:
    """A body that does not heed its cancellation is passed by once its lease has lapsed, and can write nothing."""
    async with opened(lock_hold_limit=2.0, lock_lease=3.0, lock_timeout=60.0) as manager:
        id = await stored(manager)
        started = trio.current_time()

        async def stuck() -> None:
            with pytest.raises(LockLostError):
                async with manager.session(id).locked() as data:
                    data["n"] = 100
                    with trio.CancelScope(shield=True):
                        await trio.sleep(50)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck)
            await wait_all_tasks_blocked()
            assert await manager.session(id).increment("n") == 2
            assert trio.current_time() - started == pytest.approx(4.0)  # renewed at 1 s, for 3 s
        assert await n_of(manager, id) == 2


async def test_a_paused_process_cannot_write_late(mock_clock: MockClock) -> None:
    """Paused past its lease and without a checkpoint since, a holder is refused at the commit."""
    async with opened() as manager:
        id = await stored(manager)
        with pytest.raises(LockLostError):
            async with manager.session(id).locked() as data:
                data["n"] = 2
                mock_clock.jump(60)
        assert await n_of(manager, id) == 1


async def test_a_body_that_was_shielded_hears_of_its_loss(mock_clock: MockClock) -> None:
    """It was cancelled in vain, so the commit tells it: nothing was written, and that is certain."""
    async with opened() as manager:
        id = await stored(manager)
        with pytest.raises(LockLostError):
            async with manager.session(id).locked() as data:
                data["n"] = 2
                with trio.CancelScope(shield=True):
                    mock_clock.jump(60)
                    await wait_all_tasks_blocked()
        assert await n_of(manager, id) == 1


async def test_an_inner_level_leaves_a_loss_to_the_outer_one(mock_clock: MockClock) -> None:
    """Only the outermost commit could have written anything, so that is where it is told."""
    async with opened() as manager:
        session = manager.session(await stored(manager))
        await session.lock()
        async with session.locked() as data:
            data["n"] = 2
            mock_clock.jump(60)
        assert session["n"] == 2
        with pytest.raises(LockLostError):
            await session.commit()


async def test_a_wait_that_times_out_as_it_ends(autojump_clock: MockClock) -> None:
    """The lock came, so the body runs: nothing is left of the deadline of the wait."""
    async with opened() as manager:
        id = await stored(manager)
        acquire = manager._engine.store.acquire

        async def slow_acquire(key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
            loaded = await acquire(key, token, lease=lease, life=life)
            with trio.CancelScope(shield=True):
                await trio.sleep(1.5)
            return loaded

        manager._engine.store.acquire = slow_acquire  # type: ignore[method-assign]
        async with manager.session(id).locked(timeout=1.0) as data:
            await trio.lowlevel.checkpoint()
            data["n"] = 2
        assert await n_of(manager, id) == 2


async def test_the_store_refuses_a_late_commit_by_itself(mock_clock: MockClock) -> None:
    """Even a holder that does not know of its loss cannot overwrite another's commit: that is the fence."""
    faulty = FaultyStore()
    faulty.renewal = "fails"
    async with opened(faulty) as one, opened(faulty.store) as two:
        id = await stored(one)
        held = one.session(id)
        await held.lock()
        hold = held._mine()
        assert hold is not None
        hold.lock.lease.expires = float("inf")  # a clock that stands still
        held["n"] = 100
        mock_clock.jump(6)
        await wait_all_tasks_blocked()
        assert await two.session(id).increment("n") == 2
        with pytest.raises(LockLostError):
            await held.commit()
        assert await n_of(two, id) == 2
        assert one.statistics().locks_lost == 1
        assert one.statistics().locks_held == 0


async def test_an_explicit_lock_that_is_lost(autojump_clock: MockClock) -> None:
    """There is no body to cancel: commit() says so, rollback() is content; others get the lock meanwhile."""
    async with opened(lock_hold_limit=1.0, lock_lease=3.0) as manager:
        session = manager.session(await stored(manager))
        await session.lock()
        await session.lock()
        session["n"] = 100
        await trio.sleep(1)
        with pytest.raises(LockLostError):
            await session.lock()
        with pytest.raises(LockLostError):
            await session.increment("n")
        session["n"] = 101
        assert session.get("n") == 101
        await session.commit()  # an inner level
        with pytest.raises(LockLostError) as caught:
            await session.commit()
        assert caught.value.reason == "hold_limit"
        assert not session.is_locked
        assert session["n"] == 1
        await session.lock()
        await trio.sleep(10)
        assert manager.statistics().locks_held == 0  # the lease lapsed
        assert await manager.session(session.id).increment("n") == 2
        await session.rollback()
        assert manager.statistics().locks_lost == 2
        assert manager.statistics().rollbacks == 2


async def test_a_lost_lock_that_its_manager_closes_over_counts_once(autojump_clock: MockClock) -> None:
    """However often a loss is noticed."""
    async with opened(lock_hold_limit=1.0) as manager:
        session = manager.session()
        await session.lock()
        await trio.sleep(2)
        with pytest.raises(LockLostError):
            await session.put("n", 1)
    assert manager.statistics().locks_lost == 1
    with pytest.raises(LockLostError):
        await session.commit()


async def test_a_block_inside_an_explicit_lock_is_cancelled_too(autojump_clock: MockClock) -> None:
    """The innermost thing that can be cancelled is."""
    async with opened(lock_hold_limit=1.0) as manager:
        session = manager.session()
        await session.lock()
        with pytest.raises(LockLostError):
            async with session.locked():
                await trio.sleep_forever()
        with pytest.raises(LockLostError):
            await session.commit()


async def test_a_lost_lock_may_be_taken_again_by_another_task_of_the_request(autojump_clock: MockClock) -> None:
    """The old holder's end does not disturb the new one."""
    async with opened(lock_hold_limit=1.0, lock_lease=1.0, lock_timeout=60.0) as manager:
        session = manager.session(await stored(manager))

        async def stuck() -> None:
            with pytest.raises(LockLostError):
                async with session.locked():
                    with trio.CancelScope(shield=True):
                        await trio.sleep(5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck)
            await trio.sleep(4.5)
            async with session.locked() as data:
                await trio.sleep(0.9)
                assert session.is_locked
                data["n"] = 2
        assert session["n"] == 2


# -- what comes out of a block: the body's own exception, the outer Cancelled, LockLostError ---------------------------


async def test_the_body_s_own_exception_comes_first(autojump_clock: MockClock) -> None:
    """It is unchanged but for a note that tells of the loss."""
    async with opened(lock_hold_limit=1.0) as manager:
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            async with manager.session().locked():
                try:
                    await trio.sleep_forever()
                finally:
                    raise error
        assert caught.value is error
        assert any("lock was lost" in note for note in error.__notes__)
        assert manager.statistics().locks_lost == 1


async def test_the_outer_cancellation_comes_second(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever cancelled the block gets its Cancelled; the loss is logged."""
    async with opened(lock_hold_limit=1.0) as manager:
        with trio.move_on_after(2) as scope:
            async with manager.session().locked():
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert "held longer than lock_hold_limit" in caplog.text


async def test_an_outer_cancellation_of_a_healthy_block_says_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """There was no loss, so there is no line in the log."""
    caplog.set_level(logging.WARNING)
    async with opened() as manager:
        with trio.move_on_after(2) as scope:
            async with manager.session().locked():
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert not caplog.records
        assert manager.statistics().locks_lost == 0


async def test_the_loss_comes_last(autojump_clock: MockClock) -> None:
    """A body that swallowed its cancellation, or ended in order too late, gets LockLostError."""
    async with opened(lock_hold_limit=1.0) as manager:
        with pytest.raises(LockLostError) as caught:
            async with manager.session().locked() as data:
                data["n"] = 1
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
        assert caught.value.reason == "hold_limit"
        with pytest.raises(LockLostError):
            async with manager.session().locked(), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)


# -- the commit ------------------------------------------------------------------------------------------------------


async def test_a_commit_in_flight_is_not_cancelled(autojump_clock: MockClock) -> None:
    """A cancellation that arrives during the commit is seen after it: the block was left in order."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        store.commit_delay = 1.0
        with trio.move_on_after(0.5) as scope:
            await manager.session(id).increment("n")
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert await n_of(manager, id) == 2


async def test_closing_waits_for_commits_in_flight(autojump_clock: MockClock) -> None:
    """An outer cancellation that takes the manager down lets the commit land, wherever its task lives."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
    async with trio.open_nursery() as elsewhere:
        with trio.move_on_after(0.5) as scope:
            async with opened(store) as manager:
                store.commit_delay = 1.0
                elsewhere.start_soon(manager.session(id).increment, "n")
                await trio.sleep(0.2)
                elsewhere.start_soon(manager.session().put, "n", 1)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1.2)
    async with opened(store) as manager:
        assert await n_of(manager, id) == 2


async def test_a_commit_without_an_answer_is_unknown(autojump_clock: MockClock) -> None:
    """After commit_timeout nobody can say whether it was written; the lock is given back."""
    store = FaultyStore()
    async with opened(store, commit_timeout=5.0) as manager:
        id = await stored(manager)
        store.commit_delay = 60.0
        with pytest.raises(CommitUnknownError):
            await manager.session(id).increment("n")
        assert trio.current_time() == pytest.approx(5.0)
        assert manager.statistics().locks_held == 0
        session = manager.session(id)
        await session.lock()
        session["n"] = 100
        with pytest.raises(CommitUnknownError):
            await session.commit()
        assert trio.current_time() == pytest.approx(10.0)
        assert manager.statistics().locks_held == 0


async def test_a_commit_that_fails_rolls_back(autojump_clock: MockClock) -> None:
    """The store is down: its error comes out, the lock is free, and the next try works."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        session = manager.session(id)
        store.commit_error = StorageUnavailableError("the line is cut")
        with pytest.raises(StorageUnavailableError):
            await session.increment("n")
        assert not session.is_locked
        assert session["n"] == 1
        store.commit_error = None
        assert await session.increment("n") == 2
        assert manager.statistics().commits == 2
        assert manager.statistics().rollbacks == 1


@pytest.mark.parametrize("end", [Session.refresh, Session.clear])
async def test_a_new_id_or_an_end_that_fails_rolls_back(
    end: Callable[[Session], Awaitable[None]], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is down: its error comes out, the session is as it was, and the lock is free."""
    store = FaultyStore()

    async def fail(*_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise StorageUnavailableError("the line is cut")

    async with opened(store) as manager:
        id = await stored(manager)
        session = manager.session(id)
        with monkeypatch.context() as broken, pytest.raises(StorageUnavailableError):
            broken.setattr(store, "rotate", fail)
            broken.setattr(store, "destroy", fail)
            await end(session)
        assert not session.is_locked
        assert session.id == id
        assert await session.increment("n") == 2
        assert manager.statistics().rollbacks == 1


async def test_a_store_that_is_down_when_locking(autojump_clock: MockClock) -> None:
    """Its error comes out, nothing is held, and the next try works."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        store.acquire_error = StorageUnavailableError("the line is cut")
        with pytest.raises(StorageUnavailableError):
            await manager.session(id).increment("n")
        store.acquire_error = None
        assert await manager.session(id).increment("n") == 2


async def test_a_slow_commit_is_renewed_and_not_passed_by(autojump_clock: MockClock) -> None:
    """While a commit is under way its lease is renewed, or at least nobody of this process passes by."""
    for renewal in ("works", "is refused"):
        store = FaultyStore()
        async with opened(store, lock_lease=1.0, lock_hold_limit=1.5, commit_timeout=30.0) as manager:
            id = await stored(manager)
            store.commit_delay = 0.5
            store.renewal = renewal
            order: list[str] = []

            async def change(name: str, session: Session, order: list[str] = order) -> None:
                await session.increment("n")
                order.append(name)

            async with trio.open_nursery() as nursery:
                for name in ("first", "second", "third"):
                    nursery.start_soon(change, name, manager.session(id))
                    await wait_all_tasks_blocked()
            assert order == ["first", "second", "third"]
            assert await n_of(manager, id) == 4


async def test_an_heir_that_gave_up_leaves_the_lock_free(autojump_clock: MockClock) -> None:
    """The lock was handed on to a waiter that was cancelled while the store was asked: others get it at once."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        store.commit_delay = 1.0
        gave_up = trio.CancelScope()

        async def give_up() -> None:
            with gave_up:
                await manager.session(id).increment("n")

        async with trio.open_nursery() as nursery, manager.session(id).locked() as data:
            data["n"] = 2
            nursery.start_soon(give_up)
            await wait_all_tasks_blocked()
            gave_up.deadline = trio.current_time() + 0.5  # in the middle of the commit
        assert gave_up.cancelled_caught
        store.commit_delay = 0.0
        started = trio.current_time()
        assert await manager.session(id).increment("n") == 3
        assert trio.current_time() == started
        assert repr(store.store) == "<LocalStore 1 records, 0 locks>"


async def test_a_lock_that_was_handed_on_slowly_is_renewed_at_once(autojump_clock: MockClock) -> None:
    """Most of the heir's lease has passed while the store was asked; that is no reason to lose the lock."""
    store = FaultyStore()
    async with opened(store, lock_lease=3.0) as manager:
        id = await stored(manager)
        store.commit_delay = 2.5

        async def take_a_while() -> None:
            async with manager.session(id).locked() as data:
                await trio.sleep(5)
                data["n"] += 1

        async with trio.open_nursery() as nursery, manager.session(id).locked() as data:
            data["n"] = 10
            nursery.start_soon(take_a_while)
            await wait_all_tasks_blocked()
        assert await n_of(manager, id) == 11
        assert manager.statistics().locks_lost == 0


async def test_a_lock_is_handed_on_without_asking_the_store(autojump_clock: MockClock) -> None:
    """Tasks of one process that wait for one session get it from each other, with the data."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        async with trio.open_nursery() as nursery:
            async with manager.session(id).locked() as data:
                for _ in range(3):
                    nursery.start_soon(manager.session(id).increment, "n")
                await wait_all_tasks_blocked()
                data["n"] = 10
            store.acquire_error = StorageUnavailableError("nobody should ask")
        assert await n_of(manager, id) == 13
