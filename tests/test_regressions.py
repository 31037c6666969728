"""What once went wrong, and must not again; each test is named after what a user would have seen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.test_leases import FaultyStore, n_of, opened, stored
from tests.test_middleware import BODY, START, handled_by, request, scope_of
from trio_session import (
    CommitUnknownError,
    LocalStore,
    LockLostError,
    Session,
    SessionManager,
    SessionMiddleware,
    StorageUnavailableError,
    get_session,
)
from trio_session._asgi import Receive, Scope, Send
from trio_session._known import CookieAction
from trio_session.abc import Heir, Lifetime


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with opened() as manager:
        yield manager


class AnswerLost(FaultyStore):
    """Commits once without ever answering."""

    def __init__(self) -> None:
        super().__init__()
        self.loses_next_answer = False

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        if not self.loses_next_answer:
            return await super().commit(key, token, version=version, blob=blob, life=life, heir=heir)
        self.loses_next_answer = False
        unaware = None if heir is None else Heir(heir.token, lambda *_: None)
        await super().commit(key, token, version=version, blob=blob, life=life, heir=unaware)
        await trio.sleep_forever()
        raise AssertionError("slept enough")


# -- cookies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [False, True], ids=["slides", "writes"])
async def test_a_login_was_undone_by_a_slower_response(writes: bool, autojump_clock: MockClock) -> None:
    """A request that has slid the expiry, or committed, before a login sent the dead id after it."""
    async with opened(touch_interval=1.0) as manager:
        id = await stored(manager)
        await trio.sleep(10)

        async def slow(session: Session, send: Send) -> None:
            if writes:
                await session.increment("n")
            await trio.sleep(5)

        async def login() -> None:
            await trio.sleep(1)
            await manager.session(id).refresh()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(login)
            answer = await request(SessionMiddleware(handled_by(slow), manager=manager), id=id)
        assert answer.cookie is None


async def test_a_commit_that_failed_vouched_for_a_dead_id(autojump_clock: MockClock) -> None:
    """Only a commit that was made knows that the id is still the right one."""
    store = FaultyStore()
    async with opened(store, touch_interval=1.0) as manager, opened(store.store) as elsewhere:
        id = await stored(manager)
        await trio.sleep(10)

        async def lose(session: Session, send: Send) -> None:
            store.commit_error = LockLostError()
            with pytest.raises(LockLostError):
                await session.increment("n")
            await elsewhere.session(id).refresh()

        answer = await request(SessionMiddleware(handled_by(lose), manager=manager), id=id)
        assert answer.cookie is None


async def test_a_cookie_is_prolonged_only_if_the_store_can_confirm_it(autojump_clock: MockClock) -> None:
    """A store that is down when the response starts is no reason to fail it."""
    async with opened(touch_interval=1.0) as manager:
        id = await stored(manager)
        await trio.sleep(10)

        async def slow(session: Session, send: Send) -> None:
            async def fail(*args: object, **rest: object) -> Any:
                raise StorageUnavailableError("the line is cut")

            manager._engine.store.load = fail  # type: ignore[method-assign]

        answer = await request(SessionMiddleware(handled_by(slow), manager=manager), id=id)
        assert answer.status == 200
        assert answer.cookie is None


async def test_a_first_commit_that_landed_unknown_left_the_visitor_without_a_cookie(
    autojump_clock: MockClock,
) -> None:
    """Once the session turns out to be stored, its cookie is due."""
    for again in (Session.read, lambda session: session.put("n", 1)):
        store = AnswerLost()
        store.loses_next_answer = True
        async with opened(store) as manager:
            session = manager.session()
            with pytest.raises(CommitUnknownError):
                await session.put("n", 1)
            await again(session)
            assert session.id is not None
            assert await session._seal() is CookieAction.ISSUE


# -- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Session.commit, Session.rollback, Session.unlock_all])
async def test_a_block_that_ended_its_lock_was_cancelled_for_it_later(end: Any, autojump_clock: MockClock) -> None:
    """Without the lock there is no lease to run out, and no hold limit."""
    async with opened() as manager:
        session = manager.session()
        async with session.locked() as data:
            data["n"] = 1
            await end(session)
            await trio.sleep(60)
        assert manager.statistics().locks_lost == 0


async def test_a_block_in_a_generator_lost_its_changes_without_a_word(manager: SessionManager) -> None:
    """Cut off from its lock by the end of the response, it is told so."""
    told: list[str] = []

    async def chunks(session: Session) -> AsyncGenerator[bytes, None]:
        try:
            async with session.locked() as data:
                data["n"] = 2
                yield b"a"
                yield b"b"
        except LockLostError as error:
            told.append(error.reason)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        async with aclosing(chunks(get_session(scope))) as generator:
            async for chunk in generator:
                await send({**BODY, "body": chunk, "more_body": chunk != b"b"})

    id = await stored(manager)
    await request(SessionMiddleware(app, manager=manager), id=id)
    assert told == ["request_ended"]
    assert await n_of(manager, id) == 1


async def test_a_loss_was_not_logged_if_the_body_had_no_checkpoint(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The outer cancellation comes out, and the log tells of the loss."""
    async with opened() as manager:
        with trio.CancelScope() as scope:
            async with manager.session().locked():
                mock_clock.jump(60)
                scope.cancel()
        assert scope.cancelled_caught
        assert "in a block that was cancelled anyway" in caplog.text


