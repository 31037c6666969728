"""`async with session.locked() as data:`, where all changes pass. One cancel scope serves wait, body and commit."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import trio

from ._errors import CommitUnknownError
from ._leases import Lease
from ._lifecycle import Hold, Lifecycle
from ._places import Place
from ._working import Level

__all__ = ["Block"]

logger = logging.getLogger("trio_session")


class Block(AbstractAsyncContextManager[dict[str, Any]]):
    """A block under the lock; a class, as a generator would cost more than the gate and the lease together.

    Args:
        timeout: seconds to wait for the lock; None for the configured ones.
        place: where in the program this is.
        decode: False if the stored data is of no interest.
        cancellable: the loss of the lock cancels the body.
    """

    __slots__ = ("_cancellable", "_decode", "_entered", "_hold", "_level", "_lifecycle", "_place", "_scope", "_timeout")

    _hold: Hold
    _level: Level

    def __init__(
        self,
        lifecycle: Lifecycle,
        timeout: float | None,
        place: Place,
        *,
        decode: bool = True,
        cancellable: bool = True,
    ) -> None:
        self._lifecycle = lifecycle
        self._timeout = timeout
        self._place = place
        self._decode = decode
        self._cancellable = cancellable
        self._entered = False
        self._scope: trio.CancelScope | None = None

    @trio.lowlevel.enable_ki_protection  # or Ctrl-C could come between a scope's beginning and the care for its end
    async def __aenter__(self) -> dict[str, Any]:
        if self._entered:
            raise RuntimeError("this block was entered before; call locked() once for each")
        self._entered = True
        hold = self._lifecycle._mine()
        if hold is not None:
            self._level = await self._lifecycle._deepen(hold)
            if self._cancellable and not hold.lock.lease.guarded:  # else it is an outer block that is cancelled
                self._guard(hold.lock.lease, trio.CancelScope().__enter__())
        else:
            hold = await self._wait()
            self._level = hold.work.levels[0]
        self._hold = hold
        return hold.work.data

    async def _wait(self) -> Hold:
        """Take the lock; the scope of the wait becomes that of the body."""
        timeout = self._lifecycle._timeout(self._timeout)
        scope = trio.CancelScope(deadline=trio.current_time() + timeout).__enter__()
        try:
            hold = await self._lifecycle._take(block=True, place=self._place, decode=self._decode)
        except BaseException as error:
            if not scope.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            if self._cancellable:
                self._guard(hold.lock.lease, scope)
            else:
                scope.__exit__(None, None, None)
            return hold
        raise self._lifecycle._timed_out(timeout)

    def _guard(self, lease: Lease, scope: trio.CancelScope) -> None:
        """From now on the scope ends with the lease."""
        scope.deadline = lease.deadline
        if scope.cancel_called:  # the wait timed out at the moment it was over: that is no matter of the body's
            scope.__exit__(None, None, None)
            scope = trio.CancelScope(deadline=lease.deadline).__enter__()
        lease.guard(scope)
        self._scope = scope

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._scope is not None:
            self._hold.lock.lease.guard(None)
        if error is None:
            await self._commit()
        else:
            self._roll_back(error)

    async def _commit(self) -> None:
        lifecycle, hold, level, scope = self._lifecycle, self._hold, self._level, self._scope
        if scope is not None and (scope.cancel_called or level is not hold.work.levels[0]):
            scope.__exit__(None, None, None)  # the loss of the lock is told by the commit; inner levels have none
            scope = None
        if scope is None:
            scope = trio.CancelScope().__enter__()
        try:
            if hold.has(level):
                await lifecycle._end(hold, level, scope)
            else:
                hold.lock.lease.refuse_lost()  # else it was ended inside the block, on purpose
        except BaseException as error:
            if not scope.__exit__(type(error), error, error.__traceback__):
                if isinstance(error, trio.Cancelled):
                    _log_loss(hold.lock.lease)
                raise
        else:
            scope.__exit__(None, None, None)
            return
        raise CommitUnknownError

    def _roll_back(self, error: BaseException) -> None:
        lease, scope = self._hold.lock.lease, self._scope
        if lease.loss() is not None and not isinstance(error, trio.Cancelled):
            error.add_note(f"Meanwhile: {lease.error()}")
        self._lifecycle._unwind(self._hold, self._level)
        if scope is not None and scope.__exit__(type(error), error, error.__traceback__):
            raise lease.error() from None
        if isinstance(error, trio.Cancelled):
            _log_loss(lease)


def _log_loss(lease: Lease) -> None:
    if lease.loss() is not None and not lease.guarded:  # guarded: it is an outer block's to tell
        logger.warning("in a block that was cancelled anyway: %s", lease.error())
