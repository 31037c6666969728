"""What a handler sees of a Session: the mapping, the verbs, levels, and who holds the lock."""

from __future__ import annotations

import copy
import logging
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    LocalStore,
    LockTimeoutError,
    RedisConnection,
    Session,
    SessionBusyError,
    SessionConfig,
    SessionEndedError,
    SessionFinishedError,
    SessionManager,
    SessionNotLockedError,
    SessionNotReadError,
    SessionStateError,
    SessionTooLargeError,
    StorageUnavailableError,
    open_session_manager,
)


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig()) as manager:
        yield manager


async def stored(manager: SessionManager, **data: object) -> str:
    """The id of a new session with `data`."""
    session = manager.session()
    async with session.locked() as working:
        working.update(data)
    assert session.id is not None
    return session.id


async def data_of(manager: SessionManager, id: str | None) -> dict[str, object]:
    return dict(await manager.session(id).read())


# -- the mapping -----------------------------------------------------------------------------------------------------


async def test_a_new_session_has_no_id_and_no_data(manager: SessionManager) -> None:
    """Nothing is stored for a visitor until there is something to store."""
    session = manager.session()
    assert session.id is None
    assert not session.is_read
    assert not session.is_locked
    assert await session.read() is session
    assert session.is_read
    assert session.is_empty
    assert (await session.read()).is_empty
    assert session.id is None
    assert repr(manager._engine.store) == "<LocalStore 0 records, 0 locks>"


async def test_data_must_be_read_first(manager: SessionManager) -> None:
    """Every synchronous look at unread data is refused, and the message shows the fix."""
    session = manager.session(await stored(manager, name="Ada"))
    for look in (
        lambda: session.get("name"),
        lambda: session["name"],
        lambda: session.has("name"),
        lambda: "name" in session,
        lambda: len(session),
        lambda: list(session),
        lambda: session.is_empty,
        lambda: session.data,
        lambda: session("name"),
    ):
        with pytest.raises(SessionNotReadError, match=r"await session\.read\(\)"):
            look()


async def test_it_reads_like_a_mapping(manager: SessionManager) -> None:
    """All the ways to look at data agree."""
    session = await manager.session(await stored(manager, name="Ada", age=36)).read()
    assert session["name"] == session.get("name") == session("name") == "Ada"
    assert dict(session) == dict(session.data) == {"name": "Ada", "age": 36}
    assert list(session) == ["name", "age"]
    assert len(session) == 2
    assert "name" in session
    assert session.has("age")
    assert not session.has("town")
    assert session.get("town") is None
    assert session.get("town", "London") == session("town", "London") == "London"
    assert session() is session
    assert not session.is_empty
    with pytest.raises(KeyError):
        session["town"]
    with pytest.raises(TypeError):
        session.data["name"] = "Eve"  # type: ignore[index]


async def test_it_is_compared_by_identity(manager: SessionManager) -> None:
    """A Session stands for a lock: equal data makes no equal sessions, and a copy is the session itself."""
    id = await stored(manager, name="Ada")
    one, two = await manager.session(id).read(), await manager.session(id).read()
    assert one == one
    assert one != two
    assert len({one, two}) == 2
    assert copy.deepcopy({"session": one})["session"] is one
    assert manager.session()


async def test_its_repr_shows_state_but_no_id(manager: SessionManager) -> None:
    """A repr ends up in logs, an id is a credential."""
    session = manager.session()
    assert repr(session) == "<Session new, unread>"
    async with session.locked() as data:
        data["secret"] = "swordfish"
        assert repr(session) == "<Session new, read, locked>"
    assert repr(session) == "<Session stored, read>"
    other = manager.session(session.id)
    await session.refresh()
    assert repr(await other.read()) == "<Session ended, read>"


async def test_a_worker_thread_may_read(manager: SessionManager) -> None:
    """FastAPI runs synchronous handlers in threads; they see the last committed data."""
    session = manager.session(await stored(manager, n=1))
    async with session.locked() as data:
        data["n"] = 2
        assert await trio.to_thread.run_sync(session.get, "n") == 1


# -- one change ------------------------------------------------------------------------------------------------------


