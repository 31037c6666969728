"""Sending what an async iterator yields, in the one task that also closes it.

A generator that yields inside `async with session.locked()` has a cancel scope open while it is suspended, and the
code here runs inside that scope. So whatever hits us while we send (the loss of the lock cancels that very scope)
belongs to the generator first: it is thrown in where it stands, at its `yield`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import trio

__all__ = ["close_stream", "send_stream"]

Chunk = str | bytes | bytearray | memoryview


async def send_stream(iterator: AsyncIterator[Chunk], send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send every chunk.

    Raises: what the iterator raises, or sending, if the iterator lets that pass.
    """
    throw: Callable[[BaseException], Awaitable[Chunk]] | None = getattr(iterator, "athrow", None)
    failure: BaseException | None = None
    while True:
        # The failure is thrown here and not where it was caught: Python would chain to it what comes back.
        try:
            chunk = await (anext(iterator) if failure is None or throw is None else throw(failure))
        except StopAsyncIteration:
            return
        finally:
            failure = None  # or this frame and the traceback would keep each other alive
        try:
            # Neither a generator nor a server need ever wait: Hypercorn lets everything pass once the client has gone.
            # Without this they would go round in circles, and nobody else would ever run again.
            await trio.lowlevel.checkpoint()
            if chunk:
                await send(_encode(chunk))
        except BaseException as error:
            if throw is None:
                raise
            failure = error


async def close_stream(stream: object) -> None:
    """Close an async iterator, if it can be closed."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _encode(chunk: Chunk) -> bytes:
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, bytes | bytearray | memoryview):
        return bytes(chunk)
    raise TypeError(f"a stream yields str or bytes, not {type(chunk).__name__}")
