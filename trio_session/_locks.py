"""A session's lock as one thing: this process's gate, then the store, then the lease.

`Locks` takes it and gives it back, and sees to it that every way out gives back all three. It knows keys and bytes;
ids, data and codecs are the Session's.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from typing import TypeVar

import trio

from ._config import SessionConfig
from ._deadlines import Alarm, Span
from ._errors import CommittedNotReplicatedError, CommitUnknownError, EndReason, LockLostError, LossReason
from ._gate import Gate
from ._instruments import Instruments, LockWatch
from ._leases import Lease, LeaseKeeper, Terms
from .abc import Heir, Loaded, SessionStore

__all__ = ["HeldLock", "Locks", "SessionStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A snapshot of what a manager has done and is doing.

    Attributes:
        locks_held: locks held right now.
        tasks_waiting: tasks of this process that wait for a lock right now.
        commits: outermost levels that ended with their changes, so far.
        rollbacks: outermost levels that ended without, so far.
        locks_lost: locks lost while held, so far.
        lock_timeouts: waits for a lock that were given up after `lock_timeout`, so far.
    """

    locks_held: int
    tasks_waiting: int
    commits: int
    rollbacks: int
    locks_lost: int
    lock_timeouts: int


class HeldLock:
    """A lock in our hands, and the record as it was when we got it.

    Attributes:
        ended: committed, rolled back, or being committed.
        confirm_by: trio time at which a write of it has to be confirmed; None if there is nothing to confirm.
        handed_on: another task of this process has inherited it.
    """

    __slots__ = ("confirm_by", "ended", "handed_on", "lease", "loaded")

    def __init__(self, lease: Lease, loaded: Loaded) -> None:
        self.lease = lease
        self.loaded = loaded
        self.ended = self.handed_on = False
        self.confirm_by: float | None = None