async def test_locked_commits(manager: SessionManager) -> None:
    """Falling off the end, return, break and continue all commit."""

    async def change(session: Session) -> None:
        async with session.locked() as data:
            data["by"] = "return"
            return

    session = manager.session()
    await change(session)
    assert await data_of(manager, session.id) == {"by": "return"}
    for _ in range(2):
        async with session.locked() as data:
            data["by"] = "break"
            break
    assert await data_of(manager, session.id) == {"by": "break"}
    assert manager.statistics().commits == 2


async def test_an_exception_rolls_back_and_comes_out_bare(manager: SessionManager) -> None:
    """The exception is the very one that was raised, also if it is a group of the user's own."""
    session = manager.session(await stored(manager, n=1))
    for error in (ValueError("no"), ExceptionGroup("mine", [ValueError("one")])):
        with pytest.raises(type(error)) as caught:
            async with session.locked() as data:
                data["n"] = 2
                raise error
        assert caught.value is error
        assert not session.is_locked
        assert session["n"] == 1
    assert await data_of(manager, session.id) == {"n": 1}
    assert manager.statistics().rollbacks == 2


async def test_changes_are_found_by_value(manager: SessionManager) -> None:
    """A change deep inside is saved; an unchanged session is not written."""
    id = await stored(manager, cart=["tea"])
    session = manager.session(id)
    async with session.locked() as data:
        data["cart"].append("milk")
    assert await data_of(manager, id) == {"cart": ["tea", "milk"]}
    version = manager._engine.store._records[manager._engine.ids.key(id)].version  # type: ignore[attr-defined]
    async with session.locked() as data:
        data["cart"] = ["tea", "milk"]
    assert version == manager._engine.store._records[manager._engine.ids.key(id)].version  # type: ignore[attr-defined]


async def test_a_new_session_without_data_is_not_stored(manager: SessionManager) -> None:
    """Looking under the lock, and a change that was taken back, create nothing."""
    session = manager.session()
    async with session.locked():
        pass
    async with session.locked() as data:
        data["n"] = 1
        del data["n"]
    assert session.id is None
    assert repr(manager._engine.store) == "<LocalStore 0 records, 0 locks>"


async def test_an_emptied_session_lives_on(manager: SessionManager) -> None:
    """No data is not the same as no session: only clear() ends one."""
    session = manager.session(await stored(manager, n=1))
    await session.delete("n")
    assert session.is_empty
    id = session.id
    assert id is not None
    await session.put("n", 2)
    assert session.id == id


async def test_data_has_no_effect_after_its_block(manager: SessionManager) -> None:
    """What `locked()` yielded is a plain dict that nobody looks at any more."""
    session = manager.session()
    async with session.locked() as data:
        data["n"] = [1]
    data["n"].append(2)
    data["m"] = 1
    assert dict(session) == {"n": [1]} == await data_of(manager, session.id)


async def test_other_tasks_see_the_last_committed_data(manager: SessionManager) -> None:
    """The working copy is the holder's alone, deep down too."""
    session = manager.session(await stored(manager, cart=["tea"]))
    seen: list[object] = []

    async def look() -> None:
        seen.append(session["cart"])
        await session.read()
        seen.append(session["cart"])

    async with trio.open_nursery() as nursery, session.locked() as data:
        data["cart"].append("milk")
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        assert session["cart"] == ["tea", "milk"]
        assert await session.read() is session
        assert session["cart"] == ["tea", "milk"]
    assert seen == [["tea"], ["tea"]]


async def test_a_read_that_was_overtaken_does_not_bring_back_old_data(
    manager: SessionManager, autojump_clock: MockClock
) -> None:
    """A slow answer to a read is dropped if a commit of this request was faster."""
    session = manager.session(await stored(manager, n=1))
    load = manager._engine.store.load

    async def slow_load(key: str, *, life: object) -> object:
        loaded = await load(key, life=life)  # type: ignore[arg-type]
        await trio.sleep(1)
        return loaded

    manager._engine.store.load = slow_load  # type: ignore[method-assign,assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.read)
        await wait_all_tasks_blocked()
        await session.put("n", 2)
    assert session["n"] == 2


# -- the verbs -------------------------------------------------------------------------------------------------------


