"""Sentinels: who is asked for the primary, whose word counts, and how fast a new one is found."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import hiredis
import pytest
import trio

from trio_session import (
    CommittedNotReplicatedError,
    CommitUnknownError,
    ConfigError,
    LockLostError,
    RedisConnection,
    StorageUnavailableError,
)
from trio_session.abc import Lifetime
from trio_session.cli import main
from trio_session.redis import RedisStore, open_redis_store
from trio_session.redis._resp import pack

from .redis_servers import RedisServer, binaries, free_port, redis_server
from .redis_topologies import SERVICE, Replicated, Sentinel, replicated_redis, role

LIFE = Lifetime(idle=100.0)
KEY = "ab:" + "c" * 20
LONG = 60.0  # seconds
LIMIT = 10.0  # seconds


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    """Two primaries that know nothing of each other."""
    with redis_server() as one, redis_server() as two:
        yield [one, two]


@pytest.fixture
def one(servers: list[RedisServer]) -> RedisServer:
    return empty(servers[0])


@pytest.fixture
def two(servers: list[RedisServer]) -> RedisServer:
    return empty(servers[1])


def empty(server: RedisServer) -> RedisServer:
    with server.client() as client:
        client.replicaof("NO", "ONE")
        client.flushall()
    return server


class FakeSentinel:
    """Says what it is told to say.

    Attributes:
        primary: what it takes for the primary; None: it knows of none.
        epoch: the number of the last election it has heard of; None: it does not tell.
        slowness: how long it takes to answer, in seconds.
        deaf: nobody may subscribe.
        secretive: nobody may ask.
    """

    def __init__(self, primary: RedisServer | None, *, epoch: int | None = 1, slowness: float = 0.0) -> None:
        self.primary = primary
        self.epoch = epoch
        self.slowness = slowness
        self.deaf = False
        self.secretive = False
        self.port = 0
        self.asked = 0
        self._subscribers: list[trio.SocketStream] = []

    @property
    def has_listener(self) -> bool:
        return bool(self._subscribers)

    async def tell(self, channel: str, message: str) -> None:
        for stream in self._subscribers:
            await stream.send_all(pack(("message", channel, message)))

    async def serve(self, stream: trio.SocketStream) -> None:
        reader = hiredis.Reader(encoding="utf-8")
        with suppress(trio.BrokenResourceError):
            async with stream:
                while data := bytes(await stream.receive_some()):
                    reader.feed(data)
                    while command := reader.gets():
                        await trio.sleep(self.slowness)
                        await stream.send_all(self._answer(command, stream))
        with suppress(ValueError):
            self._subscribers.remove(stream)

    def _answer(self, command: list[str], stream: trio.SocketStream) -> bytes:
        match command:
            case ["HELLO", *_]:
                return pack(("version", "7.0.0", "mode", "sentinel"))
            case ["SENTINEL", *_] if self.secretive:
                return b"-NOPERM this user has no permissions\r\n"
            case ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]:
                self.asked += 1
                if self.primary is None or name != SERVICE:
                    return b"*-1\r\n"
                return pack(("127.0.0.1", self.primary.port))
            case ["SENTINEL", "MASTER", _]:
                if self.epoch is None:
                    return b"-NOPERM this user has no permissions to run the 'sentinel|master' command\r\n"
                return pack(("name", SERVICE, "config-epoch", self.epoch))
            case ["SUBSCRIBE", channel]:
                if self.deaf:
                    return b"-NOPERM No permissions to access a channel\r\n"
                if stream not in self._subscribers:
                    self._subscribers.append(stream)
                return pack(("subscribe", channel, 1))
            case _:
                return b"-ERR unknown command\r\n"


@asynccontextmanager
async def watched_by(*sentinels: FakeSentinel) -> AsyncIterator[str]:
    """These Sentinels serve for the length of a block; yields the URL that names them."""
    async with trio.open_nursery() as nursery:
        for sentinel in sentinels:
            serve = partial(trio.serve_tcp, sentinel.serve, 0, host="127.0.0.1")
            listeners: list[trio.SocketListener] = await nursery.start(serve)
            sentinel.port = listeners[0].socket.getsockname()[1]
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in sentinels)}/{SERVICE}"
        nursery.cancel_scope.cancel()


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.005)


async def put(store: RedisStore, token: str, blob: bytes = b"x") -> None:
    loaded = await store.acquire(KEY, token, lease=LONG, life=LIFE)
    await store.commit(KEY, token, version=loaded.version, blob=blob, life=LIFE)


def records(server: RedisServer) -> int:
    with server.client() as client:
        return len(client.keys())


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_the_sentinels_say_where(one: RedisServer) -> None:
    """Sessions live on the server that the Sentinels name; nobody else has to know it."""
    async with watched_by(FakeSentinel(one)) as url, open_redis_store(url) as store:
        await put(store, "t1")
        assert records(one) == 1
        assert repr(store) == f"<RedisStore {url}/0, 0 waiting>"


async def test_the_others_are_asked_too(one: RedisServer) -> None:
    """Sentinels that are away, or do not know, do no harm as long as one does."""
    ignorant = FakeSentinel(None)
    async with watched_by(ignorant, FakeSentinel(one)) as url:
        url = url.replace("://", f"://127.0.0.1:{free_port()},")
        async with open_redis_store(url) as store:
            await put(store, "t1")
    assert ignorant.asked
    assert records(one) == 1


async def test_the_last_election_counts(one: RedisServer, two: RedisServer) -> None:
    """A Sentinel that has not yet heard of an election names the old primary, and is outvoted by one that has."""
    late = FakeSentinel(two, epoch=8, slowness=0.01)
    async with watched_by(FakeSentinel(one, epoch=7), late) as url, open_redis_store(url) as store:
        await put(store, "t1")
    assert records(two) == 1


async def test_a_sentinel_that_tells_only_the_address(one: RedisServer) -> None:
    """Of what a Sentinel may tell its clients, the address is enough; and it need not let them listen."""
    sentinel = FakeSentinel(one, epoch=None)
    sentinel.deaf = True
    async with watched_by(sentinel) as url, open_redis_store(url) as store:
        await put(store, "t1")
    assert records(one) == 1


async def test_slow_sentinels_are_not_waited_for(one: RedisServer) -> None:
    """Once one has answered, the others have a moment."""
    async with watched_by(FakeSentinel(one), FakeSentinel(one, slowness=LONG)) as url:
        with trio.fail_after(LIMIT):
            async with open_redis_store(url):
                pass


@pytest.mark.parametrize(
    ("sentinel", "problem"),
    [
        (FakeSentinel(None), f"none of 1 says where to go: it knows no primary called {SERVICE}"),
        (None, "none of 1 says where to go: all attempts to connect"),
    ],
)
async def test_nobody_knows(sentinel: FakeSentinel | None, problem: str) -> None:
    """Without a primary a program does not start, and its error says who does not know it."""
    async with AsyncExitStack() as stack:
        url = f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}"
        if sentinel is not None:
            url = await stack.enter_async_context(watched_by(sentinel))
        with pytest.raises(StorageUnavailableError, match=problem):
            await stack.enter_async_context(open_redis_store(url))


async def test_a_sentinel_that_tells_nothing(one: RedisServer) -> None:
    """Rights that are missing are an error of their own."""
    sentinel = FakeSentinel(one)
    sentinel.secretive = True
    async with watched_by(sentinel) as url:
        with pytest.raises(StorageUnavailableError, match="NOPERM"):
            async with open_redis_store(url):
                pass


async def test_a_server_is_no_sentinel(one: RedisServer) -> None:
    """Who mixes up the two is told."""
    with pytest.raises(StorageUnavailableError, match="it is no Sentinel"):
        async with open_redis_store(f"redis+sentinel://127.0.0.1:{one.port}/{SERVICE}"):
            pass
    async with watched_by(sentinel := FakeSentinel(one)):
        with pytest.raises(StorageUnavailableError, match="it is a Sentinel, which redis\\+sentinel:// is for"):
            async with open_redis_store(f"redis://127.0.0.1:{sentinel.port}"):
                pass


async def test_streams_are_for_one_server(one: RedisServer) -> None:
    """Whoever opens streams himself has to say to which server."""

    async def open_stream() -> trio.abc.Stream:
        raise AssertionError

    with pytest.raises(ConfigError, match="open_stream"):
        async with open_redis_store(f"redis+sentinel://s1/{SERVICE}", open_stream=open_stream):
            pass


# -- hearing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("+switch-master", f"{SERVICE} 127.0.0.1 {{old}} 127.0.0.1 {{new}}"),
        ("+promoted-slave", f"slave 127.0.0.1:{{new}} 127.0.0.1 {{new}} @ {SERVICE} 127.0.0.1 {{old}}"),
    ],
)
async def test_news_of_an_election(one: RedisServer, two: RedisServer, channel: str, message: str) -> None:
    """A new primary is gone to at once, although the old one is still there; and locks are waited for there."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url) as store, open_redis_store(url) as other:
        await put(store, "t1")
        await until(lambda: len(sentinel._subscribers) == 2)
        sentinel.primary = two
        await sentinel.tell(channel, message.format(old=one.port, new=two.port))
        await until(lambda: store._topology.nodes[0].address.port == two.port)  # type: ignore[union-attr]
        await put(store, "t2")
        assert records(two) == 1
        nodes = [store._topology.nodes[0], other._topology.nodes[0]]
        await until(lambda: all(node.control.listening for node in nodes))
        loaded = await store.acquire(KEY, "t3", lease=LONG, life=LIFE)
        with two.client() as client, trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(other.acquire, KEY, "t4", lease=LONG, life=LIFE))
                await until(lambda: client.llen("trio_session:{ab}:" + "c" * 20 + ":q"))
                await store.commit(KEY, "t3", version=loaded.version, blob=b"y", life=LIFE)