async def test_a_loss_was_logged_although_it_was_raised(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A nested block leaves the telling to the outer one."""
    async with opened(lock_hold_limit=2.0) as manager:
        session = manager.session()
        with pytest.raises(LockLostError):
            async with session.locked(), session.locked():
                await trio.sleep_forever()
        assert "cancelled anyway" not in caplog.text


async def test_an_unchanged_session_was_too_large() -> None:
    """A record from the time of a larger max_size can be read under its lock, and made smaller."""
    store = LocalStore()
    async with opened(store) as manager:
        session = manager.session()
        await session.put("text", "x" * 1000)
    async with opened(store, max_size=100) as manager:
        session = manager.session(session.id)
        async with session.locked() as data:
            assert len(data["text"]) == 1000
        await session.put("text", "x")


# -- explicit locks --------------------------------------------------------------------------------------------------


async def test_a_lost_lock_that_was_left_behind_kept_its_session_stale(autojump_clock: MockClock) -> None:
    """Whoever reads through the same Session later sees what others have committed since."""
    async with opened(lock_hold_limit=2.0) as manager:
        session = manager.session(await stored(manager))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lock)
        await trio.sleep(60)
        assert not session.is_locked
        await manager.session(session.id).put("n", 2)
        assert (await session.read())["n"] == 2


async def test_a_lost_lock_was_forgotten_when_another_task_took_it(autojump_clock: MockClock) -> None:
    """commit() says that it was lost, not that it was never taken."""
    async with opened(lock_hold_limit=2.0) as manager:
        session = manager.session()

        async def hold_too_long() -> None:
            await session.lock()
            await trio.sleep(50)
            with pytest.raises(LockLostError):
                await session.commit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_too_long)
            await trio.sleep(40)
            await session.lock()
            await trio.sleep(1)
            session["n"] = 1
            await session.commit()
        assert session["n"] == 1


@pytest.mark.parametrize("last", ["websocket.http.response.body", "websocket.close"])
async def test_a_denied_websocket_kept_its_lock_to_the_end(manager: SessionManager, last: str) -> None:
    """It is rolled back before the last message of the denial goes out."""
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await get_session(scope).lock()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        held.append(manager.statistics().locks_held)
        await send({"type": last, "body": b""})
        held.append(manager.statistics().locks_held)

    await request(SessionMiddleware(app, manager=manager), scope=scope_of("websocket"))
    assert held == [1, 0]


# -- leases ----------------------------------------------------------------------------------------------------------


async def test_an_heir_of_a_very_slow_commit_was_lost_on_arrival(autojump_clock: MockClock) -> None:
    """It asks the store itself, whose lease is fresh."""
    store = FaultyStore()
    async with opened(store) as manager:
        id = await stored(manager)
        store.commit_delay = 4.9
        async with trio.open_nursery() as nursery, manager.session(id).locked() as data:
            data["n"] = 10
            nursery.start_soon(manager.session(id).increment, "n")
            await wait_all_tasks_blocked()
        assert await n_of(manager, id) == 11


async def test_a_new_lease_was_forgotten_while_others_were_renewed(autojump_clock: MockClock) -> None:
    """One that was granted slowly, during a slow renewal, is still renewed in time."""

    class Slow(FaultyStore):
        acquire_delay = 0.0

        async def acquire(self, key: str, token: str, **rest: Any) -> Any:
            loaded = await super().acquire(key, token, **rest)
            delay, self.acquire_delay = self.acquire_delay, 0.0
            await trio.sleep(delay)
            return loaded

        async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> Sequence[bool | None]:
            await trio.sleep(1.2)
            return await super().renew(locks, lease=lease)

    store = Slow()
    async with opened(store, lock_lease=5.0) as manager, trio.open_nursery() as nursery:

        async def other() -> None:
            async with manager.session().locked():
                await trio.sleep(12)  # renewed from 1.67 to 2.87, and from 3.33 to 4.53

        nursery.start_soon(other)
        await trio.sleep(1)
        store.acquire_delay = 3.4
        async with manager.session().locked():
            await trio.sleep(3)
        assert manager.statistics().locks_lost == 0


async def test_a_renewal_that_came_too_late_revived_a_lost_lock(autojump_clock: MockClock) -> None:
    """Its body is being cancelled already: the loss is counted, and raised."""

    class Late(FaultyStore):
        async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> Sequence[bool | None]:
            if not self.renewed:
                self.renewed.append(trio.current_time())
                raise StorageUnavailableError("the line is cut")
            renewed = await super().renew(locks, lease=lease)
            await trio.sleep(1.55)
            return renewed

    async with opened(Late(), lock_lease=5.0) as manager:
        with pytest.raises(LockLostError):
            async with manager.session().locked():
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(3)
        assert manager.statistics().locks_lost == 1


async def test_a_bug_in_a_store_s_renewal_took_the_manager_down(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the leases lapse as if the store were down, and the user's exceptions stay bare."""

    class Buggy(FaultyStore):
        async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> Sequence[bool | None]:
            raise OSError("a bug")

    async with opened(Buggy(), lock_lease=3.0) as manager:
        with pytest.raises(LockLostError):
            async with manager.session().locked():
                await trio.sleep_forever()
    assert "a bug" in caplog.text


async def test_closing_waited_for_commits_that_began_meanwhile(autojump_clock: MockClock) -> None:
    """At most one commit_timeout: who has not begun to commit has lost the lock."""
    store = FaultyStore()
    outcomes: list[str] = []

    async def hold_and_commit(session: Session, seconds: float) -> None:
        try:
            async with session.locked() as data:
                data["n"] = 1
                await trio.sleep(seconds)
        except LockLostError as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("committed")

    async with trio.open_nursery() as nursery:
        async with opened(store) as manager:
            store.commit_delay = 4.5
            for seconds in (1, 5, 9):
                nursery.start_soon(hold_and_commit, manager.session(), seconds)
            await trio.sleep(2)
        assert trio.current_time() == pytest.approx(5.5)
    assert sorted(outcomes) == ["committed", "request_ended", "request_ended"]


async def test_the_lock_of_an_heir_leaked_when_the_answer_was_lost(autojump_clock: MockClock) -> None:
    """Nobody knows whether it was handed on, so it is given back; nobody waits for its lease to lapse."""
    store = AnswerLost()
    async with opened(store, commit_timeout=1.0) as manager:
        id = await stored(manager)
        gave_up = trio.CancelScope()

        async def heir() -> None:
            with gave_up:
                await manager.session(id).increment("n")

        async def holder() -> None:
            with pytest.raises(CommitUnknownError):
                async with manager.session(id).locked() as data:
                    data["n"] = 5
                    await trio.sleep(0.5)
                    store.loses_next_answer = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder)
            await trio.sleep(0.1)
            nursery.start_soon(heir)
            await trio.sleep(1)
            gave_up.cancel()
        started = trio.current_time()
        assert await manager.session(id).increment("n") == 6
        assert trio.current_time() == started


