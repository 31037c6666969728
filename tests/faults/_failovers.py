"""Primaries that are lost under load, one after the other, and how soon sessions go on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from statistics import median

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Group

from ._harness import Crew

__all__ = ["SOON", "elected", "killed", "lose_primaries"]

#: Sessions go on so soon after an election.
SOON = 2.0  # seconds


async def lose_primaries(
    site: Group, team: Crew, times: int, lose: Callable[[Group, RedisServer], AbstractAsyncContextManager[None]]
) -> None:
    """Lose a primary so often; then check the invariants, print the figures, and judge them.

    Args:
        site: whose primaries.
        team: counts meanwhile.
        times: how often.
        lose: a primary is lost for the length of this block; after it, all is as before.
    """
    team.may_lose = True
    recoveries: list[float] = []
    for number in range(times):
        await team.progress(50, within=30)
        primary = site.owner(team.sessions[number % len(team.sessions)][1][:2])
        heirs = site.replicas_of(primary)
        orphans = {name for name, id in team.sessions if site.owner(id[:2]) is primary}
        async with lose(site, primary):
            recoveries.append(await recovery(site, team, orphans, heirs))
    attempts = await team.finish()
    acknowledged = sum(attempt.outcome == "ok" for attempt in attempts)
    print(  # noqa: T201
        f"sessions went on {min(recoveries):.2f} … {max(recoveries):.2f} s after each of {times} elections, "
        f"{median(recoveries):.2f} s in the middle; {len(team.lost)} of {acknowledged} acknowledged commits were lost"
    )
    assert max(recoveries) <= SOON, recoveries


async def recovery(site: Group, team: Crew, orphans: Collection[str], heirs: Sequence[RedisServer]) -> float:
    """How long after the election of a new primary its sessions are changed again, but for time the workers lacked.

    Sentinels may think better of it, and elect another one: then the last election counts.
    """
    since = await elected(site, heirs)
    elections = dict.fromkeys(site.elected(heirs), since)

    async def watch() -> None:
        while True:
            looked_at = time.monotonic()
            for server in await trio.to_thread.run_sync(site.elected, heirs):
                elections.setdefault(server, looked_at)
            await trio.sleep(0.1)  # proxies may be in this process, and have more to do

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        changed_at = await team.changed_at(orphans, since=since)
        nursery.cancel_scope.cancel()
    last = max(elected_at for elected_at in elections.values() if elected_at < changed_at)
    return changed_at - last - team.paused(last, changed_at)


async def elected(site: Group, heirs: Sequence[RedisServer]) -> float:
    """Wait until one of them is known to be the primary; since when it is, in monotonic time."""
    with trio.fail_after(30):
        while True:
            looked_at = time.monotonic()
            if await trio.to_thread.run_sync(site.elected, heirs):
                return looked_at
            await trio.sleep(0.02)


@asynccontextmanager
async def killed(site: Group, primary: RedisServer) -> AsyncIterator[None]:
    """A primary is dead for the length of a block."""
    primary.kill()
    yield
    await trio.to_thread.run_sync(site.revive, primary)
