"""RedisStore on real servers: the promises of every store, and what of it can be seen in Redis."""

from __future__ import annotations

import logging
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_session import (
    RedisConnection,
    SessionConfig,
    SessionDataError,
    SessionEndedError,
    SessionManager,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session.abc import Lifetime
from trio_session.redis import RedisStore, open_redis_store

from .promises import check_redis_store
from .redis_servers import RedisServer, binaries, redis_server

LIFE = Lifetime(idle=100.0)
KEY = "ab:" + "c" * 20
NEW_KEY = "ab:" + "d" * 20
RECORD = "trio_session:{ab}:" + "c" * 20
NEW_RECORD = "trio_session:{ab}:" + "d" * 20
LEASE = 1.0  # seconds


def config(server: RedisServer, **settings: object) -> SessionConfig:
    connection = RedisConnection(url=server.url)
    return SessionConfig(driver="redis", redis={"default": connection}, **settings)  # type: ignore[arg-type]


NUMBERS = count(1)


def token_of(store: RedisStore) -> str:
    """As the tasks of one process make them: its name, and a number."""
    return f"{store._name}{next(NUMBERS):08x}"


async def put(store: RedisStore, key: str = KEY, blob: bytes = b"x", *, life: Lifetime = LIFE) -> bytes:
    token = token_of(store)
    loaded = await store.acquire(key, token, lease=LEASE, life=life)
    return await store.commit(key, token, version=loaded.version, blob=blob, life=life)


# -- promises ---------------------------------------------------------------------------------------------------------


async def test_it_keeps_every_promise_of_the_protocol() -> None:
    """The whole conformance suite, on all servers of this machine at once: most of it is waiting for leases to end."""

    async def check(binary: Path) -> None:
        with redis_server(binary) as server:
            await check_redis_store(server.url)

    async with trio.open_nursery() as nursery:
        for binary in binaries().values():
            nursery.start_soon(check, binary)


# -- what is stored ---------------------------------------------------------------------------------------------------


async def test_keys_and_how_long_they_live(server: RedisServer, client: Any) -> None:
    """Record, lock, queue and tombstone live under one hash tag, and each for no longer than it has to."""
    async with open_redis_store(server.url) as store, open_redis_store(server.url) as other:
        await put(store)
        assert client.keys() == [RECORD.encode()]
        assert 95_000 < client.pttl(RECORD) <= 100_000
        token = token_of(store)
        loaded = await store.acquire(KEY, token, lease=LEASE, life=LIFE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(other.acquire, KEY, token_of(other), lease=LEASE, life=LIFE))
            while not client.exists(f"{RECORD}:q"):
                await trio.sleep(0.01)
            assert sorted(client.keys()) == [name.encode() for name in (RECORD, f"{RECORD}:l", f"{RECORD}:q")]
            assert 500 < client.pttl(f"{RECORD}:l") <= 1000
            assert 25_000 < client.pttl(f"{RECORD}:q") <= 30_000
            nursery.cancel_scope.cancel()
        await store.rotate(
            KEY, token, version=loaded.version, new_key=NEW_KEY, blob=b"moved", life=LIFE, reason="replaced"
        )
        await other.load(KEY, life=LIFE)  # what was posted before has run
        assert sorted(client.keys()) == [RECORD.encode(), NEW_RECORD.encode()]
        assert 55_000 < client.pttl(RECORD) <= 60_000
        assert 95_000 < client.pttl(NEW_RECORD) <= 100_000
        with pytest.raises(SessionEndedError):
            await put(store)


async def test_what_another_process_overwrote(server: RedisServer, client: Any) -> None:
    """That a commit landed can be told for minutes after it was overwritten; one's own need no such note."""
    async with open_redis_store(server.url) as one, open_redis_store(server.url) as two:
        await put(one)
        version = await put(one)
        assert not client.exists(f"{RECORD}:c")
        await put(two)
        assert client.hgetall(f"{RECORD}:c") == {version[:8]: version}
        assert 290_000 < client.pttl(f"{RECORD}:c") <= 300_000


async def test_no_id_in_the_server(server: RedisServer, client: Any) -> None:
    """Who can read a dump of the server cannot log in as anybody: neither keys nor values show a session's id."""
    async with open_session_manager(config(server)) as manager:
        session = manager.session()
        await session.put("name", "Ann")
        old = session.id
        await session.refresh()
        assert old is not None
        assert session.id not in (None, old)
        names = client.keys()
        assert len(names) == 2
        for name in names:
            assert name.startswith(b"trio_session:{")
            for id in (old, session.id):
                assert id is not None
                for part in (id, id[2:12], id[-10:]):
                    assert part.encode() not in name + client.get(name)
        assert len({name[: name.index(b"}")] for name in names}) == 1  # the same slot


async def test_nothing_is_left_behind(server: RedisServer, client: Any) -> None:
    """After a life of changes, waits, cancellations and a logout there is one tombstone, and after minutes nothing."""
    async with open_session_manager(config(server)) as one, open_session_manager(config(server)) as two:
        session = one.session()
        await session.put("visits", 0)

        async def visit(manager: SessionManager) -> None:
            await manager.session(session.id).increment("visits")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(visit, one)
                nursery.start_soon(visit, two)
        assert (await two.session(session.id).read())["visits"] == 40
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(visit, one)
                nursery.start_soon(visit, two)
            await trio.sleep(0.002)
            nursery.cancel_scope.cancel()
        await two.session(session.id).clear()
    names = client.keys()
    (tombstone,) = [name for name in names if not name.endswith(b":c")]
    assert client.get(tombstone)[:4] == b"ts1d"
    assert all(0 < client.pttl(name) <= 300_000 for name in names)
    assert client.pubsub_channels() == []


# -- lifetimes --------------------------------------------------------------------------------------------------------


async def test_absolute_lifetime(server: RedisServer, client: Any) -> None:
    """The end of a session is fixed when it begins: neither reading, nor writing, nor a new id puts it off."""
    life = Lifetime(idle=1000, absolute=50, touch_interval=0)
    async with open_redis_store(server.url) as store:
        await put(store, life=life)
        created = client.get(RECORD)[20:33]
        client.pexpire(RECORD, 5_000)  # as if it had not been used for long
        assert (await store.load(KEY, life=life)).slid
        assert 45_000 < client.pttl(RECORD) <= 50_000
        await put(store, life=life)
        assert client.get(RECORD)[20:33] == created
        aged = b"%013d" % (int(created) - 30_000)
        client.set(RECORD, client.get(RECORD)[:20] + aged + b"x", px=1)
        client.set(RECORD, b"ts1=" + b"v" * 16 + aged + b"x")
        await store.load(KEY, life=life)
        assert 15_000 < client.pttl(RECORD) <= 20_000
        token = "t1"
        loaded = await store.acquire(KEY, token, lease=LEASE, life=life)
        await store.rotate(KEY, token, version=loaded.version, new_key=NEW_KEY, blob=b"x", life=life, reason="replaced")
        assert client.get(NEW_RECORD)[20:33] == aged
        assert 15_000 < client.pttl(NEW_RECORD) <= 20_000


async def test_lifetimes_that_were_changed(server: RedisServer, client: Any) -> None:
    """A shorter lifetime in the configuration holds for sessions that there are; so does "for ever"."""
    async with open_redis_store(server.url) as store:
        await put(store, life=Lifetime(idle=1000))
        shorter = Lifetime(idle=10, touch_interval=5)
        assert (await store.load(KEY, life=shorter)).slid
        assert 5_000 < client.pttl(RECORD) <= 10_000
        assert not (await store.load(KEY, life=shorter)).slid
        forever = Lifetime(idle=inf)
        assert (await store.load(KEY, life=forever)).slid
        assert client.pttl(RECORD) == -1
        assert not (await store.load(KEY, life=forever)).slid
        await put(store, life=forever)
        assert client.pttl(RECORD) == -1
        assert (await store.load(KEY, life=Lifetime(idle=1e9, absolute=20))).slid
        assert 15_000 < client.pttl(RECORD) <= 20_000


# -- data that is not ours --------------------------------------------------------------------------------------------

FOREIGN = {
    "a list": lambda client, name: client.rpush(name, "a", "b"),
    "a hash": lambda client, name: client.hset(name, "a", "b"),
    "a string": lambda client, name: client.set(name, "somebody's"),
    "a long string": lambda client, name: client.set(name, "somebody else's data, " * 10),
    "a newer record": lambda client, name: client.set(name, b"ts2=" + bytes(60), ex=60),
    "a record of a kind to come": lambda client, name: client.set(name, b"ts1+" + bytes(60)),
    "half a record": lambda client, name: client.set(name, b"ts1=" + bytes(8)),
    "a record of another codec": lambda client, name: client.set(name, b"ts1=" + b"v" * 16 + b"0" * 13 + b"\xff"),
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_foreign_data(server: RedisServer, client: Any, kind: str) -> None:
    """What we cannot read is said to be so, and never overwritten by accident; but it can be cleared."""
    async with open_session_manager(config(server)) as manager:
        id, name = await spoilt(manager, client, kind)
        before = client.dump(name)
        session = manager.session(id)
        with pytest.raises(SessionDataError):
            await session.read()
        with pytest.raises(SessionDataError):
            await manager.session(id).put("name", "Ann")
        assert client.dump(name) == before
        await manager.session(id).clear()
        assert (await manager.session(id).read()).is_empty
        assert client.get(name)[:4] == b"ts1d"


@pytest.mark.parametrize("kind", FOREIGN)
async def test_foreign_data_that_is_discarded(server: RedisServer, client: Any, kind: str) -> None:
    """With undecodable='discard' it reads as empty, and the next change replaces it."""
    async with open_session_manager(config(server, undecodable="discard")) as manager:
        id, _ = await spoilt(manager, client, kind)
        session = manager.session(id)
        assert (await session.read()).is_empty
        await session.put("name", "Bob")
        assert dict(await manager.session(id).read()) == {"name": "Bob"}


async def spoilt(manager: SessionManager, client: Any, kind: str) -> tuple[str, bytes]:
    """A session whose record was overwritten by somebody else."""
    session = manager.session()
    await session.put("name", "Ann")
    assert session.id is not None
    (name,) = client.keys()
    client.delete(name)
    FOREIGN[kind](client, name)
    return session.id, name


async def test_a_lock_that_is_not_ours(server: RedisServer, client: Any) -> None:
    """If something else lies where the lock should be, that is an error which says what the server says."""
    client.rpush(f"{RECORD}:l", "x")
    async with open_redis_store(server.url) as store:
        with pytest.raises(StorageUnavailableError, match="WRONGTYPE"):
            await put(store)


# -- neighbours -------------------------------------------------------------------------------------------------------


async def test_programs_with_different_prefixes(server: RedisServer, client: Any) -> None:
    """Two programs on one server, with cookies of different names, know nothing of each other."""
    async with (
        open_session_manager(config(server, app_name="Shop")) as shop,
        open_session_manager(config(server, app_name="Wiki", secure=True)) as wiki,
        open_session_manager(config(server, app_name="Wiki")) as wiki_too,
    ):
        session = shop.session()
        await session.put("name", "Ann")
        assert (await wiki.session(session.id).read()).is_empty
        theirs = wiki.session()
        await theirs.put("name", "Bob")
        assert (await wiki_too.session(theirs.id).read())["name"] == "Bob"
        assert sorted(name.partition(b":")[0] for name in client.scan_iter()) == [b"shop_session", b"wiki_session"]


@pytest.mark.parametrize(
    ("maxmemory", "policy", "warns"),
    [("100mb", "allkeys-lru", True), ("100mb", "noeviction", False), ("0", "volatile-lru", False)],
)
async def test_a_server_that_drops_sessions(
    server: RedisServer,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    maxmemory: str,
    policy: str,
    warns: bool,
) -> None:
    """If the server is set up to evict keys, the log says so, once."""
    caplog.set_level(logging.WARNING)
    client.config_set("maxmemory", maxmemory)
    client.config_set("maxmemory-policy", policy)
    try:
        async with open_redis_store(server.url) as store:
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")
            await put(store)
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    warnings = [record for record in caplog.records if "maxmemory-policy" in record.getMessage()]
    assert len(warnings) == warns
    assert all(policy in record.getMessage() for record in warnings)
