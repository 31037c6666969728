"""Faults 7, 8 and 9: processes that stop, die, or are busy with something else."""

from __future__ import annotations

import trio

from tests.redis_servers import redis_server

from ._harness import amount, crew, eventually, keys_left, make_sessions, manager_on
from ._records import Attempt

LEASE = 1.0  # seconds


async def test_a_process_stops_while_it_holds_the_lock() -> None:
    """A virtual machine that was suspended in mid-request cannot overwrite what others did meanwhile, who went on."""
    with redis_server() as server:
        async with crew(server, processes=1, tasks=3, lease=LEASE, hold=0.005, begin=False) as team:
            sleeper = team.hire(trouble_every=30)
            await sleeper.ready()
            for worker in team.workers:
                worker.begin()
            rounds = amount(1, 20)
            for _ in range(rounds):
                await sleeper.stopped()
                stopped_at = trio.current_time()
                await trio.sleep(LEASE)
                print(f"others went on {LEASE + await team.progress():.2f} s after it had stopped")  # noqa: T201
                await trio.sleep_until(stopped_at + 1.6 * LEASE)
                sleeper.thaw()
            await eventually(lambda: _lost(sleeper.history().attempts) >= rounds)
            sleeper.kill()  # it would stop again and again


async def test_a_process_dies_while_it_holds_the_lock() -> None:
    """A process that was killed in mid-request keeps the others waiting for no longer than its lease."""
    with redis_server() as server:
        async with crew(server, processes=2, tasks=3, lease=LEASE, hold=0.005) as team:
            rounds = amount(1, 50)
            for number in range(rounds):
                await team.progress(10)
                with trio.fail_after(10):
                    while (holder := team.holder()) is None:
                        await trio.sleep(0.001)
                holder.kill()
                print(f"others went on after {await team.progress():.2f} s")  # noqa: T201
                if number < rounds - 1:
                    newcomer = team.hire()
                    await newcomer.ready()
                    newcomer.begin()


async def test_a_process_dies_while_it_waits() -> None:
    """A process that was killed while it waited is skipped at once."""
    with redis_server() as server:
        async with crew(server, processes=1, tasks=2, lease=30.0, hold=0.01) as team:
            for _ in range(amount(1, 50)):
                waiter = team.hire()
                await waiter.ready()
                waiter.begin()
                await team.progress(3)
                while True:
                    await eventually(lambda waiter=waiter: team.waits(waiter))  # type: ignore[misc]
                    waiter.freeze()
                    if team.waits(waiter):
                        break
                    waiter.thaw()  # its turn came first
                waiter.kill()
                print(f"others went on after {await team.progress():.2f} s")  # noqa: T201


async def test_dead_processes_in_the_queue() -> None:
    """However many processes have died in the queue, whoever is behind them gets the lock at once."""
    dead = 10
    with redis_server() as server, server.client() as client:
        async with manager_on(server, lock_lease=60.0) as mine, manager_on(server, lock_lease=60.0) as other:
            ((_, id),) = await make_sessions(mine, 1)
            async with trio.open_nursery() as nursery:
                async with mine.session(id).locked():
                    (lock,) = keys_left(server)
                    for number in range(dead):
                        client.rpush(lock.removesuffix("l") + "q", f"{number:016x}{number:024x}")
                    nursery.start_soon(other.session(id).increment, "count")
                    await eventually(lambda: client.llen(lock.removesuffix("l") + "q") == dead + 1)
                given_at = trio.current_time()
            # Were the lock offered to each of them, that would take `dead` seconds.
            assert trio.current_time() - given_at < dead / 2


async def test_a_body_blocks_its_process() -> None:
    """A handler that blocks its process for longer than the lease loses its change; nobody else's is touched."""
    with redis_server() as server:
        async with crew(server, processes=1, tasks=4, lease=LEASE, begin=False) as team:
            blocked = team.hire(trouble_every=20, trouble=LEASE * 1.5)
            await blocked.ready()
            for worker in team.workers:
                worker.begin()
            await eventually(lambda: _lost(blocked.history().attempts) >= amount(1, 10), within=amount(20, 200))
        lost = [attempt for attempt in blocked.history().attempts if attempt.outcome == "lost"]
        long = [attempt for attempt in lost if attempt.done is not None and attempt.done - attempt.asked > LEASE]
        assert long == lost, "others have lost their locks, too"


def _lost(attempts: list[Attempt]) -> int:
    return sum(attempt.outcome == "lost" for attempt in attempts)
