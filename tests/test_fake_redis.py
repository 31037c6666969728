"""The fake Redis server: what it lets users see, and each of its faults as a real store goes through it.

That it answers like a real server is shown in test_fake_redis_fidelity.py.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import LockLostError, SessionConfig, StorageUnavailableError, open_session_manager
from trio_session.abc import Lifetime, Loaded
from trio_session.redis import RedisStore, open_redis_store
from trio_session.redis._resp import pack
from trio_session.testing import FakeRedis, check_store, open_fake_redis

KEY, OTHER_KEY = "ab0123456789abcdefghijkl", "ablkjihgfedcba9876543210"
RECORD = f"trio_session:{{ab}}{KEY[2:]}"
LIFE = Lifetime(idle=600.0)
LEASE = 5.0

Setup = tuple[FakeRedis, RedisStore]


@asynccontextmanager
async def open_both(url: str = "redis://fake", **options: str | None) -> AsyncIterator[Setup]:
    async with open_fake_redis(**options) as fake, open_redis_store(url, open_stream=fake.open_stream) as store:
        yield fake, store


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fake server and a store on it. Tests ask for a clock that jumps as well; a fixture cannot do it for them."""
    async with open_both() as both:
        yield both


def tokens(first: int = 0) -> Callable[[], str]:
    numbers = iter(range(first, sys.maxsize))
    return lambda: f"{next(numbers):024d}"


new_token = tokens()


async def take(store: RedisStore, key: str = KEY) -> tuple[str, Loaded]:
    token = new_token()
    return token, await store.acquire(key, token, lease=LEASE, life=LIFE)


async def increment(store: RedisStore) -> int:
    """One more in the record, as a session would do it."""
    token, loaded = await take(store)
    number = int(loaded.blob or b"0") + 1
    await store.commit(KEY, token, version=loaded.version, blob=b"%d" % number, life=LIFE)
    return number


async def stored(store: RedisStore) -> int:
    return int((await store.load(KEY, life=LIFE)).blob or b"0")


# -- a server ----------------------------------------------------------------------------------------------------------


async def test_store_keeps_its_promises(autojump_clock: MockClock) -> None:
    """A store on the fake server keeps every promise of the protocol, and the test takes no time."""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[RedisStore]:
        async with open_both() as (_, store):
            yield store

    await check_store(open_store, advance=trio.sleep)


async def test_example(autojump_clock: MockClock) -> None:
    """The example in the documentation is true: a lost reply costs a second request, not a second visit."""
    async with open_both() as (fake, store), open_session_manager(SessionConfig(), store=store) as manager:
        session = manager.session()
        fake.lose_reply(only="commit")
        assert await session.increment("visits") == 1
        assert fake.calls["commit"] == 2
        assert (await session.read())["visits"] == 1


async def test_processes_compete(autojump_clock: MockClock) -> None:
    """Several stores on one server are several processes: their tasks take turns, and no change is lost."""
    async with AsyncExitStack() as exits:
        fake = await exits.enter_async_context(open_fake_redis())
        stores = [
            await exits.enter_async_context(open_redis_store("redis://fake", open_stream=fake.open_stream))
            for _ in range(3)
        ]

        async def work(store: RedisStore) -> None:
            for _ in range(10):
                await increment(store)

        async with trio.open_nursery() as nursery:
            for store in stores:
                nursery.start_soon(work, store)
        assert await stored(stores[0]) == 30
        assert fake.calls["PUBLISH"] == 0  # by scripts only
        assert repr(fake) == "<FakeRedis 6 connections, 1 keys, 0 faults>"
    assert repr(fake) == "<FakeRedis 0 connections, 1 keys, 0 faults>"


async def test_data_can_be_seen_and_aged(autojump_clock: MockClock, setup: Setup) -> None:
    """A test can see what is stored, and let single keys age or vanish."""
    fake, store = setup
    await increment(store)
    token, _ = await take(store)
    assert fake.keys() == [RECORD, f"{RECORD}:l"]
    record, holder = fake.get(RECORD), fake.get(f"{RECORD}:l".encode())
    assert isinstance(record, bytes)
    assert isinstance(holder, bytes)
    assert record.endswith(b"1")
    assert holder.endswith(token.encode())
    assert fake.get("nothing") is None
    assert fake.time_left("nothing") is None
    assert fake.time_left(RECORD) == 600.0
    fake.pass_over(RECORD, 599.0)
    assert fake.time_left(RECORD) == 1.0
    await trio.sleep(1.5)
    assert fake.keys() == [f"{RECORD}:l"]
    fake.expire(f"{RECORD}:l")
    assert fake.keys() == []
    with pytest.raises(LockLostError):
        await store.commit(KEY, token, version=b"", blob=b"1", life=LIFE)


