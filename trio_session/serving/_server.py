"""One server in this trio run: from the start of its application to the end of its last request."""

from __future__ import annotations

import copy
import select
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from random import randint
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper, WSGIWrapper
from hypercorn.config import Config, Sockets, SocketTypeError
from hypercorn.trio import serve as serve_plainly
from hypercorn.trio.statsd import StatsdLogger
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError, repr_socket_addr

from ._application import Application
from ._connection import Connection
from ._lifespan import AddressError, BreakdownError, Lifespan, StartupError
from ._tasks import lone, open_bare_nursery

__all__ = ["CHECKED", "AnyApp", "close_sockets", "make_sockets", "serve", "serve_on"]

# Every typed framework has its own words for the three arguments of an ASGI application.
AnyApp = Callable[[Any, Any, Any], Awaitable[object]]

# For how long those are let in who knock when the server stops: there may be no end of them.
_PATIENCE = 1.0  # second

# The versions of Hypercorn whose inside is known here.
CHECKED = frozenset({"0.18.0"})


async def serve(
    app: AnyApp,
    config: Config | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application in this process; stands in for `hypercorn.trio.serve`.

        async with open_bare_nursery() as nursery:
            urls = await nursery.start(serve, app, config)  # ["http://127.0.0.1:8000"]

    It takes no signals; `run` does. It ends when `shutdown_trigger` returns, and then gracefully: nobody new is let
    in, what has been asked for is answered within `config.graceful_timeout` seconds, WebSockets are closed with 1012,
    and at last the application's lifespan ends.

    Args:
        app: an ASGI application.
        config: Hypercorn's settings; None for its defaults. Of those, `workers` and `use_reloader` are `run`'s affair.
        shutdown_trigger: an async function; when it returns, the server stops.
        task_status: for `nursery.start`, which returns the URLs when requests can come: a port 0 is a real one by then.

    Raises:
        StartupError: the application could not start. No request has come in.
        BreakdownError: it broke down later: by a crash in its lifespan, say, or in an `App`'s nursery. Requests that
            were under way have been answered.
        AddressError: an address cannot be listened on.

    Cancellation: requests and the lifespan are cancelled with it at once. To stop well, use `shutdown_trigger`.
    """
    config = config or Config()
    await serve_on(
        make_sockets(config),
        ASGIWrapper(cast("ASGIFramework", app)),
        config,
        shutdown_trigger=shutdown_trigger,
        task_status=task_status,
    )


def make_sockets(config: Config) -> Sockets:
    """Bind the addresses, and do not listen yet.

    Raises:
        AddressError: one of them cannot be used.
    """
    # For several workers Hypercorn would share the port with whoever asks, and a second server would go unnoticed.
    alone = copy.copy(config)
    alone.workers = 1
    try:
        sockets = alone.create_sockets()
    except (OSError, OverflowError, SocketTypeError) as error:
        _close_half_made(error)
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise AddressError(f"cannot listen on {' and '.join(config.bind + config.insecure_bind)}: {reason}") from error
    config._quic_addresses = alone._quic_addresses
    return sockets


def _close_half_made(error: Exception) -> None:
    """Close the sockets that only the frames of Hypercorn's functions still know."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, socket.socket):
                    each.close()


def close_sockets(sockets: Sockets) -> None:
    """Close those that are not closed yet."""
    for each in (*sockets.secure_sockets, *sockets.insecure_sockets, *sockets.quic_sockets):
        each.close()


async def serve_on(
    sockets: Sockets,
    app: AppWrapper,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    workers: int = 1,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve`, on sockets that are bound already, as one of so many workers. The sockets are closed in the end."""
    trigger = shutdown_trigger or trio.sleep_forever
    if version("hypercorn") not in CHECKED or sockets.quic_sockets:
        what = "HTTP/3" if sockets.quic_sockets else f"Hypercorn {version('hypercorn')}"
        await config.log.warning("The traps of %s are not known here: Hypercorn serves as it is", what)
        await _serve_plainly(sockets, app, config, trigger, task_status)
        return
    config.set_statsd_logger_class(StatsdLogger)
    state: dict[str, Any] = {}
    lifespan = Lifespan(app, config, state, workers=workers)
    try:
        tls = config.create_ssl_context()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(lifespan.run)
            await lifespan.start()
            server = _Server(app, config, state)
            await server.run(sockets, tls, _first_of(trigger, lifespan.broken.wait), task_status)
            await lifespan.stop()
            nursery.cancel_scope.cancel()
    finally:
        close_sockets(sockets)


class _Server:
    """Takes connections, and lets them end."""

    def __init__(self, app: AppWrapper, config: Config, state: dict[str, Any]) -> None:
        retires_after = None
        if config.max_requests is not None:
            retires_after = config.max_requests + randint(0, config.max_requests_jitter)
        self._config = config
        self._state = state
        self._context = WorkerContext(retires_after)
        self._stopping = trio.Event()
        self._app = Application(app, self._stopping, config.graceful_timeout / 2)
        self._connections: set[Connection] = set()

    async def run(
        self,
        sockets: Sockets,
        tls: ssl.SSLContext | None,
        trigger: Callable[[], Awaitable[object]],
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """Serve until `trigger` returns, and let those that are connected finish."""
        async with open_bare_nursery() as watching:
            async with open_bare_nursery() as handlers:
                watching.start_soon(self._cut, handlers.cancel_scope, watching)
                async with open_bare_nursery() as accepting:
                    urls: list[str] = []
                    for plain in (*sockets.secure_sockets, *sockets.insecure_sockets):
                        secure = plain in sockets.secure_sockets
                        urls.append(_url(plain, secure=secure))
                        listener = _listen(plain, tls if secure else None, self._config.backlog)
                        accepting.start_soon(
                            partial(trio.serve_listeners, self._handle, [listener], handler_nursery=handlers)
                        )
                        await self._config.log.info("Running on %s (CTRL + C to quit)", urls[-1])
                    task_status.started(urls)
                    await _first_of(trigger, self._context.terminate.wait)()
                    await _until_nobody_knocks([*sockets.secure_sockets, *sockets.insecure_sockets])
                    accepting.cancel_scope.cancel()
                self._stopping.set()
                for connection in self._connections:
                    connection.leave()
            watching.cancel_scope.cancel()

    async def _handle(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        connection = Connection(self._app, self._config, self._context, self._state, stream)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)

    async def _cut(self, handlers: trio.CancelScope, nursery: trio.Nursery) -> None:
        """When the time is up, or if we are cancelled: end what is left."""
        try:
            await self._stopping.wait()
            await trio.sleep(self._config.graceful_timeout / 2)
            for connection in self._connections:
                nursery.start_soon(connection.hurry)
            await trio.sleep(self._config.graceful_timeout / 2)
        finally:
            for connection in self._connections:
                connection.cut()
            handlers.cancel()


def _listen(
    plain: socket.socket, tls: ssl.SSLContext | None, backlog: int
) -> trio.SocketListener | trio.SSLListener[trio.SocketStream]:
    plain.listen(backlog)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(plain))
    return listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)


def _url(plain: socket.socket, *, secure: bool) -> str:
    return f"{'https' if secure else 'http'}://{repr_socket_addr(plain.family, plain.getsockname())}"


def _first_of(*waits: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    """An async function that returns as soon as one of these does."""

    async def wait_for_one() -> None:
        async with open_bare_nursery() as nursery:

            async def wait_for(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            for wait in waits:
                nursery.start_soon(wait_for, wait)

    return wait_for_one


async def _until_nobody_knocks(listening: list[socket.socket]) -> None:
    """Let those in whose connections the system has made already: they believe that they are served."""
    knocking = select.poll()
    for each in listening:
        knocking.register(each, select.POLLIN)
    with trio.move_on_after(_PATIENCE):
        while knocking.poll(0):
            await trio.lowlevel.checkpoint()


async def _serve_plainly(
    sockets: Sockets,
    app: AppWrapper,
    config: Config,
    trigger: Callable[[], Awaitable[Any]],
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """Hypercorn's own `serve`, and nothing else."""
    main, others = (sockets.secure_sockets, sockets.insecure_sockets)
    if not config.ssl_enabled:
        main, others = others, []
    plain = copy.copy(config)
    plain.workers = 1
    plain.bind, plain.insecure_bind, plain.quic_bind = (
        [f"fd://{each.detach()}" for each in some] for some in (main, others, sockets.quic_sockets)
    )
    failure: StartupError | BreakdownError | None = None
    wrapped = cast("ASGIWrapper | WSGIWrapper", app)
    try:
        await serve_plainly(
            wrapped.app,
            plain,
            shutdown_trigger=trigger,
            task_status=task_status,
            mode="wsgi" if isinstance(app, WSGIWrapper) else "asgi",
        )
    except* (LifespanFailureError, LifespanTimeoutError) as errors:
        reason = str(lone(errors))
        failure = StartupError(reason) if "startup" in reason else BreakdownError(reason)
    if failure is not None:
        raise failure
