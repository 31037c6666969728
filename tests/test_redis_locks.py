"""Locks between processes: who is next, how he hears of it, and what becomes of those who do not wait any longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from trio_session.abc import Heir, Lifetime, Loaded
from trio_session.redis import RedisStore, _store, open_redis_store

from .redis_servers import RedisServer

LIFE = Lifetime(idle=100.0)
KEY = "ab:" + "c" * 20
NEW_KEY = "ab:" + "d" * 20
RECORD = "trio_session:{ab}:" + "c" * 20
LOCK, QUEUE = f"{RECORD}:l", f"{RECORD}:q"
LONG = 60.0  # seconds; a lease that does not end during a test
LIMIT = 10.0  # seconds for what takes a few milliseconds


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits hears a message, or nothing at all."""
    monkeypatch.setattr(_store, "_POLL", (LONG, LONG))


class Waiter:
    """A task that waits for the lock, and what it got."""

    def __init__(self, store: RedisStore, token: str, nursery: trio.Nursery, order: list[str] | None = None) -> None:
        self.store = store
        self.token = token
        self.scope = trio.CancelScope()
        self.loaded: Loaded | None = None
        self.granted = trio.Event()
        self._order = order
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            self.loaded = await take(self.store, self.token)
            if self._order is not None:
                self._order.append(self.token)
            self.granted.set()


async def take(store: RedisStore, token: str, *, lease: float = LONG) -> Loaded:
    return await store.acquire(KEY, token, lease=lease, life=LIFE)


