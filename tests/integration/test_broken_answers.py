"""Answers over HTTP/2 that end too early, or seem to: on Hypercorn somebody waits for ever, on ours nobody does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import h2.events
import trio
from trio.testing import wait_all_tasks_blocked

from trio_session._asgi import Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import open_h2
from ._servers import Serve, both, ours, start

KIB = 1024


@both
async def test_an_answer_that_fails_is_reset(serve: Serve) -> None:
    """The client can tell that this was not all of it; what else is on its connection goes on."""
    app = App(sessions=False)

    @app.get("/broken")
    async def broken(request: Request) -> AsyncIterator[str]:
        yield "beginning"
        raise ValueError("too late")

    @app.get("/whole")
    async def whole(request: Request) -> str:
        return "whole"

    async with start(serve, app) as server, open_h2(server.url) as client:
        stream = await client.request("/broken")
        assert await stream.receive(0) == b"beginning"
        assert (await (await client.request("/whole")).whole_answer()).body == b"whole"
        assert stream.was_reset == stream.answer.complete == (serve is ours)


@both
async def test_a_client_that_takes_nothing_and_goes(serve: Serve) -> None:
    """The application's `send` comes back, though nobody has opened the window that it waited for."""
    blocked, ended = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 64 * KIB, "more_body": True})
            blocked.set()
        await send({"type": "http.response.body"})
        ended.set()

    async with start(serve, app) as server:
        async with open_h2(server.url) as client:
            client.takes_data = False
            await (await client.request("/")).head()
            await blocked.wait()
            await wait_all_tasks_blocked()
        if serve is ours:
            await ended.wait()
        else:
            async with open_h2(server.url) as client:  # time enough to have noticed
                await (await client.request("/")).head()
            await wait_all_tasks_blocked()
            assert not ended.is_set()


@both
async def test_an_answer_with_trailers_is_complete(serve: Serve) -> None:
    """Headers come after its body; it is not taken for one that was broken off."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"1")]})

    async with start(serve, app) as server, open_h2(server.url) as client:
        streams = [await client.request("/", headers=[(b"te", b"trailers")]) for _ in range(2)]
        for stream in streams:
            assert (await stream.whole_answer()).body == b"body"
        await wait_all_tasks_blocked()
        assert not [stream for stream in streams if stream.was_reset]
        assert [event for event in client.events if isinstance(event, h2.events.TrailersReceived)]
