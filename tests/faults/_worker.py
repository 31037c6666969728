"""A process that counts in sessions and writes down what it is told: `python -m tests.faults._worker <orders>`.

It says "ready" and its name towards the server on its standard output, begins at the first byte of its standard input
and goes on until that ends. What it writes down goes to a file at once, so that a `kill -9` loses none of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from math import inf
from random import Random
from typing import Any, cast

import trio

from trio_session import (
    CommittedNotReplicatedError,
    CommitUnknownError,
    LockLostError,
    LockTimeoutError,
    RedisConnection,
    SessionBusyError,
    SessionConfig,
    SessionEndedError,
    SessionManager,
    StorageUnavailableError,
    open_session_manager,
)
from trio_session.redis import RedisStore

__all__ = ["Orders"]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker is to do.

    Attributes:
        name: the worker's, unique.
        url: the server's.
        prefix: of the keys.
        log: the file to write to.
        sessions: their names and ids.
        tasks: how many count at the same time.
        step: how far a task goes in the list of sessions each time; 0: it stays with one.
        lease: `lock_lease`.
        lock_timeout: `lock_timeout`.
        commit_timeout: `commit_timeout`.
        hold: how long a body takes on average, in seconds.
        cancel_within: each attempt is cancelled after up to so many seconds, most of them early; 0: none is.
        size: so many random bytes go into a session.
        trouble_every: each so manieth body is in trouble; 0: none is.
        trouble: for so many seconds its process does nothing else; 0: it stops, until somebody sends SIGCONT.
        durability: `durability`.
        readers: so many tasks do nothing but read.
    """

    name: str
    url: str
    prefix: str
    log: str
    sessions: Sequence[Sequence[str]]
    tasks: int
    step: int = 1
    lease: float = 1.0
    lock_timeout: float = 8.0
    commit_timeout: float = 5.0
    hold: float = 0.0
    cancel_within: float = 0.0
    size: int = 0
    trouble_every: int = 0
    trouble: float = 0.0
    durability: str | None = None
    readers: int = 1


class MixUpError(Exception):
    """These are the data of another session."""


class GoneError(Exception):
    """There is no record any more."""


OUTCOMES: dict[type[Exception], str] = {
    LockLostError: "lost",
    CommitUnknownError: "unknown",
    CommittedNotReplicatedError: "unconfirmed",
    StorageUnavailableError: "unavailable",
    LockTimeoutError: "timeout",
    SessionBusyError: "busy",
    SessionEndedError: "ended",
    MixUpError: "mixup",
    GoneError: "gone",
}

# How often it is looked whether this process could run.
TICK = 0.02  # seconds


