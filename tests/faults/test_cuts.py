"""Fault 4: the connection is cut after each byte of a write, and of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.redis_servers import RedisServer, redis_server
from trio_session import LockLostError
from trio_session.abc import Heir, Lifetime, Loaded
from trio_session.redis import RedisStore, open_redis_store

from ._harness import PREFIX, amount
from ._proxy import Proxy, open_proxy

LIFE = Lifetime(idle=60.0)
LEASE = 20.0  # seconds; here no lease ends by itself
LANES = 16  # so many connections are cut at the same time: most of the time is spent until the next one stands
SOON = 10.0  # seconds


def token_of(caller: int, number: int) -> str:
    """The name of an acquisition."""
    return f"{caller:016x}{number:08x}"


TOKEN, HEIR, OTHER, BEFORE = token_of(1, 1), token_of(1, 2), token_of(2, 1), token_of(3, 1)

Write = Callable[[RedisStore, str, str, Loaded], Awaitable[object]]


async def commit(store: RedisStore, key: str, token: str, loaded: Loaded) -> bytes:
    return await store.commit(key, token, version=loaded.version, blob=b"mine", life=LIFE)


def inherit(_: bytes, on_begun: Callable[[], None] | None) -> None:
    assert on_begun is not None
    on_begun()


async def commit_to_heir(store: RedisStore, key: str, token: str, loaded: Loaded) -> bytes:
    heir = Heir(HEIR, inherit)
    version = await store.commit(key, token, version=loaded.version, blob=b"mine", life=LIFE, heir=heir)
    store.release(key, HEIR)
    return version


async def rotate(store: RedisStore, key: str, token: str, loaded: Loaded) -> bytes:
    return await store.rotate(
        key, token, version=loaded.version, new_key=f"{key}2", blob=b"mine", life=LIFE, reason="replaced"
    )


async def destroy(store: RedisStore, key: str, token: str, loaded: Loaded) -> None:
    await store.destroy(key, token, reason="destroyed")


WRITES: dict[str, Write] = {"commit": commit, "commit to an heir": commit_to_heir, "rotate": rotate, "destroy": destroy}


def landed(name: str, seen: Loaded) -> bool:
    """Has the write been done, by what is there now?"""
    return seen.blob == b"mine" if name.startswith("commit") else seen.ended is not None


class Lane:
    """A proxy of its own, a store behind it, which is another one for each case, and a store that has none."""

    def __init__(self, number: int, proxy: Proxy, other: RedisStore) -> None:
        self.proxy = proxy
        self.other = other
        self.mine: RedisStore = other
        self._number = number
        self._keys = 0

    async def fresh_key(self) -> str:
        """The key of a new record. All keys are of the same length, hence all requests are."""
        self._keys += 1
        key = f"aa:{self._number:03}{self._keys:06}"
        await self.other.acquire(key, BEFORE, lease=LEASE, life=LIFE)
        await self.other.commit(key, BEFORE, version=b"", blob=b"first", life=LIFE)
        return key


@asynccontextmanager
async def lane_on(server: RedisServer, number: int) -> AsyncIterator[Lane]:
    async with open_proxy(server.port) as proxy, open_redis_store(server.url, prefix=PREFIX) as other:
        yield Lane(number, proxy, other)


@asynccontextmanager
async def fresh_store(server: RedisServer, lane: Lane) -> AsyncIterator[None]:
    """One that has lost no connection yet, so it makes the next one quickly."""
    async with open_redis_store(server.url, prefix=PREFIX, open_stream=lane.proxy.open_stream) as lane.mine:
        yield


async def lengths(server: RedisServer, write: Write) -> dict[str, int]:
    """How many bytes a write is, and its answer."""
    async with lane_on(server, 999) as lane, fresh_store(server, lane):
        key = await lane.fresh_key()
        loaded = await lane.mine.acquire(key, TOKEN, lease=LEASE, life=LIFE)
        before = dict(lane.proxy.passed)
        await write(lane.mine, key, TOKEN, loaded)
        return {direction: lane.proxy.passed[direction] - before[direction] for direction in before}


async def at_all_bytes(
    server: RedisServer, name: str, step: int, case: Callable[[Lane, str, str, int], Awaitable[None]]
) -> None:
    """Call `case` for a cut after each byte of the request, and of the reply."""
    whole = await lengths(server, WRITES[name])
    assert whole["up"] > 100
    cuts: Iterator[tuple[str, int]] = iter(
        [("up", k) for k in sorted({*range(0, whole["up"], step), whole["up"] - 1, whole["up"]})]
        + [("down", k) for k in sorted({*range(0, whole["down"], amount(5, 1)), whole["down"] - 1, whole["down"]})]
    )

    async def work(number: int) -> None:
        async with lane_on(server, number) as lane:
            for direction, k in cuts:
                with trio.fail_after(SOON):
                    async with fresh_store(server, lane):
                        await case(lane, name, direction, k)

    async with trio.open_nursery() as nursery:
        for number in range(LANES):
            nursery.start_soon(work, number)


async def cut_once(lane: Lane, name: str, direction: str, k: int) -> None:
    """Nobody else is there: the write is done."""
    key = await lane.fresh_key()
    loaded = await lane.mine.acquire(key, TOKEN, lease=LEASE, life=LIFE)
    cut = lane.proxy.cut
    lane.proxy.left[direction] = k
    version = await WRITES[name](lane.mine, key, TOKEN, loaded)
    await cut.wait()
    seen = await lane.other.load(key, life=LIFE)
    assert landed(name, seen)
    if name.startswith("commit"):
        assert seen.version == version
    elif name == "rotate":
        assert (await lane.other.load(f"{key}2", life=LIFE)).version == version


async def cut_while_another_waits(lane: Lane, name: str, direction: str, k: int) -> None:
    """Somebody else waits for the lock: it sees the write, and overwrites it before its owner has asked again."""
    key = await lane.fresh_key()
    loaded = await lane.mine.acquire(key, TOKEN, lease=LEASE, life=LIFE)

    async def wait_and_overwrite() -> None:
        seen = await lane.other.acquire(key, OTHER, lease=LEASE, life=LIFE)
        assert landed(name, seen)
        await overwrite(lane.other, key, OTHER, seen)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_and_overwrite)
        while len(lane.other._waiters) == 0:
            await trio.lowlevel.checkpoint()
        lane.proxy.left[direction] = k
        await WRITES[name](lane.mine, key, TOKEN, loaded)


async def cut_and_robbed(lane: Lane, name: str, direction: str, k: int) -> None:
    """Before its owner can ask again the lock is somebody else's: what the owner is told is what the other has seen."""
    key = await lane.fresh_key()
    loaded = await lane.mine.acquire(key, TOKEN, lease=LEASE, life=LIFE)
    lane.proxy.stops_then = True
    seen = Loaded()

    async def rob(cut: trio.Event) -> None:
        nonlocal seen
        await cut.wait()
        await lane.other.load(key, life=LIFE)  # what had arrived of the write has been done by now
        await take_away(lane, key)
        seen = await lane.other.acquire(key, OTHER, lease=LEASE, life=LIFE)
        await overwrite(lane.other, key, OTHER, seen)
        lane.proxy.flowing["up"].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rob, lane.proxy.cut)
        lane.proxy.left[direction] = k
        try:
            await WRITES[name](lane.mine, key, TOKEN, loaded)
        except LockLostError:
            was_done = False
        else:
            was_done = True
    assert was_done == landed(name, seen), f"cut {direction} {k}: told {was_done}, seen {seen}"
    if direction == "down":
        assert was_done


