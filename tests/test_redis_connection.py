"""How a server is found, logged in to, and refused: by address, by what it says, and by who we are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_session import ConfigError, RedisConnection, StorageUnavailableError
from trio_session.abc import Lifetime
from trio_session.redis import open_redis_store
from trio_session.redis._address import Destination
from trio_session.redis._scripts import SCRIPTS

from .redis_servers import RedisServer, binaries, free_port, redis_server

LIFE = Lifetime(idle=100.0)
AT_ONCE = 1.5  # seconds; patience would take two

# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "name", "login"),
    [
        (RedisConnection(), "redis://127.0.0.1:6379/0", (None, None, 0)),
        (RedisConnection(host="cache", port=1, db=2), "redis://cache:1/2", (None, None, 2)),
        (RedisConnection(scheme="rediss", password="pass"), "rediss://127.0.0.1:6379/0", (None, "pass", 0)),
        (RedisConnection(scheme="unix", host="/run/r.sock", db=3), "unix:///run/r.sock", (None, None, 3)),
        (RedisConnection(url="redis://cache"), "redis://cache:6379/0", (None, None, 0)),
        (RedisConnection(url="redis://cache:1/2"), "redis://cache:1/2", (None, None, 2)),
        (RedisConnection(url="redis://cache/2?db=4"), "redis://cache:6379/4", (None, None, 4)),
        (RedisConnection(url="redis://:p%40ss%2F%3A@cache"), "redis://cache:6379/0", (None, "p@ss/:", 0)),
        (RedisConnection(url="redis://us%40r:pass@cache"), "redis://cache:6379/0", ("us@r", "pass", 0)),
        (RedisConnection(url="rediss://cache"), "rediss://cache:6379/0", (None, None, 0)),
        (RedisConnection(url="unix:///run/r.sock?db=5"), "unix:///run/r.sock", (None, None, 5)),
        (RedisConnection(url="unix://user:pass@/run/r.sock"), "unix:///run/r.sock", ("user", "pass", 0)),
    ],
)
def test_addresses(connection: RedisConnection, name: str, login: tuple[object, ...]) -> None:
    """What the configuration says is where we go, and as whom."""
    address = Destination.of(connection).data
    assert str(address) == name
    assert (address.username, address.password, address.db) == login


@pytest.mark.parametrize(
    ("connection", "name", "servers", "service"),
    [
        (
            RedisConnection(url="redis+sentinel://u:p%40@s1,[::1]:7/mine/2?sentinel_username=s&sentinel_password=q%2F"),
            "redis+sentinel://s1:26379,[::1]:7/mine/2",
            [("s1", 26379, "s", "q/", None), ("::1", 7, "s", "q/", None)],
            ("mine", "u", "p@", 2),
        ),
        (
            RedisConnection(url="redis+sentinel://s1/mine"),
            "redis+sentinel://s1:26379/mine/0",
            [("s1", 26379, None, None, None)],
            ("mine", None, None, 0),
        ),
        (
            RedisConnection(scheme="redis+sentinel", host="s1, s2:7", port=8, service="mine", password="p", db=1),
            "redis+sentinel://s1:8,s2:7/mine/1",
            [("s1", 8, None, None, None), ("s2", 7, None, None, None)],
            ("mine", None, "p", 1),
        ),
        (
            RedisConnection(url="redis+cluster://u:p@n1,n2:7"),
            "redis+cluster://n1:6379,n2:7/0",
            [("n1", 6379, "u", "p", 0), ("n2", 7, "u", "p", 0)],
            ("", "u", "p", 0),
        ),
        (
            RedisConnection(scheme="rediss+cluster", host="n1", password="p"),
            "rediss+cluster://n1:6379/0",
            [("n1", 6379, None, "p", 0)],
            ("", None, "p", 0),
        ),
    ],
)
def test_destinations(
    connection: RedisConnection, name: str, servers: list[tuple[object, ...]], service: tuple[object, ...]
) -> None:
    """Sentinels have credentials of their own, and no database; the nodes of a cluster have the same ones."""
    there = Destination.of(connection)
    assert str(there) == name
    assert [(each.host, each.port, each.username, each.password, each.db) for each in there.addresses] == servers
    assert (there.service, there.data.username, there.data.password, there.data.db) == service
    assert (there.data.tls is not None) is name.startswith("rediss")


def test_the_nodes_of_a_cluster_that_was_found_through_a_socket() -> None:
    """They are known by host and port."""
    address = Destination.of(RedisConnection(url="unix:///run/r.sock")).data
    assert str(address.at("n1", 7)) == "redis://n1:7/0"


@pytest.mark.parametrize("text", [str, repr])
def test_addresses_show_no_credentials(text: Callable[[object], str]) -> None:
    """Addresses end up in logs; users and passwords must not."""
    for connection in (
        RedisConnection(url="redis://somebody:secret@cache"),
        RedisConnection(username="somebody", password="secret"),
        RedisConnection(url="unix://somebody:secret@/run/r.sock"),
    ):
        shown = text(Destination.of(connection).data)
        assert "secret" not in shown
        assert "somebody" not in shown


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://cache?db=x", "'db'"),
        ("rediss://cache?ssl_ciphers=x&ssl_ca_data=y", "ssl_ca_data, ssl_ciphers"),
        ("rediss://cache?ssl_cert_reqs=optional", "ssl_cert_reqs"),
        ("rediss://cache?ssl_ca_certs=/no/such/file", "cannot be loaded"),
        ("rediss://cache?ssl_certfile=/no/such/file", "cannot be loaded"),
    ],
)
async def test_a_url_with_options_that_do_not_fit(url: str, problem: str) -> None:
    """An option that is wrong, or that we would have to ignore, is a mistake of the configuration."""
    with pytest.raises(ConfigError, match=problem):
        async with open_redis_store(url):
            pass


@pytest.mark.parametrize("prefix", ["", "a b", "a{b", "a}b", "ä"])
async def test_a_prefix_that_does_not_fit(prefix: str) -> None:
    """Braces would spoil the keys, and a space the messages."""
    with pytest.raises(ConfigError, match="prefix"):
        async with open_redis_store("redis://cache", prefix=prefix):
            pass


# -- what servers say -------------------------------------------------------------------------------------------------


def greeting(version: str = "7.0.15", role: str = "master") -> bytes:
    """What a server says to HELLO, and to the SELECT that comes with it."""
    words: list[str | int] = [
        "server",
        "redis",
        "version",
        version,
        "proto",
        2,
        "id",
        5,
        "mode",
        "standalone",
        "role",
        role,
    ]
    parts = [b":%d\r\n" % word if isinstance(word, int) else b"+%s\r\n" % word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(parts) + b"+OK\r\n"


PREPARED = b"+sha\r\n" * len(SCRIPTS) + b"$0\r\n\r\n"
SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"


class Scripted:
    """A server that says the same whatever it is told: one talk for each connection, the last one for all others."""

    def __init__(self, *talks: bytes, hangs_up: bool = False) -> None:
        self._talks = talks
        self._hangs_up = hangs_up
        self.streams: list[trio.abc.Stream] = []  # its ends of the connections

    async def __call__(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(self._talks[min(len(self.streams), len(self._talks) - 1)])
        if self._hangs_up:
            await theirs.send_eof()
        self.streams.append(theirs)
        return ours


@pytest.mark.parametrize(
    ("open_stream", "problem", "seconds"),
    [
        (Scripted(greeting("6.0.16")), "Redis 6.0.16 is too old, at least 6.2 is needed", 0),
        (Scripted(b"-ERR unknown command `HELLO`\r\n+OK\r\n"), "unknown command `HELLO`", 0),
        (Scripted(b"-WRONGPASS invalid password\r\n-NOAUTH\r\n"), "WRONGPASS", 0),
        (Scripted(b"-DENIED protected mode\r\n", hangs_up=True), "DENIED protected mode", 0),
        (Scripted(b"+OK\r\n+OK\r\n"), "it does not greet as Redis does", 0),
        (Scripted(b"*2\r\n+name\r\n+x\r\n+OK\r\n"), "it does not greet as Redis does", 0),
        (Scripted(greeting(role="slave")), "it is a replica, which cannot be written to", 2),
        (Scripted(b"-LOADING Redis is loading\r\n+OK\r\n"), "LOADING", 2),
        (Scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "Protocol error", 2),
        (Scripted(b"", hangs_up=True), "the server closed the connection", 2),
        (Scripted(b""), "no connection within 2 s", 2),
        (Scripted(greeting()), "no connection within 2 s", 2),
    ],
)
async def test_servers_that_will_not_do(
    autojump_clock: MockClock, open_stream: Scripted, problem: str, seconds: float
) -> None:
    """What will be the same next time is told at once, what may pass after two seconds; never later."""
    before = trio.current_time()
    with pytest.raises(StorageUnavailableError, match=problem) as caught:
        async with open_redis_store("redis://cache.example", open_stream=open_stream):
            pass
    assert str(caught.value).startswith("redis://cache.example:6379/0: ")
    assert caught.value.__cause__ is not None
    assert trio.current_time() - before == pytest.approx(seconds)


@pytest.mark.parametrize("version", ["6.2.14", "7.0.15", "8.0", "255.255.255"])
async def test_a_server_that_is_still_loading(autojump_clock: MockClock, version: str) -> None:
    """A server that has just been started is waited for."""
    open_stream = Scripted(
        b"-LOADING Redis is loading\r\n+OK\r\n", greeting(version) + PREPARED, greeting(version) + SUBSCRIBED
    )
    async with open_redis_store("redis://cache.example", open_stream=open_stream) as store:
        assert repr(store) == "<RedisStore redis://cache.example:6379/0, 0 waiting>"


async def test_nobody_there(autojump_clock: MockClock) -> None:
    """A server that cannot be reached is an error after two seconds, not a program that hangs."""

    async def open_stream() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("connection refused")

    before = trio.current_time()
    with pytest.raises(StorageUnavailableError, match="connection refused"):
        async with open_redis_store("redis://cache.example", open_stream=open_stream):
            pass
    assert trio.current_time() - before == pytest.approx(2)


async def test_places_where_there_is_no_redis(tmp_path: Path) -> None:
    """A port where nobody listens, a web server, a path that is no socket: each is an error that says so."""
    file = tmp_path / "redis.sock"
    file.touch()
    port = free_port()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    async def fails(url: str, problem: str) -> None:
        with pytest.raises(StorageUnavailableError, match=problem):
            async with open_redis_store(url):
                pass

    async with trio.open_nursery() as serving:
        listeners = await serving.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        web = listeners[0].socket.getsockname()[1]
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, f"redis://:secret@127.0.0.1:{port}", f"^redis://127.0.0.1:{port}/0: .*{port}")
                nursery.start_soon(fails, f"redis://127.0.0.1:{web}", "Protocol error, got .H")
                nursery.start_soon(fails, f"unix://{file}", f"^unix://{file}: ")
                nursery.start_soon(fails, f"unix://{file}.not-there", f"^unix://{file}.not-there: ")
        serving.cancel_scope.cancel()


# -- who we are -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=binaries())
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with a password, a user, and a user who needs none."""
    with redis_server(binaries()[request.param]) as server:
        with server.client() as client:
            client.config_set("requirepass", "p@ss")
            client.execute_command("ACL SETUSER app on >secret ~* &* +@all")
            client.execute_command("ACL SETUSER open on nopass ~* &* +@all")
        yield server


