"""`durability="replicas:N"`: who is told that a commit is safe, who is told that it is not, and what that costs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    CommittedNotReplicatedError,
    ConfigError,
    LocalStore,
    RedisConnection,
    Session,
    SessionConfig,
    SessionManager,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session._ids import Ids
from trio_session.abc import Heir, Lifetime
from trio_session.redis import RedisStore, open_redis_store
from trio_session.testing import FakeRedis, SessionTrainer, open_fake_redis, open_test_client
from trio_session.web import App, Request

from .redis_servers import RedisServer, redis_server
from .redis_topologies import ask, role, wait
from .test_fake_redis import KEY, LIFE, open_both, take
from .test_leases import FaultyStore
from .test_redis_trouble import ACL

OTHER = "cd0123456789abcdefghijkl"
TIMEOUT = 5.0  # seconds; commit_timeout
LIMIT = 20.0  # seconds


def config(replicas: int = 1, **settings: Any) -> SessionConfig:
    settings = {"redis": {"default": RedisConnection()}, **settings}
    return SessionConfig(driver="redis", durability=f"replicas:{replicas}", **settings)


@asynccontextmanager
async def opened(replicas: int = 1, **settings: Any) -> AsyncIterator[tuple[FakeRedis, SessionManager]]:
    """A fake server with as many replicas as are asked for, and a manager on it."""
    async with open_fake_redis() as fake:
        fake.replicas = replicas
        chosen = config(replicas, **settings)
        async with (
            open_redis_store("redis://fake", open_stream=fake.open_stream, durability=chosen.durability) as store,
            open_session_manager(chosen, store=store) as manager,
        ):
            yield fake, manager


def store_of(manager: SessionManager) -> RedisStore:
    store = manager._engine.store
    assert isinstance(store, RedisStore)
    return store


async def stored(manager: SessionManager, session: Session, name: str) -> object:
    """What another request sees."""
    return (await manager.session(session.id).read()).get(name)


@contextmanager
def refused(reason: str = "timeout") -> Iterator[None]:
    with pytest.raises(CommittedNotReplicatedError) as caught:
        yield
    assert caught.value.reason == reason


def rest_of(manager: SessionManager) -> int:
    """What is left of those who waited, and of what they had written."""
    store = store_of(manager)
    waiters = [node._replication._waiters for node in store._topology.nodes if node._replication is not None]
    return len(store._unconfirmed) + sum(map(len, waiters))


# -- what is promised -------------------------------------------------------------------------------------------------


async def test_replicas_confirm(autojump_clock: MockClock) -> None:
    """Each way to change a session ends when they have it; reading, and changing nothing, asks nobody."""
    async with opened(replicas=2) as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        assert (fake.calls["WAIT"], fake.calls["SET"]) == (2, 1)  # one of them to see whether we may
        await session.refresh()
        await session.lock()
        session["a"] = 2
        await session.commit()
        assert fake.calls["SET"] == 3
        await session.put("a", 2)
        await manager.session(session.id).read()
        await session.lock()
        await session.rollback()
        assert fake.calls["SET"] == 3
        await session.clear()
        assert fake.calls["SET"] == 4
        assert rest_of(manager) == 0


async def test_nobody_is_asked_unless_it_was_wished(autojump_clock: MockClock) -> None:
    """Without `durability` the server's word is enough, and there are two connections, not three."""
    async with (
        open_both() as (fake, store),
        open_session_manager(SessionConfig(), store=store) as manager,
    ):
        await manager.session().put("a", 1)
        assert (fake.calls["WAIT"], fake.calls["HELLO"]) == (0, 2)


