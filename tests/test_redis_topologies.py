"""What is the same wherever Redis is: one server, a primary with Sentinels, a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

from trio_session import SessionStore, StorageUnavailableError
from trio_session.abc import Lifetime
from trio_session.redis import open_redis_store
from trio_session.testing import check_store

from .redis_servers import RedisServer, redis_server
from .redis_topologies import ask, redis_cluster, replicated_redis

LIFE = Lifetime(idle=100.0)


@pytest.mark.timeout(90)
async def test_they_keep_every_promise_of_the_protocol() -> None:
    """The whole conformance suite, on a primary that Sentinels watch and on a cluster at once."""

    async def check(url: str, primaries: Callable[[], Sequence[RedisServer]]) -> None:
        @asynccontextmanager
        async def open_store() -> AsyncIterator[SessionStore]:
            for server in primaries():
                ask(server, "FLUSHALL")
            async with open_redis_store(url) as store:
                yield store

        await check_store(open_store, advance=trio.sleep)

    with ExitStack() as stack:
        replicated = stack.enter_context(replicated_redis())
        cluster = stack.enter_context(redis_cluster())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check, replicated.url, lambda: [replicated.primary()])
            nursery.start_soon(check, cluster.url, cluster.primaries)


async def test_leases_of_a_server_that_is_away() -> None:
    """That they cannot be renewed is said at once, when it is known."""
    with redis_server() as server:
        async with open_redis_store(server.url) as store:
            await store.acquire("key", "t1", lease=60.0, life=LIFE)
            server.kill()
            with pytest.raises(StorageUnavailableError):
                await store.load("key", life=LIFE)
            with pytest.raises(StorageUnavailableError, match="all attempts to connect"):
                await store.renew([("key", "t1")], lease=60.0)
