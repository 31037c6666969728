"""`async with session.locked() as data:`, where all changes pass. One cancel scope serves wait, body and commit."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import trio

from ._deadlines import Span
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

    __slots__ = ("_cancellable", "_decode", "_entered", "_hold", "_level", "_lifecycle", "_place", "_span", "_timeout")

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
        self._span: Span | None = None

    # These two only choose: a coroutine around another one costs as much as the gate. (Pyright wants them `async`.)

    def __aenter__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        if self._entered:
            raise RuntimeError("this block was entered before; call locked() once for each")
        self._entered = True
        hold = self._lifecycle._mine()
        return self._wait() if hold is None else self._deepen(hold)

    def __aexit__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Coroutine[Any, Any, None]:
        return self._commit() if error is None else self._roll_back(error)

    @trio.lowlevel.enable_ki_protection  # or Ctrl-C could come between a span's beginning and the care for its end
    async def _wait(self) -> dict[str, Any]:
        """Take the lock; the span of the wait becomes that of the body."""
        lifecycle = self._lifecycle
        timeout = lifecycle._timeout(self._timeout)
        span = lifecycle._engine.locks.span(timeout).__enter__()
        try:
            hold = await lifecycle._take(until=span.due, block=True, place=self._place, decode=self._decode)
        except BaseException as error:
            if not span.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            if self._cancellable:
                self._guard(hold.lock.lease, span)
            else:
                span.__exit__(None, None, None)
            self._hold, self._level = hold, hold.work.levels[0]
            return hold.work.data
        raise lifecycle._timed_out(timeout)

    @trio.lowlevel.enable_ki_protection
    async def _deepen(self, hold: Hold) -> dict[str, Any]:
        """Begin an inner level."""
        self._hold, self._level = hold, await self._lifecycle._deepen(hold)
        if self._cancellable and not hold.lock.lease.guarded:  # else it is an outer block that is cancelled
            self._guard(hold.lock.lease, self._open_span())
        return hold.work.data

    def _open_span(self) -> Span:
        return self._lifecycle._engine.locks.span().__enter__()

    def _guard(self, lease: Lease, span: Span) -> None:
        """From now on the span ends with the lease."""
        if span.expired:  # the wait timed out at the moment it was over: that is no matter of the body's
            span.__exit__(None, None, None)
            span = self._open_span()
        span.move(lease.deadline)
        lease.span = span
        self._span = span

    @trio.lowlevel.enable_ki_protection
    async def _commit(self) -> None:
        lifecycle, hold, level, span = self._lifecycle, self._hold, self._level, self._span
        if span is not None:
            hold.lock.lease.span = None
        if span is not None and (span.expired or hold.lock.lease.lost or level is not hold.work.levels[0]):
            span.__exit__(None, None, None)  # the loss of the lock is told by the commit; inner levels have none
            span = None
        if span is None:
            span = self._open_span()
        try:
            if hold.has(level):
                await lifecycle._end(hold, level, span)
            else:
                hold.lock.lease.refuse_lost()  # else it was ended inside the block, on purpose
        except BaseException as error:
            if not span.__exit__(type(error), error, error.__traceback__):
                if isinstance(error, trio.Cancelled):
                    _log_loss(hold.lock.lease)
                raise
        else:
            span.__exit__(None, None, None)
            return
        raise CommitUnknownError

    @trio.lowlevel.enable_ki_protection
    async def _roll_back(self, error: BaseException) -> None:
        lease, span = self._hold.lock.lease, self._span
        if span is not None:
            lease.span = None
        if lease.loss() is not None and not isinstance(error, trio.Cancelled):
            error.add_note(f"Meanwhile: {lease.error()}")
        self._lifecycle._unwind(self._hold, self._level)
        if span is not None and span.__exit__(type(error), error, error.__traceback__):
            raise lease.error() from None
        if isinstance(error, trio.Cancelled):
            _log_loss(lease)


def _log_loss(lease: Lease) -> None:
    if lease.loss() is not None and not lease.guarded:  # guarded: it is an outer block's to tell
        logger.warning("in a block that was cancelled anyway: %s", lease.error())