async def test_keys_without_expiry(autojump_clock: MockClock, setup: Setup) -> None:
    """A record that lives for ever does not age; and a list is given as a copy."""
    fake, store = setup
    token, _ = await take(store)
    await store.commit(KEY, token, version=b"", blob=b"1", life=Lifetime(idle=inf))
    assert fake.time_left(RECORD) == inf
    fake.pass_over(RECORD, 1e6)
    assert fake.keys() == [RECORD]
    await take(store)
    with trio.move_on_after(1):
        await take(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, store)
        await wait_all_tasks_blocked()
        queue = fake.get(f"{RECORD}:q")
        assert isinstance(queue, list)
        queue.clear()
        assert fake.get(f"{RECORD}:q")
        nursery.cancel_scope.cancel()


async def test_databases(autojump_clock: MockClock) -> None:
    """The database of the URL is the one that is used."""
    async with open_both("redis://fake/3") as (fake, store):
        await increment(store)
        assert fake.keys() == []
        assert fake.keys(db=3) == [RECORD]


async def test_delay(autojump_clock: MockClock, setup: Setup) -> None:
    """A distant server takes its time to answer, once for all requests under way."""
    fake, store = setup
    fake.delay = 0.25
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(stored, store)
    assert trio.current_time() - before == pytest.approx(0.25)


async def test_lupa_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Lua the server does not start, and says what to install."""
    monkeypatch.setitem(sys.modules, "lupa.lua51", None)
    with pytest.raises(ImportError, match=r"pip install trio_session\[test\]"):
        async with open_fake_redis():
            pass


async def ask(fake: FakeRedis, *words: str | int) -> bytes:
    async with await fake.open_stream() as stream:
        await stream.send_all(pack(words))
        return bytes(await stream.receive_some())


async def test_facts() -> None:
    """What a client asks about the server is what the test has set."""
    async with open_fake_redis() as fake:
        fake.version, fake.read_only, fake.maxmemory = "9.9.9", True, 1000
        facts = await ask(fake, "INFO")
        for fact in (b"redis_version:9.9.9", b"role:slave", b"maxmemory:1000", b"maxmemory_policy:noeviction"):
            assert fact in facts
        assert b"version" not in await ask(fake, "INFO", "memory")


async def test_what_it_cannot_do() -> None:
    """An option that is not implemented is refused, not ignored."""
    async with open_fake_redis() as fake:
        assert await ask(fake, "LPOP", "list", 2) == b"-ERR the fake server does not know the options of LPOP\r\n"


@pytest.mark.parametrize("garbage", [b"PING\r\n", b"*0\r\n", b"$4\r\nPING\r\n", b"*1\r\n:1\r\n"])
async def test_garbage(garbage: bytes) -> None:
    """What is no request ends the connection, and no other."""
    async with open_both() as (fake, store):
        stream = await fake.open_stream()
        await stream.send_all(garbage)
        assert await stream.receive_some() == b""
        assert await increment(store) == 1


# -- log-in ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "username", "complaint"),
    [
        ("redis://:secret@fake", None, None),
        ("redis://app:secret@fake", "app", None),
        ("redis://fake", None, "HELLO must be called with the client already authenticated"),
        ("redis://:wrong@fake", None, "invalid username-password pair"),
        ("redis://:secret@fake", "app", "invalid username-password pair"),
        ("redis://fake:secret@fake/99", "fake", "DB index is out of range"),
    ],
)
async def test_log_in(autojump_clock: MockClock, url: str, username: str | None, complaint: str | None) -> None:
    """The right credentials open the store; others end in an error at once that tells why."""
    async with open_fake_redis(password="secret", username=username) as fake:
        if complaint is None:
            async with open_redis_store(url, open_stream=fake.open_stream) as store:
                assert await increment(store) == 1
        else:
            with pytest.raises(StorageUnavailableError, match=complaint):
                async with open_redis_store(url, open_stream=fake.open_stream):
                    pass
            assert fake.calls["HELLO"] == 1
            assert trio.current_time() == 0


async def test_changed_password(autojump_clock: MockClock) -> None:
    """A password that changes matters at the next log-in only; the store comes back when it fits again."""
    async with open_both("redis://:old@fake", password="old") as (fake, store):
        fake.password = "new"
        assert await increment(store) == 1
        await fake.restart()
        with pytest.raises(StorageUnavailableError, match="invalid username-password pair"):
            await increment(store)
        fake.password = "old"
        await trio.sleep(4)
        assert await increment(store) == 2


async def test_old_server(autojump_clock: MockClock) -> None:
    """A server that is too old is refused at once."""
    async with open_fake_redis() as fake:
        fake.version = "6.0.16"
        with pytest.raises(StorageUnavailableError, match=r"6\.0\.16 is too old"):
            async with open_redis_store("redis://fake", open_stream=fake.open_stream):
                pass


async def test_eviction_policy(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A server that may throw sessions away is warned about, once."""
    async with open_fake_redis() as fake:
        fake.maxmemory, fake.maxmemory_policy = 1_000_000, "allkeys-lru"
        with caplog.at_level(logging.WARNING):
            async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
                await fake.restart()
                await increment(store)
        assert caplog.text.count("allkeys-lru") == 1
