"""A server that forgets, refuses or interrupts us: what still works, and what is said about it."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import CommitUnknownError, LockLostError, RedisConnection, SessionEndedError, StorageUnavailableError
from trio_session.redis import RedisStore, _address, _connection, open_redis_store
from trio_session.redis._address import Destination
from trio_session.redis._connection import Connection
from trio_session.redis._supervisor import describe

from .redis_servers import RedisServer, free_port
from .test_redis_connection import PREPARED, SUBSCRIBED, Scripted, greeting
from .test_redis_locks import (
    KEY,
    LIFE,
    LIMIT,
    LOCK,
    LONG,
    NEW_KEY,
    QUEUE,
    Waiter,
    commit,
    opened,
    take,
    until,
)

# What a user of the server must be allowed to do. docs/how-to has the same.
ACL = (
    "~trio_session:* resetchannels &trio_session:* -@all +select +ping +info +subscribe +publish +script|load +evalsha "
    "+eval +get +set +getrange +del +pttl +pexpire +persist +lpop +rpush +lpos +lrem +llen +hget +hset +time"
)


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """An empty one, with its users and its scripts forgotten."""
    with running.client() as client:
        client.flushall()
        client.script_flush()
        client.execute_command("ACL DELUSER app")
        client.execute_command("ACL LOG RESET")
    return running


# -- what we may do ---------------------------------------------------------------------------------------------------


def as_app(server: RedisServer) -> RedisConnection:
    return RedisConnection(url=f"redis://app:secret@127.0.0.1:{server.port}/0")


async def test_the_least_that_a_user_must_be_allowed(
    server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With the rule in the docs everything works, and the server has nothing to complain of."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.split())
    async with open_redis_store(as_app(server)) as one, open_redis_store(as_app(server)) as two:
        assert one._topology.nodes[0].control.listening
        async with trio.open_nursery() as nursery:
            loaded = await take(one, "t1")
            assert await one.renew([(KEY, "t1")], lease=LONG) == [True]
            waiter = Waiter(two, "t2", nursery)
            await until(lambda: client.llen(QUEUE))
            loaded = await commit(one, "t1", loaded, heir="t3")
            one.release(KEY, "t3")
            with trio.fail_after(LIMIT):
                await waiter.granted.wait()
            assert waiter.loaded is not None
            await two.rotate(
                KEY, "t2", version=waiter.loaded.version, new_key=NEW_KEY, blob=b"x", life=LIFE, reason="replaced"
            )
            with pytest.raises(SessionEndedError):
                await commit(two, "t4", await take(two, "t4"))
            with pytest.raises(LockLostError):
                await two.destroy(KEY, "t5", reason="destroyed")
    assert client.execute_command("ACL LOG") == []
    assert caplog.text == ""


async def test_a_user_without_channels(server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Who may not subscribe cannot be called; so it asks often, does not queue up, and the log says so, once."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.replace("&trio_session:*", "").split())
    with trio.fail_after(LIMIT):
        before = trio.current_time()
        async with open_redis_store(as_app(server)) as one, open_redis_store(as_app(server)) as two:
            assert trio.current_time() - before < 1.5  # nobody has to wait until patience ends
            assert not one._topology.nodes[0].control.listening
            async with trio.open_nursery() as nursery:
                await take(one, "t1")
                waiter = Waiter(two, "t2", nursery)
                await trio.sleep(0.2)
                assert not client.exists(QUEUE)
                one.release(KEY, "t1")
                await waiter.granted.wait()
            await until(lambda: len(client.execute_command("ACL LOG")))
            await trio.sleep(0.3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # one for each store
    assert all("for wake-ups: no connection: NOPERM" in line for line in lines)


async def test_a_user_who_may_not_publish(server: RedisServer, client: Any) -> None:
    """Its commits land all the same; only those who wait have to ask by themselves."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.replace("+publish", "").split())
    with trio.fail_after(LIMIT):
        async with open_redis_store(as_app(server)) as one, open_redis_store(as_app(server)) as two:
            loaded = await take(one, "t1")
            async with trio.open_nursery() as nursery:
                waiter = Waiter(two, "t2", nursery)
                await until(lambda: client.llen(QUEUE))
                await one.commit(KEY, "t1", version=loaded.version, blob=b"one", life=LIFE)
                await waiter.granted.wait()
            assert waiter.loaded is not None
            assert waiter.loaded.blob == b"one"


