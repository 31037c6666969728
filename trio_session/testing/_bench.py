"""A store on the bench: its keys, its times, and the calls that most promises take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from .._errors import EndReason
from .._tasks import bare_exceptions
from ..abc import Lifetime, Loaded, SessionStore

__all__ = ["KEY", "LEASE", "LIFE", "OTHER_KEY", "Advance", "Bench"]

Advance = Callable[[float], Awaitable[object]]

LEASE = 1.0  # seconds; a real server has to live through it
LIFE = Lifetime(idle=30.0, touch_interval=5.0)
KEY = "ab:0123456789abcdefghijkl"
OTHER_KEY = "ab:lkjihgfedcba9876543210"


class Bench:
    """A store under test, with the calls that most checks make."""

    def __init__(self, store: SessionStore, advance: Advance) -> None:
        self.store = store
        self.advance = advance
        self._tokens = 0

    def token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:024d}"

    async def take(self, key: str = KEY, *, life: Lifetime = LIFE) -> tuple[str, Loaded]:
        token = self.token()
        return token, await self.store.acquire(key, token, lease=LEASE, life=life)

    async def load(self, key: str = KEY, *, life: Lifetime = LIFE) -> Loaded:
        return await self.store.load(key, life=life)

    async def put(self, blob: bytes, key: str = KEY, *, life: Lifetime = LIFE) -> bytes:
        token, loaded = await self.take(key, life=life)
        return await self.store.commit(key, token, version=loaded.version, blob=blob, life=life)

    async def rotate(self, *, reason: EndReason = "replaced", life: Lifetime = LIFE) -> bytes:
        token, loaded = await self.take(life=life)
        return await self.store.rotate(
            KEY, token, version=loaded.version, new_key=OTHER_KEY, blob=b"moved", life=life, reason=reason
        )

    async def is_free(self, key: str = KEY) -> bool:
        """Whether the lock can be had at once; less than a lease passes, so nothing lapses meanwhile."""
        with trio.move_on_after(LEASE * 0.3):
            token, _ = await self.take(key)
            self.store.release(key, token)
            return True
        return False

    async def served(self, granted: list[tuple[str, Loaded]], count: int = 1) -> None:
        """Let time pass until so many waiters have the lock: on a busy machine more of it, but less than a lease."""
        for _ in range(5):
            await self.advance(LEASE / 10 if len(granted) < count else 0.0)
        assert len(granted) == count

    @asynccontextmanager
    async def waiting(self, count: int = 1) -> AsyncIterator[list[tuple[str, Loaded]]]:
        """Tasks wait for the lock inside the block; the list gets what they got, in order."""
        granted: list[tuple[str, Loaded]] = []

        async def wait() -> None:
            granted.append(await self.take())

        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(wait)
                    await self.advance(LEASE / 20)
                yield granted
                nursery.cancel_scope.cancel()