async def test_one_call_verbs(manager: SessionManager) -> None:
    """put, increment, pull and delete lock, change and commit by themselves."""
    session = manager.session()
    await session.put("town", "London")
    assert await session.increment("n") == 1
    assert await session.increment("n", 5) == 6
    assert await session.increment("n", by=-7) == -1
    assert await session.pull("town") == "London"
    assert await session.pull("town") is None
    assert await session.pull("town", "Paris") == "Paris"
    await session.delete("never there")
    assert await data_of(manager, session.id) == {"n": -1}
    await session.delete("n")
    assert session.is_empty


async def test_verbs_inside_a_lock_are_staged(manager: SessionManager) -> None:
    """Inside a lock they join it, and fall with its rollback."""
    id = await stored(manager, n=1)
    session = manager.session(id)
    with pytest.raises(ValueError, match="undo"):
        async with session.locked():
            await session.put("m", 1)
            await session.increment("n")
            await session.refresh()
            assert dict(session) == {"n": 2, "m": 1}
            await session.clear()
            assert session.is_empty
            raise ValueError("undo")
    assert session.id == id
    assert await data_of(manager, id) == {"n": 1}


async def test_set_and_unset_need_the_lock(manager: SessionManager) -> None:
    """A change without the lock is refused with the fix in the message; with it, it is saved."""
    session = await manager.session(await stored(manager, n=1)).read()
    changes: list[Callable[[], None]] = [
        lambda: session.set("n", 2),
        lambda: session.__setitem__("n", 2),
        lambda: session.unset("n"),
        lambda: session.__delitem__("n"),
        session.regenerate,
    ]
    for change in changes:
        with pytest.raises(SessionNotLockedError, match=r"async with session\.locked\(\)"):
            change()
    async with session.locked():
        session["m"] = 1
        session.set("o", 2)
        del session["n"]
        session.unset("m")
        with pytest.raises(KeyError):
            session.unset("m")
    assert await data_of(manager, session.id) == {"o": 2}


async def test_only_the_holding_task_may_change(manager: SessionManager) -> None:
    """The lock belongs to a task, not to the request."""
    session = manager.session()

    async def stranger() -> None:
        assert session.is_locked
        with pytest.raises(SessionNotLockedError):
            session["n"] = 1
        with pytest.raises(SessionNotLockedError):
            await session.commit()
        with pytest.raises(SessionNotLockedError):
            await session.rollback()

    async with trio.open_nursery() as nursery, session.locked():
        nursery.start_soon(stranger)
        await wait_all_tasks_blocked()


# -- the id ----------------------------------------------------------------------------------------------------------


async def test_clear_destroys(manager: SessionManager) -> None:
    """After clear() the record is gone, the id is None, and new data begins a new session."""
    old = await stored(manager, n=1)
    session = manager.session(old)
    await session.clear()
    assert session.id is None
    assert session.is_empty
    await session.put("n", 2)
    assert session.id not in (None, old)
    assert await data_of(manager, old) == {}


async def test_clear_and_new_data_in_one_lock(manager: SessionManager) -> None:
    """What is set after clear() in the same lock goes into a new session; the old one is destroyed."""
    id = await stored(manager, n=1)
    session, old = manager.session(id), manager.session(id)
    async with session.locked() as data:
        await session.clear()
        data["goodbye"] = "Ada"
    assert await data_of(manager, session.id) == {"goodbye": "Ada"}
    with pytest.raises(SessionEndedError) as caught:
        await old.put("n", 2)
    assert caught.value.reason == "destroyed"
    new = manager.session()
    async with new.locked() as data:
        await new.clear()
        data["n"] = 1
    assert await data_of(manager, new.id) == {"n": 1}


async def test_clear_of_nothing(manager: SessionManager) -> None:
    """Clearing what was never stored, or is gone already, is no error."""
    session = manager.session()
    await session.clear()
    assert session.id is None
    id = await stored(manager, n=1)
    one, two = manager.session(id), manager.session(id)
    await one.clear()
    await two.clear()
    assert two.id is None


async def test_clear_cannot_end_a_session_whose_id_was_replaced(manager: SessionManager) -> None:
    """A logout with an id that a login has just replaced must not look as if it had worked."""
    id = await stored(manager, n=1)
    session, late = manager.session(id), manager.session(id)
    await session.refresh()
    with pytest.raises(SessionEndedError) as caught:
        await late.clear()
    assert caught.value.reason == "replaced"
    assert await data_of(manager, session.id) == {"n": 1}


