"""WebSockets for tests, on HTTP/1.1 and on HTTP/2 (RFC 8441): open ones, and handshakes that are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.connection import Connection as FrameConnection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from ._clients import Answer, H2Stream, Headers, connect, cookie_in, open_h2, read_answer, request_head, with_id

__all__ = ["EXTENDED_CONNECT", "UPGRADE", "Open", "Peer", "Refused", "either", "either_refused"]


class Peer(Protocol):
    """A WebSocket on whichever HTTP, as far as the tests need it."""

    id: str | None  # what the handshake set as the session's cookie

    async def receive(self) -> str: ...
    async def ask(self, text: str) -> str: ...
    async def closed(self) -> int:
        """Wait for the application to close, and answer that; with which code it did."""
        ...

    async def hang_up(self) -> None:
        """Go without a word."""
        ...


class OnHttp1:
    def __init__(self, ws: WebSocketConnection, transport: trio.SocketStream) -> None:
        cookie = cookie_in(value for name, value in ws.handshake_headers if name == b"set-cookie")
        self.id = None if cookie is None else cookie.value
        self._ws = ws
        self._transport = transport

    async def receive(self) -> str:
        message = await self._ws.get_message()
        assert isinstance(message, str)
        return message

    async def ask(self, text: str) -> str:
        await self._ws.send_message(text)
        return await self.receive()

    async def closed(self) -> int:
        with pytest.raises(ConnectionClosed) as caught:
            await self._ws.get_message()
        assert caught.value.reason is not None
        return caught.value.reason.code

    async def hang_up(self) -> None:
        await self._transport.aclose()


class OnHttp2:
    """WebSocket frames in the DATA frames of an extended CONNECT (RFC 8441)."""

    def __init__(self, answer: Answer, stream: H2Stream) -> None:
        self.id = answer.id
        self._stream = stream
        self._frames = FrameConnection(ConnectionType.CLIENT)
        self._taken = 0  # bytes of the answer's body

    async def _event(self) -> TextMessage | CloseConnection:
        while True:
            for event in self._frames.events():
                assert isinstance(event, TextMessage | CloseConnection)
                return event
            data = await self._stream.receive(self._taken)
            assert data, "the stream has ended"
            self._taken += len(data)
            self._frames.receive_data(data)

    async def receive(self) -> str:
        event = await self._event()
        assert isinstance(event, TextMessage)
        assert event.message_finished
        return event.data

    async def ask(self, text: str) -> str:
        await self._stream.send(self._frames.send(TextMessage(data=text)))
        return await self.receive()

    async def closed(self) -> int:
        event = await self._event()
        assert isinstance(event, CloseConnection)
        await self._stream.send(self._frames.send(event.response()), end=True)
        return event.code

    async def hang_up(self) -> None:
        await self._stream.reset()


@asynccontextmanager
async def on_http1(url: str, path: str, id: str | None = None) -> AsyncIterator[Peer]:
    async with await connect(url) as transport, trio.open_nursery() as nursery:
        ws = await wrap_client_stream(nursery, transport, "test", path, extra_headers=with_id(id))
        yield OnHttp1(ws, transport)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_http2(url: str, path: str, id: str | None = None) -> AsyncIterator[Peer]:
    async with open_h2(url) as client:
        stream = await client.request(path, method="CONNECT", id=id, headers=EXTENDED_CONNECT, end=False)
        answer = await stream.head()
        assert answer.status == 200
        yield OnHttp2(answer, stream)


Open = Callable[..., AbstractAsyncContextManager[Peer]]
either = pytest.mark.parametrize("open_peer", [on_http1, on_http2])


# -- refusals --------------------------------------------------------------------------------------------------------


async def refused_on_http1(url: str, path: str, id: str | None = None) -> Answer:
    async with await connect(url) as stream:
        await stream.send_all(request_head(path, id=id, headers=UPGRADE))
        return await read_answer(stream)


async def refused_on_http2(url: str, path: str, id: str | None = None) -> Answer:
    async with open_h2(url) as client:
        stream = await client.request(path, method="CONNECT", id=id, headers=EXTENDED_CONNECT, end=False)
        return await stream.whole_answer()


Refused = Callable[..., Awaitable[Answer]]
either_refused = pytest.mark.parametrize("refused", [refused_on_http1, refused_on_http2])

_VERSION = (b"sec-websocket-version", b"13")
EXTENDED_CONNECT: Headers = [(b":protocol", b"websocket"), _VERSION]
UPGRADE: Headers = [
    (b"connection", b"upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),  # the example of RFC 6455, 1.3
    _VERSION,
]
