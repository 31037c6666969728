"""HTTP/1.1 and HTTP/2 as Hypercorn speaks them, without what breaks a connection that is in order.

- When a client speaks before its WebSocket was accepted, Hypercorn refuses it; an application that accepts it in that
  very moment is told of a protocol error, as if it were to blame. Here what it says is not heard any more.
- Hypercorn's HTTP/2 fails when data come in for a stream that it has answered already: an upload that was refused,
  the closing frame of a WebSocket. Here they are dropped, and the client is told to send no more of them.
- It waits for a stream's application before it looks at the next stream. Here each stream has a task for that, and the
  client is held back by the window of the stream alone.
- Of an answer that its application breaks off it says nothing, and the client waits for the rest. Here it is reset.
- It forgets an application that waits for the client to take something, when the connection ends. Here it is freed.
- After its thousandth request an HTTP/2 connection is closed under the requests that are still on it. Here it ends
  when it is idle. (RFC 9113 would let us say so before; but there are clients, all those in Python among them, to whom
  that is the end of what they have under way. So only those are told that do not pause when the server has to stop.)
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event as H2Event, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, EndBody, Event as StreamEvent, Response, Trailers
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hyperframe.frame import GoAwayFrame

__all__ = ["Leaving", "Protocol"]

_LAST_STREAM_OF_ALL = 2**31 - 1


@dataclass(frozen=True)
class Leaving(Event):
    """This connection has served for long enough: the next time that it is idle it is to end."""


@final
class Protocol:
    """Either of the two, as the client wants: it may begin with one and go on with the other.

    Args:
        alpn: what was negotiated in the TLS handshake.
        parts: what Hypercorn's protocols are made of.
    """

    def __init__(self, alpn: str | None, *parts: Any) -> None:
        self._parts = parts
        self._protocol: _HTTP1 | _HTTP2 = _HTTP2(*parts) if alpn == "h2" else _HTTP1(*parts)

    async def initiate(self) -> None:
        await self._protocol.initiate()

    async def handle(self, event: Event) -> None:
        headers: list[tuple[bytes, bytes]] | None = None
        settings: bytes | None = None
        try:
            await self._protocol.handle(event)
            return
        except H2ProtocolAssumedError as assumed:
            data = assumed.data
        except H2CProtocolRequiredError as required:
            data, headers, settings = required.data, required.headers, required.settings
        self._protocol = _HTTP2(*self._parts)
        await self._protocol.initiate(headers, settings)
        if data:
            await self._protocol.handle(RawData(data))

    async def hurry(self) -> None:
        """Have the client make no further requests here. HTTP/1.1 says that with its next response."""
        if isinstance(self._protocol, _HTTP2):
            # The first of two such frames: what is under way is still welcome (RFC 9113, 6.8).
            frame = GoAwayFrame(0, last_stream_id=_LAST_STREAM_OF_ALL, error_code=ErrorCodes.NO_ERROR)
            await self._protocol.send(RawData(frame.serialize()))

    async def say_goodbye(self) -> None:
        """Before an idle connection is closed: whatever crosses this was not looked at, and may be sent again."""
        if isinstance(self._protocol, _HTTP2):
            self._protocol.connection.close_connection()
            await self._protocol._flush()


def _is_own_refusal(event: Response) -> bool:
    """Whether it is what Hypercorn refuses a WebSocket with, of which its application knows nothing."""
    return event.status_code == 400 and event.headers == [(b"content-length", b"0"), (b"connection", b"close")]


@final
class _HTTP1(H11Protocol):
    _has_refused = False

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and isinstance(self.stream, WSStream) and _is_own_refusal(event):
            self.stream.closed = True  # Hypercorn says so only when this has been sent
            self._has_refused = True
        await super().stream_send(event)
        if self._has_refused and isinstance(event, EndBody):
            await self.send(Closed())  # as its headers say, and Hypercorn forgets


@final
class _Upload:
    """What has come of a request's body (or of a WebSocket) and has not been handed on yet.

    Flow control bounds it: what has not been acknowledged counts against the stream's window.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0  # bytes to acknowledge: those of `data`, and their padding
        self.complete = False
        self.over = False  # nobody wants the rest
        self.changed = trio.lowlevel.ParkingLot()

    def take(self) -> tuple[bytes, int]:
        taken = bytes(self.data), self.size
        self.data.clear()
        self.size = 0
        return taken


@final
class _HTTP2(H2Protocol):
    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._requests = 0
        self._uploads: dict[int, _Upload] = {}

    async def initiate(self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None) -> None:
        await super().initiate(headers, settings)
        # Room for all streams at once: the windows of the streams are limits enough, and one must not use up another's.
        window = self.connection.local_settings.initial_window_size
        self.connection.increment_flow_control_window(window * (self.config.h2_max_concurrent_streams - 1))
        await self._flush()

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            match event:
                case DataReceived(stream_id=int(id)):
                    self._receive(id, event)
                case StreamEnded(stream_id=int(id)) if id in self._uploads:
                    self._uploads[id].complete = True
                    self._uploads[id].changed.unpark()
                case _:
                    # Where it counts, `super()` cuts the connection when there have been too many.
                    self._requests, self.keep_alive_requests = self._requests + self.keep_alive_requests, 0
                    await super()._handle_events([event])
                    if isinstance(event, RequestReceived) and self._requests == self.config.keep_alive_max_requests:
                        await self.send(Leaving())
        await self._flush()

    def _receive(self, id: int, event: DataReceived) -> None:
        """Take in what has come without waiting for anybody: there are other streams."""
        size = event.flow_controlled_length or 0
        if id in self.streams:
            upload = self._uploads.get(id)
            if upload is None:
                upload = self._uploads[id] = _Upload()
                self.task_group.spawn(self._hand_on, id, upload)
            upload.data += event.data or b""
            upload.size += size
            upload.changed.unpark()
            return
        self.connection.acknowledge_received_data(size, id)
        if id not in self.stream_buffers:  # else its answer is still on the way
            with suppress(ProtocolError):  # these were the last of them
                self.connection.reset_stream(id, ErrorCodes.NO_ERROR)  # as RFC 9113, 8.1 has it

    async def _hand_on(self, id: int, upload: _Upload) -> None:
        """Give the application what has come for it, at its own pace. Only then the client may send more."""
        while not upload.over:
            if upload.data:
                data, size = upload.take()
                await self.streams[id].handle(Body(stream_id=id, data=data))
                self.connection.acknowledge_received_data(size, id)
                await self._flush()
            elif upload.complete:
                await self.streams[id].handle(EndBody(stream_id=id))
                break
            else:
                await upload.changed.park()

    async def stream_send(self, event: StreamEvent) -> None:
        await super().stream_send(event)
        if isinstance(event, Trailers) and event.stream_id in self.stream_buffers:
            self.stream_buffers[event.stream_id].set_complete()

    async def _break_off(self, stream_id: int) -> None:
        """End an answer that is not complete: its client has gone, or its application has failed in the midst of it."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer.complete:
            return
        with suppress(ProtocolError):  # the client, or the end of the connection, has been faster
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            if not self.closed:
                await self._flush()
        await buffer.close()  # the application may be waiting there for the client to take something
        self.priority.unblock(stream_id)  # and the task that sends finds out that there is nothing to be sent any more
        await self.has_data.set()

    async def _close_stream(self, stream_id: int) -> None:
        await self._break_off(stream_id)
        await super()._close_stream(stream_id)
        upload = self._uploads.pop(stream_id, None)
        if upload is not None:
            upload.over = True
            self.connection.acknowledge_received_data(upload.take()[1], stream_id)
            upload.changed.unpark()
