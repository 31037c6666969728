"""What a server owes to its clients and to its application when it stops: on Hypercorn as it is, and on ours."""

from __future__ import annotations

import socket
from math import inf

import h2.events
import pytest
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.serving import BreakdownError, StartupError
from trio_session.web import App, Request

from ._clients import connect, fetch, open_h2, read_answer, request_head
from ._servers import Serve, both, ours, plain, start
from ._serving import address, eventually, respond
from ._websockets import Open, on_http1, on_http2

GRACEFUL = 3.0  # seconds; Hypercorn's default


class Story:
    """What the application of a test waits for, and what it has seen."""

    def __init__(self) -> None:
        self.may_answer = trio.Event()
        self.lifespan: list[str] = []
        self.heard: list[object] = []
        self.busy = False


def app_of(story: Story) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"], scope.get("path"):
            case "lifespan", _:
                while True:
                    message = await receive()
                    story.lifespan.append(message["type"])
                    await send({"type": f"{message['type']}.complete"})
            case "websocket", path:
                await send({"type": "websocket.accept"})
                await receive()
                if path == "/deaf":
                    await story.may_answer.wait()
                message = await receive()
                if path == "/busy":
                    story.busy = True
                    await story.may_answer.wait()
                    await send({"type": "websocket.send", "text": "done"})
                    message = await receive()
                story.heard.append(message.get("code"))
                await send({"type": "websocket.send", "text": "too late"})
            case _, path:
                if path == "/wait":
                    await story.may_answer.wait()
                elif path == "/never":
                    await trio.sleep_forever()
                await respond(send, b"x" * 10_000_000 if path == "/long" else b"done")

    return app


# -- connections -----------------------------------------------------------------------------------------------------


@both
async def test_a_request_that_was_on_its_way_is_answered(serve: Serve, autojump_clock: MockClock) -> None:
    """What comes on an open connection just after the server was told to stop is answered, and was the last."""
    async with start(serve, app_of(Story())) as server, await connect(server.url) as stream:
        await stream.send_all(request_head())
        assert (await read_answer(stream)).values(b"connection") == []
        server.stop()
        await wait_all_tasks_blocked()
        if serve is plain:
            assert not await stream.receive_some()
        else:
            await stream.send_all(request_head())
            answer = await read_answer(stream)
            assert (answer.body, answer.values(b"connection")) == (b"done", [b"close"])
            assert not await stream.receive_some()
            await server.ended.wait()


@both
async def test_a_response_says_that_it_is_the_last(serve: Serve) -> None:
    """Who gets an answer while the server stops is told to close: no request is sent in vain."""
    story = Story()
    async with start(serve, app_of(story)) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/wait"))
        await wait_all_tasks_blocked(0.02)
        server.stop()
        await wait_all_tasks_blocked(0.02)
        story.may_answer.set()
        answer = await read_answer(stream)
        assert answer.body == b"done"
        assert answer.values(b"connection") == ([] if serve is plain else [b"close"])


async def test_connections_that_wait_to_be_accepted_are_served() -> None:
    """A client that has connected, as far as it can tell, is served, even if the server was told to stop before."""
    async with start(ours, app_of(Story()), graceful_timeout=10.0) as server:
        server.stop()
        # Without a pause: the server gets no chance to accept them before it looks whether it should stop.
        sockets = [socket.create_connection(address(server.url)) for _ in range(20)]
        for each in sockets:
            each.sendall(request_head())
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in sockets]
        answers = [await read_answer(stream) for stream in streams]
        assert {answer.body for answer in answers} == {b"done"}
        for stream in streams:
            await stream.aclose()


@both
async def test_a_request_without_end_is_told_so(serve: Serve, autojump_clock: MockClock) -> None:
    """Whose time is up gets an answer that says: try again, elsewhere."""
    async with start(serve, app_of(Story()), graceful_timeout=GRACEFUL) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/never"))
        await wait_all_tasks_blocked(0.02)
        stopped_at = trio.current_time()
        server.stop()
        if serve is plain:
            assert not await stream.receive_some()
        else:
            answer = await read_answer(stream)
            assert answer.status == 503
            assert answer.values(b"retry-after") == [b"1"]
        await server.ended.wait()
        assert trio.current_time() - stopped_at == pytest.approx(GRACEFUL, abs=0.5)


@both
async def test_a_client_that_reads_nothing_cannot_keep_the_server(serve: Serve, autojump_clock: MockClock) -> None:
    """Whatever is still to be sent to it, the server ends when its time is up."""
    async with start(serve, app_of(Story()), graceful_timeout=GRACEFUL) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/long"))
        await wait_all_tasks_blocked(0.02)
        server.stop()
        with trio.move_on_after(GRACEFUL + 2) as patience:
            await server.ended.wait()
        assert patience.cancelled_caught == (serve is plain)
        if serve is plain:
            # It would hang for ever. From now on it is the system that others wait for, not a clock that may jump.
            autojump_clock.autojump_threshold = inf
            await stream.aclose()
            await server.ended.wait()


async def test_an_idle_connection_of_http2_is_told_goodbye() -> None:
    """The frame that says which requests were looked at comes before the end, so that others can be sent again."""
    async with start(ours, app_of(Story())) as server, open_h2(server.url) as client:
        assert (await (await client.request()).whole_answer()).body == b"done"
        server.stop()
        await client.closed.wait()
        goodbye = [event for event in client.events if isinstance(event, h2.events.ConnectionTerminated)]
        assert [event.last_stream_id for event in goodbye] == [1]