async def test_refresh_keeps_the_data_under_a_new_id(manager: SessionManager) -> None:
    """The old id is dead at once: a login must not be shared with whoever planted the id."""
    old = await stored(manager, cart=["tea"])
    session = manager.session(old)
    await session.refresh()
    assert session.id not in (None, old)
    assert await data_of(manager, session.id) == {"cart": ["tea"]}
    assert await data_of(manager, old) == {}
    empty = manager.session()
    await empty.refresh()
    assert empty.id is None


async def test_regenerate_takes_effect_with_the_commit(manager: SessionManager) -> None:
    """Until the outermost commit the id is the old one; a rollback of any level undoes it."""
    old = await stored(manager, n=1)
    session = manager.session(old)
    async with session.locked():
        await session.lock()
        session.regenerate()
        await session.rollback()
    assert session.id == old
    async with session.locked():
        async with session.locked() as data:
            data["n"] = 2
            session.regenerate()
        assert session.id == old
    assert session.id != old
    assert await data_of(manager, session.id) == {"n": 2}


async def test_unknown_ids_are_never_adopted(manager: SessionManager) -> None:
    """Fixation: an id that the store does not know, planted or expired, gets a new one at the first commit."""
    planted = manager._engine.ids.new()
    for session in (manager.session(planted), await manager.session(planted).read()):
        await session.put("user", 7)
        assert session.id not in (None, planted)
    assert await data_of(manager, planted) == {}


@pytest.mark.parametrize("id", ["", "short", "x" * 49, "é" * 48, "../" * 16, "a" * 47 + "\n", "\x00" * 48])
async def test_ids_of_wrong_shape_are_absent(manager: SessionManager, id: str) -> None:
    """A malformed id reads as empty, without a question to the store."""
    session = await manager.session(id).read()
    assert session.is_empty
    assert session.id is None
    await session.put("n", 1)
    assert session.id != id


async def test_two_tasks_of_a_request_with_an_unknown_id_agree_on_the_new_one(manager: SessionManager) -> None:
    """They take turns, and the second finds what the first has made."""
    session = manager.session(manager._engine.ids.new())
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(session.increment, "n")
    assert await data_of(manager, session.id) == {"n": 3}


async def test_a_task_that_waited_while_the_id_changed_follows_it(manager: SessionManager) -> None:
    """After a refresh() in one task, the next one of the same request changes the session under its new id."""
    session = manager.session(await stored(manager, n=1))
    async with trio.open_nursery() as nursery, session.locked():
        nursery.start_soon(session.increment, "n")
        await wait_all_tasks_blocked()
        session.regenerate()
    assert await data_of(manager, session.id) == {"n": 2}


async def test_destroyed_data_never_comes_back(manager: SessionManager) -> None:
    """A slow request that loaded before a logout, or a login, cannot write afterwards, nor begin anew."""
    for end in (Session.clear, Session.refresh):
        id = await stored(manager, user=7)
        slow = await manager.session(id).read()
        assert slow["user"] == 7
        await end(manager.session(id))
        for _ in range(2):
            with pytest.raises(SessionEndedError):
                await slow.put("n", 1)
            assert slow.id is None
        with pytest.raises(SessionEndedError):
            await slow.refresh()
        async with slow.locked() as data:  # looking is allowed
            assert data == {}
        assert await data_of(manager, id) == {}


async def test_tombstones_last_a_minute(manager: SessionManager, autojump_clock: MockClock) -> None:
    """Afterwards the id is as unknown as any other: it is replaced, not refused. Who knew it ended remembers."""
    id = await stored(manager, user=7)
    slow = manager.session(id)
    await manager.session(id).clear()
    await slow.read()
    await trio.sleep(59.999)
    with pytest.raises(SessionEndedError):
        await manager.session(id).put("n", 1)
    await trio.sleep(0.001)
    fresh = manager.session(id)
    await fresh.put("n", 1)
    assert fresh.id not in (None, id)
    with pytest.raises(SessionEndedError):
        await slow.put("n", 1)


