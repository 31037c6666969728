"""Instruments: told of everything that happens to a lock and its session, in order, and unable to disturb it."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import fields
from functools import partialmethod
from typing import Any, get_args

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    CommitUnknownError,
    LocalStore,
    LockLostError,
    LockTimeoutError,
    Session,
    SessionBusyError,
    SessionConfig,
    SessionEndedError,
    SessionEvent,
    SessionInstrument,
    SessionManager,
    SessionMiddleware,
    SessionStateError,
    SessionStore,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session._asgi import Receive, Scope, Send
from trio_session._instruments import Hook
from trio_session.redis import open_redis_store
from trio_session.testing import open_fake_redis, open_test_client
from trio_session.web import App, Request

from .test_docs import ROOT, blocks_of
from .test_leases import FaultyStore

HOOKS: tuple[str, ...] = get_args(Hook)


class Recorder(SessionInstrument):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, SessionEvent]] = []

    def note(self, hook: str, event: SessionEvent) -> None:
        self.events.append((hook, event))

    def take(self) -> list[str]:
        """The hooks called since the last look, with their reasons."""
        told = [hook if event.reason is None else f"{hook}: {event.reason}" for hook, event in self.events]
        self.events.clear()
        return told

    def find(self, hook: str) -> SessionEvent:
        """The one event of a hook."""
        (event,) = [event for name, event in self.events if name == hook]
        return event


for name in HOOKS:
    setattr(Recorder, name, partialmethod(Recorder.note, name))


@asynccontextmanager
async def open_recorded(
    config: SessionConfig | None = None, store: SessionStore | None = None
) -> AsyncIterator[tuple[SessionManager, Recorder]]:
    recorder = Recorder()
    async with open_session_manager(config or SessionConfig(), store=store, instruments=[recorder]) as manager:
        yield manager, recorder


async def stored(manager: SessionManager, **data: object) -> str:
    """Make a session; its id."""
    session = manager.session()
    async with session.locked() as working:
        working.update(data or {"a": 1})
    assert session.id is not None
    return session.id


COMMITTED = ["lock_requested", "lock_acquired", "session_committed", "lock_released"]


# -- what is told ----------------------------------------------------------------------------------------------------


def test_every_hook_is_there_and_does_nothing() -> None:
    """Who overrides one hook need not know the others."""
    assert {name for name in vars(SessionInstrument) if not name.startswith("_")} == set(HOOKS)
    instrument = SessionInstrument()
    for hook in HOOKS:
        call: Callable[[SessionEvent], object] = getattr(instrument, hook)
        assert call(SessionEvent(session="", lock=0)) is None


async def test_the_story_of_a_session(autojump_clock: MockClock) -> None:
    """It is created, changed, looked at, moved and destroyed; what one lock is about has one number."""
    async with open_recorded() as (manager, recorder):
        session = manager.session(await stored(manager))
        first = recorder.find("session_created").session
        assert recorder.take() == [*COMMITTED[:3], "session_created", "lock_released"]
        await session.put("a", 2)
        assert recorder.find("session_committed").session == first
        assert recorder.take() == COMMITTED
        async with session.locked():
            pass
        assert recorder.take() == COMMITTED
        await session.refresh()
        moved = recorder.find("session_moved")
        assert moved.session == first
        assert moved.new_session not in {first, None}
        assert recorder.take() == [*COMMITTED[:3], "session_moved", "lock_released"]
        await session.clear()
        assert recorder.find("session_destroyed").session == moved.new_session
        assert len({event.lock for _, event in recorder.events}) == 1
        assert recorder.take() == [*COMMITTED[:3], "session_destroyed: destroyed", "lock_released"]


async def test_a_session_that_is_destroyed_and_begun_anew(autojump_clock: MockClock) -> None:
    """In one commit: the old one is destroyed, and the one created has another tag."""
    async with open_recorded() as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        async with session.locked() as data:
            await session.clear()
            data["b"] = 1
        destroyed, created = recorder.find("session_destroyed"), recorder.find("session_created")
        assert destroyed.session != created.session
        assert destroyed.lock == created.lock
        assert recorder.take() == [
            *COMMITTED[:3],
            "session_destroyed: destroyed",
            "session_created",
            "lock_released",
        ]


async def test_waiting_and_holding_are_measured_on_trio_s_clock(autojump_clock: MockClock) -> None:
    """Whoever comes 1 s into a hold of 3 s waits for 2 s."""
    async with open_recorded() as (manager, recorder):
        id = await stored(manager)
        recorder.take()

        async def hold(seconds: float) -> None:
            async with manager.session(id).locked() as data:
                await trio.sleep(seconds)
                data["a"] = seconds

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, 3)
            await trio.sleep(1)
            nursery.start_soon(hold, 0.5)
        times = [(hook, event.waited, event.held) for hook, event in recorder.events]
        assert times == [
            ("lock_requested", 0, 0),
            ("lock_acquired", 0, 0),
            ("lock_requested", 0, 0),
            ("session_committed", 0, 3),
            ("lock_released", 0, 3),
            ("lock_acquired", 2, 0),
            ("session_committed", 2, 0.5),
            ("lock_released", 2, 0.5),
        ]


async def test_a_rollback_has_no_reason_if_it_was_wanted(autojump_clock: MockClock) -> None:
    """By an exception, a cancellation, or in so many words."""
    rolled_back = ["lock_requested", "lock_acquired", "session_rolled_back", "lock_released"]
    async with open_recorded() as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        with suppress(KeyError):
            async with session.locked():
                raise KeyError
        assert recorder.take() == rolled_back
        with trio.move_on_after(1):
            async with session.locked():
                await trio.sleep_forever()
        assert recorder.take() == rolled_back
        await session.lock()
        await session.rollback()
        assert recorder.take() == rolled_back


async def test_a_lost_lock(autojump_clock: MockClock) -> None:
    """The loss comes first, then the end of the body; and the lock is released for others once."""
    async with open_recorded(SessionConfig(lock_hold_limit=6)) as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        with pytest.raises(LockLostError):
            async with session.locked():
                await trio.sleep_forever()
        assert recorder.find("lock_lost").held == 6
        assert recorder.take() == [
            "lock_requested",
            "lock_acquired",
            "lock_lost: hold_limit",
            "session_rolled_back: hold_limit",
            "lock_released",
        ]


async def test_a_loss_that_the_holder_notices_late(autojump_clock: MockClock) -> None:
    """Others have the lock before the holder rolls back, and are told so in that order."""
    store = FaultyStore()
    async with open_recorded(store=store) as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        store.renewal = "is refused"
        with pytest.raises(LockLostError):
            async with session.locked():
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
        assert recorder.take() == [
            "lock_requested",
            "lock_acquired",
            "lock_lost: lease_expired",
            "lock_released",
            "session_rolled_back: lease_expired",
        ]


async def test_waits_that_end_without_the_lock(autojump_clock: MockClock) -> None:
    """A timeout of either kind, a cancellation, a full queue, a deadlock: each has its word."""
    async with open_recorded(SessionConfig(max_waiters=1)) as (manager, recorder):
        id = await stored(manager)
        async with manager.session(id).locked():
            recorder.take()
            async with trio.open_nursery() as nursery:  # a deadlock, if it is waited for in here
                with pytest.raises(SessionStateError):
                    await manager.session(id).put("a", 1)
                assert recorder.take() == ["lock_requested", "lock_abandoned: deadlock"]
                nursery.cancel_scope.cancel()

        async def hold() -> None:
            async with manager.session(id).locked():
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            recorder.take()
            with pytest.raises(LockTimeoutError):
                await manager.session(id).lock(timeout=2)
            assert recorder.find("lock_abandoned").waited == 2
            assert recorder.take() == ["lock_requested", "lock_abandoned: timeout"]
            with trio.move_on_after(1):
                await manager.session(id).lock()
            assert recorder.take() == ["lock_requested", "lock_abandoned: timeout"]
            nursery.start_soon(manager.session(id).lock)
            await wait_all_tasks_blocked()
            with pytest.raises(SessionBusyError):
                await manager.session(id).lock()
            assert recorder.take() == ["lock_requested", "lock_requested", "lock_abandoned: busy"]
            nursery.cancel_scope.cancel()
        assert "lock_abandoned: cancelled" in recorder.take()


async def test_a_wait_that_is_not_wanted_any_more(autojump_clock: MockClock) -> None:
    """Another task of the request has changed the id: what was waited for is of no use."""
    async with open_recorded() as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        async with trio.open_nursery() as nursery, session.locked():
            nursery.start_soon(session.put, "a", 2)
            await wait_all_tasks_blocked()
            session.regenerate()
        told = recorder.take()
        assert told.count("lock_abandoned: unwanted") == 1
        assert told.count("lock_requested") == 3
        assert told.count("session_committed") == told.count("lock_released") == 2


async def test_an_unknown_id_is_locked_in_vain(autojump_clock: MockClock) -> None:
    """Its lock is released without commit or rollback, and the new id is locked next."""
    async with open_recorded() as (manager, recorder):
        await manager.session("x" * 48).put("a", 1)
        vain = ["lock_requested", "lock_acquired", "lock_released"]
        assert recorder.take() == [*vain, *COMMITTED[:3], "session_created", "lock_released"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageUnavailableError("gone"), "unavailable"),
        (CommitUnknownError(), "unknown"),
        (LockLostError("lease_expired"), "lease_expired"),
        (SessionEndedError("expired"), "ended"),
        (RuntimeError("a bug of the store"), "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_commit_that_fails(error: Exception, reason: str, autojump_clock: MockClock) -> None:
    """Is a rollback that says why, and the lock is released."""
    store = FaultyStore()
    async with open_recorded(store=store) as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        store.commit_error = error
        with pytest.raises(type(error)):
            await session.put("a", 2)
        told = [hook for hook in recorder.take() if not hook.startswith("lock_lost")]
        assert told == ["lock_requested", "lock_acquired", f"session_rolled_back: {reason}", "lock_released"]


async def test_a_commit_without_an_answer(autojump_clock: MockClock) -> None:
    """What became of it is not known, and that is what instruments are told."""
    store = FaultyStore()
    async with open_recorded(store=store) as (manager, recorder):
        session = manager.session(await stored(manager))
        recorder.take()
        store.commit_delay = 60
        with pytest.raises(CommitUnknownError):
            await session.put("a", 2)
        assert recorder.take()[2] == "session_rolled_back: unknown"


async def test_a_store_that_is_down(autojump_clock: MockClock) -> None:
    """The wait for the lock ends at once, and says why."""
    store = FaultyStore()
    async with open_recorded(store=store) as (manager, recorder):
        store.acquire_error = StorageUnavailableError("gone")
        with pytest.raises(StorageUnavailableError):
            await manager.session().put("a", 1)
        assert recorder.take() == ["lock_requested", "lock_abandoned: unavailable"]


async def test_a_lock_left_behind_is_no_loss(autojump_clock: MockClock) -> None:
    """Its rollback says why, and nobody is alarmed by a `lock_lost`."""
    recorder = Recorder()
    app = App(SessionConfig(), instruments=[recorder])

    @app.get("/")
    async def forget(request: Request) -> str:
        await request.session.lock()
        return "done"

    async with open_test_client(app) as client:
        await client.get("/")
    assert recorder.take() == [
        "lock_requested",
        "lock_acquired",
        "session_rolled_back: request_ended",
        "lock_released",
    ]


async def test_events_carry_no_credential(autojump_clock: MockClock) -> None:
    """Neither the id nor the store's key nor a value is in them; and the tag is the same in every manager."""
    store = LocalStore()
    async with open_recorded(store=store) as (manager, here), open_recorded(store=store) as (other, there):
        id = await stored(manager, secret="swordfish")
        await other.session(id).put("secret", "swordfish")
        key = manager._engine.ids.key(id)
        for event in (here.find("session_created"), there.find("session_committed")):
            assert event.session == here.find("session_created").session
            assert len(event.session) == 12
            told = repr(event)
            for secret in (id, key, "swordfish"):
                assert not any(secret[start : start + 6] in told for start in range(len(secret) - 5))


