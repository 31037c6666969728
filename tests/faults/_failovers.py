"""Primaries that are lost under load, one after the other, and how soon sessions go on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from statistics import median

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Group, role

from ._harness import Crew

__all__ = ["SOON", "killed", "lose_primaries"]

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
            recoveries.append(await team.recovery(await elected_at(heirs), orphans))
    attempts = await team.finish()
    acknowledged = sum(attempt.outcome == "ok" for attempt in attempts)
    print(  # noqa: T201
        f"sessions went on {min(recoveries):.2f} … {max(recoveries):.2f} s after each of {times} elections, "
        f"{median(recoveries):.2f} s in the middle; {len(team.lost)} of {acknowledged} acknowledged commits were lost"
    )
    assert max(recoveries) <= SOON, recoveries


async def elected_at(candidates: Sequence[RedisServer]) -> float:
    """Wait until one of them is a primary; the monotonic time at which that was seen first."""
    with trio.fail_after(30):
        while True:
            looked_at = time.monotonic()
            if any(role(server)[0] == "master" for server in candidates):
                return looked_at
            await trio.sleep(0.01)


@asynccontextmanager
async def killed(site: Group, primary: RedisServer) -> AsyncIterator[None]:
    """A primary is dead for the length of a block."""
    primary.kill()
    yield
    await trio.to_thread.run_sync(site.revive, primary)
