"""Each fault of the fake Redis server as a real store, or a whole program, goes through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.test_fake_redis import KEY, LEASE, LIFE, RECORD, Setup, ask, increment, open_both, stored, take
from trio_session import (
    StorageUnavailableError,
)
from trio_session.redis import RedisStore, open_redis_store
from trio_session.redis._resp import Verdict, pack
from trio_session.testing import open_fake_redis

OTHER_KEY = "ablkjihgfedcba9876543210"


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fake server and a store on it. Tests ask for a clock that jumps as well; a fixture cannot do it for them."""
    async with open_both() as both:
        yield both


# -- lost on the way ---------------------------------------------------------------------------------------------------

SCRIPTS = ["acquire", "commit", "rotate", "destroy", "release", "load", "renew"]


async def live_through(store: RedisStore) -> None:
    """A session's whole life, each script once; every result is checked."""
    token, loaded = await take(store)
    assert loaded.blob is None
    assert list(await store.renew([(KEY, token)], lease=LEASE)) == [True]
    version = await store.commit(KEY, token, version=b"", blob=b"one", life=LIFE)
    assert (await store.load(KEY, life=LIFE)).blob == b"one"
    token, loaded = await take(store)
    assert loaded.version == version
    await store.rotate(KEY, token, version=version, new_key=OTHER_KEY, blob=b"two", life=LIFE, reason="replaced")
    token, loaded = await take(store, OTHER_KEY)
    assert loaded.blob == b"two"
    store.release(OTHER_KEY, token)
    token, _ = await take(store, OTHER_KEY)
    await store.destroy(OTHER_KEY, token, reason="destroyed")
    assert (await store.load(OTHER_KEY, life=LIFE)).ended == "destroyed"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("fault", ["lost reply", "half a reply", "half a request", "whole request"])
async def test_lost_on_the_way(autojump_clock: MockClock, setup: Setup, script: str, fault: str) -> None:
    """Whatever is lost of any script's request or reply, it is sent again, and nobody notices."""
    fake, store = setup
    match fault:
        case "lost reply":
            fake.lose_reply(only=script)
        case "half a reply":
            fake.cut_reply_after(2, only=script)
        case "half a request":
            fake.cut_request_after(70, only=script)
        case _:
            fake.cut_request_after(100_000, only=script)
    await live_through(store)
    assert fake.faults_left == 0


async def test_commit_cut_at_each_byte(autojump_clock: MockClock, setup: Setup) -> None:
    """Wherever the connection is cut in a commit's request or reply, the commit lands exactly once."""
    fake, store = setup
    size = 0

    def is_commit(words: list[bytes]) -> bool:
        nonlocal size
        if len(words) == 17:  # no other script has so many arguments
            size = len(pack(tuple(words)))
        return len(words) == 17

    done = cut = 0
    while cut <= size:  # at first it is not known, and then it grows with the number in the record
        executed = fake.calls["commit"]
        fake.cut_request_after(cut, only=is_commit)
        assert await increment(store) == done + 1
        assert fake.calls["commit"] - executed == (1 if cut < size else 2)
        done, cut = done + 1, cut + 1
    assert cut > 300
    for cut in range(len(b":1\r\n")):
        fake.cut_reply_after(cut, only="commit")
        assert await increment(store) == done + 1
        done += 1
    assert fake.faults_left == 0
    assert await stored(store) == done


async def test_requests_after_the_cut(autojump_clock: MockClock, setup: Setup) -> None:
    """What arrived together with a request whose reply is lost is executed too, as on a real wire."""
    fake, _ = setup
    stream = await fake.open_stream()
    fake.lose_reply(only="PING")
    await stream.send_all(pack(("SET", "a", 1)) + pack(("PING",)) + pack(("SET", "b", 2)))
    assert await stream.receive_some() == b"+OK\r\n"
    assert await stream.receive_some() == b""
    assert fake.keys() == ["a", "b"]