async def test_several_ids_are_told_apart(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """Cookie tossing: one living session is found among strangers; two living ones make the request anonymous."""
    mine, other = await stored(manager, name="Ada"), await stored(manager, name="Eve")
    planted = [manager._engine.ids.new() for _ in range(5)]
    session = await manager.session(planted[0], mine, planted[1]).read()
    assert session["name"] == "Ada"
    assert "living sessions" not in caplog.text
    session = manager.session(planted[0], mine)
    await session.increment("n")
    assert session.id == mine
    for tossed in (await manager.session(mine, other).read(), manager.session(other, planted[0], mine)):
        await tossed.increment("n")
        assert dict(tossed) == {"n": 1}
        assert tossed.id not in (mine, other)
    assert "2 living sessions" in caplog.text
    assert mine not in caplog.text
    too_many = await manager.session(*planted[:4], mine).read()
    assert too_many.is_empty
    assert (await manager.session(*planted[:3], mine).read())["name"] == "Ada"


async def test_a_dead_id_among_strangers_is_remembered(manager: SessionManager) -> None:
    """A destroyed session is recognised among several ids, and not begun anew."""
    dead = await stored(manager, name="Ada")
    await manager.session(dead).clear()
    session = manager.session(manager._engine.ids.new(), dead)
    with pytest.raises(SessionEndedError):
        await session.put("n", 1)


# -- levels ----------------------------------------------------------------------------------------------------------


async def test_levels_are_savepoints(manager: SessionManager) -> None:
    """An inner rollback restores the dict in place; an inner commit falls with the outer rollback."""
    session = manager.session(await stored(manager, cart=["tea"]))
    async with session.locked() as data:
        data["cart"].append("milk")
        with pytest.raises(ValueError, match="inner"):
            async with session.locked() as inner:
                assert inner is data
                inner["cart"].append("sand")
                inner["n"] = 1
                raise ValueError("inner")
        assert data == {"cart": ["tea", "milk"]}
        async with session.locked():
            data["n"] = 2
    assert await data_of(manager, session.id) == {"cart": ["tea", "milk"], "n": 2}
    with pytest.raises(ValueError, match="outer"):
        async with session.locked():
            await session.put("n", 3)
            raise ValueError("outer")
    assert session["n"] == 2


async def test_explicit_levels(manager: SessionManager) -> None:
    """lock() counts up, commit(), rollback() and unlock() count down, and only the last one writes."""
    session = manager.session()
    await session.lock()
    session["n"] = 1
    await session.lock()
    session["n"] = 2
    await session.commit()
    assert session.is_locked
    assert await data_of(manager, session.id) == {}
    await session.lock()
    session["n"] = 3
    await session.unlock()
    assert session["n"] == 2
    await session.commit()
    assert not session.is_locked
    assert await data_of(manager, session.id) == {"n": 2}
    assert session["n"] == 2


async def test_unlock_all_ends_every_level(manager: SessionManager) -> None:
    """All changes are dropped, however deep."""
    session = manager.session(await stored(manager, n=1))
    await session.lock()
    await session.lock()
    session["n"] = 2
    await session.unlock_all()
    assert not session.is_locked
    assert session["n"] == 1
    with pytest.raises(SessionNotLockedError):
        await session.unlock_all()


async def test_ending_a_block_from_inside(manager: SessionManager) -> None:
    """commit() or rollback() inside a block end it early; the end of the block has nothing left to do."""
    session = manager.session()
    async with session.locked() as data:
        data["n"] = 1
        await session.commit()
        assert not session.is_locked
        data["n"] = 2
    async with session.locked() as data:
        data["n"] = 3
        await session.rollback()
    assert await data_of(manager, session.id) == {"n": 1}
    with pytest.raises(ValueError, match="late"):
        async with session.locked():
            await session.unlock_all()
            raise ValueError("late")


async def test_a_lock_left_open_inside_a_block_is_rolled_back(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Its changes were never committed; the block's own are."""
    session = manager.session()
    async with session.locked() as data:
        data["n"] = 1
        await session.lock()
        data["n"] = 2
    assert await data_of(manager, session.id) == {"n": 1}
    assert "left open" in caplog.text
    with pytest.raises(ValueError, match="both"):
        async with session.locked():
            await session.lock()
            raise ValueError("both")
    assert not session.is_locked


# -- waiting ---------------------------------------------------------------------------------------------------------


async def test_tasks_of_one_request_exclude_each_other(manager: SessionManager, autojump_clock: MockClock) -> None:
    """They wait in a fair queue like strangers."""
    session = manager.session()
    order: list[int] = []

    async def change(number: int) -> None:
        async with session.locked() as data:
            before = data.get("n", 0)
            await trio.sleep(0.1)
            data["n"] = before + 1
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(change, number)
            await wait_all_tasks_blocked()
    assert await data_of(manager, session.id) == {"n": 5}
    assert order == [0, 1, 2, 3, 4]


async def test_a_block_is_entered_once(manager: SessionManager) -> None:
    """What `locked()` returns stands for one block; a second one, even inside the first, is refused."""
    session = manager.session()
    block = session.locked()
    async with block as data:
        data["n"] = 1
        with pytest.raises(RuntimeError, match="once"):
            async with block:
                raise AssertionError("not reached")
    assert await data_of(manager, session.id) == {"n": 1}


async def test_the_wait_is_bounded(manager: SessionManager, autojump_clock: MockClock) -> None:
    """After lock_timeout, or the caller's own timeout, a LockTimeoutError; nothing is left waiting."""
    id = await stored(manager, n=1)
    async with trio.open_nursery() as nursery, manager.session(id).locked():
        nursery.start_soon(wait_in_vain, manager.session(id), None, 10.0)
        nursery.start_soon(wait_in_vain, manager.session(id), 0.25, 0.25)
        nursery.start_soon(lock_in_vain, manager.session(id))
        await trio.sleep(11)
        assert manager.statistics().lock_timeouts == 3
        assert manager.statistics().tasks_waiting == 0
    assert issubclass(LockTimeoutError, trio.TooSlowError)


async def lock_in_vain(session: Session) -> None:
    with pytest.raises(LockTimeoutError):
        await session.lock(0.25)
    assert not session.is_locked


async def wait_in_vain(session: Session, timeout: float | None, waits: float) -> None:
    started = trio.current_time()
    with pytest.raises(LockTimeoutError) as caught:
        async with session.locked(timeout):
            raise AssertionError("not reached")
    assert trio.current_time() - started == pytest.approx(waits)
    assert caught.value.timeout == waits


async def test_only_so_many_tasks_may_wait(autojump_clock: MockClock) -> None:
    """Past max_waiters the next one is refused at once: one visitor cannot occupy the whole process."""
    async with open_session_manager(SessionConfig(max_waiters=2)) as manager:
        id = await stored(manager, n=1)
        async with trio.open_nursery() as nursery, manager.session(id).locked():
            for _ in range(2):
                nursery.start_soon(manager.session(id).increment, "n")
            await wait_all_tasks_blocked()
            assert manager.statistics().tasks_waiting == 2
            nursery.start_soon(refused, manager.session(id))
            with trio.CancelScope() as scope:
                scope.cancel()
                await manager.session(id).increment("n")
            assert scope.cancelled_caught  # and not refused
            await wait_all_tasks_blocked()
        assert await data_of(manager, id) == {"n": 3}


async def refused(session: Session) -> None:
    with pytest.raises(SessionBusyError, match="max_waiters") as caught:
        await session.increment("n")
    assert caught.value.max_waiters == 2


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
async def test_a_timeout_must_be_positive(manager: SessionManager, timeout: float) -> None:
    """No time at all could never be enough."""
    with pytest.raises(ValueError, match="timeout"):
        await manager.session().lock(timeout)


async def test_a_deadlock_is_told_at_once(manager: SessionManager) -> None:
    """A task started inside the block can never get its lock: the error names the block."""
    id = await stored(manager, n=1)
    session = manager.session(id)
    for child in (session, manager.session(id)):
        with pytest.raises(ExceptionGroup) as caught:
            async with session.locked(), trio.open_nursery() as nursery:
                nursery.start_soon(change_in_a_nursery, child)
        inner = caught.value.exceptions[0]
        assert isinstance(inner, ExceptionGroup)
        assert isinstance(inner.exceptions[0], SessionStateError)
        assert "test_a_deadlock_is_told_at_once" in str(inner.exceptions[0])
    assert not session.is_locked


async def change_in_a_nursery(session: Session) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.increment, "n")


async def test_the_same_task_cannot_lock_a_session_twice_through_two_objects(manager: SessionManager) -> None:
    """It would wait for itself."""
    id = await stored(manager, n=1)
    async with manager.session(id).locked():
        with pytest.raises(SessionStateError, match="another Session object"):
            await manager.session(id).increment("n")


async def test_siblings_simply_wait(manager: SessionManager) -> None:
    """A nursery opened before the lock is no deadlock, nor is one inside an explicit lock()."""
    session = manager.session()
    async with trio.open_nursery() as nursery, session.locked() as data:
        nursery.start_soon(change_in_a_nursery, session)
        await wait_all_tasks_blocked()
        data["n"] = 1
    assert session["n"] == 2
    await session.lock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.increment, "n")
        await wait_all_tasks_blocked()
        await session.commit()
    assert session["n"] == 3


