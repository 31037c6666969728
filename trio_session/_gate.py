"""The fair queue of this process's tasks for one session.

Only the task at the gate goes on to the store, so a store sees at most one contender per session and process. Those
behind it wait in memory, first come first served, and may inherit the lock without a word to the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, Task

from ._errors import SessionBusyError, SessionStateError
from ._places import where

if TYPE_CHECKING:
    from .abc import Loaded

__all__ = ["Gate"]


class _Waiter:
    __slots__ = ("block", "inheritance", "on_begun", "task")

    def __init__(self, task: Task, block: bool) -> None:
        self.task = task
        self.block = block
        self.inheritance: Loaded | None = None
        self.on_begun: Callable[[], None] | None = None


class _Line:
    """Whoever passed the gate, and those who wait for it."""

    __slots__ = ("nurseries", "task", "waiters")

    def __init__(self, task: Task, block: bool) -> None:
        self.task = task
        # A nursery of the holder that is not among these was opened inside its block.
        self.nurseries = task.child_nurseries if block else None
        self.waiters: OrderedDict[str, _Waiter] | None = None  # by token, first come first; made for the first

    def admit(self, waiter: _Waiter) -> None:
        self.task = waiter.task
        self.nurseries = waiter.task.child_nurseries if waiter.block else None

    def encloses(self, task: Task) -> bool:
        """Whether `task` runs in a nursery opened inside the holder's block, which so cannot end before it does."""
        if self.nurseries is None:
            return False  # an explicit lock() can be ended anywhere, also inside the nursery
        nursery = task.parent_nursery
        while nursery is not None:
            if nursery.parent_task is self.task and nursery not in self.nurseries:
                return True
            nursery = nursery.parent_task.parent_nursery
        return False


class Gate:
    """One line per key.

    Args:
        max_waiters: so many tasks may wait for one key; the next one is refused.
    """

    def __init__(self, max_waiters: int) -> None:
        self._max_waiters = max_waiters
        self._lines: dict[str, _Line] = {}  # a key is present iff somebody has passed or waits

    def __repr__(self) -> str:
        return f"<Gate {len(self._lines)} passed, {self.tasks_waiting} waiting>"

    @property
    def tasks_waiting(self) -> int:
        return sum(len(line.waiters or ()) for line in self._lines.values())

    def encloses(self, key: str, task: Task) -> bool:
        """Whether whoever has passed holds the lock in a block that cannot end before `task` does."""
        line = self._lines.get(key)
        return line is not None and line.encloses(task)

    def enter_at_once(self, key: str, *, block: bool) -> bool:
        """Begin this task's turn, if nobody else's is on; otherwise as `enter`."""
        if key in self._lines:
            return False
        self._lines[key] = _Line(trio.lowlevel.current_task(), block)
        return True

    async def enter(self, key: str, token: str, *, block: bool) -> Loaded | None:
        """Wait for this task's turn, which is not now; each turn ends with `leave`.

        Args:
            key: the session's.
            token: the name under which the task will ask the store for the lock.
            block: the lock will be held by an `async with` block.

        Returns:
            The record, if the previous holder handed its lock on to `token`; else None.

        Raises:
            SessionBusyError: the line is full.
            SessionStateError: waiting could never end, because the holder waits for this task.
        """
        task = trio.lowlevel.current_task()
        line = self._lines[key]
        if line.waiters is None:
            line.waiters = OrderedDict()
        waiters = line.waiters
        refusal: Exception | None = _deadlock(line, task)
        if refusal is None and len(waiters) >= self._max_waiters:
            refusal = SessionBusyError(self._max_waiters)
        if refusal is not None:
            await trio.lowlevel.checkpoint_if_cancelled()  # who is cancelled is told nothing else
            raise refusal
        waiter = waiters[token] = _Waiter(task, block)

        def abort(_: object) -> Abort:
            del waiters[token]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.on_begun is not None:
            waiter.on_begun()
        return waiter.inheritance

    def next_in_line(self, key: str) -> str | None:
        """The token of the task whose turn comes next."""
        waiters = self._lines[key].waiters
        return next(iter(waiters)) if waiters else None

    def leave(
        self,
        key: str,
        *,
        heir: str | None = None,
        inheritance: Loaded | None = None,
        on_begun: Callable[[], None] | None = None,
    ) -> bool:
        """End a turn and begin the next.

        Args:
            key: the session's.
            heir: the token of who is to inherit.
            inheritance: what.
            on_begun: called when the heir runs.

        Returns:
            False if the heir no longer waits.
        """
        line = self._lines[key]
        if not line.waiters:
            del self._lines[key]
            return False
        token, waiter = line.waiters.popitem(last=False)
        inherits = token == heir
        if inherits:
            waiter.inheritance, waiter.on_begun = inheritance, on_begun
        line.admit(waiter)
        trio.lowlevel.reschedule(waiter.task)
        return inherits


def _deadlock(line: _Line, task: Task) -> SessionStateError | None:
    """Why `task` would wait for ever, if it would."""
    holder = line.task
    if task is holder:
        return SessionStateError(
            "this task already holds this session's lock through another Session object; use that one"
        )
    if line.encloses(task):
        return SessionStateError(
            f"deadlock: this task runs in a nursery opened inside the `locked()` block at {where(holder)}, which "
            "cannot end before this task does; change the data in the block itself, or start the task after it"
        )
    return None
