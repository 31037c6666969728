"""Request bodies that nobody reads.

Hypercorn hands a body on through a queue of ten messages. If an application answers without reading a longer one, its
last `send` never comes back, its connection never ends, and on HTTP/2 every other stream of the connection stands
still. The control tests show that on Hypercorn alone; if they fail, the rest proves nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_session import SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import connect, fetch, open_h2, read_answer, request_head
from ._serving import count_tasks, eventually, respond, serving

CHUNKS = 20
CHUNK = b"xx"


class Broken(Exception):
    """What a handler raises here."""


class Upload:
    """What is known of the one upload of a test."""

    def __init__(self) -> None:
        self.sent = trio.Event()  # set by the client; only then the answer begins
        self.ended = trio.Event()  # the application has come back from its last `send`


class Noting:
    """A middleware next to the application: has it ended?"""

    def __init__(self, app: ASGIApp, *, upload: Upload) -> None:
        self._app = app
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope.get("method") == "POST":
            self._upload.ended.set()


def bare(upload: Upload) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["method"] == "POST":
            await upload.sent.wait()
            if scope["path"] == "/broken":
                raise Broken
            if scope["path"] == "/session":
                await get_session(scope).increment("uploads")
        await respond(send, b"done")

    return Noting(app, upload=upload)


def plain(upload: Upload) -> ASGIApp:
    return SessionMiddleware(bare(upload))


def with_app(upload: Upload) -> ASGIApp:
    app = App()

    @app.get("/")
    async def index(request: Request) -> str:
        return "done"

    @app.post("/ignored")
    async def ignored(request: Request) -> str:
        await upload.sent.wait()
        return "done"

    @app.post("/session")
    async def session(request: Request) -> str:
        await upload.sent.wait()
        await request.session.increment("uploads")
        return "done"

    @app.post("/broken")
    async def broken(request: Request) -> str:
        await upload.sent.wait()
        raise Broken

    app.add_middleware(Noting, upload=upload)
    return app


both = pytest.mark.parametrize("make", [plain, with_app])
paths = pytest.mark.parametrize("path", ["/ignored", "/session"])


async def send_segments(stream: trio.SocketStream) -> None:
    """Send the body so that the server has to read it piece by piece."""
    for _ in range(CHUNKS):
        await stream.send_all(CHUNK)
        await wait_all_tasks_blocked()


async def send_chunked(stream: trio.SocketStream) -> None:
    """Send the body at once, in pieces that the server tells apart."""
    await stream.send_all(b"2\r\nxx\r\n" * CHUNKS + b"0\r\n\r\n")
    await wait_all_tasks_blocked()


FRAMINGS = {
    "segments": ((b"content-length", b"%d" % (CHUNKS * len(CHUNK))), send_segments),
    "chunked": ((b"transfer-encoding", b"chunked"), send_chunked),
}
framed = pytest.mark.parametrize("framing", FRAMINGS)


async def upload_to(stream: trio.SocketStream, path: str, framing: str) -> None:
    header, send_body = FRAMINGS[framing]
    await stream.send_all(request_head(path, method="POST", headers=[header]))
    await send_body(stream)


# -- Hypercorn alone -------------------------------------------------------------------------------------------------


@framed
async def test_control_of_http1(framing: str) -> None:
    """Without us the application never comes back from its answer, not even when the client has gone."""
    upload = Upload()
    async with serving(bare(upload), graceful=0.1) as url:
        empty = count_tasks()
        async with await connect(url) as stream:
            await upload_to(stream, "/ignored", framing)
            upload.sent.set()
            assert (await read_answer(stream)).body == b"done"
        await wait_all_tasks_blocked(0.05)
        assert not upload.ended.is_set()
        assert count_tasks() > empty


async def test_control_of_http2() -> None:
    """Without us no other stream of the connection is answered any more."""
    upload = Upload()
    async with serving(bare(upload), graceful=0.1) as url, open_h2(url) as client:
        stream = await client.request("/ignored", method="POST", end=False)
        for i in range(CHUNKS):
            await stream.send(CHUNK, end=i == CHUNKS - 1)
        await wait_all_tasks_blocked()
        upload.sent.set()
        await stream.head()
        other = await client.request("/")
        await wait_all_tasks_blocked(0.05)
        assert not other.answer.status
        assert not upload.ended.is_set()


# -- with us ---------------------------------------------------------------------------------------------------------


@both
@paths
@framed
async def test_an_unread_body_blocks_nothing(make: Callable[[Upload], ASGIApp], path: str, framing: str) -> None:
    """The answer comes, the application goes on after it, the connection can be used again, and no task is left."""
    upload = Upload()
    async with serving(make(upload)) as url:
        empty = count_tasks()
        async with await connect(url) as stream:
            await upload_to(stream, path, framing)
            upload.sent.set()
            assert (await read_answer(stream)).body == b"done"
            await upload.ended.wait()
            await stream.send_all(request_head())
            assert (await read_answer(stream)).body == b"done"
        await eventually(lambda: count_tasks() == empty)


@both
@framed
async def test_a_client_that_left_its_upload_blocks_nothing(make: Callable[[Upload], ASGIApp], framing: str) -> None:
    """A client that does not wait for its answer leaves no task either."""
    upload = Upload()
    async with serving(make(upload), keep_alive=0.2) as url:
        empty = count_tasks()
        async with await connect(url) as stream:
            await upload_to(stream, "/ignored", framing)
        upload.sent.set()
        await eventually(lambda: count_tasks() == empty)
        assert (await fetch(url)).body == b"done"


@framed
async def test_a_plain_application_that_fails_over_an_unread_body(framing: str) -> None:
    """Nor does one that raises instead of answering."""
    upload = Upload()
    with pytest.raises(ExceptionGroup) as failures:
        async with serving(plain(upload), keep_alive=0.2) as url:
            empty = count_tasks()
            async with await connect(url) as stream:
                await upload_to(stream, "/broken", framing)
                upload.sent.set()
                assert (await read_answer(stream)).status == 500
            await eventually(lambda: count_tasks() == empty)
    assert failures.group_contains(Broken)


@framed
async def test_an_app_that_fails_over_an_unread_body(framing: str) -> None:
    """The same with an App, which makes the answer itself."""
    upload = Upload()
    async with serving(with_app(upload), keep_alive=0.2) as url:
        empty = count_tasks()
        async with await connect(url) as stream:
            await upload_to(stream, "/broken", framing)
            upload.sent.set()
            assert (await read_answer(stream)).status == 500
            await upload.ended.wait()
        await eventually(lambda: count_tasks() == empty)


@both
@paths
async def test_an_unread_body_stops_no_other_stream(make: Callable[[Upload], ASGIApp], path: str) -> None:
    """On HTTP/2 the other streams of the connection go on."""
    upload = Upload()
    async with serving(make(upload), keep_alive=0.5) as url:
        empty = count_tasks()
        async with open_h2(url) as client:
            stream = await client.request(path, method="POST", end=False)
            for i in range(CHUNKS):
                await stream.send(CHUNK, end=i == CHUNKS - 1)
            await wait_all_tasks_blocked()
            upload.sent.set()
            others = [await client.request("/") for _ in range(3)]
            assert (await stream.whole_answer()).body == b"done"
            assert [(await other.whole_answer()).body for other in others] == [b"done"] * 3
            await upload.ended.wait()
        await eventually(lambda: count_tasks() == empty)
