"""Clients that know every byte they send: HTTP/1.1 and HTTP/2 on a trio stream, and WebSocket frames on either."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie

import h2.config
import h2.connection
import h2.events
import h11
import trio

from ._serving import address

__all__ = ["Answer", "H2Client", "H2Stream", "connect", "fetch", "open_h2", "read_answer", "request_head"]

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Answer:
    """A response; `complete` when its last byte has come."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def cookie(self) -> Morsel[str] | None:
        """The session cookie that came with it."""
        return cookie_in(self.values(b"set-cookie"))

    @property
    def id(self) -> str | None:
        """The session's id, if its cookie was set."""
        return None if self.cookie is None else self.cookie.value


def cookie_in(set_cookies: Iterable[bytes | str]) -> Morsel[str] | None:
    """The session cookie among `Set-Cookie` fields, of which there must not be two."""
    texts = [value.decode() if isinstance(value, bytes) else value for value in set_cookies]
    cookies = [SimpleCookie(text)["trio_session"] for text in texts if text.startswith("trio_session=")]
    assert len(cookies) <= 1
    return cookies[0] if cookies else None


def with_id(id: str | None) -> list[tuple[bytes, bytes]]:
    return [] if id is None else [(b"cookie", f"trio_session={id}".encode())]


# -- HTTP/1.1 --------------------------------------------------------------------------------------------------------


async def connect(url: str) -> trio.SocketStream:
    return await trio.open_tcp_stream(*address(url))


def request_head(
    path: str = "/", *, method: str = "GET", id: str | None = None, headers: Headers = (), close: bool = False
) -> bytes:
    """A request up to its body."""
    fields = [(b"host", b"test"), *with_id(id), *headers, *([(b"connection", b"close")] if close else [])]
    lines = [f"{method} {path} HTTP/1.1".encode(), *(name + b": " + value for name, value in fields), b"", b""]
    return b"\r\n".join(lines)


async def read_answer(stream: trio.abc.ReceiveStream, *, method: str = "GET") -> Answer:
    """Read one response to its last byte, and not beyond."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
    answer = Answer()
    while not answer.complete:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            answer.status, answer.headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage), event
            answer.complete = True
    return answer


async def fetch(
    url: str, path: str = "/", *, method: str = "GET", id: str | None = None, headers: Headers = ()
) -> Answer:
    """One request without a body, on a connection of its own."""
    async with await connect(url) as stream:
        await stream.send_all(request_head(path, method=method, id=id, headers=headers, close=True))
        return await read_answer(stream, method=method)


# -- HTTP/2 ----------------------------------------------------------------------------------------------------------


class H2Stream:
    """One request, and its answer as far as it has come."""

    def __init__(self, client: H2Client, id: int) -> None:
        self._client = client
        self.id = id
        self.was_reset = False  # by the server
        self.answer = Answer()
        self.changed = trio.Event()  # replaced whenever something has come

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send one DATA frame."""
        self._client.connection.send_data(self.id, data, end_stream=end)
        await self._client.flush()

    async def reset(self) -> None:
        self._client.connection.reset_stream(self.id)
        await self._client.flush()

    async def whole_answer(self) -> Answer:
        while not self.answer.complete:
            await self.changed.wait()
        return self.answer

    async def head(self) -> Answer:
        """The answer as soon as its headers are there."""
        while not self.answer.status:
            await self.changed.wait()
        return self.answer

    async def receive(self, taken: int) -> bytes:
        """What has come of the body behind the first `taken` bytes; waits for more than nothing."""
        while len(self.answer.body) <= taken and not self.answer.complete:
            await self.changed.wait()
        return self.answer.body[taken:]

    def note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class H2Client:
    """A connection with prior knowledge: cleartext, no negotiation."""

    def __init__(self, transport: trio.SocketStream, host: str) -> None:
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._transport = transport
        self._sending = trio.Lock()
        self._host = host.encode()
        self._streams: dict[int, H2Stream] = {}
        self.ready = trio.Event()  # the server's settings are known
        self.closed = trio.Event()  # the server has closed the connection
        self.events: list[h2.events.Event] = []  # all there were
        self.takes_data = True  # or else the windows stay as they are

    async def run(self) -> None:
        """Receive until the connection ends."""
        self.connection.initiate_connection()
        await self.flush()
        while data := await self._transport.receive_some():
            for event in self.connection.receive_data(data):
                self.events.append(event)
                self._handle(event)
            await self.flush()
        self.closed.set()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.ready.set()
            return
        if not isinstance(
            event, h2.events.ResponseReceived | h2.events.DataReceived | h2.events.StreamEnded | h2.events.StreamReset
        ):
            return
        assert event.stream_id is not None
        stream = self._streams[event.stream_id]
        answer = stream.answer
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            answer.status = int(answer.values(b":status")[0])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data or b""
            if self.takes_data:
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        else:
            stream.was_reset = isinstance(event, h2.events.StreamReset)
            answer.complete = True
        stream.note()

    async def flush(self) -> None:
        async with self._sending:
            data = self.connection.data_to_send()
            if data:
                await self._transport.send_all(data)

    async def request(
        self, path: str = "/", *, method: str = "GET", id: str | None = None, headers: Headers = (), end: bool = True
    ) -> H2Stream:
        """Begin a request; without a body unless `end` is False. `:protocol` among the headers makes a CONNECT."""
        fields = [(b":method", method.encode()), (b":scheme", b"http"), (b":path", path.encode())]
        fields += [(b":authority", self._host), *headers, *with_id(id)]
        stream = H2Stream(self, self.connection.get_next_available_stream_id())
        self._streams[stream.id] = stream
        self.connection.send_headers(stream.id, fields, end_stream=end)
        await self.flush()
        return stream


@asynccontextmanager
async def open_h2(url: str) -> AsyncIterator[H2Client]:
    """An HTTP/2 connection for the length of the block; then it is simply cut."""
    host, port = address(url)
    async with await connect(url) as transport, trio.open_nursery() as nursery:
        client = H2Client(transport, f"{host}:{port}")
        nursery.start_soon(client.run)
        await client.ready.wait()
        yield client
        nursery.cancel_scope.cancel()
