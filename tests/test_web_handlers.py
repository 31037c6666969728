"""Handlers: what may be one, and how its URL is found again."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from trio_session.web import App, Request, WebSocket

from .web_peer import ask


@pytest.fixture
def app() -> App:
    return App(sessions=False)


def test_decorators_return_the_handler_itself(app: App) -> None:
    """A handler can be called, tested and registered again as if it had never been decorated."""

    async def handler(request: Request) -> str:
        return "hi"

    async def talk(ws: WebSocket) -> None:
        await ws.close()

    assert app.get("/")(handler) is handler
    assert app.post("/other")(handler) is handler
    assert app.websocket("/ws")(talk) is talk


async def test_url_for_builds_paths(app: App) -> None:
    """By function or by name; values that the path does not name become the query."""

    @app.get("/users/<int:id>")
    async def user(request: Request, id: int) -> str:
        return ""

    @app.websocket("/rooms/<name>")
    async def room(ws: WebSocket, name: str) -> None:
        pass

    assert app.url_for(user, id=7) == "/users/7"
    assert app.url_for("user", id=7, tab="a b") == "/users/7?tab=a+b"
    assert app.url_for(room, name="x/y") == "/rooms/x/y"
    with pytest.raises(LookupError, match="nobody"):
        app.url_for("nobody")
    with pytest.raises(LookupError):
        app.url_for("user")


def test_a_name_that_two_handlers_share_is_no_name(app: App) -> None:
    """`url_for` does not guess; the functions themselves still work."""

    def make() -> Callable[[Request], Awaitable[str]]:
        async def index(request: Request) -> str:
            return ""

        return index

    first, second = make(), make()
    app.get("/first")(first)
    app.get("/first-again")(first)
    assert app.url_for("index") == "/first"
    app.get("/second")(second)
    app.get("/first-once-more")(first)
    with pytest.raises(LookupError, match="several"):
        app.url_for("index")
    assert app.url_for(second) == "/second"


async def test_handlers_without_a_name(app: App) -> None:
    """A partial has none, and is served all the same."""

    async def greet(word: str, request: Request) -> str:
        return word

    handler = functools.partial(greet, "hello")
    app.get("/")(handler)
    assert (await ask(app)).text == "hello"
    assert app.url_for(handler) == "/"


def test_handlers_have_to_be_async(app: App) -> None:
    """A plain function is refused at once; a decorator around a coroutine function is not."""

    def plain(request: Request) -> str:
        return ""

    async def proper(request: Request) -> str:
        return ""

    @functools.wraps(proper)
    def around(request: Request) -> Awaitable[str]:
        return proper(request)

    with pytest.raises(TypeError, match="async def plain"):
        app.get("/")(plain)  # type: ignore[type-var]  # that is the point  # pyright: ignore[reportArgumentType]
    app.get("/")(around)


def test_hooks_have_to_be_async(app: App) -> None:
    """A plain function would be a 500 for every request; it is refused at once instead."""

    def plain(*args: object) -> None:
        raise AssertionError

    hook: Any = plain
    for register in (app.before_request, app.after_request, app.errorhandler(404)):
        with pytest.raises(TypeError, match="async def plain"):
            register(hook)


def test_handlers_have_to_take_what_the_path_gives(app: App) -> None:
    """A misspelt argument is found when the handler is registered, not when the first client comes."""

    async def show(request: Request, ident: int) -> str:
        return ""

    with pytest.raises(TypeError, match="/users/<int:id>"):
        app.get("/users/<int:id>")(show)
    assert list(app.url_map.iter_rules()) == []


async def test_generator_functions_are_handlers_too(app: App) -> None:
    """What they yield is streamed."""

    @app.get("/<int:n>")
    async def count(request: Request, n: int) -> AsyncIterator[str]:
        for i in range(n):
            yield f"{i} "

    assert (await ask(app, "/3")).text == "0 1 2 "
