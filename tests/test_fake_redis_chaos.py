"""Everything at once: three processes, and a fake Redis server at its worst."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from math import inf

import pytest
import trio
from trio.testing import MockClock

from trio_session import (
    CommitUnknownError,
    LockLostError,
    LockTimeoutError,
    SessionConfig,
    SessionManager,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session.redis import open_redis_store
from trio_session.testing import FakeRedis, open_fake_redis

ERRORS = ["LOADING Redis is loading", "NOPERM no permission", "NOSCRIPT who", "READONLY replica", "OOM short of memory"]


class Chaos:
    """Three processes change one session while their server is at its worst.

    Attributes:
        acknowledged: changes that came out as done.
        doubtful: changes of which nobody could tell.
    """

    def __init__(self, fake: FakeRedis, seed: int) -> None:
        self.fake = fake
        self.random = random.Random(seed)
        self.acknowledged: list[int] = []
        self.doubtful: list[int] = []
        self._changes = 0

    async def work(self, manager: SessionManager, id: str) -> None:
        for _ in range(10):
            self._changes += 1
            change = self._changes
            with trio.move_on_after(self.random.choice([0.0, 0.3, inf])):
                try:
                    async with manager.session(id).locked() as data:
                        await trio.sleep(self.random.choice([0, 0, 0.1, 3.0]))
                        data["changes"] += [change]
                    self.acknowledged.append(change)
                except CommitUnknownError:
                    self.doubtful.append(change)
                except (StorageUnavailableError, LockLostError, LockTimeoutError):
                    pass  # surely not done

    async def interfere(self) -> None:
        fake, choice = self.fake, self.random.choice
        while True:
            await trio.sleep(self.random.uniform(0, 1.5))
            only = choice([None, "commit", "acquire", "release", "SUBSCRIBE", "EVALSHA"])
            match self.random.randrange(8):
                case 0:
                    fake.cut_request_after(self.random.randrange(500), only=only)
                case 1:
                    fake.cut_reply_after(self.random.randrange(8), only=only)
                case 2:
                    error = choice(ERRORS)
                    fake.fail_with(error, times=choice([1, 5]), only=choice(["commit", "acquire"]))
                case 3:
                    fake.freeze()
                    await trio.sleep(choice([0.1, 1, 3]))
                    fake.thaw()
                case 4:
                    await fake.restart()
                case 5:
                    fake.refuse(choice([1, 2]))
                    await fake.restart()
                case 6:
                    fake.delay = choice([0, 0, 0.05, 0.5, 1.5])
                case _:
                    fake.out_of_memory = not fake.out_of_memory


@pytest.mark.parametrize("seed", range(10))
async def test_chaos(autojump_clock: MockClock, seed: int) -> None:
    """Whatever happens on the way: what was acknowledged is there, once; what was refused is not; no lock is left."""
    async with AsyncExitStack() as exits:
        fake = await exits.enter_async_context(open_fake_redis())
        chaos = Chaos(fake, seed)
        managers: list[SessionManager] = []
        for _ in range(3):
            store = await exits.enter_async_context(open_redis_store("redis://fake", open_stream=fake.open_stream))
            config = SessionConfig(lock_lease=2.0, lock_timeout=15.0)
            managers.append(await exits.enter_async_context(open_session_manager(config, store=store)))
        session = managers[0].session()
        await session.put("changes", [])
        assert session.id is not None
        async with trio.open_nursery() as nemesis:
            nemesis.start_soon(chaos.interfere)
            async with trio.open_nursery() as nursery:
                for manager in managers * 3:
                    nursery.start_soon(chaos.work, manager, session.id)
            nemesis.cancel_scope.cancel()
        fake.heal()
        await trio.sleep(60)  # far longer than any lease, any queue, and any back-off
        changes = (await session.read())["changes"]
        assert len(set(changes)) == len(changes)
        assert set(chaos.acknowledged) <= set(changes) <= {*chaos.acknowledged, *chaos.doubtful}
        left = fake.keys()
        assert [key for key in left if key.endswith((":l", ":q"))] == []
        for manager in managers:
            await manager.session(session.id).increment("processes alive")
        assert (await session.read())["processes alive"] == 3
