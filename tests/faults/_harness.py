"""Crews of worker processes on a real server, and what became of their work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeAlias, TypeVar

import trio

from tests.redis_servers import RedisServer
from tests.redis_topologies import Group
from trio_session import RedisConnection, SessionConfig, SessionManager, open_session_manager

from ._deadlines import Deadlines, check_time, paused
from ._invariants import check, check_rest, check_survivor, check_words, report
from ._records import FIRST, Attempt, History, Last, parse
from ._worker import Orders

__all__ = [
    "LIMIT",
    "MARGIN",
    "PREFIX",
    "ROOT",
    "Crew",
    "Worker",
    "amount",
    "crew",
    "eventually",
    "make_sessions",
    "manager_on",
]

ROOT = Path(__file__).parents[2]

#: Of all keys that these tests make.
PREFIX = "faults"

#: How much longer than they have to things in this process may take: this is for the machine, which may be busy.
MARGIN = 4.0  # seconds
#: How long a worker may take to start and to end.
LIMIT = 20.0  # seconds

T = TypeVar("T")

#: Where sessions can be.
Site: TypeAlias = RedisServer | Group


def amount(short: T, full: T, soak: T | None = None) -> T:
    """How much of something: as part of `make test`, of `make faults`, and of `make soak`."""
    match os.environ.get("TRIO_SESSION_FAULTS", "short"):
        case "full":
            return full
        case "soak":
            return full if soak is None else soak
        case _:
            return short


async def eventually(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    """Wait until something is true."""
    with trio.fail_after(within):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def manager_on(server: Site, url: str | None = None, **settings: object) -> AsyncIterator[SessionManager]:
    """A manager in this process; leases of one second unless `settings` say otherwise."""
    defaults = SessionConfig(
        driver="redis",
        cookie_name=PREFIX,
        lock_lease=1.0,
        max_size=1_000_000,
        redis={"default": RedisConnection(url=url or server.url)},
    )
    async with open_session_manager(replace(defaults, **settings)) as manager:  # type: ignore[arg-type]
        yield manager


async def make_sessions(manager: SessionManager, number: int) -> list[tuple[str, str]]:
    """New sessions that workers can count in: their names and ids."""
    made: list[tuple[str, str]] = []
    for name in (f"s{n}" for n in range(number)):
        session = manager.session()
        async with session.locked() as data:
            data.update(session=name, version=FIRST, count=0)
        assert session.id is not None
        made.append((name, session.id))
    return made


class Worker:
    """A process that counts."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.name = orders.name
        self.alive = True
        self.channel = ""
        self.commits: list[tuple[float, str]] = []  # when it was told that one has landed, and in which session
        self._read = 0  # bytes of its log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults._worker", json.dumps(asdict(orders))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def ready(self) -> None:
        """Wait until it can begin."""
        assert self.process.stdout is not None
        with trio.fail_after(LIMIT):
            line = await trio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
        said, _, self.channel = line.decode().strip().partition(" ")
        assert said == "ready", f"{self.name} could not begin"

    def begin(self) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), b"!")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    async def stopped(self) -> None:
        """Wait until it has stopped by itself."""
        with trio.fail_after(LIMIT):
            while os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG) == (0, 0):  # noqa: ASYNC222 - WNOHANG
                await trio.sleep(0.01)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.alive = False
        self._reap()

    def _reap(self) -> None:
        self.process.kill()
        self.process.wait()

    async def finish(self) -> None:
        """Have it end what it has begun."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.alive:
            with trio.fail_after(LIMIT):
                while self.process.poll() is None:
                    await trio.sleep(0.01)
            assert self.process.returncode == 0, f"{self.name} failed"

    def discard(self) -> None:
        """Whatever state it is in, it is over."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self._reap()
        self.process.stdout.close()

    def look(self) -> None:
        """Bring `commits` up to date."""
        with suppress(FileNotFoundError), Path(self.orders.log).open("rb") as log:
            log.seek(self._read)
            for line in log:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    if line.startswith(b'["end"') and b', "ok", ' in line:
                        _, _, session, *_, done = json.loads(line)
                        self.commits.append((done, session))

    def history(self) -> History:
        path = Path(self.orders.log)
        return parse(self.name, path.read_text() if path.exists() else "")


