"""The server's half of the test client: the application's tasks, in a tree of their own as a server's are.

A request's task is no child of the task that sends the request: what the caller holds (a cancel scope, a session's
lock, context variables) is no more the application's than it is between a browser and a server.
"""

from __future__ import annotations

import contextvars
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .._asgi import ASGIApp, Message, Scope

__all__ = ["Exchange", "Server"]

logger = logging.getLogger("trio_session.testing")

# What the application may send before its `send` waits for the client to read: a socket's buffer.
_WINDOW = 65536  # bytes

# How many messages an application may send to a client that has left. One that sends for ever without sleeping lets
# no time pass on a test's clock, so patience cannot be measured in seconds alone.
_MAX_LATE_MESSAGES = 1000


class Exchange(ABC):
    """One request or one WebSocket: a run of the application, and the messages between it and the client.

    Both sides sleep in one parking lot and look again whenever something has changed. There is one client, but any
    number of tasks of the application may wait here.
    """

    def __init__(self, scope: Scope, *, raise_app_exceptions: bool) -> None:
        self.scope = scope
        self.ended = False
        self._raise_app_exceptions = raise_app_exceptions
        self._error: BaseException | None = None  # the application's, until the client takes it
        self._inbox: deque[Message] = deque()  # what the application will receive
        self._closed = False  # the client has left, or got all there is; `disconnect` is sent
        self._buffered = 0  # bytes that were sent and not read
        self._late_messages = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._cancel_scope = trio.CancelScope(shield=True)

    # -- the application's side ------------------------------------------------------------------------------------

    async def run(self, app: ASGIApp) -> None:
        """Run the application. Never raises: what it raises is kept for the client, or logged."""
        try:
            with self._cancel_scope:
                await app(self.scope, self._receive, self._send)
        except BaseException as error:  # it comes out where the client waits, in another task
            if self._raise_app_exceptions or not isinstance(error, Exception):
                self._error = error
            else:
                logger.exception("error in the application", exc_info=error)
        if self._error is None and not self._cancel_scope.cancelled_caught:
            self._on_end()
        self.ended = True
        self._changed.unpark_all()

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            await self._changed.park()
        message = self._inbox.popleft()
        self._changed.unpark_all()
        return message

    async def _send(self, message: Message) -> None:
        # Before and not after: a cancelled `send` has sent nothing, one that has begun sends it all.
        await trio.lowlevel.checkpoint()
        if self._closed:
            self._late_messages += 1
            if self._late_messages > _MAX_LATE_MESSAGES:
                self._cancel_scope.cancel()
        await self._on_message(message)
        self._changed.unpark_all()

    async def _wait_for_room(self) -> None:
        self._changed.unpark_all()
        while self._buffered > _WINDOW and not self._closed:
            await self._changed.park()

    @abstractmethod
    async def _on_message(self, message: Message) -> None:
        """Do what Hypercorn does with a message of the application."""

    @abstractmethod
    def _on_end(self) -> None:
        """Do what Hypercorn does when the application has returned, or has raised what is logged."""

    # -- the client's side -----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """The client has been sent all there is."""

    @abstractmethod
    def hang_up(self) -> None:
        """The client leaves; the application is told, once."""

    def cancel(self) -> None:
        """Cancel the application."""
        self._cancel_scope.cancel()

    async def wait_ended(self) -> None:
        """Wait until the application has ended."""
        while not self.ended:
            await self._changed.park()

    def take_error(self) -> BaseException | None:
        """What the application raised; from now on that is the caller's business."""
        error, self._error = self._error, None
        return error

    def failure(self) -> BaseException:
        """Why the client waits for something that will never come, the application having ended."""
        return self.take_error() or trio.BrokenResourceError("the application ended in the middle of its response")


class Server:
    """Runs one application for exchanges with it.

    Args:
        nursery: where the application's tasks live.
        patience: how long an application may go on after its client has left, in seconds.
    """

    def __init__(self, app: ASGIApp, nursery: trio.Nursery, *, patience: float, raise_app_exceptions: bool) -> None:
        self.raise_app_exceptions = raise_app_exceptions
        self._app = app
        self._nursery = nursery
        self._patience = patience
        self._context = contextvars.copy_context()
        self._running: set[Exchange] = set()
        self._closed = False

    @asynccontextmanager
    async def serve(self, exchange: Exchange) -> AsyncIterator[None]:
        """Run the application for `exchange` while the body plays the client; leaving it waits until both are over.

        Cancellation: a cancelled body is a client that hangs up. The application is told and can still do its
        clean-up; so leaving takes a while, but never longer than the server's patience, when it is cancelled.
        """
        self._start(exchange)
        try:
            yield
            is_complete = exchange.is_complete
            exchange.hang_up()
            with trio.move_on_after(self._patience):
                await exchange.wait_ended()
        except BaseException:
            exchange.hang_up()
            with trio.move_on_after(self._patience, shield=True):
                await exchange.wait_ended()
            await self._stop(exchange)
            error = exchange.take_error()
            if error is not None:
                logger.exception("error in the application, after its client had left", exc_info=error)
            raise
        is_late = await self._stop(exchange)
        error = exchange.take_error()
        if error is not None:
            raise error
        if is_late and is_complete and self.raise_app_exceptions:
            raise trio.TooSlowError(
                f"the application was still running {self._patience:g} s after its response was complete, and was "
                "cancelled; if that is no mistake: open_test_client(app, graceful_timeout=…)"
            )

    def _start(self, exchange: Exchange) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the test client is closed")
        self._running.add(exchange)
        name = f"{exchange.scope['type']} {exchange.scope['path']}"
        self._context.run(lambda: self._nursery.start_soon(self._run, exchange, name=name))

    async def _run(self, exchange: Exchange) -> None:
        await exchange.run(self._app)
        self._running.remove(exchange)

    async def _stop(self, exchange: Exchange) -> bool:
        """Cancel the application if it still runs; did it?"""
        is_late = not exchange.ended
        if is_late:
            logger.warning("the application did not end in time, and was cancelled")
            exchange.cancel()
            with trio.CancelScope(shield=True):
                await exchange.wait_ended()
        return is_late

    async def aclose(self) -> None:
        """Let no more clients in, and let those that are in finish; but not for longer than the server's patience."""
        self._closed = True
        running = list(self._running)
        with trio.move_on_after(self._patience):
            for exchange in running:
                await exchange.wait_ended()
        self.abort()
        for exchange in running:
            await exchange.wait_ended()

    def abort(self) -> None:
        """Let no more clients in, and cancel what runs."""
        self._closed = True
        for exchange in self._running:
            exchange.cancel()
