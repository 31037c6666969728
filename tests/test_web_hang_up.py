"""A client that hangs up, and back-pressure: what the one task that receives does for everybody else."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_session._asgi import Message, Receive, Scope, Send
from trio_session.web import App, Request

from .web_peer import Peer, ask

KIB = 1024


@pytest.fixture
def app() -> App:
    return App(sessions=False)


class Notes:
    """What became of a handler."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    async def sleep(self) -> None:
        """Sleep until cancelled."""
        self.entries.append("sleeps")
        try:
            await trio.sleep_forever()
        finally:
            self.entries.append("cancelled")


@pytest.fixture
def notes() -> Notes:
    return Notes()


async def test_hanging_up_cancels_the_handler(app: App, notes: Notes, nursery: trio.Nursery) -> None:
    """It is cancelled where it waits, and the App returns as if nothing had happened."""

    @app.get("/")
    async def handler(request: Request) -> str:
        await notes.sleep()
        return "never"

    peer = Peer(app)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    assert notes.entries == ["sleeps"]
    peer.hang_up()
    await peer.returned.wait()
    assert notes.entries == ["sleeps", "cancelled"]
    assert peer.sent == []


async def test_hanging_up_in_mid_body_cancels_the_handler_that_reads(app: App, nursery: trio.Nursery) -> None:
    """Whoever waits for more of the body is freed."""
    arrived = trio.Event()

    @app.post("/")
    async def handler(request: Request) -> str:
        arrived.set()
        await request.get_data()
        return "never"

    peer = Peer(app, method="POST", body=None)
    peer.say_body(b"half", more=True)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    assert arrived.is_set()
    peer.hang_up()
    await peer.returned.wait()
    assert peer.sent == []


async def test_hanging_up_cancels_middlewares_too(app: App, notes: Notes, nursery: trio.Nursery) -> None:
    """The scope is around everything between the server and the handler."""

    class Waiting:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await notes.sleep()

    app.add_middleware(Waiting)
    peer = Peer(app)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    peer.hang_up()
    await peer.returned.wait()
    assert notes.entries == ["sleeps", "cancelled"]