def test_every_field_of_an_event_is_described() -> None:
    """The list in its docstring is complete."""
    described = inspect.getdoc(SessionEvent) or ""
    for field in fields(SessionEvent):
        assert f"\n    {field.name}: " in described


# -- how it is told --------------------------------------------------------------------------------------------------


class Broken(SessionInstrument):
    """Fails when a lock was acquired."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def lock_acquired(self, event: SessionEvent) -> None:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_an_instrument_that_raises_is_removed(
    error: BaseException, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """It is logged once; the lock, the commit and the other instruments go on as if nothing had been."""
    broken, recorder = Broken(error), Recorder()
    async with open_session_manager(SessionConfig(), instruments=[broken, recorder]) as manager:
        session = manager.session(await stored(manager))
        await session.put("a", 2)
        assert session["a"] == 2
        assert broken.calls == 1
        assert recorder.take() == [*COMMITTED[:3], "session_created", "lock_released", *COMMITTED]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "trio_session.instruments"
    assert record.getMessage() == "Broken.lock_acquired() failed; it is told nothing more"


async def test_hooks_are_called_in_the_task_concerned(autojump_clock: MockClock) -> None:
    """So that a tracer's context is that of the request."""
    tasks: list[trio.lowlevel.Task] = []

    class Who(SessionInstrument):
        def lock_acquired(self, event: SessionEvent) -> None:
            tasks.append(trio.lowlevel.current_task())

    async with open_session_manager(SessionConfig(), instruments=[Who()]) as manager:
        await stored(manager)
    assert tasks == [trio.lowlevel.current_task()]


