"""What it costs to wait until a replica has a change: alone, and when fifty tasks ask together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.redis_servers import redis_server
from tests.redis_topologies import ask, role, wait

from ._harness import Comparison, Operation
from ._redis_peers import TASKS, Ours, open_ours

TIMES = 40


@asynccontextmanager
async def _open_both() -> AsyncIterator[tuple[Ours, Ours]]:
    """On a primary with one replica: without `durability`, and with it."""
    with redis_server() as primary, redis_server(repl_diskless_sync_delay=0) as replica:
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        wait(lambda: role(replica)[3:4] == [b"connected"])
        async with open_ours(primary.url) as plain, open_ours(primary.url, durability="replicas:1") as confirmed:
            yield plain, confirmed


@asynccontextmanager
async def _open_changes_of_all() -> AsyncIterator[dict[str, Operation]]:
    async with _open_both() as (plain, confirmed):
        yield {
            "the primary's word": partial(plain.change_all, TIMES),
            "replicas:1": partial(confirmed.change_all, TIMES),
        }


@asynccontextmanager
async def _open_changes_of_one() -> AsyncIterator[dict[str, Operation]]:
    async with _open_both() as (plain, confirmed):
        yield {"the primary's word": plain.change_one, "replicas:1": confirmed.change_one}


COMPARISONS = (
    Comparison(name="Redis, replicas: a change alone", open=_open_changes_of_one),
    Comparison(name=f"Redis, replicas: {TIMES * TASKS} changes by {TASKS} tasks", open=_open_changes_of_all),
)
