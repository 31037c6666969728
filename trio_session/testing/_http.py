"""HttpExchange: one request as Hypercorn's `HTTPStream` puts it before the application.

h11 checks every byte of the response, as it does there: bad headers, more or less body than Content-Length says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import final

import h11
import trio
from hypercorn.utils import UnexpectedMessageError

from .._asgi import Message, Scope
from ._server import Exchange

__all__ = ["Head", "HttpExchange", "validated"]

Head = tuple[int, Sequence[tuple[bytes, bytes]]]  # status and headers

# Hypercorn's `max_app_queue_size`. An application that answers without reading waits in its last `send` for a place.
_QUEUE = 10  # messages


class _State(Enum):
    REQUEST = auto()
    RESPONSE = auto()
    CLOSED = auto()


@final
class HttpExchange(Exchange):
    """One HTTP request.

    Args:
        body: one `http.request` for each chunk; Hypercorn sends one more, to say that this was all.
    """

    def __init__(self, scope: Scope, body: Iterable[bytes], *, raise_app_exceptions: bool) -> None:
        super().__init__(scope, raise_app_exceptions=raise_app_exceptions)
        self._inbox.extend({"type": "http.request", "body": chunk, "more_body": True} for chunk in body)
        self._inbox.append({"type": "http.request", "body": b"", "more_body": False})
        self._state = _State.REQUEST
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._has_no_body = scope["method"] == "HEAD"
        self._wire = h11.Connection(h11.SERVER)
        self._wire.receive_data(b"%s / HTTP/1.1\r\nhost: h\r\n\r\n" % (b"HEAD" if self._has_no_body else b"GET"))
        self._wire.next_event()

    # -- the application's side ------------------------------------------------------------------------------------

    async def _on_message(self, message: Message) -> None:
        match message["type"], self._state:
            case "http.response.start", _State.REQUEST:
                response = h11.Response(
                    status_code=int(message["status"]), headers=validated(message.get("headers", ()))
                )
                self._wire.send(response)
                self._head = response.status_code, list(response.headers)
                self._has_no_body = self._has_no_body or response.status_code in {204, 304}
                self._state = _State.RESPONSE
            case "http.response.body", _State.RESPONSE:
                await self._on_body(bytes(message.get("body", b"")))
                if not message.get("more_body", False):
                    await self._on_last()
            case _:
                raise UnexpectedMessageError(self._state, message["type"])

    async def _on_body(self, body: bytes) -> None:
        if body and not self._has_no_body:
            self._wire.send(h11.Data(data=body))
            if not self._closed:
                self._chunks.append(body)
                self._buffered += len(body)
                await self._wait_for_room()

    async def _on_last(self) -> None:
        self._wire.send(h11.EndOfMessage())
        self._state = _State.CLOSED
        self._changed.unpark_all()
        if not self._closed:
            self._closed = True
            while len(self._inbox) >= _QUEUE:
                await self._changed.park()
            self._inbox.append({"type": "http.disconnect"})

    def _on_end(self) -> None:
        if self._state is _State.REQUEST:
            self._head = 500, [(b"content-length", b"0"), (b"connection", b"close")]
            self._state = _State.CLOSED

    # -- the client's side -----------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        return self._state is _State.CLOSED

    def hang_up(self) -> None:
        if not self._closed:
            self._closed = True
            self._inbox.append({"type": "http.disconnect"})
            self._changed.unpark_all()

    async def head(self) -> Head:
        """Wait for the response to start.

        Raises:
            Exception: the application's own, raised before that.
        """
        while self._head is None and not self.ended:
            await self._changed.park()
        if self._head is None:
            raise self.failure()
        return self._head

    async def next_chunk(self) -> bytes | None:
        """Wait for more of the body; None at its end.

        Raises:
            Exception: the application's own.
            trio.BrokenResourceError: the application ended without ending its response.
        """
        await trio.lowlevel.checkpoint()
        while not self._chunks and not self.is_complete and not self.ended:
            await self._changed.park()
        if self._chunks:
            chunk = self._chunks.popleft()
            self._buffered -= len(chunk)
            self._changed.unpark_all()
            return chunk
        if self.is_complete:
            return None
        raise self.failure()


def validated(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an application, as Hypercorn lets them pass; h11 checks the rest."""
    pairs = [(bytes(name).strip(), bytes(value).strip()) for name, value in headers]
    if any(name.startswith(b":") for name, _ in pairs):
        raise ValueError("Pseudo headers are not valid")
    return pairs
