"""Faults 3, 5, 6 and 11: servers that die, pause, hang up or forget."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.redis_servers import RedisServer, redis_server

from ._harness import MARGIN, amount, crew, eventually, frozen, make_sessions, manager_on

Pause = Callable[[RedisServer], None]
DURABLE: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}


async def test_the_server_dies_in_mid_commit() -> None:
    """What was acknowledged is still there after the server has died and come back, and nothing is there twice."""
    with redis_server(**DURABLE) as server:
        async with crew(server, processes=2, tasks=5, sessions=2) as team:
            recoveries: list[float] = []
            for _ in range(amount(1, 50)):
                await team.progress(20)
                server.kill()
                await trio.sleep(0.2)
                server.start()
                recoveries.append(await team.progress())
            print(f"recovered after {', '.join(f'{seconds:.2f}' for seconds in recoveries)} s")  # noqa: T201


def pause_all(server: RedisServer) -> None:
    with server.client() as client:
        client.client_pause(700, all=True)
    time.sleep(0.7)


def pause_writes(server: RedisServer) -> None:
    with server.client() as client:
        client.client_pause(700, all=False)
    time.sleep(0.7)


def sleep(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("DEBUG", "SLEEP", "1")


def stop(server: RedisServer) -> None:
    with frozen(server):
        time.sleep(1.0)


def stop_for_long(server: RedisServer) -> None:
    """For longer than a server may be silent."""
    with frozen(server):
        time.sleep(2.5)


PAUSES: list[Pause] = [pause_writes, stop_for_long, pause_all, stop, sleep]


async def test_the_server_pauses() -> None:
    """A server that answers late, or after a while of silence, loses no change, and locks only if leases have ended."""
    async with trio.open_nursery() as nursery:  # most of the time they wait
        for pause in amount(PAUSES[:2], PAUSES):
            nursery.start_soon(count_while_it_pauses, pause)


async def count_while_it_pauses(pause: Pause) -> None:
    options: dict[str, Any] = {"enable_debug_command": "yes"} if pause is sleep else {}
    with redis_server(**options) as server:
        async with crew(server, processes=amount(1, 2), tasks=8, sessions=2, lease=5.0, lock_timeout=12.0) as team:
            for _ in range(amount(1, 20)):
                await team.progress(50)
                await trio.to_thread.run_sync(pause, server)
                print(f"{pause.__name__}: went on after {await team.progress():.2f} s")  # noqa: T201
            attempts = await team.finish()
        if pause is not stop_for_long:
            assert {attempt.outcome for attempt in attempts} == {"ok"}


async def test_connections_are_killed_all_the_time() -> None:
    """Connections that break again and again cost time, and no change."""
    async with trio.open_nursery() as nursery:
        for kind in ("normal", "pubsub"):
            nursery.start_soon(count_while_connections_die, kind)


async def count_while_connections_die(kind: str) -> None:
    with redis_server() as server:
        async with crew(server, processes=amount(1, 2), tasks=5, sessions=2) as team:
            killed = 0
            with server.client() as client:
                until = trio.current_time() + amount(1.2, 30.0)
                while trio.current_time() < until:
                    killed += client.client_kill_filter(_type=kind, skipme=True)
                    await trio.sleep(0.1)
            print(f"{kind}: {killed} connections were killed")  # noqa: T201
            assert killed > 0
            await team.progress(20)


async def test_scripts_are_forgotten_all_the_time() -> None:
    """A server that does not know our scripts, any more or after a restart, is told; nobody sees an error."""
    with redis_server(**DURABLE) as server:
        # Restarts one after the other make a pause each, of up to two seconds; the lease outlasts it.
        async with crew(server, processes=2, tasks=5, sessions=2, lease=6.0) as team:
            with server.client() as client:
                until = trio.current_time() + amount(1.0, 10.0)
                while trio.current_time() < until:
                    client.script_flush()
                    await trio.sleep(0.01)
            for _ in range(amount(1, 5)):
                before = team.acknowledged()
                server.restart()
                await eventually(lambda before=before: team.acknowledged() > before + 10)  # type: ignore[misc]
            attempts = await team.finish()
        assert {attempt.outcome for attempt in attempts} == {"ok"}


async def test_a_script_is_forgotten_before_a_lock_is_given_back() -> None:
    """A body that fails just after the server has forgotten our scripts still gives back its lock."""
    with redis_server() as server, server.client() as client:
        async with manager_on(server, lock_lease=30.0) as mine, manager_on(server, lock_lease=30.0) as other:
            ((_, id),) = await make_sessions(mine, 1)
            with pytest.raises(KeyError, match="on purpose"):
                async with mine.session(id).locked():
                    client.script_flush()
                    raise KeyError("on purpose")
            with trio.fail_after(MARGIN):
                await other.session(id).increment("count")