async def test_a_user_without_commands(server: RedisServer, client: Any) -> None:
    """A permission that is missing is an error that names it, and no lock stays behind."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.replace("+evalsha", "").split())
    async with open_redis_store(as_app(server)) as store:
        with pytest.raises(StorageUnavailableError, match=r"NOPERM.*evalsha"):
            await take(store, "t1")
    client.execute_command("ACL SETUSER app", "+evalsha", "-pttl")
    async with open_redis_store(as_app(server)) as store:
        await take(store, "t1")
        with pytest.raises(StorageUnavailableError, match=r"pttl|run this command"):
            await take(store, "t2")


# -- what a server forgets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forbidden", ["", "+script|load"])
async def test_scripts_are_forgotten(server: RedisServer, client: Any, forbidden: str) -> None:
    """SCRIPT FLUSH, or a user who may not load scripts, is not noticed; not even by who gives up a lock unchanged."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.replace(forbidden, "").split())
    async with open_redis_store(as_app(server)) as store:
        for number in range(3):
            client.script_flush()
            with trio.fail_after(LIMIT):
                loaded = await take(store, f"t{number}")
            store.release(KEY, f"t{number}")
            await until(lambda: not client.exists(LOCK))
            client.script_flush()
            loaded = await take(store, f"u{number}")
            client.script_flush()
            assert await store.renew([(KEY, f"u{number}")], lease=LONG) == [True]
            client.script_flush()
            await commit(store, f"u{number}", loaded)
            client.script_flush()
            assert (await store.load(KEY, life=LIFE)).blob == b"x"


async def test_the_whole_server_forgets(server: RedisServer, client: Any) -> None:
    """FLUSHALL ends sessions and locks; a lock that is gone cannot be renewed, and the next one begins anew."""
    async with opened(server, 1) as (store,):
        await take(store, "t1")
        client.flushall()
        assert await store.renew([(KEY, "t1")], lease=LONG) == [False]
        assert (await take(store, "t2")).blob is None


async def test_no_locks_to_renew(server: RedisServer) -> None:
    """That is no question to a server."""
    async with opened(server, 1) as (store,):
        assert await store.renew([], lease=LONG) == []


# -- what a server refuses --------------------------------------------------------------------------------------------


async def test_no_memory(server: RedisServer, client: Any) -> None:
    """A server without memory is asked again for a while, as it may pass; then its own words are the error."""
    async with opened(server, 1) as (store,):
        loaded = await take(store, "t1")
        client.config_set("maxmemory", 1)
        try:
            with trio.fail_after(LIMIT), pytest.raises(StorageUnavailableError, match="OOM"):
                await commit(store, "t1", loaded)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit, store, "t1", loaded)
                await trio.sleep(0.1)
                client.config_set("maxmemory", 0)
        finally:
            client.config_set("maxmemory", 0)
        assert (await store.load(KEY, life=LIFE)).blob == b"x"


async def test_a_server_that_becomes_a_replica(server: RedisServer, client: Any) -> None:
    """It refuses to write: the connection is given up, in case another server has its place by now."""
    async with opened(server, 1) as (store,):
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        try:
            with trio.fail_after(LIMIT), pytest.raises(StorageUnavailableError, match=r"it is a replica|READONLY"):
                await take(store, "t1")
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
        with trio.fail_after(LIMIT):
            while True:
                try:
                    await take(store, "t2")
                except StorageUnavailableError:
                    await trio.sleep(0.1)
                else:
                    break


# -- the connection for wake-ups --------------------------------------------------------------------------------------


