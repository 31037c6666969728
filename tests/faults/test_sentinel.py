"""Fault 14: a primary dies, or is cut off, and Sentinels put a replica in its place; again and again, under load."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Replicated, replicated_redis

from ._harness import MARGIN, Crew, amount, crew, eventually
from ._proxy import Proxy, open_proxy

#: Sessions go on so soon after an election.
SOON = 2.0  # seconds


async def test_the_primary_dies() -> None:
    """Versions on the survivor form one chain, no call hangs, and work goes on soon after each election."""
    with replicated_redis() as site:
        async with crew(site, processes=2, tasks=5, sessions=4) as team:
            team.may_lose = True
            recoveries: list[float] = []
            for _ in range(amount(1, 10)):
                await team.progress(50, within=30)
                primary = site.primary()
                primary.kill()
                recoveries.append(await recovery(site, team, primary))
                await eventually(lambda: site.primary() is not primary)  # noqa: B023
                primary.options["replicaof"] = f"127.0.0.1 {site.primary().port}"
                primary.start()
                await trio.to_thread.run_sync(site.settle)
            await finish(team, recoveries)


async def test_the_primary_is_cut_off() -> None:
    """The same, when nobody reaches it any more; until it comes back, and takes itself for the primary."""
    async with AsyncExitStack() as stack:
        site = stack.enter_context(replicated_redis(link=False))
        proxies = [await stack.enter_async_context(open_proxy(server.port)) for server in site.servers]
        for proxy in proxies:
            proxy.control_too = True
        await trio.to_thread.run_sync(site.link, [proxy.port for proxy in proxies])
        async with crew(site, processes=2, tasks=5, sessions=4) as team:
            team.may_lose = True
            recoveries: list[float] = []
            for _ in range(amount(1, 10)):
                await team.progress(50, within=30)
                primary = site.primary()
                proxy = proxies[site.servers.index(primary)]
                cut_off(proxy)
                recoveries.append(await recovery(site, team, primary))
                for way in proxy.flowing.values():
                    way.set()
                await trio.to_thread.run_sync(site.settle)
            await finish(team, recoveries)


def cut_off(proxy: Proxy) -> None:
    """Nothing gets through, and nobody is told."""
    proxy.flowing = {way: trio.Event() for way in proxy.flowing}


async def recovery(site: Replicated, team: Crew, primary: RedisServer) -> float:
    """How long after the election of another one sessions go on."""
    await eventually(lambda: site.has_elected(instead_of=primary), within=30)
    return await team.progress(within=20)


async def finish(team: Crew, recoveries: list[float]) -> None:
    team.slack = 10.0
    attempts = await team.finish()
    acknowledged = sum(attempt.outcome == "ok" for attempt in attempts)
    print(  # noqa: T201
        f"sessions went on {', '.join(f'{seconds:.2f}' for seconds in recoveries)} s after elections; "
        f"{len(team.lost)} of {acknowledged} acknowledged commits were lost"
    )
    assert max(recoveries) < SOON + MARGIN
