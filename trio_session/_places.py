"""Where in the user's program something was done, for messages that name the line."""

from __future__ import annotations

import sys
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Place", "place_above", "shown", "where"]

#: A line of code. Not a frame: that would keep everything alive that its function has.
Place = tuple[CodeType, int]

_NOT_THE_USERS = {"trio", "trio_session", "contextlib", "outcome"}


def place_above(depth: int) -> Place:
    """The line that is being executed `depth` frames above the caller."""
    frame = sys._getframe(depth + 1)
    return frame.f_code, frame.f_lineno


def shown(place: Place) -> str:
    """A place in words that editors understand."""
    code, line = place
    return f"{code.co_filename}:{line} in {code.co_name}"


def where(task: Task) -> str:
    """The user's own line that a task, which waits, is executing."""
    place = "?"
    for frame, line in task.iter_await_frames():
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _NOT_THE_USERS:
            place = shown((frame.f_code, line))
    return place
