"""Sessions in WebSockets: the lock that must not wait for a peer, and cookies of handshakes that are refused."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.testing import wait_all_tasks_blocked

from trio_session import (
    Session,
    SessionConfig,
    SessionFinishedError,
    SessionManager,
    SessionMiddleware,
    get_session,
    open_session_manager,
)
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, WebSocket, abort

from .web_peer import SocketPeer

Hear = Callable[[], Awaitable[object]]
Body = Callable[[Session, Hear], Awaitable[None]]


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig()) as manager:
        yield manager


# -- one WebSocket application, in four ways: accepts, then runs `body` -----------------------------------------------


def plain(body: Body, manager: SessionManager) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await get_session(scope).put("n", 0)
        await send({"type": "websocket.accept"})
        await body(get_session(scope), receive)

    return SessionMiddleware(app, manager=manager)


def starlette(body: Body, manager: SessionManager) -> ASGIApp:
    async def endpoint(ws: StarletteWebSocket) -> None:
        session = get_session(ws)
        await session.put("n", 0)
        await ws.accept()
        await body(session, ws.receive_text)

    return SessionMiddleware(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), manager=manager)


def _handled_by(app: App, body: Body) -> App:
    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.session.put("n", 0)
        await body(ws.session, ws.receive)

    return app


def web(body: Body, manager: SessionManager) -> ASGIApp:
    return _handled_by(App(manager=manager), body)


def wrapped_web(body: Body, manager: SessionManager) -> ASGIApp:
    return SessionMiddleware(_handled_by(App(sessions=False), body), manager=manager)


Make = Callable[[Body, SessionManager], ASGIApp]
everywhere = pytest.mark.parametrize("make", [plain, starlette, web, wrapped_web])


def warned_of(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The lines of this file that the log warns of; it must not warn of anything else."""
    lines: list[int] = []
    for record in caplog.records:
        if record.levelno < logging.WARNING:
            continue
        text = record.getMessage()
        assert "is held while a WebSocket waits in receive()" in text
        place = text.partition(f"{__file__}:")[2]
        lines.append(int(place.partition(" ")[0]))
    caplog.clear()
    return lines


def line() -> int:
    """Where this is called."""
    return sys._getframe(1).f_lineno


async def hear(app: ASGIApp, messages: int) -> None:
    """Be a peer that says something and goes."""
    peer = SocketPeer(app)
    for _ in range(messages):
        peer.say_text("hi")
    peer.go()
    await peer.run()


