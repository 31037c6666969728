"""WebSocketExchange: one WebSocket as Hypercorn's `WSStream` puts it before the application."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import final

import h11
import trio
from hypercorn.utils import UnexpectedMessageError

from .._asgi import Message, Scope
from ._errors import WebSocketClosed, WebSocketRejected, to_headers
from ._http import Head, validated
from ._server import Exchange

__all__ = ["WebSocketExchange"]

_NORMAL = 1000  # RFC 6455, 7.4.1
_ABNORMAL = 1006
_INTERNAL_ERROR = 1011


class _State(Enum):
    HANDSHAKE = auto()
    CONNECTED = auto()
    RESPONSE = auto()
    CLOSED = auto()
    HTTPCLOSED = auto()


@final
class WebSocketExchange(Exchange):
    """One WebSocket, from the handshake to the end."""

    def __init__(self, scope: Scope, *, raise_app_exceptions: bool) -> None:
        super().__init__(scope, raise_app_exceptions=raise_app_exceptions)
        self._inbox.append({"type": "websocket.connect"})
        self._state = _State.HANDSHAKE
        self._is_disconnected = False
        self._denial: Message | None = None  # websocket.http.response.start: goes out with the first of the body
        self._acceptance: Head | None = None
        self._refusal: Head | None = None
        self._refusal_body = bytearray()
        self._messages: deque[str | bytes] = deque()
        self._close: tuple[int, str] | None = None  # the application's code and reason
        self.subprotocol: str | None = None

    # -- the application's side ------------------------------------------------------------------------------------

    async def _on_message(self, message: Message) -> None:
        if self._closed:
            return  # "Allow app to finish after close"
        match message["type"], self._state:
            case "websocket.accept", _State.HANDSHAKE:
                self._accept(message)
            case "websocket.http.response.start", _State.HANDSHAKE:
                self._denial = message
            case "websocket.http.response.body", _State.HANDSHAKE | _State.RESPONSE if self._denial is not None:
                self._refuse(self._denial, message)
            case "websocket.send", _State.CONNECTED:
                await self._send_to_client(message)
            case "websocket.close", _State.HANDSHAKE:
                self._state = _State.HTTPCLOSED
                self._refusal = _empty(403)
            case "websocket.close", _State.CONNECTED:
                self._state = _State.CLOSED
                self._close = int(message.get("code", _NORMAL)), message.get("reason") or ""
                self._disconnect(_NORMAL)  # the client answers a close at once
            case "websocket.close", _State.CLOSED:
                pass
            case _:
                raise UnexpectedMessageError(self._state, message["type"])

    def _accept(self, message: Message) -> None:
        headers: list[tuple[bytes, bytes]] = []
        self.subprotocol = message.get("subprotocol")
        if self.subprotocol is not None:
            if self.subprotocol not in self.scope["subprotocols"]:
                raise ValueError("Invalid Subprotocol")
            headers.append((b"sec-websocket-protocol", self.subprotocol.encode()))
        for name, value in message.get("headers", []):
            if name == b"sec-websocket-protocol" or name.startswith(b":"):
                raise ValueError(f"Invalid additional header, {name.decode()}")
            headers.append((name, value))
        self._acceptance = 101, list(h11.InformationalResponse(status_code=101, headers=headers).headers)
        self._state = _State.CONNECTED

    def _refuse(self, start: Message, message: Message) -> None:
        if self._state is _State.HANDSHAKE:
            response = h11.Response(status_code=int(start["status"]), headers=validated(start["headers"]))
            self._refusal = response.status_code, list(response.headers)
            self._state = _State.RESPONSE
        self._refusal_body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            self._state = _State.HTTPCLOSED

    async def _send_to_client(self, message: Message) -> None:
        data: str | bytes
        if message.get("bytes") is not None:
            data = bytes(message["bytes"])
        elif isinstance(message["text"], str):
            data = message["text"]
        else:
            raise TypeError(f"{message['text']} should be a str")
        self._messages.append(data)
        self._buffered += len(data)
        await self._wait_for_room()

    def _on_end(self) -> None:
        if self._state is _State.HANDSHAKE:
            self._state = _State.HTTPCLOSED
            self._refusal = _empty(500)
        elif self._state is _State.CONNECTED:
            self._state = _State.CLOSED
            self._close = _INTERNAL_ERROR, ""

    def _disconnect(self, code: int) -> None:
        if not self._is_disconnected:
            self._is_disconnected = True
            self._inbox.append({"type": "websocket.disconnect", "code": code})

    # -- the client's side -----------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        return False  # an application may take its time after a WebSocket

    def hang_up(self) -> None:
        if not self._closed:
            self._closed = True
            # Hypercorn does not pass on the code of a client's close.
            is_over = self._state in {_State.CLOSED, _State.HTTPCLOSED}
            self._disconnect(_NORMAL if is_over else _ABNORMAL)
            self._changed.unpark_all()

    async def handshake(self) -> Head:
        """Wait for the acceptance.

        Raises:
            WebSocketRejected: there is none; the refusal is complete.
            Exception: the application's own, raised before that.
        """
        while self._state in {_State.HANDSHAKE, _State.RESPONSE} and not self.ended:
            await self._changed.park()
        if self._acceptance is not None:
            return self._acceptance
        if self._state is _State.HTTPCLOSED and self._refusal is not None:
            status, headers = self._refusal
            raise WebSocketRejected(status, to_headers(headers), bytes(self._refusal_body))
        raise self.failure()

    def put(self, data: str | bytes) -> None:
        """Send to the application. Raises as `get` does, if that is too late."""
        if self._close is not None or self.ended:
            raise self._over()
        text, blob = (data, None) if isinstance(data, str) else (None, data)
        self._inbox.append({"type": "websocket.receive", "bytes": blob, "text": text})
        self._changed.unpark_all()

    async def get(self) -> str | bytes:
        """Wait for a message of the application.

        Raises:
            WebSocketClosed: the application has closed, or has ended.
            Exception: the application's own.
            trio.BrokenResourceError: the server has stopped.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages and self._close is None and not self.ended:
            await self._changed.park()
        if not self._messages:
            raise self._over()
        data = self._messages.popleft()
        self._buffered -= len(data)
        self._changed.unpark_all()
        return data

    def _over(self) -> BaseException:
        return self.failure() if self._close is None else WebSocketClosed(*self._close)


def _empty(status: int) -> Head:
    return status, [(b"content-length", b"0"), (b"connection", b"close")]
