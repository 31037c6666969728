"""What is the same wherever Redis is: one server, a primary with Sentinels, a cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest
import trio

from trio_session import RedisConnection, SessionConfig, StorageUnavailableError
from trio_session.abc import Lifetime
from trio_session.cli._demo._bus import make_bus
from trio_session.redis import open_redis_store

from .promises import check_redis_store
from .redis_servers import redis_server
from .redis_topologies import Group, redis_cluster, replicated_redis
from .test_demo import arrives

LIFE = Lifetime(idle=100.0)


@pytest.mark.timeout(90)
async def test_they_keep_every_promise_of_the_protocol() -> None:
    """The whole conformance suite, on a primary that Sentinels watch and on a cluster at once."""
    with ExitStack() as stack:

        async def check(topology: AbstractContextManager[Group]) -> None:
            site = await trio.to_thread.run_sync(stack.enter_context, topology)
            await check_redis_store(site.url)
            await check_bus(site.url)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check, replicated_redis())
            nursery.start_soon(check, redis_cluster())


async def check_bus(url: str) -> None:
    """The page of the demo is told what happens in all of its processes, and once."""
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)})
    mine, other = make_bus(config), make_bus(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine.run)
        nursery.start_soon(other.run)
        with other.listening() as lines:
            await arrives(mine, lines)
            mine.tell("three")
            mine.tell("four")
            heard = ""
            while not heard.endswith("four"):
                heard += await lines.receive()
            assert heard.endswith("threefour")
        nursery.cancel_scope.cancel()


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
