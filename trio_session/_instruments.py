"""Telling instruments what happens to a lock. With none installed, nothing here is ever called."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from hashlib import blake2s
from typing import Literal

import trio

from ._errors import (
    CommitUnknownError,
    EndReason,
    LockLostError,
    LossReason,
    SessionBusyError,
    SessionEndedError,
    SessionStateError,
    StorageUnavailableError,
)
from .abc import SessionEvent, SessionInstrument

__all__ = ["Instruments", "LockWatch"]

logger = logging.getLogger("trio_session.instruments")

Hook = Literal[
    "lock_requested",
    "lock_acquired",
    "lock_abandoned",
    "lock_lost",
    "lock_released",
    "session_committed",
    "session_rolled_back",
    "session_created",
    "session_moved",
    "session_destroyed",
]

_TAG_BYTES = 6  # a million sessions share a tag with a probability of one in 500

# What an exception of a store or of the queue comes to, in one word.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (StorageUnavailableError, "unavailable"),
    (SessionBusyError, "busy"),
    (SessionEndedError, "ended"),
    (CommitUnknownError, "unknown"),
    (SessionStateError, "deadlock"),
)


class Instruments(list[SessionInstrument]):
    """The instruments of one manager, in the order in which they are called. False if there are none.

    Raises:
        TypeError: one is no instrument.
    """

    def __init__(self, instruments: Iterable[SessionInstrument] = ()) -> None:
        super().__init__(instruments)
        for instrument in self:
            if not isinstance(instrument, SessionInstrument):
                raise TypeError(f"an instrument is an instance of a kind of SessionInstrument, not {instrument!r}")

    @trio.lowlevel.enable_ki_protection  # so that Ctrl-C is not taken for a failure of the hook
    def tell(self, hook: Hook, event: SessionEvent) -> None:
        """Call a hook of them all. Never raises, as the caller holds a lock that others wait for."""
        for instrument in list(self):
            try:
                getattr(instrument, hook)(event)
            except BaseException:  # as trio does: nothing that a hook can do may end a lock in its midst
                self[:] = [other for other in self if other is not instrument]
                logger.exception("%s.%s() failed; it is told nothing more", type(instrument).__name__, hook)


class LockWatch:
    """One lock, from being asked for to being released, as instruments are told of it."""

    __slots__ = ("_acquired_at", "_deadline", "_instruments", "_number", "_requested_at", "_tag", "_task")

    def __init__(self, instruments: Instruments, key: str, number: int, until: float) -> None:
        self._instruments = instruments
        self._tag = _tag(key)
        self._number = number
        self._task = trio.lowlevel.current_task()
        self._requested_at = trio.current_time()
        self._acquired_at: float | None = None
        # Asked now, as a scope that is cancelled has no deadline any more.
        self._deadline = min(until, trio.current_effective_deadline())
        self._tell("lock_requested")

    def acquired(self) -> None:
        self._acquired_at = trio.current_time()
        self._tell("lock_acquired")

    def abandoned(self, error: BaseException | None) -> None:
        """The wait ended in `error`, or in the lock not being wanted any more."""
        if error is None:
            reason = "unwanted"
        elif isinstance(error, trio.Cancelled):
            reason = "timeout" if trio.current_time() >= self._deadline else "cancelled"
        else:
            reason = _reason_of(error)
        self._tell("lock_abandoned", reason)

    def committed(self) -> None:
        self._tell("session_committed")

    def rolled_back(self, loss: LossReason | None) -> None:
        """By the program, or for a loss."""
        self._tell("session_rolled_back", loss)

    def refused(self, error: BaseException) -> None:
        """The commit ended in `error`."""
        # The commit is shielded, so what cancels it is `commit_timeout`.
        self._tell("session_rolled_back", "unknown" if isinstance(error, trio.Cancelled) else _reason_of(error))

    def lost(self, reason: LossReason) -> None:
        if reason != "request_ended":
            self._tell("lock_lost", reason)

    def released(self) -> None:
        self._tell("lock_released")

    def created(self) -> None:
        self._tell("session_created")

    def moved(self, new_key: str, reason: EndReason) -> None:
        """To a new id; or, for any other reason than that, it was destroyed and another one begun."""
        new = _tag(new_key)
        if reason == "replaced":
            self._tell("session_moved", new=new)
        else:
            self._tell("session_destroyed", reason)
            self._tag = new
            self._tell("session_created")

    def destroyed(self, reason: EndReason) -> None:
        self._tell("session_destroyed", reason)

    def _tell(self, hook: Hook, reason: str | None = None, new: str | None = None) -> None:
        now, acquired_at = trio.current_time(), self._acquired_at
        event = SessionEvent(
            session=self._tag,
            lock=self._number,
            waited=(now if acquired_at is None else acquired_at) - self._requested_at,
            held=0.0 if acquired_at is None else now - acquired_at,
            reason=reason,
            new_session=new,
        )
        if trio.lowlevel.current_task() is self._task:
            self._instruments.tell(hook, event)
        else:  # whoever renews leases has found this out, or whoever reads a server's answers
            self._task.context.run(self._instruments.tell, hook, event)


def _tag(key: str) -> str:
    return blake2s(key.encode(), digest_size=_TAG_BYTES, person=b"tag").hexdigest()


def _reason_of(error: BaseException) -> str:
    if isinstance(error, LockLostError):
        return error.reason
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "failed")
