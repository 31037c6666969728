"""The life cycle of `_states` made to run: reading, locking, committing, and what a response may still do.

The machine decides; `_locks` does the waiting, `_known` remembers what the store said, `_working` is what the holder
changes. It knows nothing of HTTP, and `_session` is its face.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import trio
from trio.lowlevel import Task

from ._engine import Engine
from ._errors import (
    EndReason,
    LockLostError,
    LockTimeoutError,
    SessionEndedError,
    SessionFinishedError,
    SessionTooLargeError,
    StorageUnavailableError,
)
from ._known import CookieAction, Known
from ._leases import Lease
from ._locks import HeldLock
from ._states import Action, State, step
from ._working import Change, Level, WorkingCopy
from .abc import Loaded

__all__ = ["Lifecycle"]

logger = logging.getLogger("trio_session")

T = TypeVar("T")

# A cookie that prolongs an id goes out without asking again if a commit under that id is no older than this. Within
# this time a login elsewhere and this response can cross on the network anyway.
_STILL_TRUE = 0.1  # seconds


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

    __slots__ = ("_engine", "_finished", "_flight", "_holds", "_known", "_sealed", "_used", "_written_at")

    def __init__(self, engine: Engine, candidates: tuple[str, ...], *, sent: bool) -> None:
        self._engine = engine
        self._known = Known(candidates, sent=sent, decode=engine.decode)
        # By task: one that holds the lock, and those that have lost it and not noticed yet.
        self._holds: dict[Task, _Hold] = {}
        self._written_at = -inf  # when a commit of ours landed last
        self._flight: trio.Event | None = None  # set when the commit under way has landed
        self._sealed = False  # the response has started: no cookie can be sent any more
        self._finished = False  # the request is over
        self._used = False  # the response depends on the session

    # -- where we are ------------------------------------------------------------------------------------------------

    def _mine(self) -> _Hold | None:
        """The calling task's hold."""
        if not self._holds:
            return None
        try:
            return self._holds.get(trio.lowlevel.current_task())
        except RuntimeError:
            return None  # a worker thread: it may read

    def _held(self) -> bool:
        """Some task of this request holds the lock, and has not lost it."""
        return any(hold.lock.lease.loss() is None for hold in self._holds.values())

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
        if self._held() or (known.anchor is None and not known.ambiguous):
            await trio.lowlevel.checkpoint()  # the holder's data is the newest there is; or there is nothing to ask for
            if not known.read:
                known.learn(None, Loaded())
            return
        epoch = known.epoch
        id, loaded = await self._ask()
        if known.epoch == epoch and not self._held():
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
            _log_loss(lease)
            raise
        if scope is not None and scope.cancelled_caught:
            raise _lost(lease) from None
        if not hold.has(level):
            _refuse_lost(hold)  # else it was ended inside the block, on purpose
            return
        try:
            await self._end(hold, level)
        except trio.Cancelled:
            _log_loss(lease)
            raise

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
            hold = _Hold(trio.lowlevel.current_task(), id, lock, WorkingCopy(data))
            self._holds[hold.task] = hold
            return hold

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
        self._holds.pop(hold.task, None)  # gone already if the request ended at the same time

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
            self._written_at = trio.current_time()  # and not if it failed: who knows what has become of the id
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
        if change in {Change.WRITE, Change.MOVE} and len(blob) > self._engine.config.max_size:
            raise SessionTooLargeError(len(blob), self._engine.config.max_size)

    async def _change(self, change: Callable[[WorkingCopy], T], *, decode: bool = True) -> T:
        """Lock, change, commit; inside a lock of this task just change."""
        hold = self._mine()
        if hold is not None:
            await trio.lowlevel.checkpoint()
            _refuse_lost(hold)
            return change(hold.work)
        async with self._locked(None, decode=decode):
            return change(self._require(Action.SET).work)

    # -- what the middleware asks for --------------------------------------------------------------------------------

    async def _seal(self) -> CookieAction:
        """The response is about to start: what is it to do with the cookie? Later commits cannot change it."""
        await self._landed()
        action = None
        if self._known.confirms and trio.current_time() > self._written_at + _STILL_TRUE:
            # Another request, a login, may have replaced the id in the meantime: its cookie must not be overwritten.
            try:
                await self._load()
                await self._landed()
            except StorageUnavailableError:
                action = CookieAction.NOTHING
        self._sealed = True
        return action or self._known.cookie()

    async def _landed(self) -> None:
        while self._flight is not None:
            await self._flight.wait()

    def _roll_back_left_behind(self) -> None:
        """The last of the response is about to leave: nobody can still mean to end an explicit lock."""
        self._end_holds("a lock() was left behind by its request; its changes are rolled back", guarded=False)

    def _finish(self) -> None:
        """The request is over: whatever lock is left is rolled back, whichever task has it."""
        self._finished = True
        self._end_holds("a lock outlived its request; its changes are rolled back", guarded=True)

    def _end_holds(self, warning: str, *, guarded: bool) -> None:
        for hold in list(self._holds.values()):
            if not hold.lock.ended and (guarded or not hold.lock.lease.guarded):
                logger.warning(warning)
                hold.lock.lease.lose("request_ended")
                self._release(hold)


def _log_loss(lease: Lease) -> None:
    if lease.loss() is not None and not lease.guarded:  # guarded: it is an outer block's to tell
        logger.warning("in a block that was cancelled anyway: %s", _lost(lease))


def _lost(lease: Lease) -> LockLostError:
    return LockLostError(lease.loss() or "lease_expired")


def _refuse_lost(hold: _Hold) -> None:
    if hold.lock.lease.loss() is not None:
        raise _lost(hold.lock.lease)
