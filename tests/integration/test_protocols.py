"""Sessions over HTTP/1.1, HTTP/2 and WebSocket on either: the same cookie, the same lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
import trio

from trio_session import Session, SessionManager, SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request, WebSocket

from ._clients import cookie_in, fetch, open_h2
from ._serving import at_rest, count_tasks, eventually, respond, serving
from ._websockets import Open, either


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