async def test_too_few_replicas(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The change is there, the lock is free, and the error says so when `commit_timeout` ends; the log, once."""
    async with opened(replicas=2) as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        fake.replicas = 1
        for number in (2, 3):
            began = trio.current_time()
            with refused():
                await session.put("a", number)
            assert trio.current_time() - began == pytest.approx(TIMEOUT)
            assert session["a"] == number
            assert not session.is_locked
            assert await stored(manager, session, "a") == number
        fake.replicas = 2
        await session.put("a", 4)
        assert rest_of(manager) == 0
        assert manager.statistics().commits == 4
    said = [record.message.partition(": ")[2] for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [
        "1 of the 2 replicas that durability asks for confirm commits: whoever commits is told so",
        "replicas confirm commits again",
    ]


async def test_a_replica_that_comes_in_time(autojump_clock: MockClock) -> None:
    """Those who wait for it have not waited in vain, however slow it is; and then the next ones have their turn."""
    async with opened() as (fake, manager):
        fake.replicas = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.session().put, "a", 1)
            await trio.sleep(TIMEOUT / 2)
            fake.replicas = 1
            began = trio.current_time()
            await manager.session().put("a", 1)
            assert trio.current_time() - began < 0.1


async def test_many_ask_together(autojump_clock: MockClock) -> None:
    """Fifty commits at once are a few questions, not fifty: one per bundle of answers, at the most."""
    async with opened() as (fake, manager):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(manager.session().put, "a", number)
        assert fake.calls["commit"] == 50
        assert fake.calls["SET"] <= 8


async def test_who_comes_later_is_asked_about_later(autojump_clock: MockClock) -> None:
    """A question under way does not cover what may have been written after it."""
    async with opened() as (fake, manager):
        store = store_of(manager)
        tokens = [await write(store) for _ in range(3)]
        await store.confirm(KEY, tokens[0])
        fake.delay = 0.2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.confirm, KEY, tokens[1])
            await trio.sleep(0.1)
            assert fake.calls["WAIT"] == 3
            nursery.start_soon(store.confirm, KEY, tokens[2])
        assert fake.calls["WAIT"] == 4
        assert trio.current_time() == pytest.approx(0.4)


async def test_nothing_is_undone(autojump_clock: MockClock) -> None:
    """The exception comes out of `locked()`, after the commit: a new id is known, and the session goes on."""
    async with opened(replicas=1) as (fake, manager):
        fake.replicas = 0
        session = manager.session()
        with refused():
            async with session.locked() as data:
                data["a"] = 1
        first = session.id
        assert first is not None
        with refused():
            await session.refresh()
        assert session.id not in {None, first}
        assert await stored(manager, session, "a") == 1
        with refused():
            await session.clear()
        assert session.id is None


async def test_the_response(autojump_clock: MockClock) -> None:
    """It is a 503 that asks nobody to try again, and the cookie of the new session goes with it."""
    async with opened() as (fake, manager):
        fake.replicas = 0
        app = App(manager=manager)

        @app.post("/cart")
        async def cart(request: Request) -> str:
            await request.session.put("cart", "pear")
            raise AssertionError

        @app.get("/cart")
        async def look(request: Request) -> str:
            return str(request.session("cart"))

        async with open_test_client(app) as client:
            answer = await client.post("/cart")
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, None)
            assert (await client.get("/cart")).text == "pear"


# -- another primary --------------------------------------------------------------------------------------------------


async def test_another_history(autojump_clock: MockClock) -> None:
    """What replicas of a later primary have says nothing about a commit from before; the next one is fine."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        fake.replid = "b" * 40  # it was a replica, and is the primary again, and no connection was lost
        with refused("primary_lost"):
            await session.put("a", 2)
        await session.put("a", 3)
        assert rest_of(manager) == 0


async def test_another_history_while_the_question_is_under_way(autojump_clock: MockClock) -> None:
    """It is looked for after the replicas have answered."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 1)

        def change(words: list[bytes]) -> bool:
            if words[0] == b"WAIT":
                fake.replid = "b" * 40
            return False

        fake.fail_with("never", only=change)
        with refused("primary_lost"):
            await session.put("a", 2)


async def test_the_connection_is_lost_while_they_wait(autojump_clock: MockClock) -> None:
    """The same server is asked again, over a new one."""
    async with opened() as (fake, manager):
        for lose in (fake.lose_reply, partial(fake.cut_request_after, 10)):
            lose(only="WAIT")
            await manager.session().put("a", 1)
            assert fake.faults_left == 0


async def test_a_server_that_hangs_up_on_the_idle(autojump_clock: MockClock) -> None:
    """The next one who asks does not pay for it with the pause before another attempt."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        await trio.sleep(1000)
        fake.cut_request_after(0, only="SET")
        began = trio.current_time()
        await session.put("a", 2)
        assert trio.current_time() == began
        assert fake.faults_left == 0


async def test_the_server_has_started_anew(autojump_clock: MockClock) -> None:
    """Then nobody knows what has become of a commit that was on its way to replicas."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        fake.replicas = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart, fake)
            with refused("primary_lost"):
                await session.put("a", 2)
        await session.put("a", 3)


async def restart(fake: FakeRedis) -> None:
    await trio.sleep(0.7)
    fake.replid = "b" * 40
    fake.replicas = 1
    await fake.restart()


async def test_a_server_that_falls_silent(autojump_clock: MockClock) -> None:
    """Nobody waits longer than `commit_timeout`."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 1)
        fake.replicas = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(freeze, fake)
            began = trio.current_time()
            with refused():
                await session.put("a", 2)
            assert trio.current_time() - began == pytest.approx(TIMEOUT)
        fake.thaw()
        fake.replicas = 1
        await session.put("a", 3)


async def freeze(fake: FakeRedis) -> None:
    await trio.sleep(0.2)
    fake.freeze()


async def test_a_server_that_does_not_answer_a_question(autojump_clock: MockClock) -> None:
    """It is taken for dead in the end, and asked over a new connection."""
    async with opened() as (fake, manager):
        store = store_of(manager)
        tokens = [await write(store) for _ in range(2)]
        await store.confirm(KEY, tokens[0])
        connections = fake.calls["HELLO"]
        fake.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.confirm, KEY, tokens[1])
            await trio.sleep(60)
            fake.thaw()
        assert fake.calls["HELLO"] > connections


