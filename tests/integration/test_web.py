"""An App on a real Hypercorn: bodies in both directions, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
import pytest
import trio

from trio_session.web import App, Request
from trio_session.web._response import ResponseValue

from ._clients import Answer, connect, open_h2, read_answer, request_head
from ._servers import Serve, ours, plain, start
from ._serving import count_tasks, eventually, serving

CHUNKED = ((b"transfer-encoding", b"chunked"),)
URLENCODED = (b"content-type", b"application/x-www-form-urlencoded")

versions = pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])


class Exchange:
    """One request with a body, while it goes on, in either version."""

    def __init__(
        self, send: Callable[[bytes], Any], receive: Callable[[int], Any], finish: Callable[[], Any], leave: Any
    ) -> None:
        self.send = send
        self.receive = receive  # what has come of the response behind so many bytes
        self.finish = finish  # the request, and wait for the end of the response
        self.leave = leave


@asynccontextmanager
async def exchange(url: str, version: str, path: str, *headers: tuple[bytes, bytes]) -> AsyncIterator[Exchange]:
    """Begin a POST on a connection of its own."""
    if version == "HTTP/2":
        async with open_h2(url) as client:
            stream = await client.request(path, method="POST", headers=headers, end=False)

            async def send(data: bytes) -> None:
                while client.connection.local_flow_control_window(stream.id) < len(data):
                    await trio.sleep(0.001)
                await stream.send(data)

            async def finish() -> Answer:
                await stream.send(b"", end=True)
                return await stream.whole_answer()

            yield Exchange(send, stream.receive, finish, stream.reset)
        return
    async with await connect(url) as transport:
        await transport.send_all(request_head(path, method="POST", headers=[*headers, *CHUNKED]))
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="POST", target="/", headers=[(b"host", b"test"), *CHUNKED]))
        body = b""

        async def send_chunk(data: bytes) -> None:
            await transport.send_all(b"%x\r\n%s\r\n" % (len(data), data))

        async def receive(taken: int) -> bytes:
            nonlocal body
            while len(body) <= taken:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await transport.receive_some()))
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
            return body[taken:]

        async def finish_chunks() -> Answer:
            await transport.send_all(b"0\r\n\r\n")
            return await read_answer(transport, method="POST")

        yield Exchange(send_chunk, receive, finish_chunks, transport.aclose)


class Notes:
    """What becomes of a handler: the tasks that began it and ended it."""

    def __init__(self) -> None:
        self.began: list[trio.lowlevel.Task] = []
        self.ended: list[trio.lowlevel.Task] = []

    @asynccontextmanager
    async def around(self) -> AsyncIterator[None]:
        self.began.append(trio.lowlevel.current_task())
        try:
            yield
        except trio.Cancelled:
            self.ended.append(trio.lowlevel.current_task())
            raise


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def app(notes: Notes) -> App:
    app = App(sessions=False)
    app.max_content_length = 1000

    @app.post("/echo")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        async for data in request.body:
            yield data.upper()

    @app.post("/whole")
    async def whole(request: Request) -> bytes:
        async with notes.around():
            return await request.get_data()

    @app.post("/form")
    async def form(request: Request) -> list[str]:
        return list(await request.form)

    @app.get("/count")
    async def count(request: Request) -> ResponseValue:
        async def numbers() -> AsyncIterator[str]:
            async with notes.around():
                for n in range(3):
                    yield f"{n} "

        return numbers(), 200, {"X-Kind": "numbers"}

    @app.get("/<kind>")
    async def endless(request: Request, kind: str) -> ResponseValue:
        async def slow() -> AsyncIterator[str]:
            async with notes.around():
                while True:
                    yield "data: x\n\n"
                    await trio.sleep(0.001)

        async def flood() -> AsyncIterator[bytes]:
            async with notes.around():
                while True:
                    yield b"x" * 65536

        # Quart's page on server-sent events has these headers, which HTTP/2 forbids.
        headers = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", "Connection": "keep-alive"}
        return (slow() if kind == "slow" else flood()), 200, headers

    return app


@versions
async def test_an_echo_is_heard_chunk_by_chunk(app: App, version: str) -> None:
    """The response begins, and goes on, while the request is still being sent."""
    async with serving(app) as url, exchange(url, version, "/echo") as echo:
        heard = b""
        for data in (b"one ", b"two ", b"three"):
            await echo.send(data)
            while not heard.endswith(data.upper()):
                heard += await echo.receive(len(heard))
        assert heard == b"ONE TWO THREE"


@pytest.mark.parametrize(("version", "serve"), [("HTTP/1.1", plain), ("HTTP/1.1", ours), ("HTTP/2", ours)])
@pytest.mark.parametrize("path", ["/whole", "/form"])
async def test_an_upload_that_is_too_long_is_refused_midway(app: App, version: str, serve: Serve, path: str) -> None:
    """The client gets its 413 while it is still sending, the App is done with it, and others are not disturbed.

    Over HTTP/2 that is one of the traps of Hypercorn.
    """
    async with start(serve, app, keep_alive_timeout=1.0) as server:
        before = count_tasks()
        async with exchange(server.url, version, path, URLENCODED) as upload:
            for _ in range(20):
                await upload.send(b"x" * 1000)
            answer = await upload.finish()
            assert answer.status == 413
            assert b"exceeds the capacity limit" in answer.body
        await eventually(lambda: count_tasks() <= before)
        async with exchange(server.url, version, path, URLENCODED) as upload:
            await upload.send(b"a=1")
            assert (await upload.finish()).status == 200
        assert server.error is None


async def test_a_refused_upload_need_not_come(app: App) -> None:
    """What Content-Length says is enough: the client hears 413 though it has sent nothing yet."""
    head = request_head("/whole", method="POST", headers=[(b"content-length", b"1000000")])
    async with serving(app) as url, await connect(url) as stream:
        await stream.send_all(head)
        assert (await read_answer(stream)).status == 413
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(("path", "size", "status"), [("/whole", 5, 200), ("/whole", 2000, 413), ("/no/where", 5, 404)])
async def test_clients_that_ask_first(app: App, path: str, size: int, status: int) -> None:
    """`Expect: 100-continue`: Hypercorn tells them to go on, and the answer is as without it."""
    headers = [(b"content-length", b"%d" % size), (b"expect", b"100-continue")]
    async with serving(app) as url, await connect(url) as stream:
        await stream.send_all(request_head(path, method="POST", headers=headers))
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"x" * size)
        assert (await read_answer(stream)).status == status
        await stream.send_all(request_head("/count"))
        assert (await read_answer(stream)).body == b"0 1 2 "


@versions
async def test_head_of_a_stream(app: App, notes: Notes, version: str) -> None:
    """The headers alone, as of GET; the stream is not begun, and the connection can be used again."""
    async with serving(app) as url:
        if version == "HTTP/2":
            async with open_h2(url) as client:
                answer = await (await client.request("/count", method="HEAD")).whole_answer()
                assert not notes.began
                after = await (await client.request("/count")).whole_answer()
        else:
            async with await connect(url) as stream:
                await stream.send_all(request_head("/count", method="HEAD"))
                answer = await read_answer(stream, method="HEAD")
                assert not notes.began
                await stream.send_all(request_head("/count"))
                after = await read_answer(stream)
        assert (answer.status, answer.body, answer.values(b"x-kind")) == (200, b"", [b"numbers"])
        assert (after.body, after.values(b"x-kind")) == (b"0 1 2 ", [b"numbers"])


@versions
@pytest.mark.parametrize("path", ["/slow", "/flood"])
async def test_a_stream_is_closed_in_its_own_task(app: App, notes: Notes, version: str, path: str) -> None:
    """When the client goes: while the generator waits, or while it is held up by a client that does not read."""
    async with serving(app, keep_alive=1.0) as url:
        before = count_tasks()
        if version == "HTTP/2":
            async with open_h2(url) as client:
                stream = await client.request(path)
                await stream.receive(0)
                await stream.reset()
                await eventually(lambda: notes.ended == notes.began != [])
                assert (await (await client.request("/count")).whole_answer()).body == b"0 1 2 "
        else:
            async with await connect(url) as transport:
                await transport.send_all(request_head(path))
                await transport.receive_some()
            await eventually(lambda: notes.ended == notes.began != [])
        await eventually(lambda: count_tasks() <= before)


@versions
async def test_hanging_up_in_mid_upload(app: App, notes: Notes, version: str) -> None:
    """Whoever waits for the rest of a body is cancelled."""
    async with serving(app) as url, exchange(url, version, "/whole") as upload:
        await upload.send(b"half of it")
        await eventually(lambda: notes.began != [])
        with suppress(trio.ClosedResourceError):
            await upload.leave()
        await eventually(lambda: notes.ended == notes.began)