async def test_an_error_while_being_cancelled_is_logged(
    app: App, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A clean-up that fails is no reason to trouble the server, but nobody should miss it."""

    @app.get("/")
    async def handler(request: Request) -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    peer = Peer(app)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    peer.hang_up()
    await peer.returned.wait()
    assert "clean-up" in caplog.text


async def test_the_servers_own_cancellation_passes_through(app: App, notes: Notes) -> None:
    """At the end of a server's patience everything is cancelled; nothing is caught, and nothing is added."""

    @app.get("/")
    async def handler(request: Request) -> str:
        await notes.sleep()
        return "never"

    peer = Peer(app)
    with trio.move_on_after(0) as scope:
        await peer.run()
    assert scope.cancelled_caught
    assert notes.entries in ([], ["sleeps", "cancelled"])


async def test_an_error_while_the_server_cancels_comes_out_bare(app: App) -> None:
    """Not in a group with the cancellation of whatever else runs for a request."""

    class Broken:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                raise ValueError("clean-up")

    app.add_middleware(Broken)
    with trio.move_on_after(0.01), pytest.raises(ValueError, match="clean-up"):
        await ask(app)


async def test_a_body_is_received_as_it_is_asked_for(app: App, nursery: trio.Nursery) -> None:
    """A handler that is slow to read slows down the client: nothing piles up in here."""
    more = trio.Semaphore(0)

    @app.post("/")
    async def handler(request: Request) -> str:
        async for _ in request.body:
            await more.acquire()
        return "done"

    peer = Peer(app, method="POST", body=None)
    for _ in range(10):
        peer.say_body(b"x" * KIB, more=True)
    peer.say_body(b"")
    nursery.start_soon(peer.run)
    for taken in range(1, 10):
        await wait_all_tasks_blocked()
        assert 11 - peer.unheard() == taken
        more.release()
    more.release()
    await peer.returned.wait()
    assert peer.text == "done"


async def test_receive_serves_several_callers(app: App, nursery: trio.Nursery) -> None:
    """Each message goes to one of them; after the disconnect, it goes to all, for ever."""
    got: list[Message] = []
    ends: list[Message] = []

    class Reading:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def take() -> None:
                got.append(await receive())

            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as readers:
                    for _ in range(5):
                        readers.start_soon(take)
                for _ in range(2):
                    with assert_checkpoints():
                        pass_on = receive()
                        ends.append(await pass_on)

    app.add_middleware(Reading)
    peer = Peer(app, method="POST", body=None)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    peer.say_body(b"1", more=True)
    await wait_all_tasks_blocked()
    assert [message["body"] for message in got] == [b"1"]
    peer.say_body(b"2", more=True)
    peer.say_body(b"3")
    await wait_all_tasks_blocked()
    assert [message["body"] for message in got] == [b"1", b"2", b"3"]
    peer.hang_up()
    await peer.returned.wait()
    assert [message["type"] for message in got[3:] + ends] == ["http.disconnect"] * 4


async def test_a_cancelled_receive_loses_nothing(app: App, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The next caller gets the message."""
    got: list[bytes] = []

    class Impatient:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with trio.move_on_after(1):
                await receive()
            got.append((await receive())["body"])

    app.add_middleware(Impatient)
    peer = Peer(app, method="POST", body=None)
    nursery.start_soon(peer.run)
    await trio.sleep(2)
    peer.say_body(b"here")
    await peer.returned.wait()
    assert got == [b"here"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_server_that_never_gets_its_last_words_out(
    app: App, autojump_clock: MockClock, nursery: trio.Nursery, when: str
) -> None:
    """Nobody is left to hear them: five seconds after the disconnect they are given up, and nothing stays behind."""

    class Stuck(Peer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await trio.sleep_forever()

    @app.post("/")
    async def handler(request: Request) -> str:
        return "to nobody"

    peer = Stuck(app, method="POST", body=None if when == "before" else b"")
    nursery.start_soon(peer.run)
    await trio.sleep(0.5)
    assert peer.types() == ["http.response.start", "http.response.body"][: 1 if when == "before" else 2]
    peer.hang_up()
    await peer.returned.wait()
    assert peer.types() == ["http.response.start", "http.response.body"]
    assert trio.current_time() == 5.5


async def test_a_server_may_take_its_time_after_the_response(app: App, autojump_clock: MockClock) -> None:
    """As long as it has not said that the client is gone; and shortly after it has, as servers do each time."""

    class Slow(Peer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await trio.sleep(100)
                self.hang_up()
                await trio.sleep(4)
                self.is_done = True

    @app.get("/")
    async def handler(request: Request) -> str:
        return "hello"

    peer = Slow(app)
    await peer.run()
    assert peer.is_done


async def test_a_receive_that_fails_comes_out_bare(app: App) -> None:
    """Whatever a server does in `receive`, it gets its own exception back."""

    @app.get("/")
    async def handler(request: Request) -> str:
        await trio.sleep_forever()
        return "never"

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        raise OSError("cable cut")

    peer = Peer(app)
    with pytest.raises(OSError, match="cable cut"):
        await app(peer.scope, receive, peer.send)


async def test_pipelined_requests_do_not_disturb_each_other(app: App) -> None:
    """Each request has its own state: many at once get their own answers."""

    @app.get("/<int:n>")
    async def show(request: Request, n: int) -> str:
        await trio.lowlevel.checkpoint()
        return str(n)

    answers: list[str] = []

    async def one(n: int) -> None:
        answers.append((await ask(app, f"/{n}")).text)

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(one, n)
    assert sorted(answers, key=int) == [str(n) for n in range(20)]
