"""Fault 14: the primary dies, or is cut off, and Sentinels put a replica in its place; again and again, under load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Replicated, ask, replicated_redis, role

from ._harness import amount, crew, eventually
from ._invariants import lost
from ._proxy import Proxy, open_proxy


async def test_the_primary_dies() -> None:
    """Versions on the survivor form one chain, no call hangs, and work goes on soon after the election."""
    with replicated_redis() as site:
        async with crew(site, processes=2, tasks=5, sessions=4, tolerates_loss=True) as team:
            recoveries: list[float] = []
            for _ in range(amount(1, 10)):
                await team.progress(50, within=20)
                primary = site.primary()
                primary.kill()
                recoveries.append(await recovery(site, team.progress))
                primary.options["replicaof"] = f"127.0.0.1 {site.primary().port}"
                primary.start()
                await trio.to_thread.run_sync(site.settle)
            team.slack = 10.0
            attempts = await team.finish()
    say(recoveries, len(lost(attempts, team.last)), sum(attempt.outcome == "ok" for attempt in attempts))
    assert max(recoveries) < 2.0 + team.margin