async def commit(store: RedisStore, token: str, loaded: Loaded, *, heir: str | None = None) -> Loaded:
    """Returns what the heir inherits, if it does."""
    inherited: list[bytes] = []

    def inherit(version: bytes, on_begun: Callable[[], None] | None) -> None:
        inherited.append(version)
        if on_begun is not None:
            on_begun()

    next_one = None if heir is None else Heir(heir, inherit)
    version = await store.commit(KEY, token, version=loaded.version, blob=b"x", life=LIFE, heir=next_one)
    assert inherited in ([], [version])
    return Loaded(version, b"x") if inherited else Loaded()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def opened(server: RedisServer, number: int) -> AsyncIterator[list[RedisStore]]:
    """So many stores, each as in a process of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_redis_store(server.url)) for _ in range(number)]


def scripts_run(client: Any) -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


# -- handing over -----------------------------------------------------------------------------------------------------


async def test_a_message_hands_over(server: RedisServer, client: Any, no_polls: None) -> None:
    """A process that waits hears when the lock is its own; between asking and claiming it asks nothing."""
    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        loaded = await take(one, "t1")
        before = scripts_run(client)
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE))
        assert repr(two).endswith("1 waiting>")
        await trio.sleep(0.05)
        await commit(one, "t1", loaded)
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
        assert waiter.loaded is not None
        assert waiter.loaded.blob == b"x"
        assert scripts_run(client) - before == 3  # asked, committed, claimed
        assert client.get(LOCK) == two._name.encode() + b"t2"
        assert repr(two).endswith("0 waiting>")


async def test_first_come_first_served(server: RedisServer, client: Any, no_polls: None) -> None:
    """Among processes, too."""
    order: list[str] = []
    async with opened(server, 4) as (holder, *others), trio.open_nursery() as nursery:
        await take(holder, "t0")
        waiters: list[Waiter] = []
        for number, store in enumerate(others):
            waiters.append(Waiter(store, f"t{number + 1}", nursery, order))
            await until(lambda: client.llen(QUEUE) == len(waiters))
        holder.release(KEY, "t0")
        for waiter in waiters:
            with trio.fail_after(LIMIT):
                await waiter.granted.wait()
            waiter.store.release(KEY, waiter.token)
    assert order == ["t1", "t2", "t3"]
    assert not client.exists(LOCK, QUEUE)


@pytest.mark.parametrize("end", ["commit", "rotate", "destroy", "release"])
async def test_every_end_hands_over(server: RedisServer, client: Any, no_polls: None, end: str) -> None:
    """Whichever way a lock ends, the next in line hears of it."""
    ends: dict[str, Callable[[RedisStore, Loaded], Awaitable[object]]] = {
        "commit": lambda store, loaded: commit(store, "t1", loaded),
        "rotate": lambda store, loaded: store.rotate(
            KEY, "t1", version=loaded.version, new_key=NEW_KEY, blob=b"x", life=LIFE, reason="replaced"
        ),
        "destroy": lambda store, _: store.destroy(KEY, "t1", reason="destroyed"),
        "release": lambda store, _: released(store),
    }

    async def released(store: RedisStore) -> None:
        store.release(KEY, "t1")

    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        loaded = await take(one, "t1")
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE))
        await ends[end](one, loaded)
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()


async def test_a_lease_that_ends_unheard(server: RedisServer, client: Any, no_polls: None) -> None:
    """When a lease runs out nobody sends a message; who waits knows when that is, and asks then."""
    async with opened(server, 2) as (one, two):
        await take(one, "t1", lease=0.3)
        with trio.fail_after(LIMIT):
            await take(two, "t2")
        assert client.get(LOCK) == two._name.encode() + b"t2"


async def test_the_queue_comes_first(server: RedisServer, client: Any, no_polls: None) -> None:
    """If a lease has run out, a newcomer does not overtake those who have waited."""
    async with opened(server, 3) as (one, two, three), trio.open_nursery() as nursery:
        await take(one, "t1")
        order: list[str] = []
        waiter = Waiter(two, "t2", nursery, order)
        await until(lambda: client.llen(QUEUE))
        client.delete(LOCK)  # it has run out, and nobody has noticed
        newcomer = Waiter(three, "t3", nursery, order)
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
            assert order == ["t2"]
            two.release(KEY, "t2")
            await newcomer.granted.wait()


# -- those who do not wait any longer ---------------------------------------------------------------------------------


async def test_a_waiter_who_is_cancelled_costs_nothing(server: RedisServer, client: Any, no_polls: None) -> None:
    """It leaves the queue at once, and the next in line is served as if it had never been."""
    async with opened(server, 3) as (one, two, three), trio.open_nursery() as nursery:
        await take(one, "t1")
        gone = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE) == 1)
        waiter = Waiter(three, "t3", nursery)
        await until(lambda: client.llen(QUEUE) == 2)
        gone.scope.cancel()
        await until(lambda: client.llen(QUEUE) == 1)
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()


async def test_an_offer_nobody_claims(server: RedisServer, client: Any, no_polls: None) -> None:
    """A process that was offered a lock for a task that has gone passes it on; nobody waits for the offer to lapse."""
    async with opened(server, 3) as (one, two, three), trio.open_nursery() as nursery:
        await take(one, "t1")
        client.rpush(QUEUE, two._name + "gone")
        waiter = Waiter(three, "t3", nursery)
        await until(lambda: client.llen(QUEUE) == 2)
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()


async def test_a_process_that_died_in_the_queue(server: RedisServer, client: Any, no_polls: None) -> None:
    """Nobody listens to its channel, so it is skipped; also by a newcomer who finds the lock free."""
    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        await take(one, "t1")
        client.rpush(QUEUE, "0" * 16 + "dead", "1" * 16 + "dead")
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE) == 3)
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
            two.release(KEY, "t2")
            await until(lambda: not client.exists(LOCK))
            client.rpush(QUEUE, "0" * 16 + "dead")
            await take(one, "t3")


class Slow(trio.abc.Stream):
    """A stream whose incoming data can be held back."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.may_receive = trio.Event()
        self.may_receive.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.inner.receive_some(max_bytes)
        await self.may_receive.wait()
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_an_offer_that_comes_after_the_fact(
    server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that was claimed before its offer had come is not given up when it comes."""
    monkeypatch.setattr(_store, "_POLL", (0.2, 0.2))
    streams: list[Slow] = []

    async def open_stream() -> trio.abc.Stream:
        streams.append(Slow(await trio.open_unix_socket(str(server.socket))))
        return streams[-1]

    async with (
        opened(server, 1) as (one,),
        open_redis_store(server.url, open_stream=open_stream) as two,
        trio.open_nursery() as nursery,
    ):
        _, control = streams
        await take(one, "t1")
        waiter = Waiter(two, "t2", nursery)
        await until(lambda: client.llen(QUEUE))
        control.may_receive = trio.Event()
        one.release(KEY, "t1")
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()
        control.may_receive.set()
        client.publish(f"trio_session:p:{two._name}", f"{RECORD} {two._name}t2")
        await trio.sleep(0.05)
        assert waiter.loaded is not None
        await commit(two, "t2", waiter.loaded)
        assert not client.exists(LOCK)
        assert not two._held


# -- heirs ------------------------------------------------------------------------------------------------------------


async def test_heirs_without_end(server: RedisServer) -> None:
    """As long as nobody else waits, a process may pass the lock around among its tasks for as long as it likes."""
    async with opened(server, 2) as (one, _):
        loaded = await take(one, "t0")
        for number in range(30):
            loaded = await commit(one, f"t{number}", loaded, heir=f"t{number + 1}")
            assert loaded.version


@pytest.mark.parametrize(("most", "longest", "heirs"), [(8, LONG, 8), (3, LONG, 3), (8, 0.0, 1)])
async def test_heirs_while_others_wait(
    server: RedisServer,
    client: Any,
    no_polls: None,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    longest: float,
    heirs: int,
) -> None:
    """If another process waits, so many of our tasks in a row may go first, and for so long; then it is its turn."""
    assert _store._MOST_HEIRS == 8
    monkeypatch.setattr(_store, "_MOST_HEIRS", most)
    monkeypatch.setattr(_store, "_LONGEST_REIGN", longest)
    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        loaded = await take(one, "t0")
        waiter = Waiter(two, "t", nursery)
        await until(lambda: client.llen(QUEUE))
        for number in range(heirs):
            loaded = await commit(one, f"t{number}", loaded, heir=f"t{number + 1}")
            assert loaded.version, "handed over too soon"
            assert client.get(LOCK) == f"{one._name}t{number + 1}".encode()
        assert not (await commit(one, f"t{heirs}", loaded, heir="more")).version
        with trio.fail_after(LIMIT):
            await waiter.granted.wait()


@pytest.mark.parametrize("end", ["commit", "rotate", "destroy", "release"])
async def test_a_reign_is_forgotten(server: RedisServer, client: Any, no_polls: None, end: str) -> None:
    """However the last of several heirs ends, the count of them is gone with it."""
    async with opened(server, 2) as (one, two), trio.open_nursery() as nursery:
        loaded = await take(one, "t0")
        Waiter(two, "t", nursery)
        await until(lambda: client.llen(QUEUE))
        loaded = await commit(one, "t0", loaded, heir="t1")
        assert one._reigns
        if end == "commit":
            await commit(one, "t1", loaded)
        elif end == "rotate":
            await one.rotate(
                KEY, "t1", version=loaded.version, new_key=NEW_KEY, blob=b"x", life=LIFE, reason="replaced"
            )
        elif end == "destroy":
            await one.destroy(KEY, "t1", reason="destroyed")
        else:
            one.release(KEY, "t1")
        assert not one._reigns
