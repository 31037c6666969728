"""Faults 10 and 17: leases that end early, for whatever reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import trio

from tests.redis_servers import redis_server
from trio_session import LockLostError
from trio_session.redis import RedisStore

from ._harness import MARGIN, PREFIX, amount, crew, keys_left, make_sessions, manager_on


async def test_nobody_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that cannot be renewed ends its body in time, before somebody else can have it."""

    async def never(self: RedisStore, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool]:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(RedisStore, "renew", never)
    with redis_server() as server:
        async with manager_on(server) as mine, manager_on(server) as other, trio.open_nursery() as nursery:
            ((_, id),) = await make_sessions(other, 1)
            ended_at, began_at = 0.0, 0.0

            async def hold(*, task_status: trio.TaskStatus[None]) -> None:
                nonlocal ended_at
                with pytest.raises(LockLostError) as caught:
                    async with mine.session(id).locked() as data:
                        task_status.started()
                        data["count"] = 100
                        try:
                            await trio.sleep_forever()
                        finally:
                            ended_at = trio.current_time()
                assert caught.value.reason == "lease_expired"

            await nursery.start(hold)
            with trio.fail_after(1 + MARGIN):
                async with other.session(id).locked() as data:
                    began_at = trio.current_time()
                    assert data["count"] == 0
            assert 0 < ended_at < began_at


async def test_locks_expire_at_any_time() -> None:
    """Should the server's clock jump, locks end early: their bodies fail, and no change is lost or made twice."""
    with redis_server() as server:
        async with crew(server, processes=2, tasks=4, sessions=2, hold=0.005) as team:
            with server.client() as client:
                until = trio.current_time() + amount(1.0, 30.0)
                while trio.current_time() < until:
                    for key in client.scan_iter(f"{PREFIX}:*:l"):
                        client.pexpire(key, 1)
                    await trio.sleep(0.02)
            attempts = await team.finish()
        outcomes = Counter(attempt.outcome for attempt in attempts)
        assert outcomes["lost"] > 0
        assert outcomes.keys() == {"ok", "lost"}


async def test_a_lock_is_taken_away() -> None:
    """A body whose lock is gone, for whatever reason, hears of it at the next renewal and not only at its end."""
    with redis_server() as server, server.client() as client:
        async with manager_on(server) as manager:
            ((_, id),) = await make_sessions(manager, 1)
            with trio.fail_after(1 + MARGIN), pytest.raises(LockLostError):
                async with manager.session(id).locked() as data:
                    data["count"] = 100
                    (lock,) = keys_left(server)
                    client.delete(lock)
                    await trio.sleep_forever()
            assert (await manager.session(id).read())["count"] == 0
