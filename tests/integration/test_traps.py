"""The traps of Hypercorn's trio worker that one client can spring: each on Hypercorn as it is, and on ours.

Where a test fails for Hypercorn alone, a trap has been closed there: what closes it here can go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_session._asgi import ASGIApp, Receive, Scope, Send

from ._clients import connect, fetch, open_h2, read_answer, request_head
from ._servers import Serve, Server, both, ours, plain, start
from ._serving import count_tasks, eventually, respond
from ._websockets import UPGRADE

# How to wait until the server has seen what was sent to it; in another process, that takes some time.
Pause = Callable[[float], Awaitable[None]]

CHUNKS = 20  # more than Hypercorn's queue has room for


class Story:
    """What the application of a test waits for, and what it has come to."""

    def __init__(self) -> None:
        self.may_answer = trio.Event()
        self.answers = 0


def app_of(story: Story) -> ASGIApp:
    """Answers at once, or when the story allows it; never reads a body, and never closes a WebSocket."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"], scope.get("path"):
            case "lifespan", _:
                while True:
                    await send({"type": f"{(await receive())['type']}.complete"})
            case "websocket", path:
                await send({"type": "websocket.accept"})
                if path == "/close":
                    await send({"type": "websocket.close"})
            case _, path:
                if path == "/wait":
                    await story.may_answer.wait()
                await respond(send, b"done")
                story.answers += 1

    return app


# -- a broken connection ---------------------------------------------------------------------------------------------


async def behind_a_handshake(
    server: Server, path: str = "/", *, times: int = 30, pause: Pause = wait_all_tasks_blocked
) -> None:
    """A WebSocket handshake, and one byte too many. It must meet an application that is just about to accept."""
    for _ in range(times):
        if server.ended.is_set():
            break
        async with await connect(server.url) as stream:
            await stream.send_all(request_head(path, headers=UPGRADE) + b"x")
            await pause(0.005)


@both
async def test_a_byte_too_early_is_no_fault_of_the_application(serve: Serve) -> None:
    """The client is refused. To answer it in that very moment is no error; it is as if the client had gone."""
    blamed: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        _, turns, answer = scope["path"].split("/")
        for _ in range(int(turns)):
            await trio.lowlevel.checkpoint()
        try:
            if answer == "accept":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
                await send({"type": "websocket.http.response.body", "body": b"no"})
        except Exception as error:  # noqa: BLE001  # whatever it is
            blamed.append(error)

    async with start(serve, app) as server:
        for turns in range(10):
            for answer in ("accept", "refuse"):
                with suppress(OSError):  # Hypercorn alone may be dead by now
                    await behind_a_handshake(server, f"/{turns}/{answer}", times=5)
    assert bool(blamed) is (serve is plain)


async def into_an_answered_stream(server: Server, *, pause: Pause = wait_all_tasks_blocked) -> None:
    """HTTP/2: an upload that was answered before it began."""
    async with open_h2(server.url) as client:
        upload = await client.request("/", method="POST", end=False)
        await upload.whole_answer()
        await upload.send(b"late")
        await pause(0.0)


async def after_the_last_frame(server: Server, *, pause: Pause = wait_all_tasks_blocked) -> None:
    """HTTP/2: the closing frame of a WebSocket, after the application has ended."""
    async with open_h2(server.url) as client:
        fields = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
        socket = await client.request("/close", method="CONNECT", headers=fields, end=False)
        await socket.receive(0)
        await pause(0.0)
        await socket.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        await pause(0.0)


@both
@pytest.mark.parametrize("attack", [behind_a_handshake, into_an_answered_stream, after_the_last_frame])
async def test_a_broken_connection_takes_down_nothing_but_itself(
    serve: Serve, attack: Callable[[Server], Awaitable[None]]
) -> None:
    """Somebody else's request is answered, and so is the next one."""
    story = Story()
    async with start(serve, app_of(story)) as server, await connect(server.url) as innocent:
        await innocent.send_all(request_head("/wait"))
        await wait_all_tasks_blocked()
        await attack(server)
        await wait_all_tasks_blocked()
        story.may_answer.set()
        if serve is plain:
            await server.ended.wait()
            assert story.answers < 2
            assert isinstance(server.error, Exception)
        else:
            assert (await read_answer(innocent)).body == b"done"
            assert (await fetch(server.url)).body == b"done"
            assert server.error is None


@both
async def test_an_early_answer_spares_the_other_streams(serve: Serve) -> None:
    """HTTP/2: an upload that is refused in the middle is told to stop, and the rest of its connection goes on."""
    story = Story()
    async with start(serve, app_of(story)) as server, open_h2(server.url) as client:
        other = await client.request("/wait")
        upload = await client.request("/", method="POST", end=False)
        assert (await upload.whole_answer()).body == b"done"
        await wait_all_tasks_blocked()
        await upload.send(b"late")
        await wait_all_tasks_blocked()
        story.may_answer.set()
        if serve is plain:
            await server.ended.wait()
            assert not other.answer.complete
        else:
            assert (await other.whole_answer()).body == b"done"
            await eventually(lambda: upload.was_reset)


