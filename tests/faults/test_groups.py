"""Faults 3 to 8, 11, 12 and 16 where servers are several: what one of them can stand, Sentinels and a cluster can."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Group, ask, redis_cluster, replicated_redis

from ._failovers import elected
from ._harness import PREFIX, Crew, amount, crew, frozen

Open = Callable[..., AbstractContextManager[Group]]
Fault = Callable[[Group, Crew], Awaitable[None]]

SITES: dict[str, Open] = {"sentinel": replicated_redis, "cluster": redis_cluster}
LEASE = 3.0  # seconds


def owner(site: Group, team: Crew) -> RedisServer:
    """The primary that has the first session."""
    return site.owner(team.sessions[0][1][:2])


def everywhere(site: Group, *command: str | int) -> None:
    for server in site.servers:
        ask(server, *command)


async def stops_for_a_moment(site: Group, team: Crew) -> None:
    """Nobody notices, so nobody elects another one."""
    with frozen(owner(site, team)):
        await trio.sleep(0.2)


async def stops_for_long(site: Group, team: Crew) -> None:
    """It is replaced, and takes itself for the primary when it goes on."""
    primary = owner(site, team)
    heirs = site.replicas_of(primary)
    with frozen(primary):
        await elected(site, heirs)
        await team.progress(10, within=20)
    await trio.to_thread.run_sync(site.settle)


async def dies_and_is_back(site: Group, team: Crew) -> None:
    """Before anybody has noticed: it has everything that it has acknowledged."""
    primary = owner(site, team)
    await trio.to_thread.run_sync(primary.restart)
    await trio.to_thread.run_sync(site.settle)
    team.may_lose = owner(site, team) is not primary  # the machine was busy


async def hangs_up(site: Group, team: Crew) -> None:
    """On everybody, again and again."""
    for _ in range(amount(5, 20)):
        for kind in ("normal", "pubsub"):
            everywhere(site, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await trio.sleep(0.1)


async def forgets_scripts(site: Group, team: Crew) -> None:
    until = trio.current_time() + amount(1.0, 3.0)
    while trio.current_time() < until:
        everywhere(site, "SCRIPT", "FLUSH")
        await trio.sleep(0.01)


async def pauses(site: Group, team: Crew) -> None:
    """Writes wait."""
    ask(owner(site, team), "CLIENT", "PAUSE", 700, "WRITE")
    await trio.sleep(0.7)


async def has_no_memory_left(site: Group, team: Crew) -> None:
    """It refuses to write, until it has some."""
    everywhere(site, "CONFIG", "SET", "maxmemory", 1)
    await trio.sleep(2.5)
    everywhere(site, "CONFIG", "SET", "maxmemory", 0)


async def changes_the_password(site: Group, team: Crew) -> None:
    """And, after a while, takes the old one again."""
    everywhere(site, "ACL", "SETUSER", "app", "resetpass", ">new")
    for kind in ("normal", "pubsub"):
        everywhere(site, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await trio.sleep(2.5)
    everywhere(site, "ACL", "SETUSER", "app", "resetpass", ">old")


async def ends_leases(site: Group, team: Crew) -> None:
    """As if its clock had jumped."""
    for _ in range(amount(5, 20)):
        with site.client() as client:
            for key in client.scan_iter(f"{PREFIX}:*:l"):
                client.pexpire(key, 1)
        await trio.sleep(0.05)


async def a_process_stops(site: Group, team: Crew) -> None:
    """For longer than its leases last."""
    worker = team.alive[0]
    worker.freeze()
    await trio.sleep(1.6 * LEASE)
    worker.thaw()


async def a_process_dies(site: Group, team: Crew) -> None:
    team.alive[0].kill()
    newcomer = team.hire()
    await newcomer.ready()
    newcomer.begin()


#: And what workers may be told, but for "ok".
FAULTS: dict[Fault, set[str]] = {
    stops_for_a_moment: set(),
    stops_for_long: {"lost", "unknown", "unavailable"},
    dies_and_is_back: {"lost", "unknown", "unavailable"},
    hangs_up: {"lost", "unknown", "unavailable"},
    forgets_scripts: set(),
    pauses: set(),
    has_no_memory_left: {"lost", "unavailable"},
    changes_the_password: {"lost", "unknown", "unavailable"},
    ends_leases: {"lost"},
    a_process_stops: {"lost", "timeout"},
    a_process_dies: {"killed"},
}


@contextmanager
def with_a_user(open_site: Open) -> Iterator[tuple[Group, str]]:
    """Servers that write down what they acknowledge, and the URL with which a user of theirs, `app`, finds them."""
    options: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always", "user": "app on >old ~* &* +@all"}
    with open_site(**options) as site:
        yield site, site.url.replace("://", "://app:old@", 1)


@pytest.mark.parametrize("kind", SITES)
async def test_what_one_server_can_stand(kind: str) -> None:
    """After each of these no change is lost or made twice, no call was late, nothing is left, and all goes on."""
    with with_a_user(SITES[kind]) as (site, url):
        for fault, outcomes in FAULTS.items():
            print(f"{kind}: {fault.__name__.replace('_', ' ')}")  # noqa: T201
            async with crew(site, url=url, processes=2, tasks=4, sessions=4, lease=LEASE) as team:
                team.may_lose = fault is stops_for_long
                await team.progress(20, within=20)
                await fault(site, team)
                await team.progress(20, within=20)
                attempts = await team.finish()
            assert {attempt.outcome for attempt in attempts} <= outcomes | {"ok"}
