"""Where in the user's program something was done, for messages that name the line."""

from __future__ import annotations

import sys
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Place", "place_above", "shown", "where"]

#: Code, and the offset of an instruction in it: a line has to be searched for, and almost nobody asks for it. Not a
#: frame: that would keep everything alive that its function has.
Place = tuple[CodeType, int]

_NOT_THE_USERS = {"trio", "trio_session", "contextlib", "outcome"}


def place_above(depth: int) -> Place:
    """What is being executed `depth` frames above the caller."""
    frame = sys._getframe(depth + 1)
    return frame.f_code, frame.f_lasti


def shown(place: Place) -> str:
    """A place in words that editors understand."""
    code, offset = place
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), "?")
    return _show(code, line)


def where(task: Task) -> str:
    """The user's own line that a task, which waits, is executing."""
    place = "?"
    for frame, line in task.iter_await_frames():
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _NOT_THE_USERS:
            place = _show(frame.f_code, line)
    return place


def _show(code: CodeType, line: object) -> str:
    return f"{code.co_filename}:{line} in {code.co_name}"
