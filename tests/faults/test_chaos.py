"""Fault 20: one fault after the other, at random. The short form of these tests leaves it out (see conftest)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import trio

from tests.redis_servers import RedisServer, redis_server

from ._harness import PREFIX, Crew, Worker, amount, crew, frozen


class Chaos:
    """Does one damage after the other, at random, and repairs it."""

    def __init__(self, team: Crew, server: RedisServer, random: Random) -> None:
        self._team = team
        self._server = server
        self._random = random

    def _somebody(self) -> Worker:
        return self._random.choice(self._team.alive)

    async def kill_the_server(self) -> None:
        self._server.kill()
        await trio.sleep(0.2)
        self._server.start()

    async def stop_the_server(self) -> None:
        with frozen(self._server):
            await trio.sleep(self._random.uniform(0.1, 3.0))

    async def stop_a_worker(self) -> None:
        worker = self._somebody()
        worker.freeze()
        await trio.sleep(self._random.uniform(0.1, 2.0))
        worker.thaw()

    async def kill_a_worker(self) -> None:
        self._somebody().kill()
        newcomer = self._team.hire()
        await newcomer.ready()
        newcomer.begin()

    async def cut_connections(self) -> None:
        with self._server.client() as client:
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def forget_scripts(self) -> None:
        with self._server.client() as client:
            client.script_flush()

    async def end_leases(self) -> None:
        with self._server.client() as client:
            for key in client.scan_iter(f"{PREFIX}:*:l"):
                client.pexpire(key, 1)

    async def pause_writes(self) -> None:
        with self._server.client() as client:
            client.client_pause(700, all=False)
        await trio.sleep(0.7)

    def all_kinds(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.kill_the_server,
            self.stop_the_server,
            self.stop_a_worker,
            self.kill_a_worker,
            self.cut_connections,
            self.forget_scripts,
            self.end_leases,
            self.pause_writes,
        ]


async def test_everything_goes_wrong() -> None:
    """Whatever happens one after the other, no change is lost and none is made twice."""
    number = amount(20, 2_000)
    options: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}
    random = Random()
    with redis_server(**options) as server:
        async with crew(server, processes=amount(2, 4), tasks=10, sessions=number, step=7, lock_timeout=10.0) as team:
            chaos = Chaos(team, server, random)
            until = trio.current_time() + amount(2, 60, 600)
            while trio.current_time() < until:
                damage = random.choice(chaos.all_kinds())
                print(f"{until - trio.current_time():.0f} s left: {damage.__name__}")  # noqa: T201
                await damage()
                await trio.sleep(random.uniform(0, amount(1, 3)))
            await team.progress(within=20)
            attempts = await team.finish()
        assert any(attempt.outcome == "ok" for attempt in attempts)
        assert not [attempt for attempt in attempts if attempt.outcome in {"ended", "gone"}]
