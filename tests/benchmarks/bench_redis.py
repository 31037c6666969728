"""The Redis driver beside redis-py: 50 tasks, each with a session of its own. One operation is a round of all tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.redis_servers import redis_server

from ._harness import Comparison, Operation
from ._redis_peers import TASKS, open_ours, opened_theirs

TIMES = 40


@asynccontextmanager
async def _open_changes() -> AsyncIterator[dict[str, Operation]]:
    with redis_server() as server, opened_theirs(server.url) as theirs:
        async with open_ours(server.url) as ours:
            yield {
                "redis-py asyncio: Lock, GET, SET": partial(theirs.change_all, TIMES),
                "locked()": partial(ours.change_all, TIMES),
            }


@asynccontextmanager
async def _open_reads() -> AsyncIterator[dict[str, Operation]]:
    with redis_server() as server, opened_theirs(server.url) as theirs:
        async with open_ours(server.url) as ours:
            yield {
                "redis-py asyncio: GET": partial(theirs.read_all, TIMES),
                "read()": partial(ours.read_all, TIMES),
            }


COMPARISONS = (
    Comparison(name=f"Redis: {TIMES * TASKS} changes by {TASKS} tasks of {TASKS} sessions", open=_open_changes),
    Comparison(name=f"Redis: {TIMES * TASKS} reads by {TASKS} tasks of {TASKS} sessions", open=_open_reads),
)
