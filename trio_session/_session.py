"""Session: what a handler sees. A mapping to read, `locked()` to change, and Phenix's verbs.

The machine behind it is `_lifecycle`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Self, TypeVar, final, overload

import trio

from ._block import Block
from ._errors import CommitUnknownError
from ._generators import may_be_abandoned
from ._lifecycle import Lifecycle
from ._places import place_above
from ._states import Action, step
from ._working import WorkingCopy

__all__ = ["Session"]

T = TypeVar("T")


@final
class Session(Lifecycle, Mapping[str, Any]):
    """The data of one visitor, for one request or WebSocket.

    A mapping of the data as last read. Only the task that holds its lock can change it:

        async with session.locked() as data:
            data["visits"] = data.get("visits", 0) + 1

    You get one from the middleware (`request.session`), or outside of requests from `SessionManager.session()`.

    Values are handed out as they are, not as copies: changing a list that `session["cart"]` gave you, without the
    lock, changes what this request sees and is never stored. And a value that was taken out of `data` before an inner
    level was rolled back is no longer part of it.

    Locking:
        The lock belongs to the task that took it; other tasks of the same request wait for it as strangers do, and
        meanwhile see the last committed data. Reading never locks.
    """

    __slots__ = ()

    # -- reading, without any I/O ------------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The id, or None while nothing is stored. It is a credential: keep it out of logs."""
        self._used = True
        return self._known.id

    @property
    def is_read(self) -> bool:
        """Whether the data is known."""
        return self._known.read

    @property
    def is_locked(self) -> bool:
        """Whether this Session holds the lock, in whichever task."""
        return any(not hold.lock.lease.lost for hold in self._holds.values())

    @property
    def is_empty(self) -> bool:
        """Whether there is no data. Raises as `get` does."""
        return not self._view()

    @property
    def data(self) -> Mapping[str, Any]:
        """A read-only view of what `session[name]` reads: in the holding task the working copy."""
        return MappingProxyType(self._view())

    def __getitem__(self, name: str) -> Any:
        return self._view()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._view())

    def __len__(self) -> int:
        return len(self._view())

    def __contains__(self, name: object) -> bool:
        return name in self._view()

    def __bool__(self) -> bool:
        """Always true: `if request.session:` asks whether there is one, `is_empty` whether it has data."""
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`, or `default`.

        Raises:
            SessionNotReadError: the data is not known; `await session.read()` first, or use autoload.
            SessionDataError: the record cannot be decoded.
        """
        return self._view().get(name, default)

    def has(self, name: str) -> bool:
        """Whether there is a value called `name`. Raises as `get` does."""
        return name in self._view()

    @overload
    def __call__(self) -> Session: ...
    @overload
    def __call__(self, name: str, default: object = None) -> Any: ...
    def __call__(self, name: str | None = None, default: object = None) -> Any:
        """`session()` is the session itself, `session(name, default)` is `get`, as in Phenix."""
        return self if name is None else self.get(name, default)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """Itself: a middleware that copies its scope must not clone a lock."""
        return self

    def __repr__(self) -> str:
        known = self._known
        life = "stored" if known.stored else "ended" if known.ended else "new"
        return f"<Session {life}, {'read' if known.read else 'unread'}{', locked' if self.is_locked else ''}>"

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read(self) -> Self:
        """Read the data as it is now, without a lock; in the holding task it is the newest already.

        Slides the expiry, at most once per `touch_interval`.

        Returns:
            The session itself.

        Raises:
            StorageUnavailableError: the store cannot be reached.
            SessionDataError: the record cannot be decoded; `clear()` still works.
        """
        step(self._state(), Action.READ)
        await self._load()
        self._view()
        return self

    # -- locking -----------------------------------------------------------------------------------------------------

    def locked(self, timeout: float | None = None) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Hold the lock for a block: `async with session.locked() as data:`.

        Waits for the lock, reads the newest data and yields it as a plain dict. Leaving the block in order (also by
        `return` or `break`) commits; an exception or a cancellation rolls back. Inside a lock of the same task it is
        a savepoint.

        Args:
            timeout: seconds to wait for the lock; None for the configured `lock_timeout`.

        Raises:
            LockTimeoutError, SessionBusyError, StorageUnavailableError, SessionDataError: on entering.
            LockLostError: the lock was lost; the block was cancelled and nothing was written.
            SessionEndedError: the session was destroyed or replaced meanwhile; nothing was written.
            SessionFinishedError: a new cookie is needed, but the response has started; nothing was written.
            SessionTooLargeError, TypeError: the data cannot be kept; nothing was written.
            StorageUnavailableError: the commit could not be made; nothing was written.
            CommitUnknownError: the store went away in mid-commit.
            CommittedNotReplicatedError: it is written, and fewer replicas have confirmed it than `durability` asks for.

        Cancellation:
            Both ends can wait. `Cancelled` out of the block means that nothing was written; the commit itself cannot
            be cancelled, and is bounded by `commit_timeout`. In an async generator that is not driven by `web.App`,
            the loss of the lock cannot cancel the block; it is told at the commit, as with `lock()`.
        """
        frame = sys._getframe(1)
        return Block(self, timeout, (frame.f_code, frame.f_lasti), cancellable=not may_be_abandoned(frame))

    async def lock(self, timeout: float | None = None) -> None:
        """Take the lock and read the newest data; or go one level deeper, if this task has the lock.

        Each `lock` is ended by one `commit`, `rollback` or `unlock`. Prefer `locked()`: it cannot be left open, and
        the loss of the lock cancels its body. Arguments and exceptions are those of entering `locked()`.
        """
        hold = self._mine()
        if hold is not None:
            await self._deepen(hold)
            return
        timeout = self._timeout(timeout)
        with self._engine.locks.span(timeout) as span:
            await self._take(until=span.due, block=False, place=place_above(1))
            return
        raise self._timed_out(timeout)

    async def commit(self) -> None:
        """End one level with its changes; the outermost one writes them and gives back the lock.

        Exceptions and cancellation are those of leaving `locked()`; the level is ended in any case.

        Raises:
            SessionNotLockedError: this task does not hold the lock.
        """
        hold = self._require(Action.COMMIT)
        with self._engine.locks.span() as span:
            await self._end(hold, hold.work.levels[-1], span)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        raise CommitUnknownError

    async def rollback(self) -> None:
        """End one level without its changes; the outermost one gives back the lock.

        Raises:
            SessionNotLockedError: this task does not hold the lock.

        Cancellation: the level is ended in any case.
        """
        hold = self._require(Action.ROLLBACK)
        self._unwind(hold, hold.work.levels[-1])
        await trio.lowlevel.checkpoint()

    async def unlock(self) -> None:
        """The same as `rollback`."""
        await self.rollback()

    async def unlock_all(self) -> None:
        """End all levels without their changes; otherwise as `rollback`."""
        hold = self._require(Action.ROLLBACK)
        self._unwind(hold, hold.work.levels[0])
        await trio.lowlevel.checkpoint()

    # -- changing, in the task that holds the lock -------------------------------------------------------------------

    def set(self, name: str, value: object) -> None:
        """`session[name] = value`.

        Raises:
            SessionNotLockedError: this task does not hold the lock.
        """
        self._require(Action.SET).work.data[name] = value

    def __setitem__(self, name: str, value: object) -> None:
        self.set(name, value)

    def unset(self, name: str) -> None:
        """`del session[name]`.

        Raises:
            SessionNotLockedError: this task does not hold the lock.
            KeyError: there is no such value.
        """
        del self._require(Action.SET).work.data[name]

    def __delitem__(self, name: str) -> None:
        self.unset(name)

    def regenerate(self) -> None:
        """Have the outermost commit issue a new id; until then `id` is the old one, and a rollback undoes it.

        Raises:
            SessionNotLockedError: this task does not hold the lock.
        """
        self._require(Action.REGENERATE).work.regenerate = True

    # -- lock, change and commit in one go; inside a lock of this task the change is staged --------------------------

    async def _change(self, change: Callable[[WorkingCopy], T], *, decode: bool = True) -> T:
        hold = self._mine()
        if hold is not None:
            await trio.lowlevel.checkpoint()
            hold.lock.lease.refuse_lost()
            return change(hold.work)
        async with Block(self, None, place_above(2), decode=decode):
            return change(self._require(Action.SET).work)

    async def put(self, name: str, value: object) -> None:
        """Set one value. Exceptions and cancellation are those of `locked()`, here and below."""
        await self._change(lambda work: work.data.__setitem__(name, value))

    async def delete(self, name: str) -> None:
        """Remove one value, if it is there."""
        await self._change(lambda work: work.data.pop(name, None))

    async def increment(self, name: str, by: int = 1) -> int:
        """Add `by` to a number, which begins at 0. Returns the new value."""

        def change(data: dict[str, Any]) -> int:
            value: int = data.get(name, 0) + by
            data[name] = value
            return value

        return await self._change(lambda work: change(work.data))

    async def pull(self, name: str, default: object = None) -> Any:
        """Remove one value and return it, or `default`."""
        return await self._change(lambda work: work.data.pop(name, default))

    async def clear(self) -> None:
        """Destroy the session: its record is gone at once, `id` is None, and the response removes the cookie.

        It never comes back: a slow request that still has the old id gets a `SessionEndedError` if it tries to
        commit. Data set afterwards begins a new session. Works for a record that cannot be decoded, too.
        """
        await self._change(lambda work: work.clear(), decode=False)

    async def refresh(self) -> None:
        """Change the id and keep the data; the old id is dead at once.

        Call it at every login: an id that somebody planted before then is worth nothing.
        """

        def change(_: object) -> None:
            self.regenerate()

        await self._change(change)
