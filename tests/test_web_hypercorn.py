"""An App on Hypercorn's trio worker, over real sockets: what a server really does to it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import httpx
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.utils import LifespanFailureError
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_session import SessionConfig
from trio_session.web import App, Request, WebSocket

# Nothing here takes longer than a fraction of this; it is there for the day when something hangs.
SOON = 5.0  # seconds


class Served:
    """An App that is being served.

    Attributes:
        notes: what its handlers say.
        go_on: what some of them wait for.
    """

    def __init__(self) -> None:
        self.app = App(SessionConfig(cookie_name="sid"))
        self.notes_in, self.notes = trio.open_memory_channel[str](100)
        self.go_on = trio.Event()
        self.url = ""

    def connect(self) -> httpx.AsyncClient:
        """An HTTP client."""
        return httpx.AsyncClient(base_url=self.url, timeout=SOON, trust_env=False)

    async def open(self) -> trio.SocketStream:
        """A connection without any client."""
        url = httpx.URL(self.url)
        return await trio.open_tcp_stream(url.host, cast("int", url.port))

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[WebSocketConnection]:
        """A WebSocket whose connection is closed at the end of the block, politely or not."""
        async with await self.open() as stream, trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, "localhost", "/ws")
            nursery.cancel_scope.cancel()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """An App with handlers for every test, on a port of the system's choice."""
    served = Served()
    _add_handlers(served)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(serve, cast("Any", served.app), _config(), shutdown_trigger=stop.wait, mode="asgi")
        (served.url,) = await nursery.start(start)
        with trio.fail_after(4 * SOON):
            yield served
        stop.set()


def _config() -> Config:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("tests.hypercorn")
    config.graceful_timeout = 0.2
    return config


def _add_handlers(served: Served) -> None:
    app, note = served.app, served.notes_in.send_nowait

    @app.post("/unread")
    async def unread(request: Request) -> str:
        await served.go_on.wait()
        return "unread"

    @app.post("/echo")
    async def echo(request: Request) -> bytes:
        return await request.get_data()

    @app.get("/sleep")
    async def sleep(request: Request) -> str:
        note("sleeps")
        try:
            await trio.sleep_forever()
        finally:
            note("cancelled")

    @app.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        try:
            for n in range(1_000_000):
                yield f"{n:1000}"
                await trio.lowlevel.checkpoint()
        finally:
            note("closed")

    @app.get("/cut")
    async def cut(request: Request) -> AsyncIterator[str]:
        yield "beginning"
        raise ValueError("too late")

    @app.get("/visits")
    async def visits(request: Request) -> dict[str, int]:
        return {"visits": await request.session.increment("visits")}

    @app.get("/crash")
    async def crash(request: Request) -> str:
        async def fail() -> None:
            raise ValueError("in the background")

        app.nursery.start_soon(fail)
        await trio.sleep_forever()
        return "never"

    @app.websocket("/ws")
    async def talk(ws: WebSocket) -> None:
        await ws.session.increment("visits")
        await ws.accept()
        async for message in ws:
            if message == "fail":
                raise ValueError
            if message == "sleep":
                note("sleeps")
                try:
                    await trio.sleep_forever()
                finally:
                    note("cancelled")
            await ws.send(message)
        note("told")


async def test_sessions_over_the_wire(served: Served) -> None:
    """Cookies out, cookies in, the connection kept alive."""
    async with served.connect() as client:
        for visits in (1, 2, 3):
            response = await client.get("/visits")
            assert response.json() == {"visits": visits}
        assert len(client.cookies) == 1
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.head("/visits")).content == b""
        assert (await client.options("/visits")).headers["allow"] == "GET, HEAD, OPTIONS"
        assert (await client.post("/echo", content=b"x" * 1_000_000)).content == b"x" * 1_000_000


async def test_a_path_that_cannot_be_decoded(served: Served) -> None:
    """Hypercorn replaces what it cannot decode; the answer is 400 all the same."""
    async with await served.open() as stream:
        await stream.send_all(b"GET /caf%E9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")


async def test_an_unread_body_hangs_nobody(served: Served) -> None:
    """More chunks than Hypercorn's queue takes, answered without reading: the connection can even be used again."""
    head = b"POST /unread HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with await served.open() as stream:
        for _ in range(2):
            await stream.send_all(head)
            for _ in range(20):
                await stream.send_all(b"2\r\nxx\r\n")
                await wait_all_tasks_blocked()  # one chunk, one message
            await stream.send_all(b"0\r\n\r\n")
            served.go_on.set()
            response = b""
            while not response.endswith(b"unread"):
                response += await stream.receive_some()
            assert response.startswith(b"HTTP/1.1 200 ")


async def test_hanging_up_cancels(served: Served) -> None:
    """A closed connection cancels a handler that sleeps, and one that streams."""
    for path, last in [("/sleep", "cancelled"), ("/stream", "closed")]:
        async with await served.open() as stream:
            await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
            if path == "/sleep":
                assert await served.notes.receive() == "sleeps"
            else:
                await stream.receive_some()
        assert await served.notes.receive() == last


async def test_a_stream_that_fails_is_cut(served: Served) -> None:
    """The client can tell that this was not all: the last chunk never comes."""
    async with await served.open() as stream:
        await stream.send_all(b"GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = b"".join([data async for data in stream])
    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.endswith(b"\r\n9\r\nbeginning\r\n")


async def test_websockets(served: Served) -> None:
    """The handshake brings the cookie; messages, failures and the peer's going are as promised."""
    async with served.websocket() as ws:
        assert any(name == b"set-cookie" and b"sid=" in value for name, value in ws.handshake_headers)
        await ws.send_message("hello")
        assert await ws.get_message() == "hello"
        await ws.aclose()
    assert await served.notes.receive() == "told"
    async with served.websocket() as ws:
        await ws.send_message("sleep")
        assert await served.notes.receive() == "sleeps"
    assert await served.notes.receive() == "cancelled"
    async with served.websocket() as ws:
        await ws.send_message("fail")
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1011


async def test_a_page_of_another_site(served: Served) -> None:
    """Its WebSocket is refused with a 403."""
    async with await served.open() as stream:
        await stream.send_all(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Origin: https://evil.example\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")


async def test_a_failure_in_the_background_stops_the_server() -> None:
    """`serve()` raises, so that whoever watches the process sees it; the request under way is cancelled."""
    served = Served()
    _add_handlers(served)
    with trio.fail_after(SOON), pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            (served.url,) = await nursery.start(
                partial(serve, cast("Any", served.app), _config(), shutdown_trigger=trio.sleep_forever, mode="asgi")
            )
            async with await served.open() as stream:
                await stream.send_all(b"GET /crash HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert await stream.receive_some() == b""
                await trio.sleep_forever()
    matching, rest = caught.value.split(LifespanFailureError)
    assert matching is not None
    assert rest is None