async def test_a_commit_that_the_new_primary_may_not_have(one: RedisServer, two: RedisServer) -> None:
    """Whoever waits for its replicas is told at once; and so is whoever comes too late to ask the old one."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url, durability="replicas:1") as store:
        await put(store, "t1")
        await put(store, "t2")
        await until(lambda: sentinel.has_listener)
        sentinel.primary = two
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, store, "t1")
            with one.client() as client:
                await until(lambda: "wait" in [each["cmd"] for each in client.client_list()])
            await sentinel.tell("+switch-master", f"{SERVICE} 127.0.0.1 {one.port} 127.0.0.1 {two.port}")
        await lose(store, "t2")


async def lose(store: RedisStore, token: str) -> None:
    with pytest.raises(CommittedNotReplicatedError) as caught, trio.fail_after(LIMIT):
        await store.confirm(KEY, token)
    assert caught.value.reason == "primary_lost"


@pytest.mark.parametrize("message", ["others 127.0.0.1 1 127.0.0.1 2", f"{SERVICE} 127.0.0.1 1 127.0.0.1 {{here}}"])
async def test_news_that_change_nothing(one: RedisServer, message: str) -> None:
    """News of other services, and of the primary that we know already, leave the connection alone."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url) as store:
        await until(lambda: sentinel.has_listener)
        before = sentinel.asked
        await sentinel.tell("+switch-master", message.format(here=one.port))
        await put(store, "t1")
        await trio.sleep(0.05)
        await put(store, "t2")
        assert sentinel.asked == before