# -- what cannot be kept ---------------------------------------------------------------------------------------------


async def test_values_the_codec_cannot_keep(manager: SessionManager) -> None:
    """A TypeError names the key, nothing is written, the lock is free."""
    session = manager.session(await stored(manager, n=1))
    with pytest.raises(TypeError, match="file"):
        async with session.locked() as data:
            data["n"] = 2
            data["file"] = object()
    assert not session.is_locked
    assert await data_of(manager, session.id) == {"n": 1}


async def test_too_much_data() -> None:
    """Past max_size nothing is written, also not with a new id."""
    async with open_session_manager(SessionConfig(max_size=100)) as manager:
        session = manager.session(await stored(manager, n=1))
        with pytest.raises(SessionTooLargeError) as caught:
            await session.put("text", "x" * 100)
        assert caught.value.size > caught.value.max_size == 100
        with pytest.raises(SessionTooLargeError):
            async with session.locked() as data:
                session.regenerate()
                data["text"] = "x" * 100
        assert await data_of(manager, session.id) == {"n": 1}


# -- the manager -----------------------------------------------------------------------------------------------------


async def test_a_closed_manager_refuses(manager: SessionManager) -> None:
    """Whatever needs I/O is refused once the manager is closed; what was read can still be looked at."""
    async with open_session_manager(SessionConfig()) as manager:
        session = await manager.session(await stored(manager, n=1)).read()
        assert repr(manager) == "<SessionManager open, 0 locks held, 0 tasks waiting>"
    assert repr(manager).startswith("<SessionManager closed")
    assert session["n"] == 1
    for use in (session.read, session.lock, session.clear, session.refresh):
        with pytest.raises(SessionFinishedError, match="manager"):
            await use()


