"""The little of ASGI 3 that the middleware speaks: its types, and a request body that is read to its end.

Hypercorn hands a body to the application through a queue of ten. If an application answers without reading the rest,
its last `send` waits for room in that queue for ever, and with HTTP/2 the whole connection stands still. So whatever is
left of the request is read and thrown away: before the last message of a response, for a while, as Hypercorn's HTTP/2
breaks down over body that comes in after the end of its stream; and then while that message is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import Any

import trio

from ._tasks import bare_exceptions

__all__ = ["WORKERS", "ASGIApp", "Message", "Receive", "RequestBody", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# Where a lifespan's scope says how many processes serve the application, if `trio_session.serving` does.
WORKERS = "trio_session.workers"

# How long, and how far, a body that nobody reads is read before the last message goes out. The client waits for the end
# of its answer meanwhile, so it is a compromise.
_DRAIN_TIME = 1.0  # seconds
_DRAIN_BYTES = 256 * 1024


class RequestBody:
    """Watches a request's body go by, and reads the rest of it when the response ends.

    Args:
        drains: False if somebody further out does that already.
    """

    def __init__(self, scope: Scope, receive: Receive, *, drains: bool = True) -> None:
        self._receive = receive
        self.ended = not drains or _has_no_body(scope)

    async def receive(self) -> Message:
        message = await self._receive()
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        if message["type"] != "http.request" or not message.get("more_body", False):
            self.ended = True

    async def send_last(self, send: Send, message: Message) -> None:
        """Send the last message of the response, and read what is left of the request before and meanwhile."""
        await self.drain()
        if self.ended:
            await send(message)
            return
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._discard, inf)
                await send(message)
                nursery.cancel_scope.cancel()

    async def drain(self) -> None:
        """Read what is left of the request, but not for long."""
        if not self.ended:
            with trio.move_on_after(_DRAIN_TIME):
                await self._discard(_DRAIN_BYTES)

    async def _discard(self, limit: float) -> None:
        """Read on to the end of the body, or a little further than `limit` bytes."""
        while not self.ended and limit > 0:
            message = await self._receive()
            self._note(message)
            limit -= len(message.get("body", b""))


def _has_no_body(scope: Scope) -> bool:
    """HTTP/1.1 says in its headers whether there is a body; the later versions need not (RFC 9112, 6.3)."""
    if not str(scope.get("http_version", "")).startswith("1"):
        return False
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
            return False
    return True
