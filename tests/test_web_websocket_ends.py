"""The end of a WebSocket: whose peer has gone, how its handler learns of it, and how long it may go on."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session._asgi import Message
from trio_session.web import App, WebSocket, WebSocketClosed, abort

from .web_peer import SocketPeer


@pytest.fixture
def app() -> App:
    return App(sessions=False)


async def test_after_the_end_there_is_only_the_end(
    app: App, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """`WebSocketClosed` from then on, with the code; a handler may let it pass."""
    codes: list[int] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        for _ in range(2):
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            codes.append(caught.value.code)
        with pytest.raises(WebSocketClosed) as caught:
            await ws.send("x")
        codes.append(caught.value.code)
        await ws.receive()

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    peer.go(1001)
    await peer.returned.wait()
    assert codes == [1001] * 3
    assert peer.types() == ["websocket.accept"]
    assert caplog.records == []


async def test_closing_ends_the_readers(app: App, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A second task that waits for messages is freed by the peer's answer; what is left to do is not cancelled."""
    done: list[str] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async def read() -> None:
            async for _ in ws:
                raise AssertionError
            done.append("read")

        async with trio.open_nursery() as tasks:
            tasks.start_soon(read)
            await trio.sleep(1)
            await ws.close(4001)
            with pytest.raises(WebSocketClosed):
                await ws.receive()
        await trio.sleep(100)
        done.append("all")

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await trio.sleep(2)
    peer.go(4001)
    await peer.returned.wait()
    assert done == ["read", "all"]
    assert peer.types() == ["websocket.accept", "websocket.close"]


class Farewells:
    """What became of a handler, and when."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, float]] = []

    def note(self, entry: str) -> None:
        self.entries.append((entry, trio.current_time()))


@pytest.fixture
def farewells() -> Farewells:
    return Farewells()


async def test_a_busy_handler_is_cancelled_when_the_peer_goes(
    app: App, farewells: Farewells, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Nothing it does can still reach anybody."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await trio.sleep_forever()
        finally:
            farewells.note("cancelled")

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await trio.sleep(7)
    peer.go()
    await peer.returned.wait()
    assert farewells.entries == [("cancelled", 7.0)]


async def test_a_handler_that_reads_is_told_and_may_say_goodbye(
    app: App, farewells: Farewells, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """For five seconds, and then it is cancelled as well."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async for _ in ws:
            raise AssertionError
        farewells.note("told")
        await trio.sleep(4)
        farewells.note("said goodbye")
        try:
            await trio.sleep_forever()
        finally:
            farewells.note("cancelled")

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await trio.sleep(1)
    peer.go()
    await peer.returned.wait()
    assert farewells.entries == [("told", 1.0), ("said goodbye", 5.0), ("cancelled", 6.0)]


async def test_messages_that_came_before_the_end_are_not_lost(
    app: App, farewells: Farewells, autojump_clock: MockClock
) -> None:
    """A handler that has not read everything yet may do so."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await trio.sleep(1)
            farewells.note(str(message))

    peer = SocketPeer(app)
    for text in ("a", "b", "c"):
        peer.say_text(text)
    peer.go()
    await peer.run()
    assert farewells.entries == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


async def test_a_nursery_of_readers_and_writers_ends(
    app: App, farewells: Farewells, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The usual shape: the reader learns of the end, the writer waits for news for ever, and is cancelled in time."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async def write() -> None:
            try:
                await trio.sleep_forever()
            finally:
                farewells.note("writer cancelled")

        async with trio.open_nursery() as tasks:
            tasks.start_soon(write)
            async for _ in ws:
                raise AssertionError
            farewells.note("reader done")

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await trio.sleep(1)
    peer.go()
    await peer.returned.wait()
    assert farewells.entries == [("reader done", 1.0), ("writer cancelled", 6.0)]


async def test_closed_in_a_nursery_is_closed(app: App, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """`WebSocketClosed` out of the handler's own nursery is no failure, in whichever group; with others it is."""

    async def receive(ws: WebSocket) -> None:
        await ws.receive()

    async def fail(ws: WebSocket) -> None:
        with trio.CancelScope(shield=True), pytest.raises(WebSocketClosed):
            await ws.receive()
        raise ValueError("really")

    @app.websocket("/<int:failures>")
    async def handler(ws: WebSocket, failures: int) -> None:
        await ws.accept()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(receive, ws)
            for _ in range(failures):
                tasks.start_soon(fail, ws)

    for failures in (0, 1):
        assert caplog.records == []
        peer = SocketPeer(app, f"/{failures}")
        nursery.start_soon(peer.run)
        await wait_all_tasks_blocked()
        peer.go()
        await peer.returned.wait()
    assert "really" in caplog.text


