"""The life cycle of `_states` made to run: reading, locking, committing, and what a response may still do.

The machine decides; `_locks` does the waiting, `_known` remembers what the store said, `_working` is what the holder
changes. It knows nothing of HTTP, and `_session` is its face.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio
from trio.lowlevel import Task

from ._config import SessionConfig
from ._errors import (
    EndReason,
    LockLostError,
    LockTimeoutError,
    SessionDataError,
    SessionEndedError,
    SessionFinishedError,
    SessionTooLargeError,
)
from ._ids import Ids
from ._known import CookieAction, Known
from ._leases import Lease
from ._locks import HeldLock, Locks
from ._states import Action, State, step
from ._working import Change, Level, WorkingCopy
from .abc import Codec, Lifetime, Loaded, SessionStore

__all__ = ["Engine", "Lifecycle"]

logger = logging.getLogger("trio_session")

T = TypeVar("T")


@dataclass(slots=True)
class Engine:
    """What all sessions of one manager share."""

    config: SessionConfig
    store: SessionStore
    locks: Locks
    codec: Codec
    ids: Ids
    closed: bool = False
    life: Lifetime = field(init=False)

    def __post_init__(self) -> None:
        self.life = self.config.life

    def decode(self, blob: bytes, id: str) -> dict[str, Any]:
        try:
            return self.codec.decode(blob, context=self.ids.key(id).encode())
        except SessionDataError:
            if self.config.undecodable == "raise":
                raise
            logger.warning("a session record that cannot be decoded reads as empty (undecodable='discard')")
            return {}


@dataclass(slots=True, eq=False)
class _Hold:
    """The lock in the hands of one task of this Session."""

    task: Task
    id: str
    lock: HeldLock
    work: WorkingCopy

    def has(self, level: Level) -> bool:
        """The level is still open: nothing inside its block has ended it."""
        return not self.lock.ended and level in self.work.levels


class Lifecycle:
    """One session in one request.

    Args:
        candidates: well-formed ids the client sent; more than one if somebody tampers with cookies.
        sent: the client sent a cookie of our name at all.
    """

    __slots__ = ("_engine", "_finished", "_flight", "_hold", "_known", "_sealed", "_used")

    def __init__(self, engine: Engine, candidates: tuple[str, ...], *, sent: bool) -> None:
        self._engine = engine
        self._known = Known(candidates, sent=sent, decode=engine.decode)
        self._hold: _Hold | None = None
        self._flight: trio.Event | None = None  # set when the commit under way has landed
        self._sealed = False  # the response has started: no cookie can be sent any more
        self._finished = False  # the request is over
        self._used = False  # the response depends on the session

    # -- where we are ------------------------------------------------------------------------------------------------

    def _mine(self) -> _Hold | None:
        """The hold, if it belongs to the calling task."""
        hold = self._hold
        if hold is None:
            return None
        try:
            return hold if hold.task is trio.lowlevel.current_task() else None
        except RuntimeError:
            return None  # a worker thread: it may read

    def _state(self) -> State:
        hold = self._mine()
        if hold is not None:
            return State.LOCKED if hold.lock.lease.loss() is None else State.LOST
        if self._over():
            return State.FINISHED
        return State.READ if self._known.read else State.UNREAD

    def _over(self) -> bool:
        return self._finished or self._engine.closed

    def _require(self, action: Action) -> _Hold:
        """The calling task's hold; a `SessionStateError` without one."""
        step(self._state(), action)
        hold = self._mine()
        assert hold is not None
        return hold

    def _view(self) -> dict[str, Any]:
        """The data as the calling task sees it."""
        self._used = True
        hold = self._mine()
        if hold is not None:
            return hold.work.data
        if not self._known.read:
            step(State.UNREAD, Action.GET)
        return self._known.data()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _autoload(self) -> None:
        """Read, unless there is nothing to ask for; then there is no checkpoint either."""
        if self._known.anchor is None and not self._known.ambiguous:
            self._known.learn(None, Loaded())
        else:
            await self._load()

    async def _load(self) -> None:
        """Read what is stored; it is decoded only when somebody looks at it."""
        known = self._known
        if self._hold is not None:
            await trio.lowlevel.checkpoint()  # the holder's data is the newest there is
            return
        if known.anchor is None and not known.ambiguous:
            await trio.lowlevel.checkpoint()
            if not known.read:
                known.learn(None, Loaded())
            return
        epoch = known.epoch
        id, loaded = await self._ask()
        if known.epoch == epoch and self._hold is None:
            known.learn(id, loaded)  # else something newer has been heard in the meantime

    async def _ask(self) -> tuple[str | None, Loaded]:
        """What does the store have under our id? Of several ids the client sent, which one is it?"""
        engine, known = self._engine, self._known
        ids = known.candidates if known.ambiguous else (known.anchor_or_mint(engine.ids),)
        found = [(id, await engine.store.load(engine.ids.key(id), life=engine.life)) for id in ids]
        living = [(id, loaded) for id, loaded in found if loaded.blob is not None]
        if len(living) > 1:
            logger.warning("a request carried cookies of %d living sessions: it is served as anonymous", len(living))
            return None, Loaded()
        ended = [(id, loaded) for id, loaded in found if loaded.ended is not None]
        return living[0] if living else ended[0] if ended else (None, Loaded())

    # -- locking -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(
        self, timeout: float | None, *, decode: bool = True, cancellable: bool = True
    ) -> AsyncIterator[dict[str, Any]]:
        """A block under the lock; the loss of the lock cancels it, if it is `cancellable`."""
        hold, level = await self._enter(timeout, block=True, decode=decode)
        lease = hold.lock.lease
        guards = cancellable and not lease.guarded  # else it is an outer block that is cancelled, or nothing
        try:
            with trio.CancelScope(deadline=lease.deadline) if guards else nullcontext() as scope:
                if guards:
                    lease.guard(scope)
                try:
                    yield hold.work.data
                except BaseException as error:
                    if lease.loss() is not None and not isinstance(error, trio.Cancelled):
                        error.add_note(f"Meanwhile: {_lost(lease)}")
                    self._unwind(hold, level)
                    raise
                finally:
                    if guards:
                        lease.guard(None)
        except trio.Cancelled:
            if lease.loss() is not None:
                logger.warning("in a block that was cancelled anyway: %s", _lost(lease))
            raise
        if scope is not None and scope.cancelled_caught:
            raise _lost(lease) from None
        if hold.has(level):
            await self._end(hold, level)

    async def _enter(self, timeout: float | None, *, block: bool, decode: bool = True) -> tuple[_Hold, Level]:
        """Take the lock, or go one level deeper."""
        self._used = True
        state = self._state()
        step(state, Action.LOCK)
        hold = self._mine()
        if hold is not None:
            await trio.lowlevel.checkpoint()
            _refuse_lost(hold)
            return hold, hold.work.begin()
        if timeout is None:
            timeout = self._engine.config.lock_timeout
        elif not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds")
        with trio.CancelScope(deadline=trio.current_time() + timeout):
            hold = await self._take(block=block, decode=decode)
            return hold, hold.work.levels[0]
        self._engine.locks.count_timeout()
        raise LockTimeoutError(timeout)

    async def _take(self, *, block: bool, decode: bool) -> _Hold:
        engine, known = self._engine, self._known
        while True:
            step(self._state(), Action.LOCK)  # the request may have ended while we waited
            if known.ambiguous:
                await self._load()
                continue
            id = known.anchor_or_mint(engine.ids)
            lock = await engine.locks.take(
                engine.ids.key(id),
                block=block,
                wanted=lambda id=id: known.anchor == id and not self._over(),  # type: ignore[misc]
            )
            if lock is None:
                continue  # another task of this request has changed the id, or the request is over
            try:
                if not known.adopts(lock.loaded):
                    known.learn(None, Loaded())  # never adopted: the next turn makes a new id
                    engine.locks.discard(lock)
                    continue
                blob = lock.loaded.blob
                data = {} if blob is None or not decode else engine.decode(blob, id)
            except BaseException:
                engine.locks.discard(lock)
                raise
            known.learn(id, lock.loaded)
            self._hold = _Hold(trio.lowlevel.current_task(), id, lock, WorkingCopy(data))
            return self._hold

    def _unwind(self, hold: _Hold, level: Level) -> None:
        """End a level, and those inside it, without their changes. Works in a cancelled task."""
        if not hold.has(level):
            return
        self._drop_inner(hold, level)
        if len(hold.work.levels) > 1:
            hold.work.end(keep=False)
        else:
            self._release(hold)

    def _drop_inner(self, hold: _Hold, level: Level) -> None:
        while hold.work.levels[-1] is not level:
            hold.work.end(keep=False)

    def _release(self, hold: _Hold) -> None:
        """The lock is over, for us."""
        self._engine.locks.give_back(hold.lock)
        if self._hold is hold:  # else we had lost it, and somebody else has it by now
            self._hold = None

    async def _end(self, hold: _Hold, level: Level) -> None:
        """End a level with its changes. In any case it is ended.

        Cancellation: before the commit, never after.
        """
        if hold.work.levels[-1] is not level:
            logger.warning("a lock() inside a locked() block was left open; its changes are rolled back")
            self._drop_inner(hold, level)
        if len(hold.work.levels) > 1:
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                hold.work.end(keep=False)
                raise
            hold.work.end(keep=True)
            return
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # a body cancelled without a checkpoint rolls back
            _refuse_lost(hold)
            await self._commit(hold)
        except SessionEndedError as error:
            ended = None if error.reason == "expired" else error.reason
            self._known.learn(None if ended is None else hold.id, Loaded(ended=ended))
            raise
        finally:
            self._release(hold)

    async def _commit(self, hold: _Hold) -> None:
        """Decide what the commit is to do, and have it done."""
        engine, work = self._engine, hold.work
        old = hold.lock.loaded.blob
        change = work.change(stored=old is not None)
        id = engine.ids.new(like=hold.id) if change is Change.MOVE else hold.id
        key = engine.ids.key(id) if change is Change.MOVE else hold.lock.lease.key
        blob = engine.codec.encode(work.data, context=key.encode())
        if change is Change.WRITE and blob == old:
            change = Change.NOTHING
        self._refuse(change, work, blob, stored=old is not None)
        destroyed: EndReason = "orphaned" if self._sealed else "destroyed"
        self._flight = trio.Event()  # the start of the response waits for it: there may be a new cookie
        try:
            match change:
                case Change.WRITE:
                    self._known.committed(id, await engine.locks.commit(hold.lock, blob))
                case Change.MOVE:
                    reason = destroyed if work.cleared else "replaced"
                    self._known.committed(id, await engine.locks.rotate(hold.lock, key, blob, reason))
                case Change.END if old is not None:
                    await engine.locks.destroy(hold.lock, destroyed)
                    self._known.cleared()
                case _:
                    engine.locks.end_unchanged(hold.lock)
                    if change is Change.END and self._known.ended is None:
                        self._known.cleared()
        finally:
            self._flight.set()
            self._flight = None

    def _refuse(self, change: Change, work: WorkingCopy, blob: bytes, *, stored: bool) -> None:
        """Raise what stands against a change."""
        ended = self._known.ended
        if ended is not None:
            # Ending what is gone is no error; but what was replaced lives on under an id that we do not know.
            if change is Change.WRITE or work.regenerate or (change is Change.END and ended == "replaced"):
                raise SessionEndedError(ended)
        elif self._sealed and (change is Change.MOVE or (change is Change.WRITE and not stored)):
            raise SessionFinishedError(
                "the change needs a new session cookie, but the response has started; "
                "commit the first change, or the new id, before the response"
            )
        if len(blob) > self._engine.config.max_size:
            raise SessionTooLargeError(len(blob), self._engine.config.max_size)

    async def _change(self, change: Callable[[WorkingCopy], T], *, decode: bool = True) -> T:
        """Lock, change, commit; inside a lock of this task just change."""
        hold = self._mine()
        if hold is not None:
            await trio.lowlevel.checkpoint()
            _refuse_lost(hold)
            return change(hold.work)
        async with self._locked(None, decode=decode):
            hold = self._mine()
            assert hold is not None
            return change(hold.work)

    # -- what the middleware asks for --------------------------------------------------------------------------------

    async def _seal(self) -> CookieAction:
        """The response is about to start: what is it to do with the cookie? Later commits cannot change it."""
        while self._flight is not None:
            await self._flight.wait()
        self._sealed = True
        return self._known.cookie()

    def _roll_back_left_behind(self) -> None:
        """The last of the response is about to leave: nobody can still mean to end an explicit lock."""
        hold = self._hold
        if hold is not None and not hold.lock.ended and not hold.lock.lease.guarded:
            logger.warning("a lock() was left behind by its request; its changes are rolled back")
            self._release(hold)

    def _finish(self) -> None:
        """The request is over: whatever lock is left is rolled back, whichever task has it."""
        self._finished = True
        hold = self._hold
        if hold is not None and not hold.lock.ended:
            logger.warning("a lock outlived its request; its changes are rolled back")
            hold.lock.lease.lose("request_ended")
            self._release(hold)


def _lost(lease: Lease) -> LockLostError:
    return LockLostError(lease.loss() or "lease_expired")


def _refuse_lost(hold: _Hold) -> None:
    if hold.lock.lease.loss() is not None:
        raise _lost(hold.lock.lease)
