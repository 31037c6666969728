"""A cluster: every session on its node, wherever that is at the moment, and nobody notices."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from string import ascii_letters

import pytest
import redis.exceptions
import trio
import trio.testing

from trio_session import (
    ConfigError,
    LockLostError,
    RedisConnection,
    SessionConfig,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session.abc import Lifetime, Loaded
from trio_session.cli import main
from trio_session.redis import RedisStore, _cluster, _store, open_redis_store
from trio_session.redis._slots import SlotTable, slot_of

from .redis_servers import RedisServer, free_port, redis_server
from .redis_topologies import Cluster, ask, redis_cluster, role

LIFE = Lifetime(idle=100.0)
LONG = 60.0  # seconds
LIMIT = 10.0  # seconds


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """Three primaries with a replica each."""
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """An empty one, of which all servers are there."""
    for server in running.primaries():
        ask(server, "FLUSHALL")
    return running


def keys_of(cluster: Cluster, number: int = 1) -> dict[RedisServer, list[str]]:
    """Keys of so many sessions on each primary."""
    keys: dict[RedisServer, list[str]] = {server: [] for server in cluster.primaries()}
    for letters in product(ascii_letters, repeat=2):
        tag = "".join(letters)
        mine = keys[cluster.owner(tag)]
        if len(mine) < number:
            mine.append(f"{tag}:{'c' * 20}")
        if all(len(each) == number for each in keys.values()):
            return keys
    raise AssertionError("some primary has no slots")


def record_of(key: str) -> str:
    return f"trio_session:{{{key[:2]}}}{key[2:]}"


async def take(store: RedisStore, key: str, token: str, *, lease: float = LONG) -> Loaded:
    return await store.acquire(key, token, lease=lease, life=LIFE)


async def put(store: RedisStore, key: str, token: str, blob: bytes = b"x") -> None:
    loaded = await take(store, key, token)
    await store.commit(key, token, version=loaded.version, blob=blob, life=LIFE)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def opened(cluster: Cluster, number: int = 1) -> AsyncIterator[list[RedisStore]]:
    """So many stores, which know all nodes and listen to them."""
    keys = [key for keys in keys_of(cluster).values() for key in keys]
    async with open_redis_store(cluster.url) as one, open_redis_store(cluster.url) as two:
        stores = [one, two][:number]
        for store in stores:
            for key in keys:
                await store.load(key, life=LIFE)
            await until(lambda: all(node.control.listening for node in store._topology.nodes))  # noqa: B023
        yield stores


# -- where things are -------------------------------------------------------------------------------------------------


async def test_a_node_that_is_new_serves_those_who_come_first_first(cluster: Cluster) -> None:
    """They queue up there as soon as we listen, however early they come."""
    (key,) = keys_of(cluster)[cluster.primaries()[0]]
    order: list[str] = []

    async def visit(store: RedisStore, token: str) -> None:
        loaded = await take(store, key, token)
        order.append(token)
        await store.commit(key, token, version=loaded.version, blob=b"x", life=LIFE)

    async with opened(cluster) as (old,):
        for turn in range(8):  # without a queue, they come in the right order every other time
            async with open_redis_store(cluster.url) as new, trio.open_nursery() as nursery:
                await take(old, key, f"t{turn}")
                for number in "1234":
                    nursery.start_soon(visit, new, f"{turn}{number}")
                    await trio.testing.wait_all_tasks_blocked()
                await until(lambda: ask(cluster.owner(key[:2]), "LLEN", f"{record_of(key)}:q") == 4)
                old.release(key, f"t{turn}")
    assert order == [f"{turn}{number}" for turn in range(8) for number in "1234"]


async def test_each_session_on_its_node(cluster: Cluster) -> None:
    """All that belongs to a session is on one node, and a node is connected to when it is first needed."""
    async with open_redis_store(cluster.url) as store:
        assert repr(store) == f"<RedisStore {cluster.url}/0, 0 waiting>"
        assert store._topology.nodes == []
        for number, (server, (key,)) in enumerate(keys_of(cluster).items()):
            await put(store, key, "t1")
            assert len(store._topology.nodes) == number + 1
            token = "t2"
            loaded = await take(store, key, token)
            names = sorted(ask(server, "KEYS", "*"))
            assert names == [record_of(key).encode(), f"{record_of(key)}:l".encode()]
            version = await store.rotate(
                key,
                token,
                version=loaded.version,
                new_key=f"{key[:2]}:{'d' * 20}",
                blob=b"y",
                life=LIFE,
                reason="replaced",
            )
            assert (await store.load(f"{key[:2]}:{'d' * 20}", life=LIFE)).version == version


async def test_replicas_confirm_on_each_node(cluster: Cluster) -> None:
    """Each primary is asked about its own; one whose replica is away can say nothing of what it has."""
    keys = {server: key for server, (key,) in keys_of(cluster).items()}
    (server, mute), (_, talkative), *_ = keys.items()
    async with open_redis_store(cluster.url, durability="replicas:1") as store:
        for key in keys.values():
            await put(store, key, "t1")
            with trio.fail_after(LIMIT):
                await store.confirm(key, "t1")
        (replica,) = cluster.replicas_of(server)
        replica.freeze()
        try:
            await put(store, mute, "t2")
            await put(store, talkative, "t3")
            with trio.move_on_after(0.2) as scope:
                await store.confirm(mute, "t2")
            assert scope.cancelled_caught
            with trio.fail_after(LIMIT):
                await store.confirm(talkative, "t3")
        finally:
            replica.thaw()


async def test_a_cluster_is_recognised(cluster: Cluster) -> None:
    """The URL of any of its servers is enough, be it a replica."""
    replica = next(server for server in cluster.servers if role(server)[0] == "slave")
    for server in (cluster.primaries()[0], replica):
        async with open_redis_store(server.url) as store:
            for keys in keys_of(cluster).values():
                await put(store, keys[0], "t1")
        for primary in cluster.primaries():
            assert ask(primary, "DBSIZE") == 1
            ask(primary, "FLUSHALL")


async def test_a_login_stays_in_its_slot(cluster: Cluster) -> None:
    """A new id is one step also here: a session never moves to another node."""
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=cluster.url)})
    async with open_session_manager(config) as manager:
        for number in range(20):
            session = manager.session()
            await session.put("number", number)
            old = session.id
            await session.refresh()
            assert session.id is not None
            assert old is not None
            assert session.id != old
            assert slot_of(session.id[:2]) == slot_of(old[:2])
            assert dict(await manager.session(session.id).read()) == {"number": number}


async def test_a_lock_is_handed_over_on_every_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process hears of locks on each node it needs, and of each of them once."""
    monkeypatch.setattr(_store, "_POLL", (LONG, LONG))
    async with opened(cluster, 2) as (one, two):
        for server, (key,) in keys_of(cluster).items():
            loaded = await take(one, key, "t1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, two, key, "t2")
                await until(lambda: ask(server, "EXISTS", f"{record_of(key)}:q"))  # noqa: B023
                await one.commit(key, "t1", version=loaded.version, blob=b"x", life=LIFE)
            before = scripts_run(cluster)
            await trio.sleep(0.05)
            assert scripts_run(cluster) == before  # the other nodes pass the message on, and nobody answers to that
            assert ask(server, "GET", f"{record_of(key)}:l") == two._name.encode() + b"t2"


def scripts_run(cluster: Cluster) -> int:
    said = [ask(server, "INFO", "commandstats").decode() for server in cluster.primaries()]
    calls = [line for text in said for line in text.splitlines() if line.startswith("cmdstat_evalsha:")]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in calls)