async def test_a_lock_left_behind_is_rolled_back_with_its_manager() -> None:
    """Closing gives back every lock; waiters are refused rather than served by a closed manager."""
    store = LocalStore()
    refused: list[type[BaseException]] = []

    async def wait(session: Session) -> None:
        try:
            await session.lock()
        except SessionFinishedError as error:
            refused.append(type(error))

    async with trio.open_nursery() as nursery, open_session_manager(SessionConfig(), store=store) as manager:
        id = await stored(manager, n=1)
        await manager.session(id).lock()
        nursery.start_soon(wait, manager.session(id))
        await wait_all_tasks_blocked()
    assert refused == [SessionFinishedError]
    assert repr(store) == "<LocalStore 1 records, 0 locks>"
    assert manager.statistics().locks_held == 0


async def test_exceptions_leave_the_manager_bare() -> None:
    """The block's own exception comes out, not a group around it."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_session_manager(SessionConfig()):
            raise error
    assert caught.value is error


async def test_a_server_that_is_not_there(autojump_clock: MockClock) -> None:
    """A configured server that cannot be reached is waited for a little, and then ends the start with a clear error."""
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        config = SessionConfig(driver="redis", redis={"default": RedisConnection(port=port)})
        with pytest.raises(StorageUnavailableError, match=rf"^redis://127\.0\.0\.1:{port}/0: "):
            async with open_session_manager(config):
                raise AssertionError("not reached")
    assert 1 < trio.current_time() < 5


async def test_the_local_driver_says_that_it_is_local(caplog: pytest.LogCaptureFixture) -> None:
    """Once, at the start, at INFO."""
    caplog.set_level(logging.INFO, "trio_session")
    async with open_session_manager(SessionConfig()) as manager:
        await manager.session().put("n", 1)
    assert [record.message for record in caplog.records if "this process only" in record.message] != []
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.INFO