# -- gone, or silent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_data", [True, False])
async def test_restart(autojump_clock: MockClock, setup: Setup, keep_data: bool) -> None:
    """A server that comes back without its scripts is not noticed, except by the loss of what it forgot."""
    fake, store = setup
    await increment(store)
    await ask(fake, "SCRIPT", "LOAD", "return 1")
    async with await fake.open_stream() as hearer:
        await hearer.send_all(pack(("SUBSCRIBE", "news")))
        await hearer.receive_some()
        assert await ask(fake, "PUBLISH", "news", "one hears it") == b":1\r\n"
        await fake.restart(keep_data=keep_data)
        assert await ask(fake, "PUBLISH", "news", "nobody hears it") == b":0\r\n"
    assert await ask(fake, "SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db") == b"*1\r\n:0\r\n"
    assert await increment(store) == (2 if keep_data else 1)


async def test_flushed_scripts(autojump_clock: MockClock, setup: Setup) -> None:
    """A server that forgets the scripts while it runs is taught them again."""
    fake, store = setup
    assert await ask(fake, "SCRIPT", "FLUSH") == b"+OK\r\n"
    assert await increment(store) == 1
    assert fake.calls["EVAL"] == 2


async def test_restart_with_waiters(autojump_clock: MockClock, setup: Setup) -> None:
    """Who waits for a lock while the server restarts gets it, without having to be told twice."""
    fake, store = setup
    token, _ = await take(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, store)
        await wait_all_tasks_blocked()
        await fake.restart()
        await trio.sleep(1)
        store.release(KEY, token)
        with trio.fail_after(3):
            while fake.get(f"{RECORD}:l") is None or str(fake.get(f"{RECORD}:l")).endswith(f"{token}'"):
                await trio.sleep(0.1)


async def test_frozen_server(autojump_clock: MockClock, setup: Setup) -> None:
    """A server that says nothing any more is given up in a few seconds, and found again when it is back."""
    fake, store = setup
    await increment(store)
    fake.freeze()
    assert "frozen" in repr(fake)
    before = trio.current_time()
    with pytest.raises(StorageUnavailableError):
        await stored(store)
    assert trio.current_time() - before < 8
    fake.thaw()
    await trio.sleep(4)
    assert await increment(store) == 2


async def test_frozen_is_frozen(autojump_clock: MockClock, setup: Setup) -> None:
    """A frozen server executes nothing; what it was sent it executes later, even if its sender has gone."""
    fake, _ = setup
    fake.freeze()
    async with await fake.open_stream() as stream:
        await stream.send_all(pack(("SET", "a", 1)))
        await wait_all_tasks_blocked()
        assert fake.keys() == []
    fake.thaw()
    await wait_all_tasks_blocked()
    assert fake.keys() == ["a"]


async def test_late_requests_of_the_dead(autojump_clock: MockClock, setup: Setup) -> None:
    """What a frozen server finds on connections that are long closed it executes: still nothing happens twice."""
    fake, store = setup
    await increment(store)
    token, loaded = await take(store)
    fake.freeze()
    fake.freeze()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def commit() -> None:
            await store.commit(KEY, token, version=loaded.version, blob=b"2", life=LIFE)

        await trio.sleep(3)  # the store has given up that connection by now
        fake.thaw()
    assert fake.calls["commit"] == 3
    assert await increment(store) == 3


async def test_refused_connections(autojump_clock: MockClock, setup: Setup) -> None:
    """While connections are refused requests wait; when that takes too long they fail."""
    fake, store = setup
    fake.refuse(2)
    await fake.restart()
    assert await increment(store) == 1
    fake.refuse()
    await fake.restart()
    with pytest.raises(StorageUnavailableError, match="refuses connections"):
        await increment(store)
    with pytest.raises(StorageUnavailableError):
        async with open_redis_store("redis://fake", open_stream=fake.open_stream):
            pass
    fake.heal()
    await trio.sleep(4)
    assert await increment(store) == 2


