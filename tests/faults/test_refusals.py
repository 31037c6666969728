"""Faults 12, 13 and 16: servers that are there, and refuse."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
import redis
import trio
from redis.exceptions import ReadOnlyError

from tests.redis_servers import RedisServer, binaries, redis_server
from trio_session import LockLostError, SessionEndedError, SessionManager, StorageUnavailableError
from trio_session.redis import RedisStore

from ._harness import MARGIN, amount, eventually, keys_left, make_sessions, manager_on


@contextmanager
def short_of_memory(client: redis.Redis) -> Iterator[None]:
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def without_replica(client: redis.Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextmanager
def broken_disk(client: redis.Redis) -> Iterator[None]:
    """It cannot save: where its file should be, there is a directory."""
    obstacle = Path(str(client.config_get("dir")["dir"])) / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    client.config_set("save", "3600 1")
    _save(client, "err")
    yield
    obstacle.rmdir()
    _save(client, "ok")


def _save(client: redis.Redis, outcome: str) -> None:
    client.bgsave()
    until = time.monotonic() + 10
    while client.info("persistence")["rdb_last_bgsave_status"] != outcome:
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def replica_of_nobody(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", 1)
    yield
    client.replicaof("NO", "ONE")


REFUSALS = {
    "OOM": short_of_memory,
    "NOREPLICAS": without_replica,
    "MISCONF": broken_disk,
    "READONLY": replica_of_nobody,
}


async def test_the_server_refuses_to_write() -> None:
    """A change the server refuses is a 503, not a loss; and as soon as it accepts again, all goes on."""
    async with trio.open_nursery() as nursery:  # most of the time they wait
        for binary in binaries().values():  # which word their refusals differently
            for word in REFUSALS:
                nursery.start_soon(refuse_to_write, word, binary)


async def refuse_to_write(word: str, binary: Path) -> None:
    with redis_server(binary) as server, server.client() as client:
        async with manager_on(server, lock_lease=3.0) as manager:
            (_, id), (_, neighbour) = await make_sessions(manager, 2)
            with ExitStack() as stack:
                asked_at = trio.current_time()
                with pytest.raises(StorageUnavailableError) as caught:
                    async with manager.session(id).locked() as data:
                        data["ballast"] = "x" * 500_000
                        stack.enter_context(REFUSALS[word](client))
                assert trio.current_time() - asked_at < 2 + MARGIN
                assert word in str(caught.value) or isinstance(caught.value.__cause__, ReadOnlyError)
            recovered_at = trio.current_time()
            await increment_soon(manager, neighbour)
            print(f"{word}: changes again after {trio.current_time() - recovered_at:.2f} s")  # noqa: T201
            session = await manager.session(id).read()
            assert session["count"] == 0
            assert "ballast" not in session
            if amount(short=False, full=True):  # a lock that could not be given back lasts as long as its lease
                await increment_soon(manager, id)
                await nothing_left(manager, server)


async def increment_soon(manager: SessionManager, id: str) -> None:
    """For as long as the server is known to be away, callers are told so at once."""
    with trio.fail_after(2 + MARGIN):
        while True:
            with suppress(StorageUnavailableError):
                await manager.session(id).increment("count")
                return
            await trio.sleep(0.02)


async def test_a_short_refusal_is_waited_for() -> None:
    """If the server accepts again within a second, nobody sees an error."""
    async with trio.open_nursery() as nursery:
        for word in REFUSALS:
            nursery.start_soon(refuse_for_a_moment, word)


async def refuse_for_a_moment(word: str) -> None:
    with redis_server() as server, server.client() as client, ExitStack() as stack:
        async with manager_on(server, lock_lease=6.0) as manager, trio.open_nursery() as nursery:
            ((_, id),) = await make_sessions(manager, 1)

            async def accept_again() -> None:
                await trio.sleep(0.3)
                stack.close()

            async with manager.session(id).locked() as data:
                data["count"] = 1
                data["ballast"] = "x" * 100_000
                stack.enter_context(REFUSALS[word](client))
                nursery.start_soon(accept_again)
            assert (await manager.session(id).read())["count"] == 1


async def test_the_server_drops_records() -> None:
    """A session that the server dropped to save memory is refused its commit, and does not come back to life."""
    with redis_server() as server, server.client() as client:
        async with manager_on(server, lock_lease=6.0) as manager:
            ((_, id),) = await make_sessions(manager, 1)
            with pytest.raises(SessionEndedError) as caught:
                async with manager.session(id).locked() as data:
                    data["count"] = 1
                    client.delete(*[key for key in client.scan_iter("faults:*") if not bytes(key).endswith(b":l")])
            assert caught.value.reason == "expired"
            session = manager.session(id)
            assert (await session.read()).is_empty
            assert session.id is None


async def test_the_server_evicts_whatever_it_likes() -> None:
    """With an eviction policy records and locks vanish at any time: what was acknowledged is there, or nothing."""
    with redis_server(maxmemory_policy="volatile-lru", hz=100) as server, server.client() as client:
        async with manager_on(server, lock_lease=2.0) as manager:
            made = await make_sessions(manager, 20)
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used + 1_000_000)
            gone = 0

            async def keep_counting(id: str) -> None:
                nonlocal gone
                count = 0
                for _ in range(amount(20, 200)):
                    try:
                        async with manager.session(id).locked() as data:
                            if not data:
                                gone += 1
                                return
                            assert data["count"] == count
                            data["count"] = count + 1
                            data["ballast"] = "x" * 100_000
                        count += 1
                    except (LockLostError, SessionEndedError):
                        gone += 1
                    except StorageUnavailableError:
                        pass

            async with trio.open_nursery() as nursery:
                for _, id in made:
                    nursery.start_soon(keep_counting, id)
            assert gone > 0, "nothing was evicted"
            client.config_set("maxmemory", 0)
            await nothing_left(manager, server)


async def nothing_left(manager: SessionManager, server: RedisServer) -> None:
    statistics = manager.statistics()
    assert (statistics.locks_held, statistics.tasks_waiting) == (0, 0)
    await eventually(lambda: not keys_left(server))


# -- log-in and rights ------------------------------------------------------------------------------------------------


async def test_a_wrong_password() -> None:
    """A program that starts with a wrong password says so at once."""
    with redis_server() as server, server.client() as client:
        client.config_set("requirepass", "right")
        began = trio.current_time()
        with pytest.raises(StorageUnavailableError, match="WRONGPASS") as caught:
            async with manager_on(server, url=server.url.replace("//", "//:wrong@")):
                pass
        assert trio.current_time() - began < MARGIN
        assert "wrong@" not in str(caught.value)


async def test_the_password_is_changed(caplog: pytest.LogCaptureFixture) -> None:
    """A password that is changed under a running program costs requests; changed back, all goes on."""
    with redis_server() as server, server.client() as client:
        client.config_set("requirepass", "old")
        async with manager_on(server, url=server.url.replace("//", "//:old@")) as manager:
            ((_, id),) = await make_sessions(manager, 1)
            client.config_set("requirepass", "new")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            before = int(client.info("stats")["total_connections_received"])
            began = trio.current_time()
            with pytest.raises(StorageUnavailableError, match="WRONGPASS"):
                await manager.session(id).read()
            assert trio.current_time() - began < 2 + MARGIN
            seconds = amount(2, 10)
            await trio.sleep_until(began + seconds)
            connects = int(client.info("stats")["total_connections_received"]) - before
            print(f"{connects} connections in {seconds} s")  # noqa: T201
            # Two connections, each tried a few times quickly and then at most once per second.
            assert connects <= 2 * (6 + seconds)
            complaints = [record for record in caplog.records if "no connection" in record.getMessage()]
            assert len(complaints) <= 4, "each connection complains once that it was lost, and once that it is refused"
            assert not [record for record in caplog.records if "old" in record.getMessage()]
            client.config_set("requirepass", "old")
            began = trio.current_time()
            link = cast("RedisStore", manager._engine.store)._topology.nodes[0].link
            await eventually(lambda: "up" in repr(link))
            print(f"back after {trio.current_time() - began:.2f} s")  # noqa: T201
            await manager.session(id).put("count", 1)


def add_user(server: RedisServer, *rules: str) -> str:
    """A user of the server; returns the URL with which it logs in."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "resetchannels", *rules)
    return server.url.replace("//", "//app:secret@")


async def test_no_right_to_subscribe(caplog: pytest.LogCaptureFixture) -> None:
    """Where wake-ups are not allowed, waiting means asking again and again; sessions work, and there is one warning."""
    with redis_server() as server:
        url = add_user(server, "~faults:*", "+@all", "&faults:nobody")
        async with manager_on(server, url) as one, manager_on(server, url) as two:
            ((_, id),) = await make_sessions(one, 1)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for manager in (one, two) * 10:
                    nursery.start_soon(manager.session(id).increment, "count")
            print(f"20 changes by two processes took {trio.current_time() - began:.2f} s")  # noqa: T201
            assert (await one.session(id).read())["count"] == 20
            await nothing_left(one, server)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) <= 2, "one per process"


async def test_no_right_to_run_scripts() -> None:
    """Where scripts are not allowed, the error says so."""
    with redis_server() as server:
        url = add_user(server, "~faults:*", "&faults:*", "+@all", "-evalsha", "-eval")
        async with manager_on(server, url) as manager:
            with pytest.raises(StorageUnavailableError, match=r"(?i)noperm"):
                await manager.session().put("count", 1)
            assert manager.statistics().locks_held == 0