async def take_away(lane: Lane, key: str) -> None:
    """As if the lease had ended."""
    await lane.other._topology.nodes[0].link.call(_delete(f"{PREFIX}:{{{key[:2]}}}{key[2:]}:l"))


def _delete(key: str) -> bytes:
    return b"*2\r\n$3\r\nDEL\r\n$%d\r\n%s\r\n" % (len(key), key.encode())


async def overwrite(store: RedisStore, key: str, token: str, seen: Loaded) -> None:
    """Commit three times, so that nothing but the first knows what was there before."""
    if seen.ended is not None:
        store.release(key, token)
        return
    for n in range(3):
        seen = Loaded(await store.commit(key, token, version=seen.version, blob=b"other", life=LIFE))
        token = token_of(2, n + 2)
        await store.acquire(key, token, lease=LEASE, life=LIFE)
    store.release(key, token)


@pytest.mark.parametrize("name", WRITES)
async def test_the_connection_is_cut_in_a_write(name: str) -> None:
    """A change whose connection breaks at whatever byte is made, and made once; nobody sees an error."""
    with redis_server() as server:
        await at_all_bytes(server, name, amount(13 if name == "commit" else 37, 1), cut_once)


@pytest.mark.parametrize("name", WRITES)
async def test_the_connection_is_cut_and_another_process_overwrites(name: str) -> None:
    """A change is acknowledged even if another process has changed the session again before the reply came."""
    with redis_server() as server:
        await at_all_bytes(server, name, amount(17 if name == "commit" else 53, 1), cut_while_another_waits)


@pytest.mark.parametrize("name", WRITES)
async def test_the_connection_is_cut_and_the_lock_is_lost(name: str) -> None:
    """Whoever loses lock and connection at once is told the truth about a change: made or not, never "who knows"."""
    with redis_server() as server:
        await at_all_bytes(server, name, amount(17 if name == "commit" else 53, 1), cut_and_robbed)