def test_commands_know_clusters(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trio-session stats` counts node by node; `doctor` tries a session."""

    async def fill() -> None:
        async with open_redis_store(cluster.url) as store:
            for (key,) in keys_of(cluster).values():
                await put(store, f"{key[:2]}:{'c' * 22}", "t1")

    trio.run(fill)
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", cluster.url)
    assert main(["stats", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["sessions"] for each in found["servers"]] == [1, 1, 1]
    assert found["total"]["sessions"] == 3
    for server in cluster.primaries():
        ask(server, "FLUSHALL")  # what was stored is no session that could be decoded
    main(["doctor"])
    said = capsys.readouterr().out
    assert "a session was locked, stored and removed" in said


# -- leases -----------------------------------------------------------------------------------------------------------


async def test_leases_are_renewed_node_by_node(cluster: Cluster) -> None:
    """A node that does not answer costs its own locks at most."""
    async with opened(cluster) as (store,):
        keys = keys_of(cluster)
        for (key,) in keys.values():
            await take(store, key, "t1")
        locks = [(key, "t1") for (key,) in keys.values()]
        assert await store.renew(locks, lease=LONG) == [True] * 3
        store.release(locks[1][0], "t1")
        assert await store.renew(locks, lease=LONG) == [True, False, True]
        server = next(iter(keys))
        server.freeze()
        try:
            assert await store.renew(locks, lease=0.5) == [None, False, True]
            with pytest.raises(StorageUnavailableError, match="it takes too long"):
                await store.renew(locks[:1], lease=0.5)
        finally:
            server.thaw()


async def test_a_holder_outlives_another_node(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Bodies on other nodes go on as if nothing had happened; the one on the node that is away is told in time."""
    config = SessionConfig(driver="redis", lock_lease=0.9, redis={"default": RedisConnection(url=cluster.url)})
    async with open_session_manager(config) as manager:
        sessions: dict[RedisServer, str] = {}
        while len(sessions) < 2:
            session = manager.session()
            await session.put("number", 1)
            assert session.id is not None
            sessions[cluster.owner(session.id[:2])] = session.id
        (frozen, lost), (_, kept) = sessions.items()
        async with manager.session(kept).locked() as data:
            with pytest.raises(LockLostError):
                async with manager.session(lost).locked():
                    frozen.freeze()
                    await trio.sleep(LONG)
            frozen.thaw()
            await trio.sleep(0.5)
            data["number"] = 2
        assert dict(await manager.session(kept).read()) == {"number": 2}
    assert "1 session locks could not be renewed, others could" in caplog.text


# -- slots on the move ------------------------------------------------------------------------------------------------


async def test_a_slot_moves(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose slot moves is read, changed and waited for as ever."""
    monkeypatch.setattr(_store, "_POLL", (0.2, 0.3))
    source, target = cluster.primaries()[:2]
    key = keys_of(cluster)[source][0]
    async with opened(cluster, 2) as (one, two):
        await put(one, key, "t1", b"kept")
        loaded = await take(one, key, "t2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, two, key, "t3")
            await until(lambda: ask(source, "EXISTS", f"{record_of(key)}:q"))
            cluster.move(slot_of(key[:2]), source, target)
            assert (await two.load(key, life=LIFE)).blob == b"kept"
            await one.commit(key, "t2", version=loaded.version, blob=b"new", life=LIFE)
        two.release(key, "t3")  # its route is old news by now
        await put(one, key, "t4", b"newer")
        assert (await two.load(key, life=LIFE)).blob == b"newer"
    assert ask(source, "DBSIZE") == 0
    cluster.move(slot_of(key[:2]), target, source)


async def test_a_slot_is_moving(cluster: Cluster) -> None:
    """Between the first key and the last, reads find the record wherever it is; changes wait for the end."""
    source, target = cluster.primaries()[:2]
    key = keys_of(cluster)[source][0]
    slot = slot_of(key[:2])
    async with opened(cluster) as (store,):
        await put(store, key, "t1", b"kept")
        await take(store, key, "t2")
        cluster.begin_move(slot, source, target)
        async with trio.open_nursery() as nursery:
            store.release(key, "t2")
            nursery.start_soon(put, store, key, "t3", b"new")
            while cluster.move_one(slot, source, target):
                assert (await store.load(key, life=LIFE)).blob == b"kept"
                await trio.sleep(0.1)
            assert ask(target, "CLUSTER", "COUNTKEYSINSLOT", slot)
            cluster.end_move(slot, source, target)
        assert ask(target, "GET", record_of(key)).endswith(b"new")
    cluster.move(slot, target, source)


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_a_primary_steps_down(cluster: Cluster) -> None:
    """Its replica takes over, and gets the next command; the old one is left."""
    primary = cluster.primaries()[0]
    key = keys_of(cluster)[primary][0]
    (replica,) = cluster.replicas_of(primary)
    async with opened(cluster) as (store,):
        await put(store, key, "t1", b"kept")
        await take(store, key, "t2")
        ask(replica, "CLUSTER", "FAILOVER")
        await until(lambda: role(replica)[0] == "master")
        store.release(key, "t2")
        await put(store, key, "t3", b"new")
        await until(lambda: str(primary.port) not in "".join(node.name for node in store._topology.nodes))
        assert ask(replica, "GET", record_of(key)).endswith(b"new")
    cluster.settle()


async def test_a_primary_dies(cluster: Cluster) -> None:
    """A commit that was under way then has a definite outcome, at the replica that takes its place."""
    primary = cluster.primaries()[0]
    key = keys_of(cluster)[primary][0]
    async with opened(cluster) as (store,):
        loaded = await take(store, key, "t1")
        assert ask(primary, "WAIT", 1, 1000) == 1
        primary.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(store.commit, key, "t1", version=loaded.version, blob=b"new", life=LIFE))
            await trio.sleep(0.05)
            primary.kill()
            with pytest.raises(StorageUnavailableError):
                await store.load(key, life=LIFE)
        assert (await store.load(key, life=LIFE)).blob == b"new"
    primary.start()
    cluster.settle()


async def test_nobody_has_the_slot(cluster: Cluster) -> None:
    """A session whose slot no node has cannot be had, for as long as that lasts; the others can."""
    (server, (key,)), (_, (other,)), *_ = keys_of(cluster).items()
    slot = slot_of(key[:2])
    for each in cluster.servers:
        with suppress(Exception):
            ask(each, "CLUSTER", "DELSLOTS", slot)
    async with open_redis_store(cluster.url) as store:
        with pytest.raises(StorageUnavailableError, match="CLUSTERDOWN Hash slot not served"):
            await store.load(key, life=LIFE)
        await put(store, other, "t1")
        ask(server, "CLUSTER", "ADDSLOTS", slot)
        await put(store, key, "t1")
    cluster.settle()


async def test_nobody_there() -> None:
    """A program without its cluster does not start."""
    with pytest.raises(StorageUnavailableError, match="none of 1 says where to go"):
        async with open_redis_store(f"redis+cluster://127.0.0.1:{free_port()}"):
            pass


async def test_not_a_cluster() -> None:
    """Who is told that a server is a cluster and finds that it is none says so."""
    with redis_server() as server, pytest.raises(StorageUnavailableError, match="cluster support disabled"):
        async with open_redis_store(f"redis+cluster://127.0.0.1:{server.port}"):
            pass


async def test_streams_are_for_one_server(cluster: Cluster) -> None:
    """Whoever opens streams himself cannot say to which node."""
    server = cluster.servers[0]
    open_stream = partial(trio.open_tcp_stream, "127.0.0.1", server.port)
    with pytest.raises(ConfigError, match="this one is part of a cluster"):
        async with open_redis_store(server.url, open_stream=open_stream):
            pass


async def test_nodes_can_be_away_at_the_start(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are asked."""
    away = [free_port() for _ in range(4)]

    def away_first(endpoints: list[tuple[str, int]]) -> None:
        endpoints.sort(key=lambda endpoint: endpoint[1] in away)  # they are taken from the end

    monkeypatch.setattr(_cluster, "shuffle", away_first)
    url = cluster.url.replace("://", "://" + "".join(f"127.0.0.1:{port}," for port in away))
    async with open_redis_store(url) as store:
        await put(store, keys_of(cluster)[cluster.primaries()[0]][0], "t1")


async def test_nobody_says_who_has_which_slots(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then what was said last counts, until somebody can be asked again."""

    async def ask_nobody(*_: object) -> list[SlotTable]:
        raise redis.exceptions.ConnectionError("on purpose")

    async with opened(cluster) as (store,):
        monkeypatch.setattr(_cluster, "ask_all", ask_nobody)
        store._topology._doubted.set()  # type: ignore[attr-defined]
        await until(lambda: "nobody says who has which slots: on purpose" in caplog.text)
        for (key,) in keys_of(cluster).values():
            await put(store, key, "t1")
