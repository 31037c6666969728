"""ClientWebSocket: the client's end of a WebSocket."""

from __future__ import annotations

import json
from typing import Any, final

import trio
from werkzeug.datastructures import Headers

from ._websocket_stream import WebSocketExchange

__all__ = ["ClientWebSocket"]


@final
class ClientWebSocket:
    """An open WebSocket to the application.

    Attributes:
        headers: of the acceptance.
        subprotocol: the one the application chose, or None.
    """

    def __init__(self, exchange: WebSocketExchange, headers: Headers) -> None:
        self.headers = headers
        self.subprotocol = exchange.subprotocol
        self._exchange = exchange
        self._is_closed = False

    async def send(self, data: str | bytes) -> None:
        """Send a text or a binary message. Never waits for the application to take it.

        Raises:
            WebSocketClosed: the application has closed, or has ended.
            trio.ClosedResourceError: the WebSocket was closed here.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._exchange.put(data)

    async def receive(self) -> str | bytes:
        """Wait for a message.

        Raises:
            WebSocketClosed: the application has closed, or has ended.
            trio.ClosedResourceError: the WebSocket was closed here.
        """
        self._check_open()
        return await self._exchange.get()

    async def send_json(self, value: Any) -> None:
        """Send a value as a text message of JSON. Raises as `send` does."""
        await self.send(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    async def receive_json(self) -> Any:
        """Wait for a message and read it as JSON. Raises as `receive` does, and ValueError if it is none."""
        return json.loads(await self.receive())

    async def close(self, code: int = 1000) -> None:
        """Close the WebSocket; leaving the block does it too. Closing twice is fine.

        The application receives `websocket.disconnect` with the code 1006, as Hypercorn (0.18) does not pass on a
        client's code, or with 1000 if it has closed before.

        Args:
            code: 1000 or 3000 to 4999, the codes that browsers let a page use.
        """
        if code != 1000 and not 3000 <= code <= 4999:
            raise ValueError("a client closes with 1000, or with 3000 to 4999")
        await trio.lowlevel.checkpoint()
        self._is_closed = True
        self._exchange.hang_up()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this WebSocket was closed by the client")
