"""Sessions over HTTP/1.1, HTTP/2 and WebSocket on either: the same cookie, the same lock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream
from wsproto.connection import Connection as FrameConnection, ConnectionType
from wsproto.events import TextMessage

from trio_session import Session, SessionManager, SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request, WebSocket

from ._clients import Answer, H2Stream, connect, cookie_in, fetch, open_h2, with_id
from ._serving import at_rest, count_tasks, eventually, respond, serving


@dataclass
class Served:
    """An application, and its manager while it serves.

    `/` answers with the count of visits. The WebSocket `/count` counts the handshake before it accepts, and then each
    message; it answers with the count. `/hold` takes the lock and says so, for as long as the peer stays.
    """

    app: ASGIApp
    manager: Callable[[], SessionManager | None]


async def count(session: Session) -> int:
    async with session.locked() as data:
        visits: int = data.get("visits", 0)
        await trio.lowlevel.checkpoint()
        data["visits"] = visits + 1
    return visits + 1


def plain() -> Served:
    async def serve_websocket(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        assert (await receive())["type"] == "websocket.connect"
        await count(session)
        await send({"type": "websocket.accept"})
        if scope["path"] == "/hold":
            await session.lock()
            session["visits"] = -1
            await send({"type": "websocket.send", "text": "held"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(await count(session))})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await serve_websocket(scope, receive, send)
        else:
            assert scope["type"] == "http"
            await respond(send, b"%d" % await count(get_session(scope)))

    middleware = SessionMiddleware(app)
    return Served(middleware, lambda: middleware.manager)


def with_app() -> Served:
    app = App()

    @app.get("/")
    async def index(request: Request) -> str:
        return str(await count(request.session))

    @app.websocket("/count")
    async def count_messages(ws: WebSocket) -> None:
        await count(ws.session)
        await ws.accept()
        async for _ in ws:
            await ws.send(str(await count(ws.session)))

    @app.websocket("/hold")
    async def hold(ws: WebSocket) -> None:
        await count(ws.session)
        await ws.accept()
        async with ws.session.locked() as data:
            data["visits"] = -1
            await ws.send("held")
            await trio.sleep_forever()

    return Served(app, lambda: app.sessions)


both = pytest.mark.parametrize("make", [plain, with_app])


# -- HTTP ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_a_visitor_is_known_again(make: Callable[[], Served], version: str) -> None:
    """The cookie of the first response brings the session back, also from among several `cookie` fields."""
    async with (
        serving(make().app) as url,
        httpx.AsyncClient(base_url=url, http1=version == "HTTP/1.1", http2=version == "HTTP/2") as client,
    ):
        first = await client.get("/")
        assert (first.http_version, first.text) == (version, "1")
        cookie = cookie_in(first.headers.get_list("set-cookie"))
        assert cookie is not None
        assert (cookie["path"], cookie["httponly"], cookie["samesite"], cookie["secure"]) == ("/", True, "Lax", "")
        assert "private" in first.headers["cache-control"]
        assert (await client.get("/")).text == "2"

        client.cookies.clear()
        fields = [("cookie", "theme=dark"), ("cookie", f"trio_session={cookie.value}"), ("cookie", "a=b; c=d")]
        third = await client.get("/", headers=fields)
        assert third.text == "3"
        assert third.headers["vary"].lower() == "cookie"


@both
async def test_streams_of_one_connection_are_strangers_to_each_other(make: Callable[[], Served]) -> None:
    """Requests at once on one HTTP/2 connection lose no update either."""
    async with serving(make().app) as url, open_h2(url) as client:
        first = await (await client.request()).whole_answer()
        streams = [await client.request(id=first.id) for _ in range(50)]
        counts = [int((await stream.whole_answer()).body) for stream in streams]
        assert sorted(counts) == list(range(2, 52))


# -- WebSocket -------------------------------------------------------------------------------------------------------


class Peer(Protocol):
    """A WebSocket on whichever HTTP, as far as the tests need it."""

    id: str | None  # what the handshake set as the session's cookie

    async def receive(self) -> str: ...
    async def ask(self, text: str) -> str: ...
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

    async def hang_up(self) -> None:
        await self._transport.aclose()


class OnHttp2:
    """WebSocket frames in the DATA frames of an extended CONNECT (RFC 8441)."""

    def __init__(self, answer: Answer, stream: H2Stream) -> None:
        self.id = answer.id
        self._stream = stream
        self._frames = FrameConnection(ConnectionType.CLIENT)
        self._taken = 0  # bytes of the answer's body

    async def receive(self) -> str:
        while True:
            for event in self._frames.events():
                assert isinstance(event, TextMessage)
                assert event.message_finished
                return event.data
            data = await self._stream.receive(self._taken)
            assert data, "the stream has ended"
            self._taken += len(data)
            self._frames.receive_data(data)

    async def ask(self, text: str) -> str:
        await self._stream.send(self._frames.send(TextMessage(data=text)))
        return await self.receive()

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
        headers = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
        stream = await client.request(path, method="CONNECT", id=id, headers=headers, end=False)
        answer = await stream.head()
        assert answer.status == 200
        yield OnHttp2(answer, stream)


Open = Callable[..., AbstractAsyncContextManager[Peer]]
either = pytest.mark.parametrize("open_peer", [on_http1, on_http2])


@both
@either
async def test_a_websocket_has_the_session_of_its_visitor(make: Callable[[], Served], open_peer: Open) -> None:
    """The handshake brings the cookie of a new session, which then lives on from message to message."""
    async with serving(make().app) as url:
        async with open_peer(url, "/count") as ws:
            assert ws.id is not None  # the handshake was the first visit
            assert [await ws.ask("next") for _ in range(3)] == ["2", "3", "4"]
            assert (await fetch(url, id=ws.id)).body == b"5"
            assert await ws.ask("next") == "6"
        async with open_peer(url, "/count", ws.id) as again:
            assert again.id == ws.id  # a visit makes it live longer
            assert await again.ask("next") == "8"


@both
@either
async def test_websockets_at_once_lose_no_update(make: Callable[[], Served], open_peer: Open) -> None:
    """Messages of several WebSockets that change one session are all counted."""
    counts: list[int] = []

    async def chat(url: str, id: str) -> None:
        async with open_peer(url, "/count", id) as ws:
            counts.extend([int(await ws.ask("next")) for _ in range(10)])

    async with serving(make().app) as url:
        id = (await fetch(url)).id
        assert id is not None
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(chat, url, id)
        assert len(set(counts)) == 50
        assert (await fetch(url, id=id)).body == b"57"  # 5 handshakes, 50 messages, 2 requests


@both
@either
async def test_a_peer_that_hangs_up_frees_its_lock(make: Callable[[], Served], open_peer: Open) -> None:
    """A WebSocket that held the lock leaves neither lock nor task, and its changes are rolled back."""
    served = make()
    async with serving(served.app) as url:
        manager = served.manager()
        assert manager is not None
        before = count_tasks()
        async with open_peer(url, "/hold") as ws:
            assert await ws.receive() == "held"
            assert manager.statistics().locks_held == 1
            await ws.hang_up()
            await eventually(lambda: at_rest(manager))
        await eventually(lambda: count_tasks() == before)
        assert (await fetch(url, id=ws.id)).body == b"2"
