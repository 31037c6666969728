"""Networks that are slow, tear data to pieces, or swallow it without a word."""

from __future__ import annotations

from typing import cast

import pytest
import trio

from tests.redis_servers import redis_server
from trio_session.redis import RedisStore, _address, _supervisor

from ._harness import MARGIN, amount, eventually, make_sessions, manager_on
from ._proxy import open_proxy

SILENCE = 2.0  # seconds after which a server that owes an answer is taken for dead


async def test_one_byte_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pieces are in which data arrive, they mean the same."""
    monkeypatch.setattr(_address, "CONNECT_TIMEOUT", 20.0)  # the scripts alone are thousands of pieces
    monkeypatch.setattr(_supervisor, "PATIENCE", 20.0)
    with redis_server() as server:
        async with open_proxy(server.port) as proxy:
            proxy.piece, proxy.control_too = 1, True
            async with manager_on(server, proxy.url) as one, manager_on(server) as two:
                ((_, id),) = await make_sessions(one, 1)
                async with trio.open_nursery() as nursery:
                    for manager in (one, two) * amount(2, 50):
                        nursery.start_soon(manager.session(id).increment, "count")
                assert (await one.session(id).read())["count"] == amount(4, 100)


async def test_data_vanish() -> None:
    """A change whose request, or whose answer, is swallowed without a word is made all the same, and once."""
    async with trio.open_nursery() as nursery:  # most of the time they wait
        for direction in ("up", "down"):
            nursery.start_soon(change_while_data_vanish, direction)


async def change_while_data_vanish(direction: str) -> None:
    with redis_server() as server:
        async with open_proxy(server.port) as proxy, manager_on(server, proxy.url, lock_lease=20.0) as manager:
            ((_, id),) = await make_sessions(manager, 1)
            async with trio.open_nursery() as nursery:
                async with manager.session(id).locked() as data:
                    data["count"] += 1
                    proxy.flowing[direction] = trio.Event()
                    nursery.start_soon(_let_flow, proxy.flowing[direction])
                    left_at = trio.current_time()
                assert trio.current_time() - left_at < SILENCE + 2.0 + MARGIN
            async with manager_on(server) as other:
                assert (await other.session(id).read())["count"] == 1
            assert proxy.connections > 2, "it has waited for an answer that will never come"


async def _let_flow(flowing: trio.Event) -> None:
    """Late enough for the connection to be taken for dead, early enough for the next one."""
    await trio.sleep(SILENCE + 0.5)
    flowing.set()


async def test_wake_ups_vanish() -> None:
    """Should wake-ups get lost, those who wait ask by themselves after a while."""
    with redis_server() as server:
        async with (
            open_proxy(server.port) as proxy,
            manager_on(server, lock_lease=30.0, lock_timeout=40.0) as other,
            manager_on(server, proxy.url, lock_lease=30.0, lock_timeout=40.0) as manager,
            trio.open_nursery() as nursery,
        ):
            ((_, id),) = await make_sessions(manager, 1)
            waiters = cast("RedisStore", manager._engine.store)._waiters
            async with other.session(id).locked():
                nursery.start_soon(manager.session(id).increment, "count")
                await eventually(lambda: len(waiters) == 1)
                proxy.deaf = True
            given_at = trio.current_time()
            await eventually(lambda: len(waiters) == 0, within=2.0 + MARGIN)
            print(f"asked by itself after {trio.current_time() - given_at:.2f} s")  # noqa: T201
