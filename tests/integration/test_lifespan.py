"""From the start of the server to its end: when the session manager opens, and when it closes."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
from hypercorn.utils import LifespanFailureError

from trio_session import RedisConnection, SessionConfig, SessionManager, SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import Answer, connect, fetch
from ._serving import respond, serving


async def visit(scope: Scope, send: Send) -> None:
    await respond(send, b"%d" % await get_session(scope).increment("visits"))


async def that_raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Knows nothing but http, and says so."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await visit(scope, send)


async def that_returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Knows nothing but http, and ignores the rest."""
    if scope["type"] == "http":
        await visit(scope, send)


@pytest.mark.parametrize("app", [that_raises, that_returns])
async def test_an_application_without_lifespan_is_served(app: ASGIApp) -> None:
    """The sessions need the lifespan, the application inside need not know of it."""
    middleware = SessionMiddleware(app)
    assert middleware.manager is None
    async with serving(middleware) as url:
        first = await fetch(url)
        assert first.body == b"1"
        assert (await fetch(url, id=first.id)).body == b"2"
    assert middleware.manager is None


def plain(config: SessionConfig) -> ASGIApp:
    return SessionMiddleware(that_raises, config)


def with_app(config: SessionConfig) -> ASGIApp:
    return App(config)


@pytest.mark.parametrize("make", [plain, with_app])
async def test_a_manager_that_cannot_open_stops_the_server(make: Callable[[SessionConfig], ASGIApp]) -> None:
    """A store that is not there is noticed at the start, not by the first visitor."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: who connects is refused
        connection = RedisConnection(host="127.0.0.1", port=taken.getsockname()[1])
        config = SessionConfig(driver="redis", redis={"default": connection})
        with pytest.raises(LifespanFailureError, match="startup"):
            async with serving(make(config)):
                await trio.sleep_forever()


class Farewell:
    """An application with one request that is still running when the server is told to stop."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.stopping = trio.Event()
        self.manager: SessionManager | None = None
        self.was_open = False

    async def work(self, scope: Scope, manager: SessionManager | None) -> bytes:
        async with get_session(scope).locked() as data:
            data["visits"] = 1
            self.entered.set()
            await self.stopping.wait()
        assert manager is not None
        self.manager = manager
        self.was_open = " open," in repr(manager)
        return b"done"


def plain_farewell(farewell: Farewell) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, await farewell.work(scope, middleware.manager))

    middleware = SessionMiddleware(app)
    return middleware


def app_farewell(farewell: Farewell) -> ASGIApp:
    app = App()

    @app.get("/")
    async def index(request: Request) -> bytes:
        return await farewell.work(request.scope, app.sessions)

    return app


async def until_refused(url: str) -> None:
    """Wait until the server takes no new connections: it is stopping."""
    while True:
        try:
            stream = await connect(url)
        except OSError:
            return
        await stream.aclose()


@pytest.mark.parametrize("make", [plain_farewell, app_farewell])
async def test_the_manager_closes_after_the_last_request(make: Callable[[Farewell], ASGIApp]) -> None:
    """A request that is under way when the server stops may finish, and commit."""
    farewell = Farewell()
    answers: list[Answer] = []

    async def slow(url: str) -> None:
        answers.append(await fetch(url))

    async def stop(url: str) -> None:
        await until_refused(url)
        farewell.stopping.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, serving(make(farewell)) as url:
            nursery.start_soon(slow, url)
            await farewell.entered.wait()
            nursery.start_soon(stop, url)
    assert (answers[0].status, answers[0].body) == (200, b"done")
    assert answers[0].id is not None
    assert farewell.was_open
    assert farewell.manager is not None
    assert " closed," in repr(farewell.manager)
    assert farewell.manager.statistics().commits == 1