class Counter:
    """What all tasks of a worker share."""

    def __init__(self, orders: Orders, manager: SessionManager) -> None:
        self._orders = orders
        self._manager = manager
        self._log = os.open(orders.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._numbers = count(1)
        self._random = Random(orders.name)
        self.stopped = False

    def note(self, *words: object) -> None:
        os.write(self._log, json.dumps(words).encode() + b"\n")

    async def keep_counting(self, first: int) -> None:
        """One task: counts in one session after the other."""
        sessions = self._orders.sessions
        at = first
        while not self.stopped:
            session, id = sessions[at % len(sessions)]
            at += self._orders.step
            outcome = "cancelled"
            patience = self._orders.cancel_within * self._random.random() ** 3 or inf
            with trio.move_on_after(patience):
                outcome = await self.attempt(session, id)
            if outcome not in {"ok", "cancelled"}:
                await trio.sleep(0.02)

    async def attempt(self, session: str, id: str) -> str:
        number = next(self._numbers)
        asked = time.monotonic()
        began = 0.0
        outcome = "ok"
        try:
            async with self._manager.session(id).locked() as data:
                began = time.monotonic()
                if not data:
                    raise GoneError
                if data["session"] != session:
                    raise MixUpError
                read, before = data["version"], data["count"]
                await self.dawdle(number)
                data["version"] = written = f"{self._orders.name}-{number}"
                data["count"] = before + 1
                if self._orders.size:
                    data["ballast"] = self._random.randbytes(self._orders.size)
                self.note("try", number, session, read, written, before, asked, began, time.monotonic())
        except tuple(OUTCOMES) as error:
            outcome = OUTCOMES[type(error)]
        except trio.Cancelled:
            self.note("end", number, session, "cancelled", asked, began, time.monotonic())
            raise
        except Exception as error:
            self.note("end", number, session, f"{type(error).__name__}: {error}", asked, began, time.monotonic())
            raise
        self.note("end", number, session, outcome, asked, began, time.monotonic())
        return outcome

    async def keep_reading(self, first: int) -> None:
        """One task: reads one session after the other."""
        for session, id in islice(cycle(self._orders.sessions), first, None):
            if self.stopped:
                return
            asked, outcome = time.monotonic(), "ok"
            try:
                seen = await self._manager.session(id).read()
            except StorageUnavailableError:
                outcome = "unavailable"
            else:
                if seen.get("session", session) != session:
                    outcome = "mixup"
            self.note("read", session, outcome, asked, time.monotonic())
            await trio.sleep(0.01)

    async def watch(self) -> None:
        """Write down when this process could not run, for want of a processor or because it was stopped."""
        while True:
            slept_at, worked = time.monotonic(), time.process_time()
            await trio.sleep(TICK)
            now = time.monotonic()
            idle = now - slept_at - TICK - (time.process_time() - worked)  # what it did itself is no excuse
            if idle > TICK:
                self.note("pause", now - idle, now)

    async def dawdle(self, number: int) -> None:
        """What takes time in a body."""
        orders = self._orders
        if orders.trouble_every and number % orders.trouble_every == 0:
            if orders.trouble:
                time.sleep(orders.trouble)  # noqa: ASYNC251 - the fault is that it blocks
            else:
                os.kill(os.getpid(), signal.SIGSTOP)
        await trio.sleep(self._random.uniform(0, 2 * orders.hold) if orders.hold else 0)

    async def rest(self) -> None:
        """Everything is done: what is left?"""
        store = cast("RedisStore", self._manager._engine.store)
        links = [node.link for node in store._topology.nodes]
        with trio.move_on_after(2.0):
            while any(link._sent or link._queued for link in links):
                await trio.sleep(0.01)
        statistics = self._manager.statistics()
        left: dict[str, int] = {
            "locks held": statistics.locks_held,
            "tasks waiting": statistics.tasks_waiting,
            "lines": len(self._manager._engine.locks._gate._lines),
            "commands under way": sum(len(link._sent) + len(link._queued) for link in links),
            "waiters": len(store._waiters),
            "locks noted": len(store._held) + len(store._reigns),
        }
        self.note("rest", left)


async def main(orders: Orders) -> None:
    config = SessionConfig(
        driver="redis",
        cookie_name=orders.prefix,
        lock_lease=orders.lease,
        lock_timeout=orders.lock_timeout,
        commit_timeout=orders.commit_timeout,
        max_size=1_000_000,
        durability=orders.durability,
        redis={"default": RedisConnection(url=orders.url)},
    )
    async with open_session_manager(config) as manager:
        sys.stdout.write(f"ready {cast('RedisStore', manager._engine.store)._name}\n")
        sys.stdout.flush()
        counter = Counter(orders, manager)
        async with trio.lowlevel.FdStream(os.dup(0)) as orders_in:
            if not await orders_in.receive_some(1):
                return
            async with trio.open_nursery() as watch:
                watch.start_soon(counter.watch)
                async with trio.open_nursery() as nursery:
                    for number in range(orders.tasks):
                        nursery.start_soon(counter.keep_counting, number)
                    for number in range(orders.readers):
                        nursery.start_soon(counter.keep_reading, number)
                    while await orders_in.receive_some(1):
                        pass
                    counter.stopped = True
                watch.cancel_scope.cancel()
        await counter.rest()


if __name__ == "__main__":
    trio.run(main, Orders(**cast("dict[str, Any]", json.loads(sys.argv[1]))))
