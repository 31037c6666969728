"""Tasks that serve a body of code without being cancelled with it, and exceptions that come out bare.

A nursery cancels its tasks at the same moment as its body. A body that still has something to finish in its
clean-up, like a commit in flight, would then lose the very tasks it needs for it. So service tasks run shielded,
and are cancelled when the body has been left.
(The pattern is tricycle's service nursery; the unwrapping is what trio does for its own internal nurseries.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

__all__ = ["StartService", "bare_exceptions", "open_service_nursery"]

StartService = Callable[[Callable[[], Awaitable[None]]], None]


@contextmanager
def bare_exceptions() -> Iterator[None]:
    """Put this around a nursery that is an implementation detail: a lone exception comes out ungrouped.

    The count decides, not identity: trio rebuilds a group that the user raised, so that one passes as the
    single member it is, unchanged.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group, which is of no interest to anybody
            del error, context, group  # break the cycle through this frame


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[StartService]:
    """Yield a function that starts service tasks; they are cancelled after the body, however it ends.

    Service tasks should record failures rather than raise: an exception of theirs cancels the body and comes
    out of the block.

    Cancellation: leaving the block waits until every service task has ended.
    """
    scopes: set[trio.CancelScope] = set()

    async def serve(service: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        with scope:
            await service()
        scopes.discard(scope)

    with bare_exceptions():
        async with trio.open_nursery() as nursery:

            def start(service: Callable[[], Awaitable[None]]) -> None:
                scope = trio.CancelScope(shield=True)
                scopes.add(scope)
                nursery.start_soon(serve, service, scope, name=service)

            try:
                yield start
            finally:
                for scope in list(scopes):
                    scope.cancel()
