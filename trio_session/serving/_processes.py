"""Several worker processes on the same sockets, and the one that watches over them.

A worker has one end of a socket pair. Through it comes what it is to serve, and later the word to end; through it goes
the word that it has started, or why it could not. When the supervising process dies, however it dies, the system closes
the other end, and the worker knows.
"""

from __future__ import annotations

import copy
import json
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import trio
from hypercorn.config import Config, Sockets

from ._lifespan import BreakdownError, ServingError, StartupError
from ._tasks import open_bare_nursery

__all__ = ["AT_ONCE", "GRACEFULLY", "Orders", "supervise"]

# What a worker is told.
GRACEFULLY, AT_ONCE = b"g", b"o"

# How much longer than its own limits a worker may take to end, before it is killed.
_MARGIN = 5.0  # seconds


@dataclass(frozen=True)
class Orders:
    """What a worker is to serve. Sockets are named by their file descriptors, which it inherits."""

    app: str
    config: Config
    workers: int
    secure: Sequence[int]
    insecure: Sequence[int]
    quic: Sequence[int]

    @property
    def inherited(self) -> list[int]:
        return [*self.secure, *self.insecure, *self.quic]


async def supervise(app: str, config: Config, sockets: Sockets, announce: Callable[[Sequence[str]], object]) -> None:
    """Serve with `config.workers` processes until a signal says that it is enough."""
    lists = (sockets.secure_sockets, sockets.insecure_sockets, sockets.quic_sockets)
    orders = Orders(app, _portable(config), config.workers, *([each.fileno() for each in some] for some in lists))
    supervisor = _Supervisor(orders)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(supervisor.heed, signals)
            await supervisor.run(announce)
            nursery.cancel_scope.cancel()


def _portable(config: Config) -> Config:
    """The settings alone: a configuration made from a module has the module's other names, too."""
    settings = copy.copy(config)
    settings._log = None
    for name in [name for name in vars(settings) if not hasattr(Config, name)]:
        delattr(settings, name)
    try:
        pickle.dumps(settings)
    except Exception as error:
        raise ServingError(f"the settings cannot be handed to workers: {error}") from error
    return settings


@final
class _Supervisor:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._config = orders.config
        self._log = copy.copy(orders.config).log  # the settings that workers get must not have one
        self._workers: set[_Worker] = set()
        self._stopping = trio.Event()
        self._patience = trio.CancelScope()
        self._failure: ServingError | None = None
        self._serving = False  # all have started
        self._renewing = trio.Lock()

    async def run(self, announce: Callable[[Sequence[str]], object]) -> None:
        async with open_bare_nursery() as watching:
            watching.start_soon(self._lose_patience)
            async with open_bare_nursery() as nursery:
                self._nursery = nursery
                # The first one alone: if it cannot start, why should the others try?
                urls = await nursery.start(self._keep)
                async with open_bare_nursery() as starting:
                    for _ in range(self._orders.workers - 1):
                        starting.start_soon(nursery.start, self._keep)
                if not self._stopping.is_set():
                    self._serving = True
                    count = self._orders.workers
                    all_of_them = f"{count} workers" if count > 1 else "1 worker"
                    await self._log.info("%s ready at %s", all_of_them, ", ".join(urls))
                    announce(urls)
            watching.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                if self._serving and not self._stopping.is_set():
                    self._nursery.start_soon(self._renew)
            elif not self._stopping.is_set():
                self._stop()
            else:
                for worker in self._workers:
                    worker.tell(AT_ONCE)
                self._patience.deadline = trio.current_time() + _MARGIN

    async def _keep(self, task_status: trio.TaskStatus[list[str]], *, vital: bool = True) -> None:
        """One worker, and when it has ended in order, the next. `vital`: it is a failure if the first cannot start."""
        urls: list[str] = []
        while not self._stopping.is_set():
            worker = await _Worker.start(self._orders)
            self._workers.add(worker)
            try:
                urls = await worker.started() or urls
                task_status.started(urls)
                task_status = trio.TASK_STATUS_IGNORED
                vital = True
                await worker.ended()
            except ServingError as error:
                if not vital:
                    worker.retired = True
                    await self._log.error("A new worker cannot start: %s. The old ones go on", error)
                else:
                    if isinstance(error, BreakdownError):
                        await self._log.critical("%s: the server stops", error)
                    self._failure = self._failure or error
                    self._stop()
            finally:
                self._workers.discard(worker)
                await worker.aclose()
            if worker.retired:
                break
        task_status.started(urls)

    async def _renew(self) -> None:
        """Replace each worker by a new one, which has started before the old one ends."""
        async with self._renewing:
            for worker in list(self._workers):
                urls: list[str] = await self._nursery.start(partial(self._keep, vital=False))
                if not urls:
                    break
                worker.retired = True
                worker.tell(GRACEFULLY)

    def _stop(self) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.tell(GRACEFULLY)

    async def _lose_patience(self) -> None:
        await self._stopping.wait()
        limit = self._config.graceful_timeout + self._config.shutdown_timeout + _MARGIN
        self._patience.deadline = trio.current_time() + limit
        with self._patience:
            await trio.sleep_forever()
        for worker in self._workers:
            await self._log.critical("A worker does not end, and is killed")
            worker.kill()


@final
class _Worker:
    """A worker process."""

    def __init__(self, process: trio.Process, channel: socket.socket) -> None:
        self._process = process
        self._socket = channel
        self._channel = trio.SocketStream(trio.socket.from_stdlib_socket(channel))
        self._said = b""
        self.retired = False  # nobody needs to follow it

    @classmethod
    async def start(cls, orders: Orders) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            # -c, because what is run with -m would be there twice.
            program = f"from trio_session.serving._worker import main; main({theirs.fileno()})"
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *orders.inherited],
                start_new_session=True,  # Ctrl-C is for us, and we pass it on
            )
        worker = cls(process, ours)
        text = pickle.dumps(orders)
        with suppress(trio.BrokenResourceError):  # it has died, and `started` will say so
            await worker._channel.send_all(len(text).to_bytes(8, "big") + text)
        return worker

    async def started(self) -> list[str]:
        """Wait until it serves; returns the URLs, or nothing if it was told to end before.

        Raises:
            StartupError: it cannot.
        """
        told = await self._hear()
        urls: list[str] | None = told.get("urls")
        if urls is not None:
            return urls
        code = await self._process.wait()
        if code == -signal.SIGTERM:  # before it could say that it heeds it
            return []
        raise StartupError(told.get("failure") or f"a worker died while it started: {_how(code)}")

    async def ended(self) -> None:
        """Wait until it has ended, in order.

        Raises:
            BreakdownError: not in order.
        """
        told = await self._hear()
        code = await self._process.wait()
        if code:
            name = f"worker {self._process.pid}"
            raise BreakdownError(told.get("failure") or f"{name} died: {_how(code)}")

    def tell(self, word: bytes) -> None:
        with suppress(OSError):  # it has ended already
            self._socket.send(word)

    def kill(self) -> None:
        self._process.kill()

    async def aclose(self) -> None:
        """Make sure that it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            await self._channel.aclose()

    async def _hear(self) -> dict[str, Any]:
        """What it says next; nothing if it has ended."""
        while b"\n" not in self._said:
            try:
                more = await self._channel.receive_some()
            except trio.BrokenResourceError:
                more = b""
            if not more:
                return {}
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