# -- bodies that nobody reads ----------------------------------------------------------------------------------------


@both
async def test_a_body_that_nobody_reads_leaves_no_task(serve: Serve) -> None:
    """HTTP/1.1: the application comes back from its last `send`; when its client has gone, nothing is left of it."""
    story = Story()
    async with start(serve, app_of(story), keep_alive_timeout=0.1) as server:
        await wait_all_tasks_blocked()
        empty = count_tasks()
        async with await connect(server.url) as stream:
            await stream.send_all(request_head("/wait", method="POST", headers=[(b"transfer-encoding", b"chunked")]))
            await stream.send_all(b"2\r\nxx\r\n" * CHUNKS)
            await wait_all_tasks_blocked()
            story.may_answer.set()
            assert (await read_answer(stream)).body == b"done"
        if serve is plain:
            await trio.sleep(0.2)
            assert count_tasks() > empty
            assert not story.answers
        else:
            await eventually(lambda: count_tasks() == empty)
            assert story.answers == 1


@both
async def test_a_body_that_nobody_reads_holds_up_no_other_stream(serve: Serve) -> None:
    """HTTP/2: as soon as the answer is there, the other streams of the connection go on."""
    story = Story()
    async with start(serve, app_of(story)) as server, open_h2(server.url) as client:
        upload = await client.request("/wait", method="POST", end=False)
        for _ in range(CHUNKS):
            await upload.send(b"xx")
        await wait_all_tasks_blocked()
        story.may_answer.set()
        assert (await upload.head()).status == 200
        other = await client.request("/")
        if serve is plain:
            await wait_all_tasks_blocked(0.05)
            assert not other.answer.status
        else:
            assert (await other.whole_answer()).body == b"done"


@both
async def test_a_body_that_is_not_read_yet_holds_up_no_other_stream(serve: Serve) -> None:
    """HTTP/2: a handler may wait for another request of its own connection before it reads its upload."""
    story = Story()
    async with start(serve, app_of(story)) as server, open_h2(server.url) as client:
        upload = await client.request("/wait", method="POST", end=False)
        for _ in range(CHUNKS):
            await upload.send(b"xx")
        await wait_all_tasks_blocked()
        other = await client.request("/")
        if serve is plain:
            await wait_all_tasks_blocked(0.05)
            assert not other.answer.status
        else:
            assert (await other.whole_answer()).body == b"done"
        story.may_answer.set()


async def test_an_upload_that_is_not_read_yet_leaves_room_for_others() -> None:
    """HTTP/2: it fills its own window, and not that of the connection."""
    story = Story()
    async with start(ours, app_of(story)) as server, open_h2(server.url) as client:
        uploads = [await client.request("/wait", method="POST", end=False) for _ in range(2)]
        await wait_all_tasks_blocked()
        for upload in uploads:
            for _ in range(4):
                await upload.send(bytes(16_000))  # a FlowControlError if there is no room
        story.may_answer.set()
        for upload in uploads:
            assert (await upload.whole_answer()).body == b"done"


# -- many requests ---------------------------------------------------------------------------------------------------


@both
async def test_a_connection_that_was_used_a_lot_loses_no_request(serve: Serve) -> None:
    """HTTP/2: it is closed after many requests, but only when all of them are answered."""
    story = Story()
    async with start(serve, app_of(story), keep_alive_max_requests=3) as server, open_h2(server.url) as client:
        streams = [await client.request("/wait") for _ in range(5)]
        await wait_all_tasks_blocked()
        story.may_answer.set()
        if serve is plain:
            await wait_all_tasks_blocked(0.05)
            assert not any(stream.answer.complete for stream in streams)
        else:
            for stream in streams:
                assert (await stream.whole_answer()).body == b"done"
            await client.closed.wait()


# -- refusals --------------------------------------------------------------------------------------------------------


@both
async def test_a_websocket_that_is_refused_is_hung_up_on(serve: Serve) -> None:
    """HTTP/1.1: no connection is kept for it, however long its client stays."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.close"})

    async with start(serve, app) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/", headers=UPGRADE))
        assert (await read_to_the_end(stream)).startswith(b"HTTP/1.1 403")


async def test_a_client_that_speaks_too_early_is_hung_up_on() -> None:
    """HTTP/1.1: after the refusal, as that says."""
    async with start(ours, app_of(Story())) as server, await connect(server.url) as stream:
        await stream.send_all(request_head("/", headers=UPGRADE) + b"x")
        answer = await read_to_the_end(stream)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 101"))


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.fail_after(3):
        while chunk := await stream.receive_some():
            data += chunk
    return data
