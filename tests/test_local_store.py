"""LocalStore beyond the store protocol: bounded, self-cleaning, and fit for the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import LocalStore, LockLostError, SessionEndedError, SessionStore
from trio_session._errors import EndReason
from trio_session._local_store import _Lock
from trio_session.abc import Heir, Lifetime, Loaded
from trio_session.testing._checks import check_store

LIFE = Lifetime(idle=100.0)


@asynccontextmanager
async def open_local_store() -> AsyncIterator[SessionStore]:
    yield LocalStore()


async def test_it_keeps_every_promise_of_the_protocol(autojump_clock: MockClock) -> None:
    """The whole conformance suite, in no time."""
    await check_store(open_local_store, advance=trio.sleep)


async def put(store: LocalStore, key: str, blob: bytes = b"x", life: Lifetime = LIFE) -> None:
    loaded = await store.acquire(key, f"token-{key}", lease=1.0, life=life)
    await store.commit(key, f"token-{key}", version=loaded.version, blob=blob, life=life)


async def alive(store: LocalStore, *keys: str) -> list[str]:
    """Which of the keys are there; a look that slides nothing."""
    look = Lifetime(idle=100.0, touch_interval=inf)
    return [key for key in keys if (await store.load(key, life=look)).blob is not None]


async def test_it_cleans_itself_in_passing(mock_clock: MockClock) -> None:
    """Expired records go with the operations that follow, a few at a time, and need no task."""
    store = LocalStore()
    for number in range(100):
        await put(store, f"k{number}")
    assert repr(store) == "<LocalStore 100 records, 0 locks>"
    mock_clock.jump(100)
    for left in (68, 36, 4, 0, 0):
        await store.load("anything", life=LIFE)
        assert repr(store) == f"<LocalStore {left} records, 0 locks>"


async def test_a_slid_record_is_not_cleaned_away(mock_clock: MockClock) -> None:
    """An alarm that comes too early is put off, as often as needed, and then it rings."""
    store = LocalStore()
    await put(store, "busy")
    for _ in range(3):
        mock_clock.jump(60)
        assert (await store.load("busy", life=LIFE)).blob == b"x"
    mock_clock.jump(99.9)
    assert await alive(store, "busy") == ["busy"]
    mock_clock.jump(0.1)
    assert await alive(store, "busy") == []
    assert repr(store) == "<LocalStore 0 records, 0 locks>"


async def test_it_is_bounded(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The record nearest to its expiry makes room; the log says so once."""
    store = LocalStore(max_sessions=3)
    for key in ("a", "b", "c"):
        await put(store, key)
        mock_clock.jump(1)
    await store.load("a", life=LIFE)  # slides: now b is the idlest
    await put(store, "d")
    assert await alive(store, "a", "b", "c", "d") == ["a", "c", "d"]
    await put(store, "e")
    assert await alive(store, "a", "c", "d", "e") == ["a", "d", "e"]
    await put(store, "e", b"again")
    assert await alive(store, "a", "d", "e") == ["a", "d", "e"]
    assert caplog.text.count("max_sessions=3") == 1


async def test_it_is_bounded_without_expiry(mock_clock: MockClock) -> None:
    """If nothing ever expires the oldest makes room."""
    store = LocalStore(max_sessions=2)
    for key in ("a", "b", "c"):
        await put(store, key, life=Lifetime(idle=inf))
    assert await alive(store, "a", "b", "c") == ["b", "c"]


async def test_tombstones_lapse_and_are_cleaned_away(mock_clock: MockClock) -> None:
    """A destroyed record takes room for a minute, however long it would have lived."""
    store = LocalStore()
    await put(store, "k")
    loaded = await store.acquire("k", "t", lease=1.0, life=LIFE)
    assert loaded.blob == b"x"
    await store.destroy("k", "t", reason="destroyed")
    mock_clock.jump(59.9)
    assert (await store.load("k", life=LIFE)).ended == "destroyed"
    mock_clock.jump(0.1)
    assert (await store.load("k", life=LIFE)).ended is None
    assert repr(store) == "<LocalStore 0 records, 0 locks>"
    mock_clock.jump(100)  # the alarm of the record that was destroyed
    await store.load("k", life=LIFE)


async def test_a_token_may_acquire_again(mock_clock: MockClock) -> None:
    """A repeated acquire with the same token is the same acquisition."""
    store = LocalStore()
    await store.acquire("k", "t", lease=1.0, life=LIFE)
    await store.acquire("k", "t", lease=1.0, life=LIFE)
    store.release("k", "t")
    assert repr(store) == "<LocalStore 0 records, 0 locks>"


