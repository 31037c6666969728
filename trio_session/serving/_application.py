"""The application as it should look to clients of a server that may stop: told in good time, never simply cut."""

from __future__ import annotations

from math import inf
from typing import Any, cast, final

import trio
from hypercorn.typing import AppWrapper

from .._asgi import Message, Receive, Scope, Send
from ._tasks import open_bare_nursery

__all__ = ["Application"]

# "Service Restart": the client may come again at once (RFC 6455, 7.4.1, and the registry that it opens).
_SERVICE_RESTART = 1012

# What it may take to say a last word when the time is up already.
_LAST_WORD = 1.0  # second


@final
class Application:
    """Calls the application of a server. An `AppWrapper`, as Hypercorn calls it.

    Args:
        app: the application itself.
        stopping: is set when the server begins to stop.
        patience: seconds that a WebSocket's handler then gets to finish what it is doing.
    """

    def __init__(self, app: AppWrapper, stopping: trio.Event, patience: float) -> None:
        self._app = app
        self._stopping = stopping
        self._patience = patience

    async def __call__(self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send, (sync_spawn, call_soon))
        else:
            await self._serve_http(scope, receive, send, (sync_spawn, call_soon))

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send, threads: tuple[Any, Any]) -> None:
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._stopping.is_set() and scope["http_version"].startswith("1"):
                    message = _with_close(message)
            await send(message)

        try:
            await self._app(cast("Any", scope), cast("Any", receive), cast("Any", send_on), *threads)
        finally:
            # The time is up. That is no failure of the application, and the client may ask the next server.
            if not started and trio.current_effective_deadline() == -inf:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORD):
                    headers = [(b"content-length", b"0"), (b"retry-after", b"1")]
                    await send_on({"type": "http.response.start", "status": 503, "headers": headers})
                    await send_on({"type": "http.response.body", "body": b""})

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send, threads: tuple[Any, Any]) -> None:
        socket = _WebSocket(receive, send)
        async with open_bare_nursery() as nursery:
            nursery.start_soon(socket.close_when, self._stopping, self._patience)
            await self._app(cast("Any", scope), cast("Any", socket.receive), cast("Any", socket.send), *threads)
            nursery.cancel_scope.cancel()


@final
class _WebSocket:
    """Stands between an application and its WebSocket, and closes it when the server stops."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._accepted = trio.Event()
        self._at_rest = trio.Event()  # the application waits for a message; replaced whenever it gets one
        self._receiving = trio.CancelScope()
        self._closed = False  # nothing more goes out
        self._told = False  # the application hears nothing but that the server restarts

    async def receive(self) -> Message:
        if not self._told:
            with trio.CancelScope() as self._receiving:
                self._at_rest.set()
                message = await self._receive()
                self._at_rest = trio.Event()
                return message
        await trio.lowlevel.checkpoint()
        return {"type": "websocket.disconnect", "code": _SERVICE_RESTART, "reason": ""}

    async def send(self, message: Message) -> None:
        if self._closed:  # as after any other disconnection, what is said is not heard
            await trio.lowlevel.checkpoint()
            return
        if message["type"] == "websocket.close":
            self._closed = True
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._accepted.set()

    async def close_when(self, stopping: trio.Event, patience: float) -> None:
        """Wait for the end, let the application finish what it does with a message, and then close."""
        await stopping.wait()
        await self._accepted.wait()
        with trio.move_on_after(patience):
            await self._at_rest.wait()
        if not self._closed:
            self._closed = self._told = True
            await self._send({"type": "websocket.close", "code": _SERVICE_RESTART, "reason": "the server restarts"})
            self._receiving.cancel()


def _with_close(message: Message) -> Message:
    headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
    return {**message, "headers": [*headers, (b"connection", b"close")]}