async def test_a_task_that_waits_in_the_store_was_not_counted(autojump_clock: MockClock) -> None:
    """It waits for a lock as much as those in our own queue do."""
    store = LocalStore()
    async with opened(store) as one, opened(store) as two:
        id = await stored(one)
        async with trio.open_nursery() as nursery, one.session(id).locked():
            nursery.start_soon(two.session(id).increment, "n")
            await wait_all_tasks_blocked()
            assert two.statistics().tasks_waiting == 1
        assert two.statistics().tasks_waiting == 0


async def test_a_commit_was_acknowledged_for_a_record_that_had_just_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is still there, and the writing, are one step; cleaning up comes before it."""
    store = LocalStore()
    now = 0.0

    def ticking() -> float:
        nonlocal now
        now += 0.25
        return now

    monkeypatch.setattr("trio_session._local_store.trio.current_time", ticking)
    life = Lifetime(idle=5.0)
    for start in range(40):
        now = start / 8
        key = f"k{start}"
        loaded = await store.acquire(key, "t", lease=60.0, life=life)
        first = await store.commit(key, "t", version=loaded.version, blob=b"one", life=life)
        await store.acquire(key, "u", lease=60.0, life=life)
        now = store._records[key].expires - 1.5 + start / 16
        try:
            await store.commit(key, "u", version=first, blob=b"two", life=life)
        except Exception:  # noqa: BLE001  # refused: that is fine, too
            continue
        assert store._records[key].blob == b"two"
