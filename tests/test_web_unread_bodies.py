"""Bodies that nobody reads: they must block neither the response nor the connection, nor fill the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from werkzeug.exceptions import ClientDisconnected

from trio_session._asgi import Message, Receive, Scope, Send
from trio_session.web import App, Request

from .web_peer import Peer, ask

KIB = 1024


@pytest.fixture
def app() -> App:
    return App(sessions=False)


class Blocking(Peer):
    """A server like Hypercorn: its last `send` waits until the whole request was received."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            while self.unheard():
                await trio.sleep(0.01)
            # And then, still in the midst of this, it announces the end of the request.
            self.hang_up()
            await trio.sleep(0.01)
            self.returned_from_last_send = True

    returned_from_last_send = False


@pytest.mark.parametrize("chunks", [1, 10, 1000])
async def test_an_unread_body_does_not_block_the_response(app: App, autojump_clock: MockClock, chunks: int) -> None:
    """It is thrown away while the last message is sent; a disconnect in the midst of that cancels nothing."""

    @app.post("/")
    async def handler(request: Request) -> str:
        return "unread"

    peer = Blocking(app, method="POST", body=None)
    for _ in range(chunks):
        peer.say_body(b"x" * KIB, more=True)
    peer.say_body(b"")
    await peer.run()
    assert peer.text == "unread"
    assert peer.returned_from_last_send
    assert autojump_clock.current_time() < 1  # nobody had to wait for a time-out


async def test_an_unread_body_is_awaited_for_a_moment(
    app: App, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Before the last message, so that the connection can be used again; a client that dawdles is not waited for."""

    @app.post("/")
    async def handler(request: Request) -> str:
        return "unread"

    prompt = Peer(app, method="POST", body=None)
    nursery.start_soon(prompt.run)
    await trio.sleep(0.5)
    assert prompt.types() == ["http.response.start"]
    prompt.say_body(b"")
    await prompt.returned.wait()
    assert trio.current_time() == 0.5

    slow = Peer(app, method="POST", body=None)
    await slow.run()
    assert slow.text == "unread"
    assert trio.current_time() == 1.5


async def test_not_much_of_an_unread_body_is_awaited(app: App, autojump_clock: MockClock) -> None:
    """256 KiB, and the response goes on: reading more would cost more than a new connection."""

    @app.post("/")
    async def handler(request: Request) -> str:
        return "unread"

    class Endless(Peer):
        heard_before_the_end = 0

        async def endless(self) -> Message:
            await trio.lowlevel.checkpoint()
            if not self.sent or self.sent[-1]["type"] == "http.response.start":
                self.heard_before_the_end += 64 * KIB
            return {"type": "http.request", "body": b"x" * 64 * KIB, "more_body": True}

        async def run(self) -> None:
            await self.app(self.scope, self.endless, self.send)

    peer = Endless(app, method="POST", body=None)
    await peer.run()
    assert peer.text == "unread"
    assert 256 * KIB <= peer.heard_before_the_end <= 512 * KIB


async def test_a_client_that_hangs_up_while_its_body_is_awaited(app: App, autojump_clock: MockClock) -> None:
    """There is nothing to wait for any more."""

    @app.post("/")
    async def handler(request: Request) -> str:
        return "unread"

    peer = Peer(app, method="POST", body=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await trio.sleep(0.5)
        peer.hang_up()
    assert trio.current_time() == 0.5


async def test_the_body_of_a_failing_request_is_thrown_away_too(app: App, autojump_clock: MockClock) -> None:
    """The server ends such a response itself, and could block just the same."""

    class Failing:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/raise":
                raise ValueError("bare")

    app.add_middleware(Failing)
    for path in ("/raise", "/return"):
        peer = Peer(app, path, method="POST", body=None)
        for _ in range(10):
            peer.say_body(b"x", more=True)
        peer.say_body(b"")
        if path == "/raise":
            with pytest.raises(ValueError, match="bare"):
                await peer.run()
        else:
            await peer.run()
        assert peer.unheard() == 0
    assert trio.current_time() == 0


async def test_a_stream_that_reads_its_request_is_not_robbed(app: App) -> None:
    """Only the last message ends the reading."""

    @app.post("/")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        yield b"begin "
        yield await request.get_data()

    peer = Peer(app, method="POST", body=None)
    peer.say_body(b"one ", more=True)
    peer.say_body(b"two")
    await peer.run()
    assert peer.body == b"begin one two"


async def test_a_body_that_is_asked_for_too_late(app: App) -> None:
    """A task that outlives its request is told that the body is gone, and does not wait for it for ever."""
    kept: list[Request] = []

    @app.post("/")
    async def handler(request: Request) -> str:
        kept.append(request)
        return "unread"

    await ask(app, method="POST", body=b"unread")
    with pytest.raises(ClientDisconnected):
        await kept[0].get_data()


async def test_a_task_that_waits_for_the_body_is_freed(
    app: App, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """When the request is over."""
    freed = trio.Event()

    @app.post("/")
    async def handler(request: Request) -> str:
        async def wait() -> None:
            with pytest.raises(ClientDisconnected):
                await request.get_data()
            freed.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        return "unread"

    await ask(app, method="POST", body=None)
    await freed.wait()
