"""The promises of every store, several at a time: on a real server most of a check is waiting for leases to end."""

from __future__ import annotations

import trio

from trio_session.redis import open_redis_store
from trio_session.testing._bench import Bench
from trio_session.testing._promises import PROMISES

__all__ = ["check_redis_store"]

LANES = 4  # few enough for a busy machine to keep the times of each


async def check_redis_store(url: str) -> None:
    """`check_store` on a Redis that has no sessions yet; each promise has a prefix of its own.

    Raises:
        AssertionError: a promise is broken; the note on it names which one.
    """
    rest = iter(list(enumerate(reversed(PROMISES))))  # those that take longest are the last ones of the list

    async def lane() -> None:
        for number, promise in rest:
            try:
                async with open_redis_store(url, prefix=f"promise{number}") as store:
                    await promise(Bench(store, trio.sleep))
            except Exception as error:
                error.add_note(f"The broken promise: {promise.__doc__}")
                raise

    async with trio.open_nursery() as nursery:
        for _ in range(LANES):
            nursery.start_soon(lane)