@pytest.mark.parametrize("nonsense", ["what", "one 127.0.0.1 2 127.0.0.1 three"])
async def test_a_sentinel_that_talks_nonsense(one: RedisServer, nonsense: str) -> None:
    """It is left and listened to anew; sessions go on."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url) as store:
        await until(lambda: sentinel.has_listener)
        await sentinel.tell("+switch-master", nonsense)
        await until(lambda: not sentinel.has_listener)
        await until(lambda: sentinel.has_listener)
        await put(store, "t1")


async def test_a_commit_between_two_primaries(one: RedisServer, two: RedisServer) -> None:
    """The second one knows nothing of it. What became of it at the first one, which may be elected again, who knows."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url) as store:
        await put(store, "t1")
        await until(lambda: sentinel.has_listener)
        with one.client() as client, two.client() as other:
            for key in client.scan_iter():
                other.restore(key, 0, client.dump(key) or b"")
        loaded = await store.acquire(KEY, "t2", lease=LONG, life=LIFE)
        one.freeze()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(move_once_sent, store, sentinel, two)
                with pytest.raises(CommitUnknownError):
                    await store.commit(KEY, "t2", version=loaded.version, blob=b"y", life=LIFE)
        finally:
            one.thaw()
        with one.client() as client:
            record = "trio_session:{ab}:" + "c" * 20
            await until(lambda: str(client.get(record)).endswith("y'"))  # it has landed after all
        with pytest.raises(LockLostError):  # this one has only ever been here
            await store.commit(KEY, "t3", version=loaded.version, blob=b"z", life=LIFE)