@pytest.mark.parametrize("wrong", [Recorder, object(), None], ids=["a class", "a stranger", "nothing"])
async def test_only_instruments_are_taken(wrong: Any) -> None:
    """The class instead of an instance, say, is told at once."""
    with pytest.raises(TypeError, match="an instance of a kind of SessionInstrument"):
        async with open_session_manager(SessionConfig(), instruments=[wrong]):
            raise AssertionError("it was taken")


async def test_the_middleware_takes_instruments() -> None:
    """A new one of its managers has them too: each lifespan is told of."""
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["session"]
        await session.increment("visits")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    wrapped = SessionMiddleware(app, SessionConfig(), instruments=iter([recorder]))
    for _ in range(2):
        async with open_test_client(wrapped) as client:
            await client.get("/")
        assert recorder.take() == [*COMMITTED[:3], "session_created", "lock_released"]


async def test_the_instruments_of_the_docs(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Slow and lost locks are logged as the page says; and OpenTelemetry's hooks do not fail."""
    names: dict[str, Any] = {}
    for block in blocks_of(ROOT / "docs" / "how-to" / "metrics.md"):
        exec(block.text, names)
    installed = [names["SlowLocks"](), names["Telemetry"]()]
    async with open_session_manager(SessionConfig(lock_hold_limit=6), instruments=installed) as manager:
        id = await stored(manager)

        async def hang() -> None:
            with pytest.raises(LockLostError):
                async with manager.session(id).locked():
                    await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await wait_all_tasks_blocked()
            await manager.session(id).put("a", 1)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert re.fullmatch(r"session [0-9a-f]{12}: lock lost after 6\.0 s: hold_limit", said[0])
    assert re.fullmatch(r"session [0-9a-f]{12}: waited 6\.0 s for its lock", said[1])


async def test_hooks_see_the_context_of_the_task_concerned(autojump_clock: MockClock) -> None:
    """Also where another task has found out what happened: that a lock is an heir's, or lost."""
    visitor: ContextVar[str] = ContextVar("visitor", default="nobody")
    told: list[tuple[str, str]] = []

    class Witness(SessionInstrument):
        def session_committed(self, event: SessionEvent) -> None:
            told.append((visitor.get(), "committed"))

        def lock_lost(self, event: SessionEvent) -> None:
            told.append((visitor.get(), "lost"))

    async def visit(session: Session, name: str, seconds: float = 0.0) -> None:
        visitor.set(name)
        with suppress(LockLostError):
            async with session.locked() as data:
                data["n"] = name
                await trio.sleep(seconds)

    async with open_fake_redis() as fake, open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
        config = SessionConfig(lock_hold_limit=3.0)
        async with open_session_manager(config, store=store, instruments=[Witness()]) as manager:
            session = manager.session()
            await session.put("n", "")
            told.clear()
            fake.delay = 0.1
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(visit, manager.session(session.id), name)
            await visit(manager.session(session.id), "slow", 60)
    assert sorted(told) == [("a", "committed"), ("b", "committed"), ("c", "committed"), ("slow", "lost")]
