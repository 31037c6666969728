"""The little of ASGI 3 that the middleware speaks: its types, and a request body that is read to its end.

Hypercorn hands a body to the application through a queue of ten. If an application answers without reading the rest,
its last `send` waits for room in that queue for ever, and with HTTP/2 the whole connection stands still. So while the
last message of a response is sent, whatever is left of the request is read and thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

from ._tasks import bare_exceptions

__all__ = ["ASGIApp", "Message", "Receive", "RequestBody", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestBody:
    """Watches a request's body go by, and reads the rest of it when the response ends."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._ended = _has_no_body(scope)

    async def receive(self) -> Message:
        message = await self._receive()
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True

    async def send_last(self, send: Send, message: Message) -> None:
        """Send the last message of the response, reading what is left of the request meanwhile."""
        if self._ended:
            await send(message)
            return
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._discard)
                await send(message)
                nursery.cancel_scope.cancel()

    async def _discard(self) -> None:
        while not self._ended:
            self._note(await self._receive())


def _has_no_body(scope: Scope) -> bool:
    """HTTP/1.1 says in its headers whether there is a body; the later versions need not (RFC 9112, 6.3)."""
    if not str(scope.get("http_version", "")).startswith("1"):
        return False
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
            return False
    return True
