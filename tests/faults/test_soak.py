"""Many locks, held for long: what goes wrong only after a while."""

from __future__ import annotations

import gc
from pathlib import Path

import trio

from tests.redis_servers import redis_server

from ._harness import amount, make_sessions, manager_on


def memory_in_use() -> int:
    """Of this process, in bytes: what cannot be given back (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_many_locks_held_for_long() -> None:
    """However many sessions a process holds at once, it keeps all of them, and needs no more memory with time."""
    number, seconds = amount(500, 2_000, 10_000), amount(1.6, 30.0, 600.0)
    with redis_server() as server:
        async with manager_on(
            server, lock_lease=amount(1.5, 5.0), lock_hold_limit=3600.0, lock_timeout=60.0
        ) as manager:
            made = await make_sessions(manager, number)
            everybody_holds, done = trio.Event(), trio.Event()
            holding = 0

            async def hold(id: str) -> None:
                nonlocal holding
                async with manager.session(id).locked() as data:
                    holding += 1
                    if holding == number:
                        everybody_holds.set()
                    await done.wait()
                    data["count"] = 1

            async with trio.open_nursery() as nursery:
                for _, id in made:
                    nursery.start_soon(hold, id)
                await everybody_holds.wait()
                await trio.sleep(seconds * 0.25)  # until caches and free lists are full
                before = memory_in_use()
                await trio.sleep(seconds * 0.75)
                growth = memory_in_use() - before
                done.set()
            statistics = manager.statistics()
            print(f"{number} locks for {seconds:g} s: {growth / 1000:.0f} kB more")  # noqa: T201
            assert statistics.locks_lost == 0
            assert statistics.locks_held == 0
            assert growth < 1_000_000
            for _, id in made[:: max(1, number // 100)]:
                assert (await manager.session(id).read())["count"] == 1