async def test_what_comes_out_of_a_nursery_counts_as_outside(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the peer is still the peer's, and a page before accepting still a page; two of them are a failure."""

    async def fail(ws: WebSocket) -> None:
        abort(418)

    @app.websocket("/nonsense")
    async def nonsense(ws: WebSocket) -> None:
        async with trio.open_nursery(), trio.open_nursery():
            await ws.receive_json()

    @app.websocket("/<int:failures>")
    async def handler(ws: WebSocket, failures: int) -> None:
        async with trio.open_nursery() as tasks:
            for _ in range(failures):
                tasks.start_soon(fail, ws)

    peer = SocketPeer(app, "/nonsense")
    peer.say_text("{")
    await peer.run()
    assert peer.close_code == 1008
    peer = SocketPeer(app, "/1", can_refuse=True)
    await peer.run()
    assert peer.sent[0]["status"] == 418
    assert caplog.records == []
    peer = SocketPeer(app, "/2", can_refuse=True)
    await peer.run()
    assert peer.sent[0]["status"] == 500
    assert "418" in caplog.text


@pytest.mark.parametrize(("size", "count"), [(1, 16), (40_000, 2), (100_000, 1)])
async def test_reading_ahead_is_bounded(app: App, nursery: trio.Nursery, size: int, count: int) -> None:
    """A handler that does not read slows its peer down: few messages and few bytes wait for it in here."""
    read = trio.Event()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await read.wait()
        for _ in range(30):
            await ws.receive()

    peer = SocketPeer(app)
    for _ in range(30):
        peer.say_bytes(b"x" * size)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    assert 30 - peer.unheard() == count
    read.set()
    await peer.returned.wait()
    assert peer.unheard() == 0


async def test_a_peer_that_goes_before_it_is_accepted(app: App, autojump_clock: MockClock) -> None:
    """Cancels what the handler does before that, as ever."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await trio.sleep_forever()

    peer = SocketPeer(app)
    peer.go()
    await peer.run()
    assert peer.sent == []
    assert trio.current_time() == 0


async def test_other_tasks_find_it_closed(app: App, nursery: trio.Nursery) -> None:
    """A task that sends to everybody in the room learns who has left, even if the handler was cancelled."""
    room: list[WebSocket] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        room.append(ws)
        await trio.sleep_forever()

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    await room[0].send("hello")
    peer.go()
    await peer.returned.wait()
    assert room[0].is_closed
    with pytest.raises(WebSocketClosed, match="1006"):
        await room[0].send("hello?")
    with pytest.raises(WebSocketClosed, match="1006"):
        await room[0].receive()
    assert peer.types() == ["websocket.accept", "websocket.send"]


async def test_the_answer_to_a_close_is_waited_for(app: App, autojump_clock: MockClock) -> None:
    """For five seconds: until then the server must not cut the connection, or the peer could miss why."""

    @app.websocket("/<what>")
    async def handler(ws: WebSocket, what: str) -> None:
        if what == "open":
            await ws.accept()
        await ws.close(4000)

    for path, answers, seconds in [("/open", True, 0), ("/open", False, 5), ("/refused", False, 0)]:
        began = trio.current_time()
        await SocketPeer(app, path, answers=answers).run()
        assert trio.current_time() - began == seconds


async def test_what_comes_after_a_close_is_thrown_away(app: App, nursery: trio.Nursery) -> None:
    """However much it is: the peer must get as far as its answer."""
    done = trio.Event()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await done.wait()

    peer = SocketPeer(app, answers=False)
    for _ in range(30):
        peer.say_bytes(b"x" * 40_000)
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    assert peer.unheard() > 0
    done.set()
    await wait_all_tasks_blocked()
    assert peer.unheard() == 0
    assert not peer.returned.is_set()
    peer.go(1000)
    await peer.returned.wait()


async def test_a_handler_that_only_sends_is_cancelled(app: App, nursery: trio.Nursery) -> None:
    """Servers let everything pass, without ever waiting, once the peer has gone; others must run all the same."""

    class Indifferent(SocketPeer):
        async def send(self, message: Message) -> None:
            pass

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        while True:
            await ws.send("to nobody")

    peer = Indifferent(app)
    nursery.start_soon(peer.run)
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    peer.go()
    await peer.returned.wait()