async def test_a_server_that_cannot_make_the_mark(autojump_clock: MockClock) -> None:
    """It is asked again, until it is too late."""
    async with opened() as (fake, manager):
        fake.fail_with("NOREPLICAS Not enough good replicas to write.", times=2, only="SET")
        await manager.session().put("a", 1)
        assert fake.faults_left == 0
        fake.fail_with("NOREPLICAS Not enough good replicas to write.", times=100, only="SET")
        with refused():
            await manager.session().put("a", 1)


async def test_a_slot_that_has_moved(autojump_clock: MockClock) -> None:
    """Those whose session was in it are told; the others are asked about once more."""
    async with opened() as (fake, manager):
        store = store_of(manager)
        token, other = await write(store), await write(store, OTHER)
        fake.replicas = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back, fake, 3.0)
            nursery.start_soon(store.confirm, OTHER, other)
            await wait_all_tasks_blocked()
            fake.fail_with("MOVED 1 10.0.0.1:6379", only=lambda words: words[0] == b"SET" and b"{ab}" in words[1])
            with refused("primary_lost"):
                await store.confirm(KEY, token)
        assert fake.faults_left == 0


# -- those who wait ---------------------------------------------------------------------------------------------------


async def test_a_cancelled_caller(autojump_clock: MockClock) -> None:
    """The commit has landed, so it waits on in spite of that: `Cancelled` out of a block means nothing was written."""
    async with opened() as (fake, manager):
        fake.replicas = 0
        ended_at = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back, fake, 3.0)
            with trio.move_on_after(1):
                await manager.session().put("a", 1)
                ended_at = trio.current_time()
                await trio.sleep_forever()
        assert ended_at >= 3


class LateStore(FaultyStore):
    """Says that it has committed when it should long have given up."""

    confirms = True

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        version = await self.store.commit(key, token, version=version, blob=blob, life=life, heir=heir)
        with trio.CancelScope(shield=True):
            await trio.sleep(TIMEOUT + 1)
        return version

    async def confirm(self, key: str, token: str) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_commit_that_comes_late(autojump_clock: MockClock) -> None:
    """It is known to be there, so it is not said to be unknown; but there is no time left to ask about replicas."""
    settings = SessionConfig(commit_timeout=TIMEOUT, lock_lease=20.0, lock_timeout=30.0)
    async with open_session_manager(settings, store=LateStore()) as manager:
        session = manager.session()
        with refused():
            await session.put("a", 1)
        assert await stored(manager, session, "a") == 1


async def come_back(fake: FakeRedis, seconds: float) -> None:
    await trio.sleep(seconds)
    fake.replicas = 1


async def write(store: RedisStore, key: str = KEY) -> str:
    token, loaded = await take(store, key)
    await store.commit(key, token, version=loaded.version, blob=b"x", life=LIFE)
    return token


async def test_one_who_gives_up(autojump_clock: MockClock) -> None:
    """The others are answered all the same."""
    async with opened() as (fake, manager):
        store = store_of(manager)
        tokens = [await write(store) for _ in range(3)]
        fake.replicas = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back, fake, 1.0)
            for token in tokens[:2]:
                nursery.start_soon(store.confirm, KEY, token)
            with trio.move_on_after(0.2) as scope:
                await store.confirm(KEY, tokens[2])
            assert scope.cancelled_caught
        assert rest_of(manager) == 0


async def test_the_manager_closes(autojump_clock: MockClock) -> None:
    """It lets those who have committed wait for replicas."""
    async with trio.open_nursery() as nursery:
        async with opened() as (fake, manager):
            fake.replicas = 0
            nursery.start_soon(come_back, fake, 1.0)
            nursery.start_soon(manager.session().put, "a", 1)
            await trio.sleep(0.5)
        assert trio.current_time() >= 1


async def test_the_store_closes(autojump_clock: MockClock) -> None:
    """Nobody can be told any more; those who wait are told so."""
    async with trio.open_nursery() as nursery, opened() as (fake, manager):
        store = store_of(manager)
        tokens = [await write(store) for _ in range(2)]
        fake.replicas = 0
        nursery.start_soon(refused_to, store, tokens[0])
        await wait_all_tasks_blocked()
    with refused("primary_lost"):
        await store.confirm(KEY, tokens[1])


async def refused_to(store: RedisStore, token: str) -> None:
    with refused("primary_lost"):
        await store.confirm(KEY, token)