async def test_a_lock_that_is_left_behind(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """The handler returns with it, and without a close: others can have it at once, and nothing was written."""
    sessions: list[Session] = []

    async def leave(session: Session, hear: Hear) -> None:
        sessions.append(session)
        await session.lock()
        session["n"] = 100

    await SocketPeer(plain(leave, manager)).run()
    assert manager.statistics().locks_held == 0
    assert (await manager.session(sessions[0].id).read())["n"] == 0
    assert "outlived its request" in caplog.text


@everywhere
async def test_a_block_around_receive(make: Make, manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the line of the block, once, however often it happens; the data is kept all the same."""
    lines: list[int] = []

    async def body(session: Session, hear: Hear) -> None:
        for _ in range(3):
            lines.append(line() + 1)
            async with session.locked() as data:
                await hear()
                await hear()
                data["n"] += 1
        assert session["n"] == 3

    app = make(body, manager)
    await hear(app, 6)
    assert warned_of(caplog) == lines[:1]
    await hear(app, 6)
    assert warned_of(caplog) == []


@everywhere
async def test_an_explicit_lock_around_receive(
    make: Make, manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The line of the outermost lock() is named: it is that one which is held."""
    lines: list[int] = []

    async def body(session: Session, hear: Hear) -> None:
        lines.append(line() + 1)
        await session.lock()
        await session.lock()
        await hear()
        await session.unlock_all()

    await hear(make(body, manager), 1)
    assert warned_of(caplog) == lines


@everywhere
async def test_a_lock_for_each_message(make: Make, manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """As it should be: nothing is said."""

    async def body(session: Session, hear: Hear) -> None:
        for _ in range(3):
            await hear()
            async with session.locked() as data:
                data["n"] += 1
            await session.lock()
            await session.commit()

    await hear(make(body, manager), 3)
    assert warned_of(caplog) == []


@everywhere
async def test_each_place_is_named(make: Make, manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """One that was found does not hide another."""
    lines: list[int] = []

    async def body(session: Session, hear: Hear) -> None:
        lines.append(line() + 1)
        async with session.locked():
            await hear()
        lines.append(line() + 1)
        async with session.locked():
            await hear()

    await hear(make(body, manager), 2)
    assert warned_of(caplog) == lines


async def test_a_task_inside_the_block_receives(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """The block cannot end before that task does, so the lock waits for the peer just as well."""
    lines: list[int] = []

    async def body(session: Session, hear: Hear) -> None:
        async def listen() -> None:
            async with trio.open_nursery() as inner:
                inner.start_soon(hear)

        lines.append(line() + 1)
        async with session.locked(), trio.open_nursery() as nursery:
            nursery.start_soon(listen)

    await hear(plain(body, manager), 1)
    assert warned_of(caplog) == lines


async def test_a_task_beside_the_block_receives(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """A reader that runs all the time is nobody's lock: the block beside it ends when it likes."""

    async def body(session: Session, hear: Hear) -> None:
        async def listen() -> None:
            for _ in range(3):
                await hear()

        async with trio.open_nursery() as nursery:
            async with session.locked() as data:
                nursery.start_soon(listen)
                await wait_all_tasks_blocked()
                data["n"] = 1
            await session.lock()
            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            await session.commit()

    await hear(plain(body, manager), 6)
    assert warned_of(caplog) == []


# -- refusals --------------------------------------------------------------------------------------------------------


def cookies_of(peer: SocketPeer) -> list[bytes]:
    return [value for name, value in peer.sent[0].get("headers", ()) if name == b"set-cookie"]


def plain_closing(manager: SessionManager) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        await receive()
        await session.put("seen", value=True)
        await send({"type": "websocket.close", "code": 4000})
        with pytest.raises(SessionFinishedError):
            await session.refresh()

    return SessionMiddleware(app, manager=manager)


def web_returning(manager: SessionManager) -> ASGIApp:
    app = App(manager=manager)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.session.put("seen", value=True)

    return app


@pytest.mark.parametrize("make", [plain_closing, web_returning])
async def test_closing_before_accepting_keeps_the_cookie(
    make: Callable[[SessionManager], ASGIApp], manager: SessionManager
) -> None:
    """The 403 that a server makes of it has none, so it is made here, if the server lets us."""
    peer = SocketPeer(make(manager), can_refuse=True)
    await peer.run()
    start, body = peer.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert body == {"type": "websocket.http.response.body", "body": b""}
    (cookie,) = cookies_of(peer)
    id = cookie.partition(b";")[0].partition(b"=")[2].decode()
    assert (await manager.session(id).read())["seen"]

    peer = SocketPeer(make(manager))
    await peer.run()
    assert peer.types() == ["websocket.close"]


async def test_closing_without_a_new_cookie_stays_a_close(manager: SessionManager) -> None:
    """Whoever does not change the session's cookie is refused by the server, in its own way."""
    app = App(manager=manager)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        assert ws.session.get("nothing") is None
        await ws.close(4000, "no")

    peer = SocketPeer(app, can_refuse=True)
    await peer.run()
    assert peer.sent == [{"type": "websocket.close", "code": 4000, "reason": "no"}]


async def test_an_accepted_websocket_is_closed_as_ever(manager: SessionManager) -> None:
    """With the code of the program, whatever the session has to say by then."""
    app = App(manager=manager)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.session.put("n", 1)
        await ws.accept()
        await ws.session.clear()
        await ws.close(4000, "bye")

    peer = SocketPeer(app, can_refuse=True)
    await peer.run()
    assert peer.types() == ["websocket.accept", "websocket.close"]
    assert peer.sent[1] == {"type": "websocket.close", "code": 4000, "reason": "bye"}


async def test_a_denial_with_a_status_keeps_its_cookies(manager: SessionManager) -> None:
    """A page of the program's own, with the cookie of what it stored before."""
    app = App(manager=manager)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.session.increment("tries")
        abort(401, "Who are you?")

    peer = SocketPeer(app, can_refuse=True)
    await peer.run()
    assert peer.sent[0]["status"] == 401
    assert len(cookies_of(peer)) == 1
    assert b"Who are you?" in peer.sent[1]["body"]
