"""Is this the body of an async generator that somebody may abandon?

A cancel scope that is open while a generator is suspended belongs to whichever task drives it. A driver that drops the
generator without closing it, as Starlette does with a stream whose client has gone, leaves the scope behind on that
task, and trio breaks down over it: "Cancel scope stack corrupted". Python cannot prevent that (PEP 789 is about it), so
no scope is opened there.

Generators that are known to be driven to their end are fine: those of `contextlib`, where the block that uses them
counts, and the streams of our own `web.App`.
"""

from __future__ import annotations

from inspect import CO_ASYNC_GENERATOR
from types import FrameType

__all__ = ["may_be_abandoned"]

_CONTEXT_MANAGERS = "contextlib"
_OWN_STREAMS = "trio_session.web._streams"


def may_be_abandoned(frame: FrameType) -> bool:
    """Whether the code that a frame is executing may be suspended for good."""
    while True:
        is_manager = frame.f_globals.get("__name__") == _CONTEXT_MANAGERS
        if not is_manager and not frame.f_code.co_flags & CO_ASYNC_GENERATOR:
            return False
        driver = frame.f_back
        if not is_manager and (driver is None or driver.f_globals.get("__name__") != _CONTEXT_MANAGERS):
            return driver is None or driver.f_globals.get("__name__") != _OWN_STREAMS
        assert driver is not None  # contextlib is never at the bottom
        frame = driver