async def test_a_waiter_that_slept_through_its_turn_queues_again(mock_clock: MockClock) -> None:
    """A process paused for longer than the lease it was granted does not believe that it holds the lock."""
    store = LocalStore()
    await store.acquire("k", "first", lease=1.0, life=LIFE)
    got: list[str] = []

    async def take(token: str) -> None:
        await store.acquire("k", token, lease=1.0, life=LIFE)
        got.append(token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "slow")
        await wait_all_tasks_blocked()
        store.release("k", "first")  # hands the lock to "slow", who has not run yet
        mock_clock.jump(2)
        store._locks["k"].grant("quick", 1.0, trio.current_time())  # somebody was quicker
        await wait_all_tasks_blocked()
        with pytest.raises(LockLostError):
            await store.commit("k", "slow", version=b"", blob=b"late", life=LIFE)
        store.release("k", "quick")
        await wait_all_tasks_blocked()
        assert got == ["slow"]


class Broken(SessionStore):
    """A LocalStore with one promise broken."""

    def __init__(self, **broken: Callable[..., object]) -> None:
        self._store = LocalStore()
        for name, method in broken.items():
            setattr(self, name, method)

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        return await self._store.load(key, life=life)

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        return await self._store.acquire(key, token, lease=lease, life=life)

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        return await self._store.commit(key, token, version=version, blob=blob, life=life)

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        return await self._store.rotate(
            key, token, version=version, new_key=new_key, blob=blob, life=life, reason=reason
        )

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        await self._store.destroy(key, token, reason=reason)

    def release(self, key: str, token: str) -> None:
        self._store.release(key, token)

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool]:
        return await self._store.renew(locks, lease=lease)


async def test_a_store_need_not_hand_on(autojump_clock: MockClock) -> None:
    """Handing the lock to an heir is an option, not a duty."""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[SessionStore]:
        yield Broken()

    await check_store(open_store, advance=trio.sleep)


async def never_slides(key: str, *, life: Lifetime) -> Loaded:
    return Loaded()


async def commits_blindly(key: str, token: str, **rest: object) -> bytes:
    await trio.lowlevel.checkpoint()
    return b"1"


async def always_renews(locks: list[object], *, lease: float) -> list[bool]:
    await trio.lowlevel.checkpoint()
    return [True] * len(locks)


async def destroys_quietly(key: str, token: str, *, reason: str) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        ({"load": never_slides}, "what is committed is what is read"),
        ({"commit": commits_blindly}, "what is committed is what is read"),
        ({"renew": always_renews}, "lasts a lease longer"),
        ({"destroy": destroys_quietly}, "gives up the lock"),
        ({"release": lambda key, token: None}, "makes others wait"),
    ],
)
async def test_check_store_finds_broken_promises(
    broken: dict[str, Callable[..., object]], promise: str, autojump_clock: MockClock
) -> None:
    """A store that breaks a promise fails, and the note on the failure says which promise it was."""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[SessionStore]:
        yield Broken(**broken)

    with pytest.raises(AssertionError) as caught:
        await check_store(open_store, advance=trio.sleep)
    assert promise in "".join(caught.value.__notes__).lower()


class WithoutTokenCheck(Broken):
    """Takes the lock from whoever has it."""

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        self._store._locks.setdefault(key, _Lock()).grant(token, 1.0, trio.current_time())
        return await super().commit(key, token, version=version, blob=blob, life=life)


class WithoutVersionCheck(Broken):
    """Writes over whatever is there."""

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        record = self._store._records.get(key)
        version = record.version if record is not None else version
        return await super().commit(key, token, version=version, blob=blob, life=life)


class WithWrongReasons(Broken):
    """Refuses as it should, but tells the wrong story."""

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        try:
            return await super().commit(key, token, version=version, blob=blob, life=life)
        except SessionEndedError:
            raise SessionEndedError("orphaned") from None


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (WithoutTokenCheck, "a holder whose lease ended cannot write"),
        (WithoutVersionCheck, "another version than the stored one is refused"),
        (WithWrongReasons, "a record that expired while it was locked"),
    ],
)
async def test_check_store_finds_holes_in_the_fence(
    make: type[Broken], promise: str, autojump_clock: MockClock
) -> None:
    """The very checks that make a lock a lock."""

    @asynccontextmanager
    async def open_store() -> AsyncIterator[SessionStore]:
        yield make()

    with pytest.raises(AssertionError) as caught:
        await check_store(open_store, advance=trio.sleep)
    assert promise in "".join(caught.value.__notes__).lower()