class Crew:
    """Worker processes that count in the same sessions.

    Attributes:
        workers: all there have been.
        sessions: names and ids.
        may_lose: a primary may be lost with its last commits.
        lost: acknowledged commits that were, in the end.
    """

    def __init__(self, server: Site, sessions: list[tuple[str, str]], orders: Orders) -> None:
        self.server = server
        self.sessions = sessions
        self.workers: list[Worker] = []
        self.may_lose = False
        self.lost: list[Attempt] = []
        self._orders = orders
        self._logs = Path(mkdtemp(dir=server.directory))
        self._finished = False

    def hire(self, **changes: object) -> Worker:
        """One more worker, with orders of its own if need be."""
        name = f"w{len(self.workers)}"
        orders = replace(self._orders, name=name, log=str(self._logs / f"{name}.log"), **changes)  # type: ignore[arg-type]
        worker = Worker(orders)
        self.workers.append(worker)
        return worker

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    def holder(self) -> Worker | None:
        """Who has the lock of the first session right now, according to the server."""
        with self.server.client() as client:
            for key in client.scan_iter(f"{PREFIX}:*:l"):
                who = _text(client.get(key) or "")
                return next((worker for worker in self.alive if who.startswith(worker.channel)), None)
        return None

    def waits(self, worker: Worker) -> bool:
        """The server has it in a queue."""
        with self.server.client() as client:
            keys = client.scan_iter(f"{PREFIX}:*:q")
            return any(_text(who).startswith(worker.channel) for key in keys for who in client.lrange(key, 0, -1))

    def attempts(self) -> list[Attempt]:
        """What has been written down so far."""
        return [attempt for worker in self.workers for attempt in worker.history().attempts]

    def acknowledged(self) -> int:
        """How many commits all of them were told have landed, so far."""
        for worker in self.workers:
            worker.look()
        return sum(len(worker.commits) for worker in self.workers)

    async def changed_at(self, sessions: Collection[str], *, since: float, within: float = 20.0) -> float:
        """Wait until one of these sessions, by their names, has been changed; when it was. Times are monotonic."""

        def first() -> float:
            self.acknowledged()
            commits = (commit for worker in self.alive for commit in worker.commits)
            return min((done for done, session in commits if done > since and session in sessions), default=0.0)

        await eventually(lambda: first() > 0, within=within)
        return first()

    def paused(self, began: float, ended: float) -> float:
        """For how long of a time workers could not run, at worst."""
        return max(paused(worker.history().pauses, began, ended) for worker in self.alive)

    async def progress(self, number: int = 1, *, within: float = 10.0) -> float:
        """Wait for so many further commits; returns how long that took."""
        began, before = trio.current_time(), self.acknowledged()
        await eventually(lambda: self.acknowledged() >= before + number, within=within)
        return trio.current_time() - began

    async def finish(self) -> list[Attempt]:
        """Have all workers end, and check all invariants.

        Returns:
            What the workers were told.
        """
        self._finished = True
        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(worker.finish)
        histories = [worker.history() for worker in self.workers]
        attempts = [attempt for history in histories for attempt in history.attempts]
        print(report(attempts))  # noqa: T201 - shown with `pytest -s`, and if the test fails
        for history in histories:
            check_words((*history.attempts, *history.reads))
        self._check_time(histories)
        last = await self._last()
        if self.may_lose:
            for name, at_last in last.items():
                self.lost += check_survivor([attempt for attempt in attempts if attempt.session == name], at_last)
            await eventually(lambda: not keys_left(self.server))  # a lock may have come back to life
        else:
            check(attempts, last)
        rests = [history.rest for history, worker in zip(histories, self.workers, strict=True) if worker.alive]
        assert None not in rests, "a worker is done and has not said so"
        check_rest([rest for rest in rests if rest is not None], keys_left(self.server))
        return attempts

    def _check_time(self, histories: Sequence[History]) -> None:
        orders = self._orders
        worst = check_time(histories, Deadlines(orders.lock_timeout, orders.hold * 2, orders.commit_timeout))
        pauses = [pause.ended - pause.began for history in histories for pause in history.pauses]
        print(  # noqa: T201
            f"latest call {worst.seconds:+.3f} s after its deadline; workers could not run for up to "
            f"{max(pauses, default=0.0):.2f} s"
        )

    async def _last(self) -> dict[str, Last]:
        """What the server has in the end. It is read under the lock, so each lock can be had."""
        last: dict[str, Last] = {}
        async with manager_on(self.server, lock_lease=5.0) as manager, trio.open_nursery() as nursery:

            async def look(name: str, id: str) -> None:
                async with manager.session(id).locked(timeout=5 + MARGIN) as data:
                    last[name] = Last(data["version"], data["count"])

            for name, id in self.sessions:
                nursery.start_soon(look, name, id)
        return last


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply


def keys_left(server: Site) -> list[str]:
    """Keys of locks and queues."""
    with server.client() as client:
        keys = [_text(key) for key in client.scan_iter(f"{PREFIX}:*")]
    return [key for key in keys if key.endswith((":l", ":q"))]


@asynccontextmanager
async def crew(
    server: Site, *, processes: int, tasks: int, sessions: int = 1, begin: bool = True, **orders: object
) -> AsyncIterator[Crew]:
    """Worker processes that count for the length of a block; then all invariants are checked.

    Args:
        server: on which.
        processes: how many.
        tasks: how many count at once in each of them.
        sessions: how many sessions there are.
        begin: they begin at once.
        orders: further `Orders`.
    """
    async with manager_on(server) as manager:
        made = await make_sessions(manager, sessions)
    standard = Orders(name="", url=server.url, prefix=PREFIX, log="", sessions=made, tasks=tasks)
    team = Crew(server, made, replace(standard, **orders))  # type: ignore[arg-type]
    try:
        for _ in range(processes):
            team.hire()
        for worker in team.workers:
            await worker.ready()
        if begin:
            for worker in team.workers:
                worker.begin()
        yield team
        if not team._finished:
            await team.finish()
    finally:
        for worker in team.workers:
            worker.discard()


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """The server says nothing for the length of a block."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()
