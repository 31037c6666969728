"""What happens to the locks of this process, as lines for the page to draw."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, final

import msgspec

from ...abc import SessionEvent, SessionInstrument

__all__ = ["Timeline", "line", "what_for"]

Kind = Literal["worker", "holder"]

#: What the task at hand wants the lock for. Hooks are called in that task, so they see it.
what_for: ContextVar[str] = ContextVar("what_for", default="")


def line(what: str, **values: object) -> str:
    """Something to draw, with the time at which it happened: that of the machine, as all its processes have it."""
    return msgspec.json.encode({"what": what, "at": time.time(), "pid": os.getpid(), **values}).decode()


@final
class Timeline(SessionInstrument):
    """Tells of each step of each lock.

    Args:
        kind: what this process is.
        tell: is called with each line.
    """

    def __init__(self, kind: Kind, tell: Callable[[str], None]) -> None:
        self._kind = kind
        self._tell = tell

    def lock_requested(self, event: SessionEvent) -> None:
        self._note("requested", event)

    def lock_acquired(self, event: SessionEvent) -> None:
        self._note("acquired", event)

    def lock_abandoned(self, event: SessionEvent) -> None:
        self._note("abandoned", event)

    def session_committed(self, event: SessionEvent) -> None:
        self._note("committed", event)

    def session_rolled_back(self, event: SessionEvent) -> None:
        self._note("rolled back", event)

    def lock_lost(self, event: SessionEvent) -> None:
        self._note("lost", event)

    def lock_released(self, event: SessionEvent) -> None:
        self._note("released", event)

    def _note(self, what: str, event: SessionEvent) -> None:
        self._tell(
            line(
                what,
                kind=self._kind,
                lock=event.lock,
                session=event.session,
                purpose=what_for.get(),
                reason=event.reason,
            )
        )
