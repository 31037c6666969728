"""HTTP/1.1 and HTTP/2 as Hypercorn speaks them, without what breaks a connection that is in order.

- Hypercorn's HTTP/2 fails when data come in for a stream that it has answered already: an upload that was refused,
  the closing frame of a WebSocket. Here they are dropped, and the client is told to send no more of them.
- After its thousandth request an HTTP/2 connection is closed under the requests that are still on it. Here the client
  is told to come again on another connection, and may finish on this one what it has begun.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from h2.errors import ErrorCodes
from h2.events import DataReceived, Event as H2Event, RequestReceived
from h2.exceptions import ProtocolError
from hypercorn.events import Event, RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hyperframe.frame import GoAwayFrame

__all__ = ["Leaving", "Protocol"]

# The first of two GOAWAY frames names no stream: those that are under way are still welcome (RFC 9113, 6.8).
_LAST_STREAM_OF_ALL = 2**31 - 1


@dataclass(frozen=True)
class Leaving(Event):
    """The client has been told to come again on another connection."""


@final
class Protocol:
    """Either of the two, as the client wants: it may begin with one and go on with the other.

    Args:
        alpn: what was negotiated in the TLS handshake.
        parts: what Hypercorn's protocols are made of.
    """

    def __init__(self, alpn: str | None, *parts: Any) -> None:
        self._parts = parts
        self._protocol: H11Protocol | _HTTP2 = _HTTP2(*parts) if alpn == "h2" else H11Protocol(*parts)

    async def initiate(self) -> None:
        await self._protocol.initiate()

    async def handle(self, event: Event) -> None:
        try:
            await self._protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self._protocol = _HTTP2(*self._parts)
            await self._protocol.initiate()
            await self._protocol.handle(RawData(assumed.data))
        except H2CProtocolRequiredError as required:
            self._protocol = _HTTP2(*self._parts)
            await self._protocol.initiate(required.headers, required.settings)
            if required.data:
                await self._protocol.handle(RawData(required.data))

    async def leave(self) -> None:
        """Have the client make no further requests here. HTTP/1.1 says that with its next response."""
        if isinstance(self._protocol, _HTTP2):
            await self._protocol.leave()


@final
class _HTTP2(H2Protocol):
    _requests = 0

    async def leave(self) -> None:
        frame = GoAwayFrame(0, last_stream_id=_LAST_STREAM_OF_ALL, error_code=ErrorCodes.NO_ERROR)
        await self.send(RawData(frame.serialize()))
        await self.send(Leaving())

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                self._drop(event)
                continue
            # Where it counts, `super()` cuts the connection when there have been too many.
            self._requests, self.keep_alive_requests = self._requests + self.keep_alive_requests, 0
            await super()._handle_events([event])
            if isinstance(event, RequestReceived) and self._requests == self.config.keep_alive_max_requests:
                await self.leave()
        await self._flush()

    def _drop(self, event: DataReceived) -> None:
        assert event.stream_id is not None
        self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if event.stream_id not in self.stream_buffers:  # else its answer is still on the way
            with suppress(ProtocolError):  # these were the last of them
                self.connection.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)  # as RFC 9113, 8.1 has it
