"""The life cycle of `_states` made to run: reading, locking, committing, and what a response may still do.

The machine decides; `_locks` does the waiting, `_known` remembers what the store said, `_working` is what the holder
changes. It knows nothing of HTTP, and `_session` is its face.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import inf
from typing import Any

import trio
from trio.lowlevel import Task

from ._deadlines import Span
from ._engine import Engine
from ._errors import (
    EndReason,
    LockTimeoutError,
    SessionEndedError,
    SessionFinishedError,
    SessionTooLargeError,
    StorageUnavailableError,
)
from ._known import CookieAction, Known
from ._locks import HeldLock
from ._places import Place, shown
from ._states import Action, State, step
from ._working import Change, Level, WorkingCopy
from .abc import Loaded

__all__ = ["Hold", "Lifecycle"]

logger = logging.getLogger("trio_session")

# A cookie that prolongs an id goes out without asking again if a commit under that id is no older than this. Within
# this time a login elsewhere and this response can cross on the network anyway.
_STILL_TRUE = 0.1  # seconds


@dataclass(slots=True, eq=False)
class Hold:
    """The lock in the hands of one task of this Session, and where the program took it."""

    task: Task
    id: str
    lock: HeldLock
    work: WorkingCopy
    place: Place

    def has(self, level: Level) -> bool:
        """The level is still open: nothing inside its block has ended it."""
        return not self.lock.ended and level in self.work.levels


class Lifecycle:
    """One session in one request.

    Args:
        candidates: well-formed ids the client sent; more than one if somebody tampers with cookies.
        sent: the client sent a cookie of our name at all.
    """

    __slots__ = ("_engine", "_finished", "_flying", "_holds", "_known", "_landed", "_sealed", "_used", "_written_at")

    def __init__(self, engine: Engine, candidates: tuple[str, ...], *, sent: bool) -> None:
        self._engine = engine
        self._known = Known(candidates, sent=sent, ids=engine.ids, decode=engine.decode_under)
        # By task: one that holds the lock, and those that have lost it and not noticed yet.
        self._holds: dict[Task, Hold] = {}
        self._written_at = -inf  # when the last commit of ours that landed was begun
        self._flying = 0  # so many commits are under way: an heir begins before whoever left it the lock has ended
        self._landed: trio.Event | None = None  # somebody waits for that
        self._sealed = False  # the response has started: no cookie can be sent any more
        self._finished = False  # the request is over
        self._used = False  # the response depends on the session

    # -- where we are ------------------------------------------------------------------------------------------------

    def _mine(self) -> Hold | None:
        """The calling task's hold."""
        if not self._holds:
            return None
        try:
            return self._holds.get(trio.lowlevel.current_task())
        except RuntimeError:
            return None  # a worker thread: it may read

    def _held(self) -> bool:
        """Some task of this request holds the lock, and has not lost it."""
        return bool(self._holds) and any(hold.lock.lease.loss() is None for hold in self._holds.values())

    def _state(self) -> State:
        hold = self._mine()
        if hold is not None:
            return State.LOCKED if hold.lock.lease.loss() is None else State.LOST
        if self._over():
            return State.FINISHED
        return State.READ if self._known.read else State.UNREAD

    def _over(self) -> bool:
        return self._finished or self._engine.closed

    def _require(self, action: Action) -> Hold:
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
        id = known.anchor
        if id is None:
            id, loaded = await self._tell_apart()
        else:
            loaded = await self._engine.store.load(known.key(id), life=self._engine.life)
        if known.epoch == epoch and not self._held():
            known.learn(id, loaded)  # else something newer has been heard in the meantime

    async def _tell_apart(self) -> tuple[str | None, Loaded]:
        """Of several ids the client sent, which one is it, and what does the store have under it?"""
        engine, known = self._engine, self._known
        found = [(id, await engine.store.load(known.key(id), life=engine.life)) for id in known.candidates]
        living = [(id, loaded) for id, loaded in found if loaded.blob is not None]
        if len(living) > 1:
            logger.warning("a request carried cookies of %d living sessions: it is served as anonymous", len(living))
            return None, Loaded()
        ended = [(id, loaded) for id, loaded in found if loaded.ended is not None]
        return living[0] if living else ended[0] if ended else (None, Loaded())

    # -- locking -----------------------------------------------------------------------------------------------------

    def _timeout(self, timeout: float | None) -> float:
        """How long to wait for the lock."""
        if timeout is None:
            return self._engine.config.lock_timeout
        if not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds")
        return timeout

    def _timed_out(self, timeout: float) -> LockTimeoutError:
        self._engine.locks.count_timeout()
        return LockTimeoutError(timeout)

    async def _deepen(self, hold: Hold) -> Level:
        """Go one level deeper."""
        await trio.lowlevel.checkpoint()
        hold.lock.lease.refuse_lost()
        return hold.work.begin()

    async def _take(self, *, until: float, block: bool, place: Place, decode: bool = True) -> Hold:
        """Wait for the lock, and read the newest data; the caller gives up at `until`."""
        self._used = True
        engine, known = self._engine, self._known
        while True:
            if self._finished or engine.closed:  # also while we waited
                step(State.FINISHED, Action.LOCK)
            if known.ambiguous:
                await self._load()
                continue
            id = known.anchor_or_mint()
            key = known.key(id)
            lock = await engine.locks.take(
                key,
                until=until,
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
                data = {} if blob is None or not decode else engine.decode_under(key, blob)
            except BaseException:
                engine.locks.discard(lock)
                raise
            known.learn(id, lock.loaded)
            hold = Hold(trio.lowlevel.current_task(), id, lock, WorkingCopy(data), place)
            self._holds[hold.task] = hold
            return hold

    def _unwind(self, hold: Hold, level: Level) -> None:
        """End a level, and those inside it, without their changes. Works in a cancelled task."""
        if not hold.has(level):
            return
        self._drop_inner(hold, level)
        if len(hold.work.levels) > 1:
            hold.work.end(keep=False)
        else:
            self._release(hold)

    def _drop_inner(self, hold: Hold, level: Level) -> None:
        while hold.work.levels[-1] is not level:
            hold.work.end(keep=False)

    def _release(self, hold: Hold) -> None:
        """The lock is over, for us."""
        if not hold.lock.ended:
            self._engine.locks.give_back(hold.lock)
        self._holds.pop(hold.task, None)  # gone already if the request ended at the same time

    async def _end(self, hold: Hold, level: Level, span: Span) -> None:
        """End a level with its changes. In any case it is ended; `span` is for `Locks.commit`.

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
            now = trio.current_time()
            loss = hold.lock.lease.loss(now)
            await trio.lowlevel.checkpoint_if_cancelled()  # a body cancelled without a checkpoint rolls back
            if loss is not None:
                raise hold.lock.lease.error()
            await self._commit(hold, span, now)
        except SessionEndedError as error:
            ended = None if error.reason == "expired" else error.reason
            self._known.learn(None if ended is None else hold.id, Loaded(ended=ended))
            raise
        finally:
            self._release(hold)
        if hold.lock.confirm_by is not None:
            await self._engine.locks.confirm(hold.lock)

    async def _commit(self, hold: Hold, span: Span, now: float) -> None:
        """Decide what the commit is to do, and have it done; `now` is the present trio time."""
        engine, work = self._engine, hold.work
        old = hold.lock.loaded.blob
        change = work.change(stored=old is not None)
        id, key = hold.id, hold.lock.lease.key
        if change == "move":
            id = engine.ids.new(like=id)
            key = self._known.key(id)
        blob = engine.codec.encode(work.data, context=key.encode())
        if change == "write" and blob == old:
            change = "nothing"
        self._refuse(change, work, blob, stored=old is not None)
        destroyed: EndReason = "orphaned" if self._sealed else "destroyed"
        self._flying += 1  # the start of the response waits for it: there may be a new cookie
        try:
            match change:
                case "write":
                    self._known.committed(id, await engine.locks.commit(hold.lock, blob, span, now=now))
                case "move":
                    reason = destroyed if work.cleared else "replaced"
                    record = await engine.locks.rotate(hold.lock, key, blob, reason, span, now=now)
                    self._known.committed(id, record)
                case "end" if old is not None:
                    await engine.locks.destroy(hold.lock, destroyed, span, now=now)
                    self._known.cleared()
                case _:
                    engine.locks.end_unchanged(hold.lock)
                    if change == "end" and self._known.ended is None:
                        self._known.cleared()
            self._written_at = now  # and not if it failed: who knows what has become of the id
        finally:
            self._flying -= 1
            if self._landed is not None:
                self._landed.set()
                self._landed = None

    def _refuse(self, change: Change, work: WorkingCopy, blob: bytes, *, stored: bool) -> None:
        """Raise what stands against a change."""
        ended = self._known.ended
        if ended is not None:
            # Ending what is gone is no error; but what was replaced lives on under an id that we do not know.
            if change == "write" or work.regenerate or (change == "end" and ended == "replaced"):
                raise SessionEndedError(ended)
        elif self._sealed and (change == "move" or (change == "write" and not stored)):
            raise SessionFinishedError(
                "the change needs a new session cookie, but the response has started; "
                "commit the first change, or the new id, before the response"
            )
        if len(blob) > self._engine.config.max_size and change in {"write", "move"}:
            raise SessionTooLargeError(len(blob), self._engine.config.max_size)

    # -- what the middleware asks for --------------------------------------------------------------------------------

    async def _seal(self) -> CookieAction:
        """The response is about to start: what is it to do with the cookie? Later commits cannot change it."""
        await self._settle()
        action = None
        if self._known.confirms and trio.current_time() > self._written_at + _STILL_TRUE:
            # Another request, a login, may have replaced the id in the meantime: its cookie must not be overwritten.
            try:
                await self._load()
                await self._settle()
            except StorageUnavailableError:
                action = CookieAction.NOTHING
        self._sealed = True
        return action or self._known.cookie()

    async def _settle(self) -> None:
        """Let a commit under way land."""
        while self._flying:
            self._landed = self._landed or trio.Event()
            await self._landed.wait()

    def _note_receiving(self) -> None:
        """The calling task is about to wait for a WebSocket's peer: warn if the lock is held until that speaks."""
        if not self._holds:
            return
        task = trio.lowlevel.current_task()
        for hold in self._holds.values():
            is_kept = hold.task is task or self._engine.locks.encloses(hold.lock, task)
            if is_kept and hold.place not in self._engine.reported:
                self._engine.reported.add(hold.place)
                logger.warning(
                    "the session's lock, taken at %s, is held while a WebSocket waits in receive(): until a message "
                    "comes, all other requests of this visitor wait too; leave the block first, and lock again for "
                    "each message",
                    shown(hold.place),
                )

    def _roll_back_left_behind(self) -> None:
        """The last of the response is about to leave: nobody can still mean to end an explicit lock."""
        self._end_holds("a lock() was left behind by its request", guarded=False)

    def _finish(self) -> None:
        """The request is over: whatever lock is left is rolled back, whichever task has it."""
        self._finished = True
        self._end_holds("a lock outlived its request", guarded=True)

    def _end_holds(self, what: str, *, guarded: bool) -> None:
        for hold in list(self._holds.values()):
            if not hold.lock.ended and (guarded or not hold.lock.lease.guarded):
                logger.warning("%s; its changes are rolled back; it was taken at %s", what, shown(hold.place))
                hold.lock.lease.lose("request_ended")
                self._release(hold)
