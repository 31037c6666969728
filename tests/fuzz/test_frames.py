"""WebSocket frames on a real server: whatever a client says, its handler ends, its lock is free, others are served."""

from __future__ import annotations

import random
from contextlib import suppress

import trio
from h2.exceptions import StreamClosedError
from hypercorn.config import Config

from tests.integration._clients import connect, open_h2
from tests.integration._serving import at_rest, eventually
from tests.integration._websockets import EXTENDED_CONNECT, UPGRADE, on_http1
from trio_session.serving import serve
from trio_session.web import App, WebSocket

from ._inputs import Breaker, inputs, trying
from ._log import Log

WORDS = [
    b"\x81",
    b"\x80",
    b"\x01",
    b"\x88",
    b"\x89",
    b"\x8a",
    b"\xfe",
    b"\xff",
    b"\x00\x00\x00\x00",
    b"\x03\xe8",
    b"\x81\x82\x00\x00\x00\x00hi",
    b"\x88\x80\x00\x00\x00\x00",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    b'\x82\x83\x00\x00\x00\x00"a"',
]

LARGEST_FRAME = 2**14  # bytes (RFC 9113, 4.2)
HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: test\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in UPGRADE)


class Room:
    """An App whose handlers store each message under the lock, and that knows how many of them run."""

    def __init__(self) -> None:
        self.app = App()
        self.handlers = 0
        self.app.websocket("/ws")(self._handle)

    async def _handle(self, ws: WebSocket) -> None:
        self.handlers += 1
        try:
            await ws.session.put("said", 0)
            await ws.accept()
            async for message in ws:
                async with ws.session.locked() as data:
                    data["said"] += 1
                    data["last"] = message
                await ws.send(message)
                if data["said"] % 2:
                    await ws.receive_json()
        finally:
            self.handlers -= 1

    def is_empty(self) -> bool:
        return not self.handlers and at_rest(self.app.sessions)


async def say_on_http1(url: str, pieces: list[bytes], random: random.Random) -> None:
    """Say it in pieces, the first one perhaps too early; then go: with a last word, or without one."""
    async with await connect(url) as stream:
        with suppress(trio.BrokenResourceError):
            if random.random() < 0.2:
                await stream.send_all(HANDSHAKE + pieces.pop(0))
            else:
                await stream.send_all(HANDSHAKE)
                await stream.receive_some()
            for piece in pieces:
                await stream.send_all(piece)
            if random.random() < 0.5:
                await stream.send_eof()
                while await stream.receive_some():
                    pass


async def say_on_http2(url: str, pieces: list[bytes], random: random.Random) -> None:
    """The same, in DATA frames; the server may have ended the stream before the last of them."""
    async with open_h2(url) as client:
        stream = await client.request("/ws", method="CONNECT", headers=EXTENDED_CONNECT, end=False)
        await stream.head()
        with suppress(StreamClosedError):
            for piece in pieces:
                for start in range(0, len(piece), LARGEST_FRAME):
                    await stream.send(piece[start : start + LARGEST_FRAME])
            if random.random() < 0.5:
                await stream.send(b"", end=True)


async def try_one(url: str, room: Room, data: bytes, breaker: Breaker) -> None:
    pieces = breaker.pieces(data)
    say = say_on_http2 if breaker.random.random() < 0.1 else say_on_http1
    with trying(data):
        with trio.fail_after(20):
            await say(url, pieces, breaker.random)
        await eventually(room.is_empty)


async def test_frames(log: Log) -> None:
    """Nothing is left of any of them, and the log has no failure of a handler: it is the peer's mistake, not ours."""
    room, stop = Room(), trio.Event()
    breaker, stream = inputs("frames", WORDS)
    config = Config.from_mapping(bind="127.0.0.1:0", loglevel="CRITICAL", graceful_timeout=1.0)

    async def server(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(room.app, config, shutdown_trigger=stop.wait, task_status=task_status)

    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(server)
        for data in stream:
            await try_one(urls[0], room, data, breaker)
        async with on_http1(urls[0], "/ws") as ws:
            assert await ws.ask("1") == "1"
        stop.set()
    assert log.last.keys() <= {"DEBUG", "INFO"}, log.last
