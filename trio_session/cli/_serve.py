"""Serving an application from the command line: it says where, it ends on Ctrl-C, and every failure is one line."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from .._asgi import ASGIApp, Message, Receive, Scope, Send

__all__ = ["complain", "serve_until_stopped"]

E = TypeVar("E", bound=Exception)


def serve_until_stopped(app: ASGIApp, host: str, port: int, *, announce: Callable[[str], None]) -> int:
    """Serve an application in this process until SIGINT or SIGTERM; the second signal does not wait for requests.

    Args:
        app: an ASGI application.
        host: a name or an address.
        port: 0 for a free one.
        announce: is called with the URL once the application has started.

    Returns:
        The exit code: 0 when it was stopped, 1 if the address cannot be used, 3 if the application could not start.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        complain(f"cannot listen on {host}, port {port}: {reason}; another --port or --host may do")
        return 1
    code = 0
    try:
        trio.run(_serve, _Watched(app), listener, announce)
    # Hypercorn's nurseries put them into groups of groups.
    except* (LifespanFailureError, LifespanTimeoutError) as failures:
        complain(f"the application could not start: {_first(failures)}")
        code = 3
    return code


def complain(problem: str) -> None:
    """Say what is wrong, where errors are said."""
    print(f"trio-session: {problem}", file=sys.stderr, flush=True)


async def _serve(app: _Watched, listener: socket.socket, announce: Callable[[str], None]) -> None:
    # Opened by us, because only then an OSError is known to be about the address; from here on Hypercorn's to close.
    config = Config.from_mapping(bind=f"fd://{listener.detach()}", loglevel="WARNING")
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as watching:
            watching.start_soon(_stop_on_signal, signals, app, stop, watching.cancel_scope)
            async with trio.open_nursery() as serving:
                with _silent_log():
                    urls: list[str] = await serving.start(partial(serve, shutdown_trigger=stop.wait), app, config)
                # Hypercorn listens even if the application failed to start; the failure is on its way then.
                if app.is_serving:
                    announce(urls[0])
            watching.cancel_scope.cancel()


async def _stop_on_signal(
    signals: AsyncIterator[int], app: _Watched, stop: trio.Event, everything: trio.CancelScope
) -> None:
    await anext(signals)
    stop.set()
    if app.is_serving:
        await anext(signals)
    everything.cancel()


@final
class _Watched:
    """An application that is known to have started, or not: Hypercorn does not tell."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.is_serving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self.is_serving = True

        await self._app(scope, receive, watch if scope["type"] == "lifespan" else send)


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep the log of a failing start off the terminal: the last line says the same, in one line."""
    logger, nowhere = logging.getLogger("trio_session"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)


def _first(group: BaseExceptionGroup[E]) -> E:
    """One of the exceptions in a group of groups."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
