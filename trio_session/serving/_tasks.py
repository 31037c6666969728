"""The application's tasks of one connection, and what they are still to receive.

Hypercorn hands messages to an application through a channel with room for ten. Whoever puts one more into it waits
until the application receives; but there are applications that never will: those that have given their answer without
reading the request to its end. Their own last `send` puts `http.disconnect` into that very channel, and waits for ever.
So here nobody waits for an application whose client has got all there is, or has gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, cast, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from .._tasks import bare_exceptions

__all__ = ["Inbox", "Tasks", "lone", "open_bare_nursery"]

# What it may take to say a last word when the time is up already.
_LAST_WORD = 1.0  # second

# Of a WebSocket that was not closed (RFC 6455, 7.4.1).
_ABNORMAL_CLOSURE = 1006


@final
class Inbox:
    """Messages for one run of an application, in their order. After a disconnection there are no others.

    Args:
        room: how many messages may wait here before `put` does.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._over = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message. Waits for room, but only as long as somebody may make some."""
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            if not self._over:
                self._messages.append(message)
            self.close()
            return
        while len(self._messages) >= self._room and not self._over:
            await self._changed.park()
        if not self._over:
            self._messages.append(message)
            self._changed.unpark_all()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message. A disconnection is told again to whoever asks again."""
        await trio.lowlevel.checkpoint()
        while not self._messages:
            await self._changed.park()
        if self._over and len(self._messages) == 1:
            return self._messages[0]
        self._changed.unpark_all()
        return self._messages.popleft()

    def close(self) -> None:
        """Nobody receives any more, or nothing comes any more: from now on `put` drops what it is given."""
        self._over = True
        self._changed.unpark_all()


@final
class Tasks:
    """What Hypercorn's protocols start tasks with: a `hypercorn.typing.TaskGroup`, but in a nursery of ours."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._inboxes: dict[Inbox, ASGIReceiveEvent] = {}  # with what a disconnection is called there

    def spawn(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        self._nursery.start_soon(function, *arguments)

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the application for one request or WebSocket; returns what takes its messages."""
        inbox = Inbox(config.max_app_queue_size)
        gone: dict[str, Any] = {"type": "http.disconnect"}
        if scope["type"] == "websocket":
            gone = {"type": "websocket.disconnect", "code": _ABNORMAL_CLOSURE}
        self._inboxes[inbox] = cast("ASGIReceiveEvent", gone)
        self._nursery.start_soon(
            self._run, app, config, scope, inbox, send, name=f"{scope['type']} {scope.get('path')}"
        )
        return inbox.put

    async def disconnect(self) -> None:
        """The client has gone: tell those applications that have not heard of it from Hypercorn."""
        for inbox, message in list(self._inboxes.items()):
            await inbox.put(message)

    async def _run(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        inbox: Inbox,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> None:
        try:
            try:
                await app(scope, inbox.receive, cast("Any", send), trio.to_thread.run_sync, trio.from_thread.run)
            except* Exception as errors:  # noqa: BLE001 - it is logged
                await config.log.exception("Error in ASGI Framework", exc_info=lone(errors))
        finally:
            del self._inboxes[inbox]
            inbox.close()
            late = trio.current_effective_deadline() == -inf
            with trio.CancelScope(shield=late, deadline=trio.current_time() + _LAST_WORD if late else inf):
                await send(None)  # it has ended; Hypercorn gives the answer that it may still owe


@asynccontextmanager
async def open_bare_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that nobody needs to know of: a lone exception comes out of it without a group."""
    with bare_exceptions():
        async with trio.open_nursery() as nursery:
            yield nursery


def lone(error: BaseException) -> BaseException:
    """A lone exception without the groups around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
