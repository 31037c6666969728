"""A whole program that does nothing but serve: signals, and one process or several."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast, final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.typing import AppWrapper, ASGIFramework
from hypercorn.utils import write_pid_file

from ._loading import load_by_name
from ._server import AnyApp, close_sockets, make_sockets, serve_on
from ._tasks import open_bare_nursery

__all__ = ["Ending", "load", "run", "serve_until_told"]


def run(
    app: AnyApp | str,
    config: Config | None = None,
    *,
    announce: Callable[[Sequence[str]], object] | None = None,
) -> None:
    """Serve an application until SIGINT or SIGTERM; what `trio-session serve` does.

        run("app:app", config)

    The first signal ends it gracefully, as `serve` does at its trigger; the second one at once. With
    `config.workers` above 1 there are so many processes, which share the addresses. Each runs the application's
    lifespan. One that ends in order (it got a SIGTERM of its own, or has had `max_requests`) is replaced; one that dies
    stops the others, gracefully, and so the server. SIGHUP replaces all of them, one after the other, with the
    application as it is now: nobody is turned away meanwhile. If this process dies, its workers end.

    Args:
        app: an application, or where to import it from, like `module:app`; several workers need the latter.
        config: Hypercorn's settings; None for its defaults.
        announce: is called with the URLs as soon as all workers have started.

    Raises:
        AddressError: an address cannot be listened on.
        StartupError: there is no such application, or it could not start. If it is its code that failed to be
            imported, the error is the cause.
        BreakdownError: it broke down later, or a worker died.
        ValueError: several workers are to serve an application that has no name.
    """
    config = config or Config()
    if config.workers > 1 and not isinstance(app, str):
        raise ValueError("several workers import the application: give its name, like run('module:app', config)")
    sockets = make_sockets(config)
    told = announce or (lambda _: None)
    try:
        if config.pid_path is not None:
            write_pid_file(config.pid_path)
        if isinstance(app, str) and (config.workers > 1 or config.max_requests is not None):
            from ._processes import supervise

            trio.run(supervise, app, config, sockets, told)
        else:
            trio.run(_serve_alone, sockets, load(app, config), config, told)
    finally:
        close_sockets(sockets)


def load(app: AnyApp | str, config: Config) -> AppWrapper:
    """An application, imported if need be, as Hypercorn calls it.

    Raises:
        StartupError: there is none of this name.
    """
    return load_by_name(app, config) if isinstance(app, str) else ASGIWrapper(cast("ASGIFramework", app))


@final
class Ending:
    """How and when a server is to end.

    Attributes:
        asked: is set when it is to end gracefully.
        scope: is cancelled when it is to end at once.
        started: there is something to be graceful about.
    """

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.scope = trio.CancelScope()
        self.started = False

    def gracefully(self) -> None:
        self.asked.set()
        if not self.started:
            self.scope.cancel()

    def at_once(self) -> None:
        self.scope.cancel()


async def serve_until_told(
    sockets: Sockets,
    app: AppWrapper,
    config: Config,
    ending: Ending,
    announce: Callable[[Sequence[str]], object],
    *,
    workers: int = 1,
) -> None:
    """Serve until `ending` says so."""

    @final
    class Status:
        # Not by way of a nursery's `start`: an end that is asked for before it comes back would find nothing started.
        def started(self, urls: list[str]) -> None:
            ending.started = True
            _spare_the_collector()
            announce(urls)

    with ending.scope:
        status = cast("trio.TaskStatus[list[str]]", Status())  # its overloads have room for no class but trio's
        trigger = ending.asked.wait
        await serve_on(sockets, app, config, shutdown_trigger=trigger, workers=workers, task_status=status)


def _spare_the_collector() -> None:
    """Have the garbage collector look no more at what there is now: modules, the application, the store.

    It stays for good, and to look at all of it takes 15 ms and more, every thousand requests or so.
    """
    gc.collect()
    gc.freeze()


async def _serve_alone(
    sockets: Sockets, app: AppWrapper, config: Config, announce: Callable[[Sequence[str]], object]
) -> None:
    ending = Ending()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(_heed, signals, ending)
            await serve_until_told(sockets, app, config, ending, announce)
            nursery.cancel_scope.cancel()


async def _heed(signals: AsyncIterator[int], ending: Ending) -> None:
    await anext(signals)
    ending.gracefully()
    await anext(signals)
    ending.at_once()