async def test_wake_ups_get_lost(server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connection for wake-ups is lost, whoever waits asks at once, and does not depend on it."""
    monkeypatch.setattr("trio_session.redis._store._POLL", (LONG, LONG))
    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        await take(one, "t1")
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE))
        client.execute_command("CLIENT KILL TYPE pubsub")
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
        await until(lambda: two._topology.nodes[0].control.listening)


async def test_wake_ups_are_forbidden(server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a message that cannot come any more hears of that, and goes over to asking."""
    monkeypatch.setattr("trio_session.redis._store._POLL", (LONG, LONG))
    client.execute_command("ACL SETUSER app on >secret", *ACL.split())
    async with opened(server, 1) as (one,), open_redis_store(as_app(server)) as two, trio.open_nursery() as nursery:
        await take(one, "t1")
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE))
        client.execute_command("ACL SETUSER app resetchannels")
        client.execute_command("CLIENT KILL TYPE pubsub")
        await until(lambda: not two._topology.nodes[0].control.listening)
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
        assert not two._topology.nodes[0].control.listening


async def test_wake_ups_that_make_no_sense(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else comes over the connection for wake-ups ends it, and it is made anew."""
    ready = greeting() + SUBSCRIBED
    no_start = greeting() + b"+OK\r\n"
    open_stream = Scripted(greeting() + PREPARED, ready + b"-ERR no\r\n", no_start, ready + b":1\r\n", ready)
    async with open_redis_store("redis://cache.example", open_stream=open_stream) as store:
        await trio.sleep(5)
        assert store._topology.nodes[0].control.listening
    for words in (
        "wake-ups: no connection: ERR no",
        "no connection: something other than the start of a subscription",
        "no connection: something other than a message",
        "back after",
    ):
        assert words in caplog.text


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"*1\r\n+x\r\n", b"*2\r\n:1\r\n:1\r\n", b"*2\r\n$-1\r\n:0\r\n"])
async def test_answers_that_make_no_sense(autojump_clock: MockClock, answer: bytes) -> None:
    """What no script of ours can have said is an error, not a session."""
    server = Scripted(greeting() + PREPARED, greeting() + SUBSCRIBED)
    async with open_redis_store("redis://cache.example", open_stream=server) as store, trio.open_nursery() as n:

        async def load() -> None:
            with pytest.raises(StorageUnavailableError, match="makes no sense"):
                await store.load(KEY, life=LIFE)

        n.start_soon(load)
        await wait_all_tasks_blocked()
        await server.streams[0].send_all(answer)


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"*0\r\n", b"$-1\r\n"])
async def test_an_answer_to_a_commit_that_makes_no_sense(autojump_clock: MockClock, answer: bytes) -> None:
    """Whether it was made, nobody knows; that the session has ended, nobody has said."""
    server = Scripted(greeting() + PREPARED, greeting() + SUBSCRIBED)
    async with open_redis_store("redis://cache.example", open_stream=server) as store, trio.open_nursery() as nursery:
        nursery.start_soon(fails, store)
        await wait_all_tasks_blocked()
        await server.streams[0].send_all(answer)


async def test_an_answer_to_a_renewal_that_makes_no_sense(autojump_clock: MockClock) -> None:
    """A lock that the server does not say we have is lost."""
    server = Scripted(greeting() + PREPARED, greeting() + SUBSCRIBED)
    async with open_redis_store("redis://cache.example", open_stream=server) as store, trio.open_nursery() as nursery:

        async def renew() -> None:
            assert await store.renew([(KEY, "t1"), (KEY, "t2")], lease=5) == [False, True]

        nursery.start_soon(renew)
        await wait_all_tasks_blocked()
        await server.streams[0].send_all(b"*0\r\n:1\r\n")


@pytest.mark.parametrize(
    "talk",
    [
        b"*2\r\n*0\r\n*0\r\n",  # no dict has such a key
        b"*2\r\n$7\r\nversion\r\n$5000\r\n" + b"9" * 5000 + b"\r\n",  # a number longer than Python reads
        b"%1\r\n*0\r\n:1\r\n",
        b"*2147483647\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_what_is_no_redis_server_is_refused(autojump_clock: MockClock, talk: bytes) -> None:
    """Whatever it says for a greeting: the store does not open, and says why."""
    with pytest.raises(StorageUnavailableError, match=r"cache\.example"):
        async with open_redis_store("redis://cache.example", open_stream=Scripted(talk)):
            pass


# -- writes whose answers get lost ------------------------------------------------------------------------------------


async def lose(server: Scripted, times: int) -> None:
    """Cut the main connection so many times; each time it comes back at once."""
    for _ in range(times):
        await wait_all_tasks_blocked()
        stream = server.streams[0] if len(server.streams) == 2 else server.streams[-1]
        await stream.aclose()
        await trio.sleep(2)


async def commit_for_once(store: RedisStore) -> None:
    await store.commit(KEY, "t1", version=b"", blob=b"x", life=LIFE)


async def test_a_lock_that_was_lost_before_there_was_a_record(server: RedisServer) -> None:
    """A first commit without the lock was certainly not made, if it was sent but once."""
    async with opened(server, 1) as (store,):
        with pytest.raises(LockLostError):
            await commit_for_once(store)


@pytest.mark.parametrize("answer", [b":-1\r\n", b"-NOPERM no\r\n"])
async def test_a_commit_that_may_have_been_made(autojump_clock: MockClock, answer: bytes) -> None:
    """If it was sent twice and there is neither lock nor record, or no answer, nobody can say what became of it."""
    server = Scripted(greeting() + PREPARED, greeting() + SUBSCRIBED, greeting() + PREPARED)
    async with open_redis_store("redis://cache.example", open_stream=server) as store, trio.open_nursery() as nursery:
        nursery.start_soon(fails, store)
        await lose(server, 1)
        await server.streams[-1].send_all(answer)


async def fails(store: RedisStore) -> None:
    with pytest.raises(CommitUnknownError):
        await commit_for_once(store)


async def test_a_commit_that_connections_die_of(autojump_clock: MockClock) -> None:
    """After five connections it is not sent again; it may have been made by each of them."""
    server = Scripted(greeting() + PREPARED, greeting() + SUBSCRIBED, greeting() + PREPARED)
    async with open_redis_store("redis://cache.example", open_stream=server) as store, trio.open_nursery() as nursery:
        nursery.start_soon(fails, store)
        await lose(server, 5)


# -- sockets ----------------------------------------------------------------------------------------------------------


async def test_the_kernel_watches_idle_connections(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is gone is found without a timer of ours; also where the kernel knows fewer options."""
    monkeypatch.setattr(_address, "_KEEPALIVE", (("TCP_KEEPCNT", 3), ("TCP_OF_ANOTHER_SYSTEM", 1)))
    stream = await Destination.of(RedisConnection(url=server.url)).data.open_stream()
    async with stream:
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


async def test_a_socket_that_is_full_or_broken() -> None:
    """What cannot be written at once is left to the writer, which waits, or learns what is wrong."""
    ours, theirs = trio.socket.socketpair()
    connection = Connection(trio.SocketStream(ours))
    with theirs:
        assert connection.write_at_once(b"x") == 1
        while connection.write_at_once(bytes(65_536)):
            pass
    async with connection.stream:
        assert connection.write_at_once(b"x") == 0


async def test_a_socket_that_only_seemed_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A false alarm of the kernel is no end of the connection."""

    class FalseAlarms:
        def __init__(self) -> None:
            self.count = 0

        def read(self, fd: int, size: int) -> bytes:
            self.count += 1
            if self.count < 3:
                raise BlockingIOError
            return os.read(fd, size)

    ours, theirs = trio.socket.socketpair()
    alarms = FalseAlarms()
    connection = Connection(trio.SocketStream(ours))
    monkeypatch.setattr(_connection, "os", alarms)
    with theirs:
        await theirs.send(b"+OK\r\n")
        assert await connection.receive() == b"OK"
    assert alarms.count == 3
    await connection.stream.aclose()


def test_words_of_a_server_stay_on_one_line() -> None:
    """What a stranger at the address says can neither forge a line of the log nor command a terminal."""
    assert describe(OSError("no\r\n\x1b[2J")) == r"no\r\n\x1b[2J"
    assert describe(OSError("kein Zugriff für den")) == "kein Zugriff für den"
