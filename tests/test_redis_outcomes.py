"""What a caller learns when it is not certain, or not at once, what the server has done."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.test_fake_redis import KEY, LIFE, RECORD, increment, open_both, stored, take
from trio_session import CommitUnknownError, SessionConfig, StorageUnavailableError, open_session_manager
from trio_session.testing import FakeRedis


async def test_a_lock_whose_grant_got_lost_is_had_at_once(autojump_clock: MockClock) -> None:
    """It is not waited for until its own lease ends."""
    async with open_both() as (fake, store):
        fake.lose_reply(only="acquire")
        started = trio.current_time()
        await take(store)
        assert trio.current_time() - started < 1


def lose_every_reply_to_a_commit(fake: FakeRedis) -> None:
    for _ in range(10):
        fake.lose_reply(only="commit")


async def test_a_commit_that_no_connection_survives_has_an_unknown_outcome(autojump_clock: MockClock) -> None:
    """It has landed, in fact; but to call it refused, or done, would be a guess."""
    async with open_both() as (fake, store):
        await increment(store)
        lose_every_reply_to_a_commit(fake)
        with pytest.raises(CommitUnknownError):
            await increment(store)
        fake.heal()
        assert await stored(store) == 2


async def test_a_read_that_no_connection_survives_fails(autojump_clock: MockClock) -> None:
    """After a few connections it is taken for what they die of."""
    async with open_both() as (fake, store):
        for _ in range(10):
            fake.lose_reply(only="load")
        with pytest.raises(StorageUnavailableError):
            await store.load(KEY, life=LIFE)
        assert fake.calls["load"] == 5


async def test_a_server_that_forgets_itself_in_mid_commit(autojump_clock: MockClock) -> None:
    """It answers with errors after the commit may have run: unknown. Before, it has not run: unavailable."""
    async with open_both() as (fake, store):
        for error in (StorageUnavailableError, CommitUnknownError):
            token, loaded = await take(store)
            if error is CommitUnknownError:
                fake.lose_reply(only="commit")
            fake.fail_with("NOPERM no more", only="commit")
            with pytest.raises(error):
                await store.commit(KEY, token, version=loaded.version, blob=b"new", life=LIFE)
            store.release(KEY, token)


async def test_a_record_that_vanished_leaves_a_repeated_commit_unknown(autojump_clock: MockClock) -> None:
    """The first time may have landed and been evicted, or never have landed at all."""
    async with open_both() as (fake, store):
        await increment(store)
        token, loaded = await take(store)
        fake.lose_reply(only="commit")
        fake.refuse(1)

        async def evict() -> None:
            while fake.calls["commit"] < 2:
                await trio.sleep(0.001)
            fake.expire(RECORD)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(evict)
            with pytest.raises(CommitUnknownError):
                await store.commit(KEY, token, version=loaded.version, blob=b"new", life=LIFE)


async def test_a_release_that_the_server_does_not_know_is_taught(autojump_clock: MockClock) -> None:
    """Nobody waits for its answer; all the same the lock is free afterwards."""
    async with open_both() as (fake, store):
        token, _ = await take(store)
        fake.fail_with("NOSCRIPT No matching script.", only="release")
        store.release(KEY, token)
        started = trio.current_time()
        await take(store)
        assert trio.current_time() - started < 0.5


async def test_a_commit_gives_up_the_lock_by_itself(autojump_clock: MockClock) -> None:
    """Not a message more than acquire and commit: a third one would slow down the next."""
    async with open_both() as (fake, store), open_session_manager(SessionConfig(), store=store) as manager:
        session = manager.session()
        await session.put("n", 1)
        await session.refresh()
        await session.clear()
        await trio.sleep(1)
        assert fake.calls["release"] == 0
        assert fake.calls["acquire"] == fake.calls["commit"] + fake.calls["rotate"] + fake.calls["destroy"] == 3
