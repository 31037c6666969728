"""Other people's frameworks: Starlette on the trio worker finds our Session where it looks for its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from trio_websocket import open_websocket_url

from trio_session import Session, SessionMiddleware, get_session

from ._clients import connect, cookie_in, fetch, request_head
from ._serving import at_rest, eventually, serving


def session_of(connection: Request | WebSocket) -> Session:
    session: object = connection.session
    assert isinstance(session, Session)
    assert session is get_session(connection)
    return session


async def count(session: Session) -> int:
    async with session.locked() as data:
        visits: int = data.get("visits", 0)
        await trio.lowlevel.checkpoint()
        data["visits"] = visits + 1
    return visits + 1


async def visit(request: Request) -> JSONResponse:
    return JSONResponse(await count(session_of(request)))


def look(request: Request) -> JSONResponse:
    """Starlette runs this one in a worker thread."""
    return JSONResponse(request.session.get("visits"))


class Endless:
    """Chunks under a lock. No generator: Starlette leaves a cut-off one unclosed, with whatever block it is in."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        if not self._session.is_locked:
            await self._session.lock()
            self._session["visits"] = -1
        await trio.lowlevel.checkpoint()
        return b"x" * 1024


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(Endless(session_of(request)))


async def chat(ws: WebSocket) -> None:
    session = session_of(ws)
    await count(session)
    await ws.accept()
    async for _ in ws.iter_text():
        await ws.send_text(str(await count(session)))


class Between(BaseHTTPMiddleware):
    """Runs the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-visits"] = str(session_of(request).get("visits"))
        return response


def starlette(events: list[str]) -> SessionMiddleware:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        events.append("up")
        yield
        events.append("down")

    routes = [Route("/", visit), Route("/look", look), Route("/stream", stream), WebSocketRoute("/chat", chat)]
    app = Starlette(routes=[*routes, Mount("/mounted", routes=[Route("/", visit)])], lifespan=lifespan)
    app.add_middleware(Between)
    return SessionMiddleware(app)


async def test_starlette_has_our_sessions() -> None:
    """`request.session` is the Session: it locks, is seen from threads and mounts, and lasts; lifespans run."""
    events: list[str] = []
    async with serving(starlette(events)) as url:
        first = await fetch(url)
        assert (first.body, first.values(b"x-visits")) == (b"1", [b"1"])
        assert (await fetch(url, "/mounted/", id=first.id)).body == b"2"
        assert (await fetch(url, "/look", id=first.id)).body == b"2"
        assert events == ["up"]
    assert events == ["up", "down"]


async def test_starlette_loses_no_update() -> None:
    """Requests at once exclude each other there as well."""
    counts: list[int] = []
    async with serving(starlette([])) as url:
        id = (await fetch(url)).id

        async def one() -> None:
            counts.append(int((await fetch(url, id=id)).body))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert sorted(counts) == list(range(2, 52))


async def test_a_websocket_of_starlette_has_our_session() -> None:
    """The handshake sets the cookie, and messages change the session."""
    async with serving(starlette([])) as url:
        async with open_websocket_url(url.replace("http", "ws") + "/chat") as ws:
            await ws.send_message("next")
            assert await ws.get_message() == "2"
            cookie = cookie_in(value for name, value in ws.handshake_headers if name == b"set-cookie")
        assert cookie is not None
        assert (await fetch(url, id=cookie.value)).body == b"3"


async def test_a_stream_of_starlette_that_is_cut_off_frees_its_lock() -> None:
    """Starlette drops a stream whose client is gone; the lock that it held is given back."""
    app = starlette([])
    async with serving(app) as url:
        id = (await fetch(url)).id
        manager = app.manager
        assert manager is not None
        async with await connect(url) as client:
            await client.send_all(request_head("/stream", id=id))
            assert await client.receive_some(1)
            assert manager.statistics().locks_held == 1
        await eventually(lambda: at_rest(manager))
        assert (await fetch(url, id=id)).body == b"2"
