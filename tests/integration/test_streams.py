"""Responses that are still being sent: what a session may do then, and clients that do not wait for the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

import pytest
import trio

from trio_session import (
    LockLostError,
    Session,
    SessionConfig,
    SessionFinishedError,
    SessionManager,
    SessionMiddleware,
    get_session,
)
from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import connect, fetch, open_h2, read_answer, request_head
from ._serving import at_rest, count_tasks, eventually, respond, serving

# What a response does, chunk by chunk: it has started when the first one is yielded.
Story = Callable[[Session], AsyncGenerator[bytes, None]]


@dataclass
class Served:
    """An application with two paths: `/` counts a visit, `/stream` tells the story."""

    app: ASGIApp
    manager: Callable[[], SessionManager | None]


class Lingering:
    """A middleware next to the application: after its last message has been sent, it does not end until it may."""

    def __init__(self, app: ASGIApp, *, may_end: trio.Event) -> None:
        self._app = app
        self._may_end = may_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def lingering(message: Message) -> None:
            await send(message)
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if is_last and scope["path"] == "/stream":
                await self._may_end.wait()

        await self._app(scope, receive, lingering)


async def visit(session: Session) -> bytes:
    return b"%d" % await session.increment("visits")


def plain(story: Story, *, config: SessionConfig | None = None, may_end: trio.Event | None = None) -> Served:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            async with aclosing(story(get_session(scope))) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/stream":
            await stream(scope, receive, send)
        else:
            await respond(send, await visit(get_session(scope)))

    inside: ASGIApp = app if may_end is None else Lingering(app, may_end=may_end)
    middleware = SessionMiddleware(inside, config)
    return Served(middleware, lambda: middleware.manager)


def with_app(story: Story, *, config: SessionConfig | None = None, may_end: trio.Event | None = None) -> Served:
    app = App(config)

    @app.get("/")
    async def index(request: Request) -> bytes:
        return await visit(request.session)

    @app.get("/stream")
    async def stream(request: Request) -> AsyncIterator[bytes]:
        return story(request.session)

    if may_end is not None:
        app.add_middleware(Lingering, may_end=may_end)
    return Served(app, lambda: app.sessions)


Make = Callable[..., Served]
both = pytest.mark.parametrize("make", [plain, with_app])


async def endless(session: Session) -> AsyncGenerator[bytes, None]:
    async with session.locked() as data:
        data["visits"] = -1
        while True:
            yield b"x" * 1024
            await trio.lowlevel.checkpoint()


# -- clients that do not wait for the end ----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("reads", ["a little", "nothing"])
async def test_a_stream_that_is_cut_off_frees_its_lock(make: Make, reads: str) -> None:
    """A client that goes in the middle of a stream leaves no lock, no task and no change; the server serves on."""
    served = make(endless)
    async with serving(served.app, keep_alive=0.2) as url:
        manager = served.manager()
        assert manager is not None
        empty = count_tasks()
        id = (await fetch(url)).id
        async with await connect(url) as stream:
            await stream.send_all(request_head("/stream", id=id))
            if reads == "a little":
                assert await stream.receive_some(1)
            await eventually(lambda: manager.statistics().locks_held == 1)
        await eventually(lambda: at_rest(manager) and count_tasks() == empty)
        assert (await fetch(url, id=id)).body == b"2"


@both
async def test_a_stream_of_http2_that_is_reset_frees_its_lock(make: Make) -> None:
    """The same with HTTP/2, where the connection goes on."""
    served = make(endless)
    async with serving(served.app) as url, open_h2(url) as client:
        manager = served.manager()
        assert manager is not None
        id = (await (await client.request()).whole_answer()).id
        stream = await client.request("/stream", id=id)
        await stream.receive(0)
        assert manager.statistics().locks_held == 1
        await stream.reset()
        await eventually(lambda: at_rest(manager))
        assert (await (await client.request(id=id)).whole_answer()).body == b"2"


@both
async def test_a_client_that_does_not_read_cannot_keep_the_lock(make: Make) -> None:
    """Hypercorn cannot be cancelled while it sends; even so the lock is free when its hold limit has passed."""

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        # When the client goes at last, its going and the loss are both news; either may come first.
        with suppress(LockLostError):
            async with session.locked() as data:
                data["visits"] = -1
                while True:
                    yield b"x" * 1024
                    await trio.lowlevel.checkpoint()

    served = make(story, config=SessionConfig(lock_lease=0.3, lock_hold_limit=0.3))
    async with serving(served.app) as url:
        manager = served.manager()
        assert manager is not None
        id = (await fetch(url)).id
        async with await connect(url) as stream:
            await stream.send_all(request_head("/stream", id=id))
            await eventually(lambda: manager.statistics().locks_held == 1)
            assert (await fetch(url, id=id)).body == b"2"
            assert manager.statistics().locks_lost == 1
        await eventually(lambda: at_rest(manager))


# -- after the response has started ----------------------------------------------------------------------------------


@both
async def test_a_stream_commits_to_a_session_that_exists(make: Make) -> None:
    """A change in the midst of a response is kept, if it needs no cookie."""

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        yield b"a"
        async with session.locked() as data:
            data["visits"] = 10
            yield b"b"
        yield b"c"

    async with serving(make(story).app) as url:
        id = (await fetch(url)).id
        assert (await fetch(url, "/stream", id=id)).body == b"abc"
        assert (await fetch(url, id=id)).body == b"11"


@both
async def test_a_stream_cannot_begin_a_session(make: Make) -> None:
    """The first change needs a cookie, for which it is too late: the handler is told, and nothing is stored."""
    refused: list[SessionFinishedError] = []

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        yield b"a"
        try:
            await session.put("visits", 10)
        except SessionFinishedError as error:
            refused.append(error)
        assert session.id is None
        yield b"b"

    served = make(story)
    async with serving(served.app) as url:
        answer = await fetch(url, "/stream")
        assert (answer.body, answer.cookie) == (b"ab", None)
        assert "before the response" in str(refused[0])
        manager = served.manager()
        assert manager is not None
        assert (manager.statistics().commits, at_rest(manager)) == (0, True)


@both
async def test_a_stream_cannot_change_the_id(make: Make) -> None:
    """Nor can a new id be told any more: the old one stays good, with its data."""
    refused: list[SessionFinishedError] = []

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        yield b"a"
        try:
            await session.refresh()
        except SessionFinishedError as error:
            refused.append(error)

    async with serving(make(story).app) as url:
        id = (await fetch(url)).id
        assert (await fetch(url, "/stream", id=id)).body == b"a"
        assert len(refused) == 1
        assert (await fetch(url, id=id)).body == b"2"


@both
async def test_a_stream_can_end_a_session(make: Make) -> None:
    """clear() works at once; the dead cookie is removed by the next response."""

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        yield b"a"
        if not session.is_empty:
            await session.clear()
        yield b"b"

    async with serving(make(story).app) as url:
        id = (await fetch(url)).id
        first = await fetch(url, "/stream", id=id)
        assert (first.body, first.cookie) == (b"ab", None)
        second = await fetch(url, "/stream", id=id)
        assert second.body == b"ab"
        assert second.cookie is not None
        assert (second.cookie.value, second.cookie["max-age"]) == ("", "0")


@both
async def test_a_lock_left_behind_is_free_before_the_last_byte(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Who has read the whole response finds the lock free and its changes undone, even if the handler goes on."""
    may_end = trio.Event()

    async def story(session: Session) -> AsyncGenerator[bytes, None]:
        await session.lock()
        session["visits"] = -1
        yield b"a"

    served = make(story, may_end=may_end)
    async with serving(served.app) as url:
        manager = served.manager()
        assert manager is not None
        id = (await fetch(url)).id
        assert id is not None
        async with await connect(url) as stream:
            await stream.send_all(request_head("/stream", id=id))
            assert (await read_answer(stream)).body == b"a"
            assert manager.statistics().locks_held == 0
            # Were it not free, it would be for ever: the handler may not end before.
            async with manager.session(id).locked(timeout=2.0) as data:
                assert data["visits"] == 1
            may_end.set()
        assert any("left behind" in record.message for record in caplog.records)
