"""Fault 15: a slot moves back and forth, and primaries die, under load."""

from __future__ import annotations

import trio

from tests.redis_topologies import Cluster, ask, redis_cluster, role
from trio_session.redis._slots import slot_of

from ._harness import Crew, amount, crew, eventually


async def test_a_hot_slot_moves() -> None:
    """Whoever counts in a session whose slot moves back and forth loses nothing, and sees nothing of it."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=2, tasks=5, sessions=1, lease=5.0) as team:
            tag = team.sessions[0][1][:2]
            for _ in range(amount(3, 100)):
                await team.progress(10)
                source = cluster.owner(tag)
                target = next(server for server in cluster.primaries() if server is not source)
                await trio.to_thread.run_sync(cluster.move, slot_of(tag), source, target)
            await team.progress(10)
            attempts = await team.finish()
        assert {attempt.outcome for attempt in attempts} == {"ok"}


async def test_everyday_faults() -> None:
    """What one server can stand, a cluster can: contention, cancellations, a dead process, forgotten scripts."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=3, tasks=10, sessions=3, step=1, cancel_within=0.5) as team:
            for _ in range(amount(1, 10)):
                await team.progress(50)
                team.alive[0].kill()
                newcomer = team.hire()
                await newcomer.ready()
                newcomer.begin()
                for server in cluster.primaries():
                    ask(server, "SCRIPT", "FLUSH")
                    ask(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    ask(server, "CLIENT", "KILL", "TYPE", "pubsub")
            await team.progress(50)
            team.slack = 4.0


async def test_primaries_hand_over() -> None:
    """Nobody loses a change when a primary steps down in order, and all that anybody sees of it is a short wait."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=2, tasks=5, sessions=6, lease=5.0) as team:
            for number in range(amount(1, 10)):
                await team.progress(30)
                replica = cluster.replica_of(cluster.primaries()[number % 3])
                await trio.to_thread.run_sync(cluster.promote, replica)
                await team.progress(30)
            attempts = await team.finish()
        assert {attempt.outcome for attempt in attempts} == {"ok"}


async def test_primaries_die() -> None:
    """Versions on the survivors form one chain, and sessions on other nodes go on meanwhile."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=2, tasks=6, sessions=6, lease=2.0) as team:
            team.may_lose = True
            recoveries: list[float] = []
            for number in range(amount(1, 10)):
                await team.progress(30, within=20)
                recoveries.append(await lose(cluster, team, number))
            team.slack = 10.0
            attempts = await team.finish()
        acknowledged = sum(attempt.outcome == "ok" for attempt in attempts)
        print(  # noqa: T201
            f"sessions of dead primaries went on {', '.join(f'{seconds:.2f}' for seconds in recoveries)} s after their "
            f"replicas were elected; {len(team.lost)} of {acknowledged} acknowledged commits were lost"
        )


async def lose(cluster: Cluster, team: Crew, number: int) -> float:
    """Kill a primary that has sessions; how long they are away after its replica has taken over."""
    primary = cluster.owner(team.sessions[number % len(team.sessions)][1][:2])
    replica = cluster.replica_of(primary)
    mine = {name for name, id in team.sessions if cluster.owner(id[:2]) is primary}
    primary.kill()
    await eventually(lambda: role(replica)[0] == "master", within=30)
    elected = trio.current_time()
    before = sum(attempt.session in mine and attempt.outcome == "ok" for attempt in team.attempts())
    while sum(attempt.session in mine and attempt.outcome == "ok" for attempt in team.attempts()) <= before:
        await trio.sleep(0.05)
    took = trio.current_time() - elected
    primary.start()
    await trio.to_thread.run_sync(cluster.settle)
    return took