async def test_what_was_never_written(autojump_clock: MockClock) -> None:
    """Nobody can say that replicas have it."""
    async with opened() as (_, manager):
        with refused("primary_lost"):
            await store_of(manager).confirm(KEY, "0" * 24)


# -- settings and rights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["NOPERM this user has no permissions to run the 'wait' command", "ERR unknown command 'WAIT'"]
)
async def test_a_server_that_must_not_be_asked(autojump_clock: MockClock, said: str) -> None:
    """The program does not start: each of its commits would end in an error."""
    async with open_fake_redis() as fake:
        fake.fail_with(said, only="WAIT")
        with pytest.raises(StorageUnavailableError, match="durability needs WAIT and INFO, and it says: "):
            async with open_redis_store("redis://fake", open_stream=fake.open_stream, durability="replicas:1"):
                pass


async def test_a_server_that_does_not_tell(autojump_clock: MockClock) -> None:
    """Without the name of its history no commit could ever be confirmed, so it is not used, and the reason is told."""
    async with opened() as (fake, manager):
        fake.replid = ""
        await fake.restart()
        with pytest.raises(StorageUnavailableError, match="does not name the history"):
            await manager.session().put("a", 1)
        fake.replid = "5" * 40
        await trio.sleep(3)
        await manager.session().put("a", 1)


async def test_the_settings_agree(autojump_clock: MockClock) -> None:
    """A store that was opened without `durability` cannot keep what the configuration promises."""
    async with open_both() as (_, store):
        for chosen in (store, LocalStore()):
            with pytest.raises(ConfigError, match=r"^durability"):
                async with open_session_manager(config(), store=chosen):
                    pass


async def test_tests_with_the_settings_of_production(autojump_clock: MockClock) -> None:
    """`SessionTrainer` takes a configuration with `durability`, and has nothing to wait for."""
    async with SessionTrainer(config()) as trainer:
        session = trainer.manager.session()
        await session.put("a", 1)
        await session.clear()


# -- real servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[list[RedisServer]]:
    """A primary and two replicas."""
    server = partial(redis_server, repl_diskless_sync_delay=0, repl_diskless_sync="yes")
    with server() as primary, server() as one, server() as other:
        for replica in (one, other):
            ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        wait(lambda: len(role(primary)[2]) == 2)
        yield [primary, one, other]


@asynccontextmanager
async def opened_on(url: str, replicas: int, **settings: Any) -> AsyncIterator[SessionManager]:
    redis = {"default": RedisConnection(url=url)}
    with trio.fail_after(LIMIT):
        async with open_session_manager(config(replicas, redis=redis, **settings)) as manager:
            yield manager


async def test_real_replicas(site: list[RedisServer]) -> None:
    """Both have what was committed, at the moment when the program goes on."""
    primary, *replicas = site
    async with opened_on(primary.url, 2) as manager:
        session = manager.session()
        for number in range(20):
            await session.put("number", number)
            said = {ask(server, "GET", record(session)) for server in site}
            assert len(said) == 1
        assert all(role(replica)[0] == "slave" for replica in replicas)


async def test_a_real_replica_that_stops(site: list[RedisServer]) -> None:
    """One is enough for those who want one; who wants two is told that the other is missing, and nothing is undone."""
    primary, replica, _ = site
    async with opened_on(primary.url, 1) as modest, opened_on(primary.url, 2, commit_timeout=1.0) as manager:
        session = manager.session()
        await session.put("number", 1)
        replica.freeze()
        try:
            await modest.session().put("number", 1)
            with refused():
                await session.put("number", 2)
            assert await stored(manager, session, "number") == 2
        finally:
            replica.thaw()
        await session.put("number", 3)


async def test_the_rights_that_it_takes(site: list[RedisServer]) -> None:
    """The rule for users in the docs, and WAIT."""
    primary = site[0]
    ask(primary, "ACL", "SETUSER", "app", "on", ">secret", *ACL.split(), "+wait")
    try:
        async with opened_on(f"redis://app:secret@127.0.0.1:{primary.port}", 2) as manager:
            await manager.session().put("a", 1)
    finally:
        ask(primary, "ACL", "DELUSER", "app")


def record(session: Session) -> str:
    assert session.id is not None
    key = Ids().key(session.id)
    return f"trio_session:{{{key[:2]}}}{key[2:]}"


async def test_a_server_that_is_too_busy_to_say_what_its_replicas_follow(autojump_clock: MockClock) -> None:
    """Without that no commit could ever be confirmed over this connection, so there has to be another."""
    async with opened() as (fake, manager):
        session = manager.session()
        await session.put("a", 0)
        fake.fail_with("BUSY Redis is busy", only=lambda words: words == [b"INFO", b"replication"])
        await fake.restart()
        await trio.sleep(3)
        await session.put("a", 1)
        assert fake.faults_left == 0
