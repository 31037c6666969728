"""A cluster of three beside one server: what it costs the client to find the right node, and to write to three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.redis_servers import redis_server
from tests.redis_topologies import redis_cluster

from ._harness import Comparison, Operation
from ._redis_peers import TASKS, open_ours

TIMES = 40


@asynccontextmanager
async def _open_changes() -> AsyncIterator[dict[str, Operation]]:
    with redis_server() as server, redis_cluster() as cluster:
        async with open_ours(server.url) as one, open_ours(cluster.url) as three:
            yield {
                "one server": partial(one.change_all, TIMES),
                "a cluster of three": partial(three.change_all, TIMES),
            }


COMPARISONS = (Comparison(name=f"Redis Cluster: {TIMES * TASKS} changes by {TASKS} tasks", open=_open_changes),)
