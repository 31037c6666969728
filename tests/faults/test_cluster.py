"""Fault 15: a slot moves back and forth, and primaries die, under load."""

from __future__ import annotations

import trio

from tests.redis_topologies import ask, redis_cluster
from trio_session.redis._slots import slot_of

from ._failovers import killed, lose_primaries
from ._harness import amount, crew


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


async def test_primaries_hand_over() -> None:
    """Nobody loses a change when a primary steps down in order, and all that anybody sees of it is a short wait."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=2, tasks=5, sessions=6, lease=5.0) as team:
            for number in range(amount(1, 10)):
                await team.progress(30)
                (replica,) = cluster.replicas_of(cluster.primaries()[number % 3])
                await trio.to_thread.run_sync(cluster.promote, replica)
                await team.progress(30)
            attempts = await team.finish()
        assert {attempt.outcome for attempt in attempts} == {"ok"}


async def test_primaries_die() -> None:
    """Versions on the survivors form one chain, no call is late, and work goes on soon after elections."""
    with redis_cluster() as cluster:
        async with crew(cluster, processes=2, tasks=6, sessions=6, lease=2.0) as team:
            await lose_primaries(cluster, team, amount(1, 10), killed)