class Locks:
    """Takes and gives back the locks of one manager.

    Args:
        config: its lock settings and lifetimes are used.
        instruments: are told what happens.
    """

    def __init__(self, store: SessionStore, config: SessionConfig, instruments: Instruments) -> None:
        self._store = store
        self._confirms = store.confirms
        self._config = config
        self._life = config.life
        self._instruments = instruments
        self._gate = Gate(config.max_waiters)
        self._terms = Terms(duration=config.lock_lease, hold_limit=config.lock_hold_limit, on_lost=self._count_loss)
        self.alarm = Alarm()
        self.keeper = LeaseKeeper(store, self.alarm, lease=config.lock_lease, on_lapse=self._free)
        # A token is unique among all processes: a random name for this one, and a number.
        self._name = secrets.token_hex(8)
        self._numbers = count()
        self._commits = 0
        self._rollbacks = 0
        self._locks_lost = 0
        self._lock_timeouts = 0
        self._in_flight = 0
        self._asking = 0  # tasks that have passed the gate and wait for the store
        self._landed: trio.Event | None = None  # somebody waits until no commit is in flight

    def statistics(self) -> SessionStatistics:
        return SessionStatistics(
            locks_held=len(self.keeper),
            tasks_waiting=self._gate.tasks_waiting + self._asking,
            commits=self._commits,
            rollbacks=self._rollbacks,
            locks_lost=self._locks_lost,
            lock_timeouts=self._lock_timeouts,
        )

    def span(self, seconds: float = inf) -> Span:
        """A cancel scope that lasts so long, unless it is moved."""
        return Span(self.alarm, inf if seconds == inf else trio.current_time() + seconds)

    def count_timeout(self) -> None:
        self._lock_timeouts += 1

    def _count_loss(self, reason: LossReason) -> None:
        if reason != "request_ended":
            self._locks_lost += 1

    async def take(self, key: str, *, until: float, block: bool, wanted: Callable[[], bool]) -> HeldLock | None:
        """Wait for the lock of `key`.

        Args:
            key: the session's.
            until: trio time at which the caller gives up.
            block: it will be held by an `async with` block.
            wanted: asked after each wait; if it is no longer wanted, the result is None.

        Cancellation: nothing is left behind.
        """
        number = next(self._numbers)
        token = f"{self._name}{number:08x}"
        watch = LockWatch(self._instruments, key, number, until) if self._instruments else None
        # Whoever need not wait goes on to the store, whose `acquire` is a checkpoint.
        waits = not self._gate.enter_at_once(key, block=block)
        try:
            loaded = await self._gate.enter(key, token, block=block) if waits else None
        except BaseException as error:
            if watch is not None:
                watch.abandoned(error)
            raise
        try:
            if loaded is None and (not waits or wanted()):
                self._asking += 1
                try:
                    loaded = await self._store.acquire(key, token, lease=self._config.lock_lease, life=self._life)
                finally:
                    self._asking -= 1
        except BaseException as error:
            self._gate.leave(key)
            if watch is not None:
                watch.abandoned(error)
            raise
        if loaded is None or not wanted():
            self._store.release(key, token)
            self._gate.leave(key)
            if watch is not None:
                watch.abandoned(None)
            return None
        lease = Lease(key, token, self._terms, granted_at=loaded.granted_at, watch=watch)
        self.keeper.hold(lease)
        if watch is not None:
            watch.acquired()
        return HeldLock(lease, loaded)

    def encloses(self, held: HeldLock, task: trio.lowlevel.Task) -> bool:
        """Whether the lock is held by a block that cannot end before `task` does."""
        return self._gate.encloses(held.lease.key, task)

    def give_back(self, held: HeldLock) -> None:
        """End the lock without its changes. Works in a cancelled task."""
        held.ended = True
        self._rollbacks += 1
        if held.lease.watch is not None:
            held.lease.watch.rolled_back(held.lease.loss() if held.lease.lost else None)
        self._free(held.lease)

    def discard(self, held: HeldLock) -> None:
        """End a lock that turned out to be of no use, before anybody saw it."""
        held.ended = True
        self._free(held.lease)

    def _free(self, lease: Lease, *, released: bool = False) -> None:
        """Let others have it; the store knows already if it was `released` by a write."""
        if self.keeper.drop(lease):
            if not released:
                self._store.release(lease.key, lease.token)
            self._gate.leave(lease.key)
            if lease.watch is not None:
                lease.watch.released()

    def end_unchanged(self, held: HeldLock) -> None:
        """Commit nothing: just end the lock."""
        held.ended = True
        self._commits += 1
        if held.lease.watch is not None:
            held.lease.watch.committed()
        self._free(held.lease)

    async def commit(self, held: HeldLock, blob: bytes, span: Span, *, now: float) -> Loaded:
        """Write `blob` and end the lock; the next task in our own queue may inherit it.

        Args:
            held: the lock.
            blob: the new data.
            span: the caller's innermost one, to be left right after this. It gets a shield and a deadline here; that it
                catches a `Cancelled` means `CommitUnknownError`.
            now: the present trio time.

        Raises as `SessionStore.commit` does. The lock is given back in any case.

        Cancellation: none; bounded by `commit_timeout`.
        """
        lease = held.lease
        token = self._gate.next_in_line(lease.key)
        heir = None if token is None else Heir(token, partial(self._hand_on, held, token, blob, now))
        self._begin_write(held, span, now)
        try:
            version = await self._store.commit(
                lease.key, lease.token, version=held.loaded.version, blob=blob, life=self._life, heir=heir
            )
        except BaseException as error:
            self._fail_write(held, error)
            if token is not None and (span.scope.cancel_called or isinstance(error, CommitUnknownError)):
                self._store.release(lease.key, token)  # it may have been handed on; the heir has yet to ask
            raise
        if not held.handed_on:
            self._note_commit(held)
            self._free(lease, released=True)
        self._land()
        return Loaded(version, blob)

    def _hand_on(
        self, held: HeldLock, heir: str, blob: bytes, now: float, version: bytes, on_begun: Callable[[], None] | None
    ) -> None:
        """The commit has landed, and the lock is the heir's. Whoever committed may learn of it later."""
        lease = held.lease
        held.handed_on = True
        self._note_commit(held)
        self.keeper.drop(lease)
        fresh = trio.current_time() - now < self._config.lock_lease / 3
        inheritance = Loaded(version, blob, granted_at=now) if fresh else None
        if not self._gate.leave(lease.key, heir=heir, inheritance=inheritance, on_begun=on_begun):
            self._store.release(lease.key, heir)  # the heir gave up while the store was asked
            if on_begun is not None:
                on_begun()
        if lease.watch is not None:
            lease.watch.released()

    def _note_commit(self, held: HeldLock) -> None:
        self._commits += 1
        if held.lease.watch is not None:
            held.lease.watch.committed()
            if not held.loaded.version:
                held.lease.watch.created()

    async def rotate(
        self, held: HeldLock, new_key: str, blob: bytes, reason: EndReason, span: Span, *, now: float
    ) -> Loaded:
        """Move the record to `new_key`, and end the lock; otherwise as `commit`."""
        lease = held.lease
        rotation = self._store.rotate(
            lease.key,
            lease.token,
            version=held.loaded.version,
            new_key=new_key,
            blob=blob,
            life=self._life,
            reason=reason,
        )
        version = await self._write(held, rotation, span, now)
        if lease.watch is not None:
            lease.watch.moved(new_key, reason)
        self._free(lease, released=True)
        return Loaded(version, blob)

    async def destroy(self, held: HeldLock, reason: EndReason, span: Span, *, now: float) -> None:
        """Remove the record, and end the lock; otherwise as `commit`."""
        lease = held.lease
        await self._write(held, self._store.destroy(lease.key, lease.token, reason=reason), span, now)
        if lease.watch is not None:
            lease.watch.destroyed(reason)
        self._free(lease, released=True)

    async def confirm(self, held: HeldLock) -> None:
        """Wait until a write of `held`, which has succeeded, is as safe as the store can make it.

        Raises:
            CommittedNotReplicatedError: it is written, and more cannot be said.

        Cancellation: none, as the write can no longer be undone; bounded by what is left of `commit_timeout`.
        """
        assert held.confirm_by is not None
        self._in_flight += 1
        try:
            with trio.CancelScope(deadline=held.confirm_by, shield=True):
                await self._store.confirm(held.lease.key, held.lease.token)
                return
        finally:
            self._land()
        raise CommittedNotReplicatedError

    # What all writes have in common: they cannot be cancelled, they are bounded, and they fail clean.

    async def _write(self, held: HeldLock, write: Awaitable[T], span: Span, now: float) -> T:
        self._begin_write(held, span, now)
        try:
            result = await write
        except BaseException as error:
            self._fail_write(held, error)
            raise
        self._commits += 1
        if held.lease.watch is not None:
            held.lease.watch.committed()
        self._land()
        return result

    def _begin_write(self, held: HeldLock, span: Span, now: float) -> None:
        held.ended = True
        held.lease.end()
        self._in_flight += 1
        span.scope.shield = True
        span.move(now + self._config.commit_timeout)
        if self._confirms:
            held.confirm_by = now + self._config.commit_timeout

    def _fail_write(self, held: HeldLock, error: BaseException) -> None:
        if isinstance(error, LockLostError):
            held.lease.lose(error.reason)
        self._rollbacks += 1
        if held.lease.watch is not None:
            held.lease.watch.refused(error)
        self._free(held.lease)
        self._land()

    def _land(self) -> None:
        self._in_flight -= 1
        if self._landed is not None and not self._in_flight:
            self._landed.set()

    async def close(self) -> None:
        """Let commits in flight land, and give back what is still held.

        Cancellation: none; bounded by `commit_timeout`.
        """
        for lease in self.keeper.leases():
            if not lease.committing:
                lease.lose("request_ended")
                self._free(lease)
        with trio.CancelScope(shield=True):
            while self._in_flight:
                self._landed = trio.Event()
                await self._landed.wait()
