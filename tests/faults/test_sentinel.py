"""Fault 14: a primary dies, or is cut off, and Sentinels put a replica in its place; again and again, under load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Group, replicated_redis

from ._failovers import elected, killed, lose_primaries
from ._harness import amount, crew
from ._proxy import open_proxy


async def test_the_primary_dies() -> None:
    """Versions on the survivor form one chain, no call is late, and work goes on soon after elections."""
    with replicated_redis() as site:
        async with crew(site, processes=2, tasks=5, sessions=4) as team:
            times = amount(1, 10)
            await lose_primaries(site, team, times, killed)
            print(f"{times} deaths, {site.elections()} elections")  # noqa: T201


async def test_the_primary_dies_and_replicas_have_confirmed() -> None:
    """With `durability="replicas:2"` and two replicas no acknowledged commit is lost, whichever of them is elected.

    While there is only one, nobody can confirm; commits are acknowledged again when the old primary is back.
    """
    with replicated_redis() as site:
        async with crew(site, processes=2, tasks=5, sessions=4, durability="replicas:2", commit_timeout=2.0) as team:
            team.may_lose = True
            for _ in range(amount(1, 10)):
                await team.progress(50, within=30)
                primary = site.primary()
                heirs = site.replicas_of(primary)
                async with killed(site, primary):
                    await elected(site, heirs)
            await team.progress(50, within=30)
            attempts = await team.finish()
            acknowledged = sum(attempt.outcome == "ok" for attempt in attempts)
            print(f"{len(team.lost)} of {acknowledged} commits that two replicas had confirmed were lost")  # noqa: T201
            assert team.lost == []


async def test_the_primary_is_cut_off() -> None:
    """The same, when nobody reaches it any more; until it comes back, and takes itself for the primary."""
    async with AsyncExitStack() as stack:
        site = stack.enter_context(replicated_redis(link=False))
        proxies = [await stack.enter_async_context(open_proxy(server.port)) for server in site.servers]
        for proxy in proxies:
            proxy.control_too = True
        await trio.to_thread.run_sync(site.link, [proxy.port for proxy in proxies])

        @asynccontextmanager
        async def cut_off(site: Group, primary: RedisServer) -> AsyncIterator[None]:
            proxy = proxies[site.servers.index(primary)]
            proxy.flowing = {way: trio.Event() for way in proxy.flowing}  # nothing gets through, and nobody is told
            yield
            for way in proxy.flowing.values():
                way.set()
            await trio.to_thread.run_sync(site.settle)

        async with crew(site, processes=2, tasks=5, sessions=4) as team:
            await lose_primaries(site, team, amount(1, 10), cut_off)
