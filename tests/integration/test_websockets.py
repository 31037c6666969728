"""What becomes of a WebSocket's session on a real server, on HTTP/1.1 and on HTTP/2."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from trio_session import SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request, WebSocket, abort

from ._clients import fetch
from ._serving import at_rest, count_tasks, eventually, respond, serving
from ._websockets import Open, Refused, either, either_refused


def make_app() -> App:
    app = App()

    @app.get("/")
    async def tries(request: Request) -> str:
        return str(await request.session.increment("tries"))

    return app


# -- refused before it was accepted ----------------------------------------------------------------------------------


def web() -> ASGIApp:
    app = make_app()

    @app.websocket("/denied")
    async def denied(ws: WebSocket) -> None:
        await ws.session.increment("tries")
        abort(401, "Who are you?")

    @app.websocket("/closed")
    async def closed(ws: WebSocket) -> None:
        await ws.session.increment("tries")
        await ws.close(4000)

    return app


def plain() -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        tries = await session.increment("tries")
        if scope["type"] == "http":
            await respond(send, b"%d" % tries)
        elif scope["path"] == "/closed":
            await send({"type": "websocket.close"})
        else:
            length = (b"content-length", b"12")
            await send({"type": "websocket.http.response.start", "status": 401, "headers": [length]})
            await send({"type": "websocket.http.response.body", "body": b"Who are you?"})

    return SessionMiddleware(app)


def starlette() -> ASGIApp:
    async def denied(ws: StarletteWebSocket) -> None:
        await get_session(ws).increment("tries")
        await ws.send_denial_response(PlainTextResponse("Who are you?", 401))

    async def closed(ws: StarletteWebSocket) -> None:
        await get_session(ws).increment("tries")
        await ws.close()

    routes = [WebSocketRoute("/denied", denied), WebSocketRoute("/closed", closed)]
    inner = Starlette(routes=routes)
    inner.add_route("/", lambda request: PlainTextResponse(str(get_session(request)["tries"] + 1)))
    return SessionMiddleware(inner)


Make = Callable[[], ASGIApp]


@pytest.mark.parametrize("make", [web, plain, starlette])
@either_refused
@pytest.mark.parametrize(("path", "status"), [("/denied", 401), ("/closed", 403)])
async def test_a_refusal_keeps_status_and_cookie(make: Make, refused: Refused, path: str, status: int) -> None:
    """What was stored before it is the visitor's at the next request, and at the next handshake."""
    async with serving(make()) as url:
        first = await refused(url, path)
        assert first.status == status
        assert (b"Who are you?" in first.body) == (status == 401)
        assert first.id is not None
        assert "private" in first.values(b"cache-control")[0].decode()
        second = await refused(url, path, first.id)
        assert second.status == status
        assert (await fetch(url, id=first.id)).body == b"3"


# -- while it is open ------------------------------------------------------------------------------------------------


@either
async def test_each_lock_reads_what_others_have_stored(open_peer: Open) -> None:
    """However long the WebSocket is open: what it knew before is nothing to build on; read() looks without a lock."""
    app = make_app()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            if message == "known":
                await ws.send(str(ws.session.get("tries")))
            elif message == "read":
                await ws.send(str((await ws.session.read())["tries"]))
            else:
                async with ws.session.locked() as data:
                    data["tries"] += 10
                await ws.send(str(data["tries"]))

    async with serving(app) as url:
        id = (await fetch(url)).id
        async with open_peer(url, "/ws", id) as ws:
            assert await ws.ask("known") == "1"
            await fetch(url, id=id)
            assert await ws.ask("known") == "1"
            assert await ws.ask("read") == "2"
            await fetch(url, id=id)
            assert await ws.ask("lock") == "13"
            assert (await fetch(url, id=id)).body == b"14"


@either
async def test_a_lock_that_waits_for_the_peer_is_told(open_peer: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the line that took it; meanwhile others wait, which is why."""
    app = make_app()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        while True:
            async with ws.session.locked() as data:
                data["said"] = await ws.receive()
            await ws.send("stored")

    async with serving(app) as url:
        id = (await fetch(url)).id
        async with open_peer(url, "/ws", id) as ws:
            await eventually(lambda: app.sessions.statistics().locks_held == 1)
            with trio.move_on_after(0.05) as patience:
                await fetch(url, id=id)
            assert patience.cancelled_caught
            assert [await ws.ask("hi") for _ in range(3)] == ["stored"] * 3
        await eventually(lambda: at_rest(app.sessions))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    line = handler.__code__.co_firstlineno + 3
    assert f"{__file__}:{line} in handler" in warnings[0]


# -- the end ---------------------------------------------------------------------------------------------------------


@either
async def test_a_busy_handler_is_cancelled_when_the_peer_goes(open_peer: Open) -> None:
    """Before its block has ended: nothing of that is stored, and nothing runs on."""
    app = make_app()
    ends: list[str] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        try:
            async with ws.session.locked() as data:
                data["tries"] = 100
                await ws.send("busy")
                await trio.sleep_forever()
        except trio.Cancelled:
            ends.append("cancelled")
            raise

    async with serving(app) as url:
        before = count_tasks()
        id = (await fetch(url)).id
        async with open_peer(url, "/ws", id) as ws:
            assert await ws.receive() == "busy"
            await ws.hang_up()
            await eventually(lambda: at_rest(app.sessions))
        assert ends == ["cancelled"]
        await eventually(lambda: count_tasks() == before)
        assert (await fetch(url, id=id)).body == b"2"


@either
async def test_a_handler_may_store_its_farewell(open_peer: Open) -> None:
    """One that learns of the end where it reads has time for that."""
    app = make_app()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("hello")
        async for _ in ws:
            pass
        await ws.session.put("tries", 100)

    async with serving(app) as url:
        id = (await fetch(url)).id
        async with open_peer(url, "/ws", id) as ws:
            assert await ws.receive() == "hello"
            await ws.hang_up()
        await eventually(lambda: app.sessions.statistics().commits == 2)
        assert (await fetch(url, id=id)).body == b"101"


@either
async def test_a_handler_that_returns_closes(open_peer: Open) -> None:
    """In order, with the answer of the peer; and the server goes on serving others."""
    app = make_app()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.session.increment("tries")

    async with serving(app, keep_alive=0.2) as url:
        before = count_tasks()
        id = (await fetch(url)).id
        async with open_peer(url, "/ws", id) as ws:
            assert await ws.closed() == 1000
        await eventually(lambda: count_tasks() == before)
        assert (await fetch(url, id=id)).body == b"3"
