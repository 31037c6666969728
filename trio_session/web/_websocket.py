"""WebSocket: the handler's end of one, and what happens when the handler is done."""

from __future__ import annotations

import logging
from typing import Any, final

import msgspec
import trio
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Forbidden, HTTPException

from .._asgi import Message, Receive, Scope, Send
from ._connection import Connection
from ._failures import http_error_of, lone_exception, plain_response
from ._origins import is_allowed
from ._request import decode_json
from ._response import HeaderFields, Response, make_response
from ._routing import match_of
from ._streams import Chunk

__all__ = ["WebSocket", "WebSocketClosed", "dispatch_websocket"]

logger = logging.getLogger("trio_session.web")

# RFC 6455, 7.4.1.
_NORMAL, _ABNORMAL, _POLICY, _INTERNAL = 1000, 1006, 1008, 1011


class WebSocketClosed(Exception):  # noqa: N818  # as trio.EndOfChannel: nobody did anything wrong
    """The WebSocket is closed, by whichever side. A handler may simply let it pass.

    Attributes:
        code: why, as the peer says. Hypercorn does not pass on what it said: 1006 stands for everything.
    """

    def __init__(self, code: int = _NORMAL) -> None:
        super().__init__(f"the WebSocket is closed ({code})")
        self.code = code


@final
class WebSocket(Connection):
    """A WebSocket, as the handler has it.

        @app.websocket("/echo")
        async def echo(ws: WebSocket) -> None:
            await ws.accept()
            async for message in ws:
                await ws.send(message)

    What it knows of its request (`path args headers cookies session …`) is as in `Request`.

    When the peer goes while the handler waits for a message, it is told: the iteration ends, `receive()` raises
    `WebSocketClosed`, and it has five seconds for its goodbyes. A handler that is busy otherwise is cancelled.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive)
        self._send = send
        self._is_accepted = False
        self._closed: int | None = None  # the code
        self._accepting = trio.Lock()

    @property
    def requested_subprotocols(self) -> list[str]:
        """What the client would like to speak, best first."""
        return list(self.scope.get("subprotocols", ()))

    @property
    def is_closed(self) -> bool:
        """Whether it is known to be closed."""
        return self._closed is not None

    async def accept(self, headers: HeaderFields | None = None, subprotocol: str | None = None) -> None:
        """Open the WebSocket. The first `receive()` or `send()` does it as well.

        The session's cookie goes with this answer: what needs a new one has to be committed before.

        Args:
            headers: to be sent with the answer.
            subprotocol: one of `requested_subprotocols`.

        Raises:
            RuntimeError: it is open already.
            ValueError: the client did not ask for the subprotocol.
            WebSocketClosed: it is closed.
        """
        async with self._accepting:
            if self._is_accepted:
                raise RuntimeError("this WebSocket is accepted already")
            await self._accept(headers, subprotocol)

    async def _accept(self, headers: HeaderFields | None = None, subprotocol: str | None = None) -> None:
        if subprotocol is not None and subprotocol not in self.requested_subprotocols:
            raise ValueError(f"the client did not ask for the subprotocol {subprotocol!r}")
        self._check_open()
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": subprotocol,
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in Headers(headers)
                ],
            }
        )
        self._is_accepted = True

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            WebSocketClosed: there is none any more.

        Locking: leave the session's `locked()` block first, or all other requests of this visitor wait for the peer
        as well; the log warns of it.

        Cancellation: loses no message.
        """
        await self._ensure_accepted()
        self._check_open()
        if "trio_session" in self.scope:
            self.session._note_receiving()  # a middleware around the App cannot see who receives
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = message.get("code", _NORMAL)
            self._check_open()
        data: bytes | None = message.get("bytes")
        text: str = message.get("text") or ""
        return text if data is None else data

    async def send(self, message: Chunk) -> None:
        """Send a message, text or binary as its type says.

        A peer that has gone is not noticed here: messages are lost until the handler is told, or cancelled.

        Raises:
            WebSocketClosed: it is known to be closed.
        """
        if not isinstance(message, str | bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}; see send_json()")
        await self._ensure_accepted()
        self._check_open()
        text, data = (message, None) if isinstance(message, str) else (None, bytes(message))
        await self._send({"type": "websocket.send", "bytes": data, "text": text})

    async def receive_json(self) -> Any:
        """The next message, decoded from JSON.

        Raises:
            BadRequest: it is not JSON. Unless you catch it, the WebSocket is closed with 1008.
            WebSocketClosed: as `receive`.
        """
        return decode_json(await self.receive())

    async def send_json(self, value: object) -> None:
        """Send a value as JSON, as text. Otherwise as `send`."""
        await self.send(msgspec.json.encode(value).decode())

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close the WebSocket; before `accept()` this refuses it, with a 403. Closing it twice does nothing."""
        if self._closed is not None:
            await trio.lowlevel.checkpoint()
            return
        self._closed = code
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed:
            raise StopAsyncIteration from None

    async def _ensure_accepted(self) -> None:
        if self._is_accepted:
            return
        # Several tasks may begin at once: the others wait until the first one's answer is out.
        async with self._accepting:
            if not self._is_accepted:
                await self._accept()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise WebSocketClosed(self._closed)

    async def _refuse(self, response: Response) -> None:
        """Answer the handshake with a page instead."""
        self._closed = _NORMAL
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await response.aclose()
            await self._send({"type": "websocket.close"})  # of which the server makes a 403
            return

        async def send(message: Message) -> None:
            await self._send({**message, "type": f"websocket.{message['type']}"})

        await response._send(send, response._start(), head=False)


async def dispatch_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket: the innermost application."""
    ws = WebSocket(scope, receive, send)
    match = match_of(scope)
    await receive()  # websocket.connect, or a disconnect that the next receive() gives again
    try:
        if match.route is None:
            assert match.error is not None
            raise match.error
        origin = ws.headers.getlist("Origin")
        if not is_allowed(origin, match.route.origins, secure=ws.is_secure, host=ws.headers.get("Host")):
            raise Forbidden("Pages of other sites may not open this WebSocket.")
        value = await match.route.handler(ws, **match.values)
        if value is not None and not ws._is_accepted and not ws.is_closed:
            raise HTTPException(response=make_response(value))
    except Exception as error:  # noqa: BLE001  # what is not foreseen is logged there
        await _end_badly(ws, error)
    else:
        await ws.close()
    finally:
        # Other tasks may know it: they find it closed, also if the handler was cancelled.
        ws._closed = _ABNORMAL if ws._closed is None else ws._closed


async def _end_badly(ws: WebSocket, raised: Exception) -> None:
    if _is_goodbye(raised):
        await ws.close()
        return
    error = lone_exception(raised)
    http_error = http_error_of(error)
    if http_error is not error:
        logger.error("the WebSocket handler for %r failed", ws.path, exc_info=raised)
    if not ws._is_accepted and not ws.is_closed:
        await ws._refuse(plain_response(http_error))
    else:
        is_theirs = http_error is error and 400 <= (http_error.code or 500) < 500
        await ws.close(_POLICY if is_theirs else _INTERNAL)


def _is_goodbye(error: Exception) -> bool:
    """Nothing but `WebSocketClosed`, also out of the handler's own nurseries."""
    if isinstance(error, ExceptionGroup):
        return error.split(WebSocketClosed)[1] is None
    return isinstance(error, WebSocketClosed)
