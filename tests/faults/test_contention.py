"""Faults 1 and 18: nothing but very many at once."""

from __future__ import annotations

import trio

from tests.redis_servers import redis_server

from ._harness import amount, crew


async def test_many_processes_one_session() -> None:
    """However many tabs of one visitor are open, on however many processes, no click is lost and none counts twice."""
    with redis_server() as server:
        async with crew(server, processes=amount(3, 8), tasks=25) as team:
            await trio.sleep(amount(1.0, 60.0))
        assert all(worker.history().attempts for worker in team.workers)


async def test_many_sessions() -> None:
    """Visitors do not get in each other's way."""
    with redis_server() as server:
        async with crew(server, processes=amount(2, 4), tasks=250, sessions=amount(100, 250), step=7):
            await trio.sleep(amount(0.8, 60.0))


async def test_large_sessions_and_busy_processes() -> None:
    """A process that has no time to read its answers for a while is not cut off, and loses none of them."""
    with redis_server() as server:
        async with crew(
            server,
            processes=2,
            tasks=50,
            sessions=50,
            size=200_000,
            lease=10.0,
            lock_timeout=20.0,
            commit_timeout=20.0,  # it is themselves who are late
            trouble=2.5,
            trouble_every=amount(150, 100),
        ) as team:
            await trio.sleep(amount(0.5, 30.0))
            attempts = await team.finish()
        assert {attempt.outcome for attempt in attempts} == {"ok"}
