"""One alarm for all the deadlines of a manager.

A block's deadline moves twice: from the end of the wait to that of the lease, and on to that of the commit. Almost none
is ever reached. Moving the deadline of a trio scope costs as much as a tenth of a whole change; moving one of these is
an assignment. The alarm is set only when something is due earlier than it would ring, and looks for itself then what is
still due. With nothing to wait for there is no alarm, so an idle manager never makes a test clock jump.
"""

from __future__ import annotations

from math import inf
from types import TracebackType
from typing import Protocol, Self

import trio

__all__ = ["Alarm", "Span"]


class _Due(Protocol):
    """What has to happen at a time: `due` is in trio time, and `expire` must not raise."""

    due: float

    def expire(self) -> None: ...


class Alarm:
    """Calls `expire` of whatever is due. Its task is `run`."""

    __slots__ = ("_rings_at", "_scope", "_watched")

    def __init__(self) -> None:
        self._watched: dict[_Due, None] = {}
        self._rings_at = inf
        self._scope = trio.CancelScope()

    def watch(self, what: _Due) -> None:
        """From now on it expires when it is due."""
        self._watched[what] = None
        if what.due < self._rings_at:
            self._set(what.due)

    def move(self, what: _Due, due: float) -> None:
        """Have what is watched expire earlier, or later."""
        what.due = due
        if due < self._rings_at:
            self._set(due)

    def forget(self, what: _Due) -> None:
        """It is over."""
        del self._watched[what]
        if not self._watched and self._rings_at != inf:
            self._set(inf)

    def _set(self, time: float) -> None:
        self._rings_at = self._scope.deadline = time

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._scope = trio.CancelScope(deadline=self._rings_at)
            with self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            for what in [what for what in self._watched if what.due <= now]:
                what.due = inf
                what.expire()
            self._rings_at = min((what.due for what in self._watched), default=inf)


class Span:
    """A cancel scope with a deadline that is cheap to move.

    Args:
        alarm: watches it from its entry to its exit.
        due: trio time at which it is cancelled.

    Attributes:
        due: the same, or inf once that time has come.
        expired: it has come.
        scope: trio's.
    """

    __slots__ = ("_alarm", "due", "expired", "scope")

    def __init__(self, alarm: Alarm, due: float = inf) -> None:
        self._alarm = alarm
        self.due = due
        self.expired = False
        self.scope = trio.CancelScope()

    # The three do for themselves what the alarm's methods do: each block comes by here four times.

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Self:
        self.scope.__enter__()
        alarm = self._alarm
        alarm._watched[self] = None
        if self.due < alarm._rings_at:
            alarm._set(self.due)
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        alarm = self._alarm
        del alarm._watched[self]
        if not alarm._watched and alarm._rings_at != inf:
            alarm._set(inf)
        return self.scope.__exit__(kind, error, traceback)

    def move(self, due: float) -> None:
        """Be cancelled then instead."""
        self.due = due
        if due < self._alarm._rings_at:
            self._alarm._set(due)

    def expire(self) -> None:
        """It is due."""
        self.expired = True
        self.scope.cancel()