async def test_a_busy_connection_of_http2_is_asked_to_leave(autojump_clock: MockClock) -> None:
    """Whose client never pauses is told half-way to make no new requests; what is under way is answered."""
    story = Story()
    async with start(ours, app_of(story), graceful_timeout=GRACEFUL) as server, open_h2(server.url) as client:
        await client.request("/wait")
        await wait_all_tasks_blocked(0.02)
        stopped_at = trio.current_time()
        server.stop()
        await eventually(lambda: any(isinstance(e, h2.events.ConnectionTerminated) for e in client.events))
        assert trio.current_time() - stopped_at == pytest.approx(GRACEFUL / 2, abs=0.5)
        assert not server.ended.is_set()


# -- WebSockets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("serve", "open_peer"), [(plain, on_http1), (ours, on_http1), (ours, on_http2)])
async def test_websockets_are_told_that_the_server_restarts(
    serve: Serve, open_peer: Open, autojump_clock: MockClock
) -> None:
    """They are closed with 1012, and the handler hears of it."""
    story = Story()
    async with start(serve, app_of(story), graceful_timeout=GRACEFUL) as server:
        async with open_peer(server.url, "/rest") as ws:
            await wait_all_tasks_blocked(0.02)
            server.stop()
            assert await ws.closed() == (1006 if serve is plain else 1012)
        await server.ended.wait()
        assert story.heard == ([] if serve is plain else [1012])
        assert server.error is None


@pytest.mark.parametrize("open_peer", [on_http1, on_http2])
async def test_the_last_message_of_a_websocket_is_replied_to(open_peer: Open, autojump_clock: MockClock) -> None:
    """A handler may finish what it was doing before its socket is closed."""
    story = Story()
    async with (
        start(ours, app_of(story), graceful_timeout=GRACEFUL) as server,
        open_peer(server.url, "/busy") as ws,
        trio.open_nursery() as nursery,
    ):

        async def stop() -> None:
            await eventually(lambda: story.busy)
            server.stop()
            await wait_all_tasks_blocked(0.02)
            story.may_answer.set()

        nursery.start_soon(stop)
        assert await ws.ask("work") == "done"
        assert await ws.closed() == 1012


async def test_a_websocket_whose_handler_does_not_listen_is_closed_half_way(autojump_clock: MockClock) -> None:
    """A handler that takes too long with its last message does not keep its client from the news."""
    story = Story()
    async with start(ours, app_of(story), graceful_timeout=GRACEFUL) as server:
        async with on_http1(server.url, "/deaf") as ws:
            await wait_all_tasks_blocked(0.02)
            stopped_at = trio.current_time()
            server.stop()
            assert await ws.closed() == 1012
            assert trio.current_time() - stopped_at == pytest.approx(GRACEFUL / 2, abs=0.5)
            story.may_answer.set()
        await server.ended.wait()
        assert story.heard == [1012]
        assert server.error is None


# -- the application -------------------------------------------------------------------------------------------------


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that cannot start."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@both
async def test_a_start_that_fails_is_no_start(serve: Serve) -> None:
    """Nobody is told a URL of a server whose application has not started."""
    urls: list[str] = []
    with pytest.raises(Exception) as failed:  # noqa: PT011 - see below
        async with trio.open_nursery() as nursery:
            urls += await nursery.start(serve, refuses, Config.from_mapping(bind="127.0.0.1:0", errorlog=None))
    if serve is plain:
        assert urls
        assert failed.group_contains(LifespanFailureError)
    else:
        assert not urls
        assert failed.group_contains(StartupError, match="^no database$")


@both
async def test_a_crash_in_the_background_stops_the_server_loudly(serve: Serve) -> None:
    """Requests that are under way are answered first."""
    app = App()
    may_answer = trio.Event()

    @app.get("/wait")
    async def wait(request: Request) -> str:
        await may_answer.wait()
        return "done"

    async def crash() -> None:
        raise ValueError("background")

    async with start(serve, app) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/wait"))
        await wait_all_tasks_blocked(0.02)
        app.nursery.start_soon(crash)
        await wait_all_tasks_blocked(0.02)
        may_answer.set()
        if serve is plain:
            assert not await stream.receive_some()
        else:
            assert (await read_answer(stream)).body == b"done"
        await server.ended.wait()
    assert isinstance(server.error, LifespanFailureError if serve is plain else BreakdownError)


@both
async def test_a_lifespan_that_breaks_down_stops_the_server(serve: Serve) -> None:
    """An application without what its lifespan was to keep for it is not served any longer."""
    broken = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await broken.wait()
            raise ValueError("pool")
        await respond(send, b"done")

    async with start(serve, app) as server:
        broken.set()
        await wait_all_tasks_blocked(0.02)
        if serve is plain:
            assert (await fetch(server.url)).body == b"done"
        else:
            await server.ended.wait()
            assert isinstance(server.error, BreakdownError)
            assert str(server.error) == "ValueError: pool"


@both
async def test_a_lifespan_that_returns_early_is_no_failure(serve: Serve) -> None:
    """An application that has nothing to do at its end may say so by returning."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        await respond(send, b"done")

    async with start(serve, app) as server:
        assert (await fetch(server.url)).body == b"done"
        server.stop()
        await server.ended.wait()
    assert isinstance(server.error, trio.ClosedResourceError if serve is plain else type(None))
