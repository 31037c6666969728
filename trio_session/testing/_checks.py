"""Every promise of the store protocol, checked against a store of anybody's.

A store's whole test is a few lines:

    async def test_my_store(autojump_clock):
        await check_store(open_my_store, advance=trio.sleep)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from ..abc import SessionStore
from ._bench import Advance, Bench
from ._promises import PROMISES

__all__ = ["check_store"]

OpenStore = Callable[[], AbstractAsyncContextManager[SessionStore]]


async def check_store(open_store: OpenStore, *, advance: Advance) -> None:
    """Check that a store keeps every promise of `trio_session.abc.SessionStore`.

    Args:
        open_store: an async context manager that gives a fresh, empty store each time it is called.
        advance: `await advance(seconds)` lets the store's time pass: `trio.sleep` on a real or an autojump clock.

    Raises:
        AssertionError: a promise is broken; the note on it names which one.
    """
    for promise in PROMISES:
        try:
            async with open_store() as store:
                await promise(Bench(store, advance))
        except Exception as error:
            error.add_note(f"The broken promise: {promise.__doc__}")
            raise