def root(server: RedisServer, **options: Any) -> Any:
    return server.client(password="p@ss", **options)


@pytest.mark.parametrize(
    ("make", "user"),
    [
        (lambda at: RedisConnection(url=f"redis://:p%40ss@127.0.0.1:{at.port}/0"), "default"),
        (lambda at: RedisConnection(port=at.port, password="p@ss"), "default"),
        (lambda at: RedisConnection(url=f"redis://app:secret@127.0.0.1:{at.port}"), "app"),
        (lambda at: RedisConnection(port=at.port, username="app", password="secret"), "app"),
        (lambda at: RedisConnection(port=at.port, username="open"), "open"),
        (lambda at: RedisConnection(scheme="unix", host=str(at.socket), password="p@ss"), "default"),
        (lambda at: RedisConnection(url=f"unix://app:secret@{at.socket}"), "app"),
    ],
)
async def test_logging_in(server: RedisServer, make: Callable[[RedisServer], RedisConnection], user: str) -> None:
    """By password, as a user, over TCP or a unix socket; both connections, under a name that tells whose they are."""
    async with open_redis_store(make(server)) as store:
        assert (await store.load("ab" + "c" * 20, life=LIFE)).blob is None
        with root(server) as client:
            ours = [each for each in client.client_list() if each["name"].startswith("trio_session-")]
        assert [each["user"] for each in ours] == [user, user]