async def move_once_sent(store: RedisStore, sentinel: FakeSentinel, primary: RedisServer) -> None:
    await until(lambda: store._topology.nodes[0].link._sent)
    sentinel.primary = primary
    await sentinel.tell("+promoted-slave", f"slave x 127.0.0.1 {primary.port} @ {SERVICE} 127.0.0.1 1")


async def test_a_primary_that_is_none_any_more(one: RedisServer, two: RedisServer) -> None:
    """A server that has become a replica refuses to write, and the Sentinels are asked again."""
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, open_redis_store(url) as store:
        await put(store, "t1")
        with one.client() as client:
            client.replicaof("127.0.0.1", two.port)
        sentinel.primary = two
        await put(store, "t2")
        assert records(two) == 1


async def test_a_replica_is_not_taken_for_the_primary(one: RedisServer, two: RedisServer) -> None:
    """Who is named as the primary has to be one: until it is, it is looked for again."""
    with one.client() as client:
        client.replicaof("127.0.0.1", two.port)
    sentinel = FakeSentinel(one)
    async with watched_by(sentinel) as url, trio.open_nursery() as nursery:

        async def use() -> None:
            async with open_redis_store(url) as store:
                await put(store, "t1")

        nursery.start_soon(use)
        await until(lambda: sentinel.asked)
        sentinel.primary = two
    assert records(two) == 1


# -- real ones --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[Replicated]:
    """A primary, two replicas, three Sentinels."""
    with replicated_redis() as site:
        yield site


def test_commands_know_sentinels(
    site: Replicated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trio-session stats` and `doctor` look at the primary."""
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", site.url)
    assert main(["stats", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["servers"]
    assert found["server"] == site.primary().url
    main(["doctor"])
    said = capsys.readouterr().out
    assert site.primary().url in said
    assert "a session was locked, stored and removed" in said


async def test_the_primary_dies(site: Replicated) -> None:
    """A replica takes its place, and sessions go on there within two seconds."""
    async with open_redis_store(site.url) as store:
        await put(store, "t1", b"kept")
        with site.client() as client:
            assert client.wait(2, 5000) == 2
        site.primary().kill()
        await until(lambda: any(role(server)[0] == "master" for server in site.servers))
        elected = trio.current_time()
        while True:
            with suppress(StorageUnavailableError):
                assert (await store.load(KEY, life=LIFE)).blob == b"kept"
                break
        print(f"sessions go on {trio.current_time() - elected:.2f} s after the election")  # noqa: T201
        await put(store, "t2", b"new")


async def test_credentials_of_both(tmp_path: Path) -> None:
    """Sentinels have credentials of their own."""
    with redis_server(requirepass="of-data") as server:
        sentinel = Sentinel(next(iter(binaries().values())), free_port(), tmp_path)
        lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {server.port} 1",
            f"sentinel auth-pass {SERVICE} of-data",
            "requirepass of-sentinel",
        ]
        (tmp_path / "sentinel.conf").write_text("\n".join(lines))
        sentinel.options = {}
        sentinel.start()
        try:
            hosts = f"127.0.0.1:{sentinel.port}"
            async with open_redis_store(
                f"redis+sentinel://:of-data@{hosts}/{SERVICE}/0?sentinel_password=of-sentinel"
            ) as store:
                await put(store, "t1")
            connection = RedisConnection(
                scheme="redis+sentinel",
                host="127.0.0.1",
                port=sentinel.port,
                service=SERVICE,
                password="of-data",
                sentinel_password="of-sentinel",
            )
            async with open_redis_store(connection) as store:
                await put(store, "t2")
            with pytest.raises(StorageUnavailableError, match=r"none of 1 says where to go: (NOAUTH|WRONGPASS)"):
                async with open_redis_store(f"redis+sentinel://:of-data@{hosts}/{SERVICE}"):
                    pass
        finally:
            sentinel.kill()
