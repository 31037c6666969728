"""What the server has to say to one request: handed out to whoever asks, and watched for the end of it.

ASGI gives a request a single `receive()`, and says through it, once, that the client has hung up. Somebody must be
listening for that while the handler is busy with other things. So one task receives, and everybody else asks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import final

import trio

from .._asgi import Message, Receive, Send
from .._tasks import bare_exceptions

__all__ = ["RequestInbox", "SocketInbox"]

# How much of a body that nobody reads is read before a response ends. Without the rest of its request a connection
# cannot be used again, so a little patience saves the client a new one; more than this costs more than it saves, and
# the client waits for the last bytes of its answer meanwhile.
_DRAIN_BYTES = 256 * 1024
_DRAIN_TIME = 1.0  # seconds

# How far a WebSocket is read ahead of its handler: the end of the connection shows only behind all messages.
_AHEAD_MESSAGES = 16
_AHEAD_BYTES = 64 * 1024

# How long the handler of a WebSocket may go on after it was told that its peer has gone; and how long the peer may take
# for its answer to a close.
_FAREWELL_TIME = 5.0  # seconds


class _Inbox(ABC):
    """Receives in a task of its own while a block runs.

    Args:
        receive: the server's.
        send: the server's.
    """

    _end: Message  # what is received after the block

    def __init__(self, receive: Receive, send: Send) -> None:
        self._server_receive = receive
        self._server_send = send
        self._messages: deque[Message] = deque()
        self._waiting = 0  # callers of receive() for whom there is no message yet
        self._arrivals = trio.lowlevel.ParkingLot()  # where they wait
        self._requests = trio.lowlevel.ParkingLot()  # where the listener waits to be needed
        self._farewell: Message | None = None  # the disconnect, once it has come
        # Cancelled alone, after the block: then its end is never one of several exceptions.
        self._listening = trio.CancelScope(shield=True)

    async def receive(self) -> Message:
        """The next message, for one of the callers; after the disconnect, that, for ever.

        Cancellation: loses no message.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._farewell is not None:
                return dict(self._farewell)
            self._waiting += 1
            self._requests.unpark_all()
            try:
                await self._arrivals.park()
            finally:
                self._waiting -= 1
        message = self._messages.popleft()
        self._requests.unpark_all()
        return message

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Send a message to the client."""

    async def serve(self, handle: Callable[[Receive, Send], Awaitable[None]]) -> None:
        """Run `handle` until it is done, or the client has gone. Exceptions come out bare."""
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, nursery.cancel_scope)
                try:
                    await handle(self.receive, self.send)
                    await self._finish()
                except Exception:
                    await self._finish()
                    raise
                finally:
                    self._listening.cancel()
                    # Who still asks, perhaps a task in the background, must not wait for ever.
                    self._farewell = self._farewell or self._end
                    self._arrivals.unpark_all()

    async def _listen(self, handling: trio.CancelScope) -> None:
        with self._listening:
            while True:
                message = await self._server_receive()
                if message["type"].endswith(".disconnect"):
                    break
                self._put(message)
                while not self._wants_more():
                    await self._requests.park()
            self._farewell = message
            self._on_farewell(handling)
            self._arrivals.unpark_all()

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._arrivals.unpark()

    @abstractmethod
    def _wants_more(self) -> bool:
        """Whether the next message is to be received."""

    @abstractmethod
    def _on_farewell(self, handling: trio.CancelScope) -> None:
        """The client has gone: cancel what is being done, or not."""

    @abstractmethod
    async def _finish(self) -> None:
        """The handler is done, well or not."""


@final
class RequestInbox(_Inbox):
    """A request: its body is received only as it is asked for, then the disconnect is waited for.

    Towards the end of the response whatever is left of the body is thrown away: Hypercorn passes a body on through a
    queue of ten messages, and while that is full, its `send` of the last message never comes back. From then on a
    disconnect does not cancel at once: servers announce one after every response, in the middle of that very `send`.
    But it does after a while: over HTTP/2, Hypercorn waits for ever for a client that has gone to take those words.
    """

    _end: Message = {"type": "http.disconnect"}  # noqa: RUF012  # never changed

    def __init__(self, receive: Receive, send: Send) -> None:
        super().__init__(receive, send)
        self._is_complete = False  # the whole body has been received
        self._is_draining = False
        self._drained = trio.Event()
        self._discarded = 0  # bytes
        self._last_words = trio.CancelScope()

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            await self._server_send(message)
            return
        await self._drain()
        with trio.CancelScope(deadline=self._last_words.deadline) as self._last_words:
            await self._server_send(message)

    def _put(self, message: Message) -> None:
        self._is_complete = not message.get("more_body", False)
        if not self._is_draining:
            super()._put(message)
            return
        self._discarded += len(message.get("body", b""))
        if self._is_complete or self._discarded >= _DRAIN_BYTES:
            self._drained.set()

    def _wants_more(self) -> bool:
        return self._is_complete or self._is_draining or (self._waiting > 0 and not self._messages)

    def _on_farewell(self, handling: trio.CancelScope) -> None:
        self._drained.set()
        if self._is_draining:
            self._last_words.deadline = trio.current_time() + _FAREWELL_TIME
        else:
            handling.cancel()

    async def _drain(self) -> None:
        """Begin to throw the body away; wait for its end, but not for long."""
        if self._is_draining:
            return
        self._is_draining = True
        self._requests.unpark_all()
        if not self._is_complete and self._farewell is None:
            with trio.move_on_after(_DRAIN_TIME):
                await self._drained.wait()

    async def _finish(self) -> None:
        # A response that was never finished is ended by the server, whose last words can block like any others.
        await self._drain()


@final
class SocketInbox(_Inbox):
    """A WebSocket: read a little ahead, and cancelled when the peer has gone, unless it knows already.

    A handler that waits in `receive()`, or has not read everything yet, learns of the end there and gets a while to
    say goodbye. One that is busy with something else is cancelled at once.

    After a close of ours the peer's answer is waited for (RFC 6455, 7.1.1). A server that is done with us before it
    has come cuts the connection, and the peer may lose our code; over HTTP/2, Hypercorn breaks down over the answer.
    """

    _end: Message = {"type": "websocket.disconnect", "code": 1006}  # noqa: RUF012  # never changed

    def __init__(self, receive: Receive, send: Send) -> None:
        super().__init__(receive, send)
        self._bytes = 0  # in self._messages
        self._is_begun = False  # the handshake was taken: from now on it is the handler that waits
        self._is_accepted = False
        self._is_closing = False
        self._is_over = False  # nobody wants to know what else the peer has to say

    async def receive(self) -> Message:
        message = await super().receive()
        self._bytes -= _size(message)
        self._is_begun = True
        return message

    async def send(self, message: Message) -> None:
        # After our own goodbye the disconnect is no news: what the handler still does is its own decision.
        if message["type"] == "websocket.close":
            self._is_closing = True
        # Hypercorn lets messages pass without waiting once the peer has gone: a handler that only sends would never
        # be told, and nobody else would ever run again.
        await trio.lowlevel.checkpoint()
        await self._server_send(message)
        if message["type"] == "websocket.accept":
            self._is_accepted = True

    def _put(self, message: Message) -> None:
        if not self._is_over:
            self._bytes += _size(message)
            super()._put(message)

    def _wants_more(self) -> bool:
        return self._is_over or (len(self._messages) < _AHEAD_MESSAGES and self._bytes < _AHEAD_BYTES)

    def _on_farewell(self, handling: trio.CancelScope) -> None:
        if self._is_closing:
            return
        if self._is_begun and (self._waiting or self._messages):
            handling.deadline = trio.current_time() + _FAREWELL_TIME
        else:
            handling.cancel()

    async def _finish(self) -> None:
        if self._is_accepted and self._is_closing:
            self._is_over = True
            self._requests.unpark_all()
            with trio.move_on_after(_FAREWELL_TIME):
                while self._farewell is None:
                    await self._arrivals.park()


def _size(message: Message) -> int:
    return len(message.get("bytes") or b"") + len(message.get("text") or "")
