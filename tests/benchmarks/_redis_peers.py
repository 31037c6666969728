"""The same jobs done by this library and by redis-py's asyncio half, against one server.

redis-py is used as its documentation shows: `Lock` around GET and SET. Its tasks run on a loop of their own, while trio
stands still; so both have the whole machine in their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import redis.asyncio
import trio

from trio_session import LockTimeoutError, RedisConnection, SessionConfig, open_session_manager
from trio_session._manager import SessionManager

__all__ = ["TASKS", "Ours", "Tally", "Theirs", "open_ours", "opened_theirs"]

TASKS = 50

# About 300 bytes when encoded.
DATA = {"user": 7, "name": "Ada Lovelace", "locale": "en", "cart": ["tea", "milk"], "note": "x" * 220}


@dataclass
class Tally:
    """What the tasks got done within a time, task by task.

    Attributes:
        waits: seconds from asking for the lock until having it, or until the end.
    """

    seconds: float
    done: list[int] = field(default_factory=lambda: [0] * TASKS)
    waits: list[float] = field(default_factory=list[float])
    until: float = 0.0

    @property
    def rate(self) -> float:
        """Changes per second."""
        return sum(self.done) / self.seconds


class Ours:
    """Through the public `locked()` and `read()`, each task with a Session of its own."""

    def __init__(self, manager: SessionManager, ids: list[str]) -> None:
        self._manager = manager
        self._ids = ids

    async def run(self, job: Callable[[int], Awaitable[object]]) -> None:
        """Do it once per task, all at once."""
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(job, number)

    async def change_all(self, times: int) -> None:
        """Each task changes its own session so many times."""

        async def job(number: int) -> None:
            session = self._manager.session(self._ids[number])
            for _ in range(times):
                async with session.locked() as data:
                    data["n"] = data.get("n", 0) + 1

        await self.run(job)

    async def change_one(self) -> None:
        """One task changes its session, and nobody else does anything."""
        async with self._manager.session(self._ids[0]).locked() as data:
            data["n"] = data.get("n", 0) + 1

    async def read_all(self, times: int) -> None:
        """Each task reads its own session so many times."""

        async def job(number: int) -> None:
            session = self._manager.session(self._ids[number])
            for _ in range(times):
                await session.read()

        await self.run(job)

    async def contend(self, seconds: float) -> Tally:
        """All tasks change one session for so long."""
        tally = Tally(seconds, until=time.perf_counter() + seconds)

        async def job(number: int) -> None:
            session = self._manager.session(self._ids[0])
            while (asked := time.perf_counter()) < tally.until:
                try:
                    async with session.locked(timeout=tally.until - asked) as data:
                        tally.waits.append(time.perf_counter() - asked)
                        data["n"] = data.get("n", 0) + 1
                except LockTimeoutError:
                    tally.waits.append(time.perf_counter() - asked)
                else:
                    tally.done[number] += time.perf_counter() < tally.until

        await self.run(job)
        return tally


class Theirs:
    """`Lock`, GET and SET of redis-py, asyncio.

    Args:
        sleep: seconds between two questions for a lock; 0.1 is redis-py's default.
    """

    def __init__(self, runner: asyncio.Runner, client: redis.asyncio.Redis, sleep: float = 0.1) -> None:
        self._runner = runner
        self._client = client
        self._sleep = sleep

    def run(self, job: Callable[[int], Awaitable[object]]) -> None:
        """Do it once per task, all at once."""

        async def all_at_once() -> None:
            await asyncio.gather(*(job(number) for number in range(TASKS)))

        self._runner.run(all_at_once())

    async def _change(self, number: int, value: int) -> None:
        await self._client.get(f"peer:{number}")
        await self._client.set(f"peer:{number}", b"x" * 280 + b"%020d" % value, ex=7200)

    def change_all(self, times: int) -> None:
        """Each task changes its own value so many times, under its lock."""

        async def job(number: int) -> None:
            for value in range(times):
                async with self._client.lock(f"peer:lock:{number}", timeout=5, sleep=self._sleep):
                    await self._change(number, value)

        self.run(job)

    def read_all(self, times: int) -> None:
        """Each task reads its own value so many times: GET alone, with no look at the expiry."""

        async def job(number: int) -> None:
            for _ in range(times):
                await self._client.get(f"peer:{number}")

        self.run(job)

    def contend(self, seconds: float) -> Tally:
        """All tasks change one value for so long."""
        tally = Tally(seconds, until=time.perf_counter() + seconds)

        async def job(number: int) -> None:
            while (asked := time.perf_counter()) < tally.until:
                lock = self._client.lock("peer:lock:0", timeout=5, sleep=self._sleep)
                had = await lock.acquire(blocking_timeout=tally.until - asked)
                tally.waits.append(time.perf_counter() - asked)
                if had:
                    await self._change(0, tally.done[number])
                    await lock.release()
                    tally.done[number] += time.perf_counter() < tally.until

        self.run(job)
        return tally


@asynccontextmanager
async def open_ours(url: str, *, durability: str | None = None) -> AsyncIterator[Ours]:
    """A manager with a filled session for each task."""
    connections = {"default": RedisConnection(url=url)}
    config = SessionConfig(driver="redis", redis=connections, lock_timeout=60, durability=durability)
    async with open_session_manager(config) as manager:
        ids: list[str] = []
        for _ in range(TASKS):
            session = manager.session()
            async with session.locked() as data:
                data.update(DATA)
            assert session.id is not None
            ids.append(session.id)
        yield Ours(manager, ids)


@contextmanager
def opened_theirs(url: str, sleep: float = 0.1) -> Iterator[Theirs]:
    """A client with a connection for each task, and a filled value."""
    with asyncio.Runner() as runner:
        client = redis.asyncio.Redis.from_url(url)
        theirs = Theirs(runner, client, sleep)
        theirs.change_all(1)
        yield theirs
        runner.run(client.aclose())