@pytest.mark.parametrize("db", [0, 7])
async def test_databases(server: RedisServer, db: int) -> None:
    """Sessions are in the database that the address names, and in no other."""
    key = "ab:" + "d" * 20
    async with open_redis_store(RedisConnection(port=server.port, password="p@ss", db=db)) as store:
        await store.acquire(key, "t" * 24, lease=1.0, life=LIFE)
        await store.commit(key, "t" * 24, version=b"", blob=b"x", life=LIFE)
    with root(server, db=db) as here, root(server, db=7 - db) as there:
        name = f"trio_session:{{ab}}:{'d' * 20}"
        assert here.exists(name)
        assert not there.exists(name)
        here.delete(name)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda at: RedisConnection(port=at.port, password="wrong"), "WRONGPASS|invalid username-password"),
        (lambda at: RedisConnection(port=at.port, username="app", password="p@ss"), "invalid username-password"),
        (lambda at: RedisConnection(port=at.port), "NOAUTH"),
        (lambda at: RedisConnection(port=at.port, password="p@ss", db=99), "database 99: .*out of range"),
    ],
)
async def test_being_refused(
    server: RedisServer, make: Callable[[RedisServer], RedisConnection], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password, user or database is told at once, and the password is told to nobody."""
    before = trio.current_time()
    with trio.fail_after(10), pytest.raises(StorageUnavailableError, match=problem) as caught:
        async with open_redis_store(make(server)):
            pass
    assert trio.current_time() - before < AT_ONCE
    for text in (str(caught.value), repr(caught.value.__cause__), caplog.text):
        assert "p@ss" not in text
        assert "wrong" not in text


async def test_a_replica() -> None:
    """It could be read from, but no lock can be had there: that is told at the start."""
    with redis_server() as server, server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        with trio.fail_after(10), pytest.raises(StorageUnavailableError, match="it is a replica"):
            async with open_redis_store(server.url):
                pass
        client.execute_command("REPLICAOF", "NO", "ONE")
        async with open_redis_store(server.url):
            pass