async def test_closed_server(autojump_clock: MockClock) -> None:
    """After its block a server is gone."""
    async with open_fake_redis() as fake:
        stream = await fake.open_stream()
    assert await stream.receive_some() == b""
    with pytest.raises(ConnectionRefusedError):
        await fake.open_stream()


# -- errors, one for each verdict on them ------------------------------------------------------------------------------

LASTING = {Verdict.WAIT: "LOADING Redis is loading the dataset in memory", Verdict.GIVE_UP: "NOPERM no permission"}
PASSING = {
    **LASTING,
    Verdict.LOAD_SCRIPT: "NOSCRIPT No matching script. Please use EVAL.",
    Verdict.RECONNECT: "READONLY You can't write against a read only replica.",
}


def test_verdicts_are_all_tested() -> None:
    """There is an error for each verdict."""
    assert PASSING.keys() == set(Verdict)


@pytest.mark.parametrize("verdict", PASSING)
async def test_error_that_passes(autojump_clock: MockClock, setup: Setup, verdict: Verdict) -> None:
    """An error that passes is not noticed, unless it is one that does not pass."""
    fake, store = setup
    hellos = fake.calls["HELLO"]
    fake.fail_with(f"-{PASSING[verdict]}", only="acquire")
    if verdict is Verdict.GIVE_UP:
        with pytest.raises(StorageUnavailableError, match="NOPERM"):
            await increment(store)
        assert fake.calls["acquire"] == 1
    else:
        assert await increment(store) == 1
        assert fake.calls["acquire"] == 2
    assert fake.calls["HELLO"] - hellos == (verdict is Verdict.RECONNECT)


@pytest.mark.parametrize("verdict", LASTING)
async def test_error_that_lasts(autojump_clock: MockClock, setup: Setup, verdict: Verdict) -> None:
    """An error that lasts is told within seconds, nothing was written, and the lock can be had afterwards."""
    fake, store = setup
    fake.fail_with(LASTING[verdict], times=inf, only="commit")
    before = trio.current_time()
    with pytest.raises(StorageUnavailableError, match=LASTING[verdict].split()[0]):
        await increment(store)
    assert trio.current_time() - before < 4
    assert fake.faults_left == 1
    fake.heal()
    assert fake.faults_left == 0
    with trio.fail_after(LEASE + 2):
        assert await increment(store) == 1


async def test_no_faults_at_all(autojump_clock: MockClock, setup: Setup) -> None:
    """A fault that is to strike no times is none."""
    fake, store = setup
    fake.fail_with("ERR never", times=0)
    assert fake.faults_left == 0
    assert await increment(store) == 1


async def test_out_of_memory(autojump_clock: MockClock, setup: Setup) -> None:
    """A server without memory refuses a commit; the lock can be given up and had all the same."""
    fake, store = setup
    token, _ = await take(store)
    fake.out_of_memory = True
    with pytest.raises(StorageUnavailableError, match="OOM"):
        await store.commit(KEY, token, version=b"", blob=b"1", life=LIFE)
    assert fake.keys() == [f"{RECORD}:l"]
    store.release(KEY, token)
    await stored(store)
    assert fake.keys() == []
    fake.out_of_memory = False
    assert await increment(store) == 1


async def test_replica(autojump_clock: MockClock, setup: Setup) -> None:
    """A server that has become a replica is left, and taken again when it is a primary."""
    fake, store = setup
    fake.read_only = True
    with pytest.raises(StorageUnavailableError, match="replica"):
        await increment(store)
    fake.read_only = False
    await trio.sleep(4)
    assert await increment(store) == 1


async def test_no_subscription(autojump_clock: MockClock) -> None:
    """Without leave to subscribe locks are polled for."""
    async with open_fake_redis() as fake:
        fake.fail_with("NOPERM no permission to access a channel", times=inf, only="SUBSCRIBE")
        async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
            token, _ = await take(store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(increment, store)
                await trio.sleep(1)
                assert fake.get(f"{RECORD}:q") is None
                store.release(KEY, token)
                released_at = trio.current_time()
            assert trio.current_time() - released_at < 0.2
            assert await stored(store) == 1
