"""One alarm for all the deadlines of a manager.

A block's deadline moves twice: from the end of the wait to that of the lease, and on to that of the commit. Almost none
is ever reached. Moving the deadline of a trio scope costs as much as a tenth of a whole change; moving one of these is
an assignment. The alarm is set only when something is due earlier than it would ring, and looks for itself then what is
still due. With nothing to wait for there is no alarm, so an idle manager never makes a test clock jump.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from types import TracebackType
from typing import Self

import trio

__all__ = ["Alarm", "Span", "Timer"]


class Alarm:
    """Has timers expire when they are due. Its task is `run`.

    Attributes:
        timers: those that run.
        rings_at: trio time at which it looks after them next.
    """

    __slots__ = ("_scope", "rings_at", "timers")

    def __init__(self) -> None:
        self.timers: dict[Timer, None] = {}
        self.rings_at = inf
        self._scope = trio.CancelScope()

    def set(self, time: float) -> None:
        """Ring then instead."""
        self.rings_at = self._scope.deadline = time

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._scope = trio.CancelScope(deadline=self.rings_at)
            with self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            for timer in [timer for timer in self.timers if timer.due <= now]:
                timer.due = inf
                timer.expire()
            self.rings_at = min((timer.due for timer in self.timers), default=inf)


class Timer(ABC):
    """Something that is due at a time.

    Args:
        alarm: looks after it.
        due: trio time at which it expires.

    Attributes:
        due: the same, or inf once that time has come.
    """

    __slots__ = ("_alarm", "due")

    def __init__(self, alarm: Alarm, due: float = inf) -> None:
        self._alarm = alarm
        self.due = due

    def start(self) -> None:
        """From now on it expires when it is due."""
        self._alarm.timers[self] = None
        if self.due < self._alarm.rings_at:
            self._alarm.set(self.due)

    def move(self, due: float) -> None:
        """Be due then instead."""
        self.due = due
        if due < self._alarm.rings_at:
            self._alarm.set(due)

    def stop(self) -> None:
        """It is over."""
        timers = self._alarm.timers
        del timers[self]
        if not timers and self._alarm.rings_at != inf:
            self._alarm.set(inf)

    @abstractmethod
    def expire(self) -> None:
        """It is due. Does not raise."""


class Span(Timer):
    """A cancel scope with a deadline that is cheap to move.

    Args:
        alarm: looks after it from its entry to its exit.
        due: trio time at which it is cancelled.

    Attributes:
        expired: that time has come.
        scope: trio's.
    """

    __slots__ = ("expired", "scope")

    def __init__(self, alarm: Alarm, due: float = inf) -> None:
        self._alarm = alarm  # these two are Timer's; a call of its own would be felt
        self.due = due
        self.expired = False
        self.scope = trio.CancelScope()

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Self:
        self.scope.__enter__()
        self.start()
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.stop()
        return self.scope.__exit__(kind, error, traceback)

    def expire(self) -> None:
        self.expired = True
        self.scope.cancel()
