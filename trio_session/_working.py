"""The working copy that a lock's holder changes, with its savepoints.

Inner levels are savepoints of one dict: its identity never changes, so whoever holds a reference sees a rollback too.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final, Literal, TypeAlias

__all__ = ["Change", "Level", "WorkingCopy"]


#: What a commit is to do with the record: write it under the id it has, move it to a new one, end it.
Change: TypeAlias = Literal["nothing", "write", "move", "end"]


class Level:
    """One `lock()` or `locked()`; all but the outermost remember how things stood when they began."""

    __slots__ = ("cleared", "data", "regenerate")

    def __init__(self, data: dict[str, Any] | None, *, regenerate: bool, cleared: bool) -> None:
        self.data = data
        self.regenerate = regenerate
        self.cleared = cleared


# Nothing is behind it to go back to, so all working copies have the same one.
_OUTERMOST: Final = Level(None, regenerate=False, cleared=False)


class WorkingCopy:
    """The data as the holder changes it, and what it decided about the id.

    Attributes:
        data: the dict that `locked()` yields.
        regenerate: the commit is to issue a new id.
        cleared: the commit is to destroy the session (and to begin a new one, if there is data again).
        levels: the open levels, outermost first.
    """

    __slots__ = ("cleared", "data", "levels", "regenerate")

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.regenerate = False
        self.cleared = False
        self.levels = [_OUTERMOST]

    def begin(self) -> Level:
        """Open an inner level."""
        level = Level(deepcopy(self.data), regenerate=self.regenerate, cleared=self.cleared)
        self.levels.append(level)
        return level

    def end(self, *, keep: bool) -> None:
        """End the innermost level, which must not be the outermost, with its changes or without."""
        level = self.levels.pop()
        if not keep:
            assert level.data is not None
            self.data.clear()
            self.data.update(level.data)
            self.regenerate = level.regenerate
            self.cleared = level.cleared

    def clear(self) -> None:
        self.data.clear()
        self.cleared = True
        self.regenerate = False

    def change(self, *, stored: bool) -> Change:
        """What the commit of the outermost level comes to; `stored`: there is a record."""
        if self.cleared and not self.data:
            return "end"
        if stored and (self.regenerate or self.cleared):
            return "move"
        return "write" if stored or self.data else "nothing"
