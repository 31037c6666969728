"""The promises of the store protocol, one function each: its docstring is the promise, its body the proof."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import trio

from .._errors import EndReason, LockLostError, SessionEndedError
from ..abc import Heir, Lifetime
from ._bench import KEY, LEASE, LIFE, OTHER_KEY, Bench

__all__ = ["PROMISES"]

# -- records ---------------------------------------------------------------------------------------------------------


async def _unknown(bench: Bench) -> None:
    """A key that was never written has no version, no bytes and no end."""
    for loaded in (await bench.load(), (await bench.take())[1]):
        assert (loaded.version, loaded.blob, loaded.ended) == (b"", None, None)


async def _round_trip(bench: Bench) -> None:
    """What is committed is what is read, byte for byte, under a version of its own."""
    versions: set[bytes] = set()
    for blob in (b"one", b"", bytes(range(256)) * 1024, b"one"):
        versions.add(await bench.put(blob))
        loaded = await bench.load()
        assert loaded.blob == blob
        assert loaded.version in versions
        token, held = await bench.take()
        assert (held.blob, held.version) == (blob, loaded.version)
        bench.store.release(KEY, token)
    assert len(versions) == 4
    assert b"" not in versions


async def _keys_apart(bench: Bench) -> None:
    """Keys have nothing to do with each other, neither their records nor their locks."""
    await bench.put(b"one")
    await bench.take()
    await bench.put(b"two", OTHER_KEY)
    assert (await bench.load()).blob == b"one"
    assert (await bench.load(OTHER_KEY)).blob == b"two"


async def _unlocked_read(bench: Bench) -> None:
    """`load` does not wait for a lock, and reads what was committed last."""
    await bench.put(b"one")
    await bench.take()
    assert (await bench.load()).blob == b"one"


# -- locks -----------------------------------------------------------------------------------------------------------


async def _exclusive(bench: Bench) -> None:
    """A lock that is held makes others wait; released, it goes to them in the order they came."""
    token, loaded = await bench.take()
    assert trio.current_time() - LEASE < loaded.granted_at <= trio.current_time()
    async with bench.waiting(3) as granted:
        assert granted == []
        for served in range(3):
            bench.store.release(KEY, token)
            await bench.served(granted, served + 1)
            token = granted[-1][0]
        assert [token for token, _ in granted] == sorted(token for token, _ in granted)
        bench.store.release(KEY, token)
    assert await bench.is_free()


async def _newest(bench: Bench) -> None:
    """Whoever waited gets the record as the holder before left it."""
    token, _ = await bench.take()
    async with bench.waiting() as granted:
        version = await bench.store.commit(KEY, token, version=b"", blob=b"new", life=LIFE)
        await bench.served(granted)
        assert [(loaded.version, loaded.blob) for _, loaded in granted] == [(version, b"new")]


async def _cancelled_waiter(bench: Bench) -> None:
    """A waiter that gives up leaves nothing behind: the lock goes to the next, or is free."""
    token, _ = await bench.take()
    async with bench.waiting(2):
        pass
    bench.store.release(KEY, token)
    assert await bench.is_free()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.take()
    assert scope.cancelled_caught, "acquire is no checkpoint"
    assert await bench.is_free()


async def _strangers_release(bench: Bench) -> None:
    """A token that holds nothing releases nothing, and is no error."""
    bench.store.release(KEY, bench.token())
    await bench.take()
    bench.store.release(KEY, bench.token())
    assert not await bench.is_free()


async def _lapse(bench: Bench) -> None:
    """A lease that is not renewed ends by itself, and the next waiter gets the lock."""
    await bench.take()
    async with bench.waiting() as granted:
        await bench.advance(LEASE * 0.7)
        assert granted == []
        await bench.served(granted)


async def _renewal(bench: Bench) -> None:
    """A lease that is renewed lasts a lease longer; one that ended, or was given up, cannot be renewed."""
    token, _ = await bench.take()
    await bench.advance(LEASE * 0.6)
    assert list(await bench.store.renew([(KEY, token), (OTHER_KEY, bench.token())], lease=LEASE)) == [True, False]
    await bench.advance(LEASE * 0.5)
    assert not await bench.is_free()
    await bench.advance(LEASE)
    assert list(await bench.store.renew([(KEY, token)], lease=LEASE)) == [False]
    late, (token, _) = token, await bench.take()
    assert list(await bench.store.renew([(KEY, late)], lease=LEASE)) == [False]
    bench.store.release(KEY, token)
    assert list(await bench.store.renew([(KEY, token)], lease=LEASE)) == [False]


async def _given_up(bench: Bench) -> None:
    """Every write gives up the lock."""
    await bench.put(b"one")
    assert await bench.is_free()
    await bench.rotate()
    assert await bench.is_free()
    token, _ = await bench.take(OTHER_KEY)
    await bench.store.destroy(OTHER_KEY, token, reason="destroyed")
    assert await bench.is_free(OTHER_KEY)


async def _heir(bench: Bench) -> None:
    """A commit may leave the lock to an heir; then only the heir has it, and may commit on."""
    token, _ = await bench.take()
    inherited: list[bytes] = []

    def inherit(version: bytes, on_begun: Callable[[], None] | None) -> None:
        inherited.append(version)
        if on_begun is not None:
            on_begun()

    heir = Heir(bench.token(), inherit)
    version = await bench.store.commit(KEY, token, version=b"", blob=b"one", life=LIFE, heir=heir)
    if not inherited:
        assert await bench.is_free()
        return
    assert inherited == [version], "an heir inherits once, and the version that commit() returns"
    assert not await bench.is_free()
    await bench.store.commit(KEY, heir.token, version=version, blob=b"two", life=LIFE)
    assert (await bench.load()).blob == b"two"
    assert await bench.is_free()


# -- the fence -------------------------------------------------------------------------------------------------------


async def _fence_token(bench: Bench) -> None:
    """A holder whose lease ended cannot write, whether somebody else has the lock by now or not."""
    version = await bench.put(b"one")
    late, _ = await bench.take()
    await bench.advance(LEASE * 1.2)
    await _refused(bench, late, version)
    late, _ = await bench.take()
    await bench.advance(LEASE * 1.2)
    await bench.take()
    await _refused(bench, late, version)


async def _refused(bench: Bench, token: str, version: bytes) -> None:
    writes = (
        lambda: bench.store.commit(KEY, token, version=version, blob=b"late", life=LIFE),
        lambda: bench.store.rotate(
            KEY, token, version=version, new_key=OTHER_KEY, blob=b"late", life=LIFE, reason="replaced"
        ),
        lambda: bench.store.destroy(KEY, token, reason="destroyed"),
    )
    for write in writes:
        try:
            await write()
        except LockLostError:
            pass
        else:
            raise AssertionError("a write without the lock was accepted")
    assert (await bench.load()).blob == b"one"
    assert (await bench.load(OTHER_KEY)).blob is None


async def _fence_version(bench: Bench) -> None:
    """A commit that names another version than the stored one is refused, and gives up the lock."""
    for version, expected in ((b"", b"one"), (b"no such version", b"one")):
        await bench.put(b"one")
        token, _ = await bench.take()
        await _ended(bench.store.commit(KEY, token, version=version, blob=b"stale", life=LIFE))
        assert (await bench.load()).blob == expected
        assert await bench.is_free()


async def _ended(write: Awaitable[object], reason: EndReason | None = None) -> None:
    """The write is refused, for this reason if any."""
    try:
        await write
    except SessionEndedError as error:
        if reason is not None and error.reason != reason:
            raise AssertionError(f"a write was refused with {error.reason!r} instead of {reason!r}") from error
    else:
        raise AssertionError("a write to a session that has ended was accepted")


async def _vanished(bench: Bench) -> None:
    """A record that expired while it was locked stays gone: the commit is refused."""
    life = Lifetime(idle=LEASE / 2)
    await bench.put(b"one", life=life)
    token, loaded = await bench.take(life=life)
    await bench.advance(LEASE * 0.7)
    write = bench.store.commit(KEY, token, version=loaded.version, blob=b"two", life=life)
    await _ended(write, "expired")
    assert (await bench.load()).blob is None
    assert await bench.is_free()


# -- the end of a session --------------------------------------------------------------------------------------------


async def _destroyed(bench: Bench) -> None:
    """A destroyed record leaves a tombstone, and never comes back."""
    await bench.put(b"one")
    token, _ = await bench.take()
    await bench.store.destroy(KEY, token, reason="destroyed")
    await _is_buried(bench, "destroyed")
    token, _ = await bench.take()
    await bench.store.destroy(KEY, token, reason="orphaned")
    assert (await bench.load()).ended == "destroyed"


async def _is_buried(bench: Bench, reason: EndReason) -> None:
    loaded = await bench.load()
    assert (loaded.version, loaded.blob, loaded.ended) == (b"", None, reason)
    await _ended(bench.put(b"back again"), reason)
    assert (await bench.load()).ended == reason
    assert await bench.is_free()


async def _destroyed_nothing(bench: Bench) -> None:
    """Without a record there is nothing to destroy, and no tombstone."""
    token, _ = await bench.take()
    await bench.store.destroy(KEY, token, reason="destroyed")
    assert (await bench.load()).ended is None
    assert await bench.is_free()


async def _rotated(bench: Bench) -> None:
    """A rotated record lives under the new key only; those who waited for the old one see its tombstone."""
    await bench.put(b"one")
    token, loaded = await bench.take()
    async with bench.waiting() as granted:
        version = await bench.store.rotate(
            KEY, token, version=loaded.version, new_key=OTHER_KEY, blob=b"moved", life=LIFE, reason="replaced"
        )
        await bench.served(granted)
        assert [loaded.ended for _, loaded in granted] == ["replaced"]
        bench.store.release(KEY, granted[0][0])
    await _is_buried(bench, "replaced")
    moved = await bench.load(OTHER_KEY)
    assert (moved.version, moved.blob) == (version, b"moved")


# -- expiry ----------------------------------------------------------------------------------------------------------


async def _idle_expiry(bench: Bench) -> None:
    """A record expires when it has been idle for its lifetime; reading slides that, but not too often."""
    life = Lifetime(idle=2.0, touch_interval=0.5)
    await bench.put(b"one", life=life)
    await bench.advance(0.2)
    assert not (await bench.load(life=life)).slid
    await bench.advance(1.0)
    assert (await bench.load(life=life)).slid
    await bench.advance(1.4)
    token, loaded = await bench.take(life=life)
    assert (loaded.blob, loaded.slid) == (b"one", True)
    bench.store.release(KEY, token)
    await bench.advance(2.2)
    assert (await bench.load(life=life)).blob is None


async def _absolute_expiry(bench: Bench) -> None:
    """However busy, a record does not outlive its absolute lifetime; a new id does not start it anew."""
    life = Lifetime(idle=inf, absolute=2.0)
    await bench.put(b"one", life=life)
    await bench.advance(1.2)
    await bench.rotate(life=life)
    assert (await bench.load(OTHER_KEY, life=life)).blob == b"moved"
    await bench.advance(1.0)
    assert (await bench.load(OTHER_KEY, life=life)).blob is None


async def _fresh_start(bench: Bench) -> None:
    """A session that was destroyed and begun anew in one step has a new absolute lifetime."""
    life = Lifetime(idle=inf, absolute=2.0)
    await bench.put(b"one", life=life)
    await bench.advance(1.2)
    await bench.rotate(life=life, reason="destroyed")
    await bench.advance(1.0)
    assert (await bench.load(OTHER_KEY, life=life)).blob == b"moved"


PROMISES = [
    _unknown,
    _round_trip,
    _keys_apart,
    _unlocked_read,
    _exclusive,
    _newest,
    _cancelled_waiter,
    _strangers_release,
    _lapse,
    _renewal,
    _given_up,
    _heir,
    _fence_token,
    _fence_version,
    _vanished,
    _destroyed,
    _destroyed_nothing,
    _rotated,
    _idle_expiry,
    _absolute_expiry,
    _fresh_start,
]
