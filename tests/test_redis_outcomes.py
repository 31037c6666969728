"""What a caller learns when it is not certain, or not at once, what the server has done."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.test_fake_redis import KEY, LIFE, RECORD, increment, open_both, stored, take
from trio_session import (
    CommitUnknownError,
    LockLostError,
    Session,
    SessionConfig,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session.redis import RedisStore, open_redis_store
from trio_session.redis._answers import written
from trio_session.redis._link import Command
from trio_session.redis._requests import Requests
from trio_session.redis._resp import ServerError
from trio_session.redis._scripts import COMMIT
from trio_session.redis._topology import Topology
from trio_session.testing import FakeRedis, open_fake_redis, open_test_client
from trio_session.web import App, Request


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


async def test_a_late_copy_of_an_acquisition_changes_no_verdict(autojump_clock: MockClock) -> None:
    """Stalled in a connection that was given up, it takes the lock once more, just before the commit is repeated."""
    async with open_both() as (fake, store):
        token, loaded = await take(store)
        copy = Requests("trio_session").acquire(KEY, store._name + token, 5.0, LIFE, is_queued=True)
        stalled = await fake.open_stream()
        fake.lose_reply(only="commit")

        async def arrive_late() -> None:
            while fake.faults_left:
                await trio.sleep(0.001)
            await stalled.send_all(copy)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_late)
            await store.commit(KEY, token, version=loaded.version, blob=b"1", life=LIFE)
        assert fake.calls["commit"] == 2
        assert await stored(store) == 1
        await take(store)
        assert trio.current_time() < 1


async def test_a_logout_that_came_too_late_is_no_logout(autojump_clock: MockClock) -> None:
    """Who lost the lock, and finds nothing under the old id, has not destroyed what lives on under another."""
    async with open_both() as (fake, store):
        await increment(store)
        token, _ = await take(store)
        fake.expire(f"{RECORD}:l")
        fake.expire(RECORD)
        with pytest.raises(LockLostError):
            await store.destroy(KEY, token, reason="destroyed")


async def test_an_heir_has_the_lease_of_its_own_manager(autojump_clock: MockClock) -> None:
    """Also if another manager with other leases uses the same store."""
    long, short = SessionConfig(lock_lease=30, lock_timeout=40), SessionConfig(lock_lease=1)
    async with (
        open_both() as (fake, store),
        open_session_manager(long, store=store) as one,
        open_session_manager(short, store=store) as two,
    ):
        session = one.session()
        await session.put("n", 0)
        async with trio.open_nursery() as nursery, session.locked() as data:
            data["n"] += 1
            nursery.start_soon(inherit, fake, one.session(session.id))
            await trio.sleep(0.1)
            await two.session().put("n", 0)


async def inherit(fake: FakeRedis, session: Session) -> None:
    async with session.locked() as data:
        names = fake.keys()
        (lock,) = [name for name in names if name.endswith(":l")]
        assert fake.time_left(lock) == 30
        data["n"] += 1


async def test_an_heir_goes_before_whoever_left_it_the_lock(autojump_clock: MockClock) -> None:
    """It begins as soon as the answer to the commit is there, and not when the one that committed has run on."""
    events: list[str] = []

    async def visit(session: Session, name: str) -> None:
        async with session.locked() as data:
            events.append(f"{name} begins")
            data["n"] = data.get("n", 0) + 1
            await trio.sleep(1)
        events.append(f"{name} has left")

    async with open_both() as (_, store), open_session_manager(SessionConfig(), store=store) as manager:
        session = manager.session()
        await session.put("n", 0)
        async with trio.open_nursery() as nursery:
            names = "abcdefghij"  # of two tasks that are due at the same time, either may run first
            for name in names:
                nursery.start_soon(visit, manager.session(session.id), name)
                await trio.sleep(0.1)
        handed_on = [event for a, b in pairwise(names) for event in (f"{b} begins", f"{a} has left")]
        assert events == ["a begins", *handed_on, "j has left"]


async def test_an_answer_that_comes_too_late_leaves_the_lock_to_nobody(autojump_clock: MockClock) -> None:
    """By then the commit was given up, and the next task has asked for the lock itself."""

    async def visit(session: Session) -> None:
        async with session.locked() as data:
            data["n"] += 1
            await trio.sleep(2)

    async with open_both() as (fake, store):
        async with open_session_manager(SessionConfig(commit_timeout=0.5), store=store) as manager:
            session = manager.session()
            await session.put("n", 0)
            async with trio.open_nursery() as nursery:
                with pytest.raises(CommitUnknownError):
                    async with session.locked() as data:
                        data["n"] += 1
                        for _ in range(2):
                            nursery.start_soon(visit, manager.session(session.id))
                        await wait_all_tasks_blocked()
                        fake.delay = 1.0
                fake.delay = 0.0
            await session.read()
            assert session["n"] == 3
            assert manager.statistics().locks_held == 0
        assert not any(name.endswith(":l") for name in fake.keys())  # noqa: SIM118  # it is no dict


async def test_a_closing_store_leaves_no_lock_behind(autojump_clock: MockClock) -> None:
    """Whoever is about to get a lock while the store closes gives it up; others need not wait for its lease."""
    async with open_both() as (fake, other), trio.open_nursery() as nursery:
        async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
            await take(store)
            nursery.start_soon(find_it_closed, store)
            await wait_all_tasks_blocked()
            store.release(KEY, f"{0:024d}")
        assert fake.get(f"{RECORD}:q") is None
        fake.expire(f"{RECORD}:l")  # of the task that never gave it back
        started = trio.current_time()
        await take(other)
        assert trio.current_time() - started < 0.1


async def find_it_closed(store: RedisStore) -> None:
    with pytest.raises(StorageUnavailableError, match="closed"):
        await take(store)
    with pytest.raises(StorageUnavailableError, match="closed"):
        await take(store)


async def test_the_last_release_arrives_though_it_has_to_be_taught(autojump_clock: MockClock) -> None:
    """The store waits for it before it closes."""
    async with open_both() as (fake, _):
        async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
            token, _ = await take(store)
            fake.fail_with("NOSCRIPT No matching script.", only="release")
            store.release(KEY, token)
        assert fake.get(f"{RECORD}:l") is None


async def test_a_start_while_a_script_is_running(autojump_clock: MockClock) -> None:
    """The server is busy for a moment: that is no refusal."""
    async with open_fake_redis() as fake:
        fake.fail_with("BUSY Redis is busy running a script.", only="SELECT")
        async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
            await increment(store)


async def test_an_old_server_does_not_make_us_show_the_password(autojump_clock: MockClock) -> None:
    """It repeats what it did not understand, and that goes no further."""
    async with open_fake_redis() as fake:
        fake.fail_with("ERR unknown command 'HELLO', with args beginning with: 'AUTH' 'secret'", only="HELLO")
        with pytest.raises(StorageUnavailableError, match="unknown command 'HELLO'") as caught:
            async with open_redis_store("redis://:secret@fake", open_stream=fake.open_stream):
                raise AssertionError("not reached")
        assert "secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__cause__.__cause__}"  # type: ignore[union-attr]


async def test_an_error_in_the_middle_of_a_script_leaves_it_unknown(autojump_clock: MockClock) -> None:
    """Redis does not take back what a script has written before its error."""
    async with open_both() as (fake, store):
        token, loaded = await take(store)
        fake.fail_with("ERR no such thing script: 07b2, on @user_script:67.", only="commit")
        with pytest.raises(CommitUnknownError):
            await store.commit(KEY, token, version=loaded.version, blob=b"new", life=LIFE)


async def test_a_response_waits_for_each_commit_under_way(autojump_clock: MockClock) -> None:
    """Also for that of an heir which began before its predecessor had ended: it may bring a new id."""
    async with (
        open_both() as (fake, store),
        open_session_manager(SessionConfig(), store=store) as manager,
    ):
        app = App(manager=manager)

        @app.get("/log-in")
        async def log_in(request: Request) -> str:
            app.nursery.start_soon(request.session.put, "a", request.args["a"])
            await trio.sleep(0.05)
            app.nursery.start_soon(request.session.refresh)
            await trio.sleep(0.2)  # one has landed, the other is under way
            return "done"

        @app.get("/")
        async def index(request: Request) -> dict[str, Any]:
            return dict(request.session)

        async with open_test_client(app) as client:
            await client.get("/log-in?a=first")
            fake.delay = 0.1
            for turn in "abcdefgh":  # who of the two goes first is a matter of luck
                await client.get(f"/log-in?a={turn}")
                await trio.sleep(1)
                assert (await client.get("/")).json() == {"a": turn}


@pytest.mark.parametrize("refusal", ["MOVED 1 b:1", "READONLY You can't write against a read only replica."])
async def test_a_commit_that_went_to_two_servers_is_never_called_lost(refusal: str) -> None:
    """The first one may have run it; that the second one has not says nothing."""

    class Denies:
        def restart(self, reason: Exception, *, unless_since: float) -> None:
            """Look for the primary."""

        async def call(self, payload: bytes, **options: bool) -> Command:
            await trio.lowlevel.checkpoint()
            return commit_of(sends=1, reply=0)

    class TwoServers(Topology):
        nodes: Any

        def _find(self, tag: str) -> Any:
            return SimpleNamespace(link=Denies(), name="a")

        def _redirect(self, node: Any, error: ServerError) -> Any:
            return (SimpleNamespace(link=Denies(), name="b"), False) if refusal.startswith("MOVED") else None

    topology = TwoServers("two")
    twice = commit_of(sends=2, reply=ServerError(refusal))
    once = commit_of(sends=1, reply=ServerError(refusal))
    node = topology._find("k")
    with pytest.raises(CommitUnknownError):
        written(await topology.persist(KEY, node, COMMIT, b"", twice))
    with pytest.raises(LockLostError):
        written(await topology.persist(KEY, node, COMMIT, b"", once))


def commit_of(*, sends: int, reply: Any) -> Command:
    command = Command(b"", None, insists=True)
    command.sends, command.reply = sends, reply
    return command


async def test_those_who_ask_first_of_all_have_their_turn_in_order(autojump_clock: MockClock) -> None:
    """At the same time, on a server that nobody has asked for a lock before."""
    order: list[str] = []

    async def visit(store: RedisStore, token: str) -> None:
        loaded = await store.acquire(KEY, token, lease=60.0, life=LIFE)
        order.append(token)
        await store.commit(KEY, token, version=loaded.version, blob=b"x", life=LIFE)

    async with open_both() as (_, store):
        node = store._routes[KEY[:2]]
        async with trio.open_nursery() as nursery, node._first_calls:
            for token in ("t1", "t2", "t3"):
                nursery.start_soon(visit, store, token)
                await wait_all_tasks_blocked()
            assert not order
        assert order == ["t1", "t2", "t3"]
        assert not node.is_new
