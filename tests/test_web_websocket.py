"""WebSockets: messages, the two ends of a connection, and pages that have no business here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_session._asgi import Message
from trio_session._errors import LockTimeoutError, SessionEndedError
from trio_session.web import App, Request, Response, WebSocket, WebSocketClosed, abort

from .web_peer import SocketPeer


@pytest.fixture
def app() -> App:
    return App(sessions=False)


async def test_messages_go_both_ways(app: App) -> None:
    """Text stays text, bytes stay bytes, empty ones stay empty; the end of the peer is the end of the iteration."""
    seen: list[str | bytes] = []

    @app.websocket("/ws")
    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws:
            seen.append(message)
            await ws.send(message)
        assert ws.is_closed

    peer = SocketPeer(app)
    peer.say_text("a")
    peer.say_bytes(b"b")
    peer.say_text("")
    peer.say_bytes(b"")
    peer.go()
    await peer.run()
    assert seen == ["a", b"b", "", b""]
    assert peer.types() == ["websocket.accept"] + ["websocket.send"] * 4
    assert [(message["text"], message["bytes"]) for message in peer.sent[1:]] == [
        ("a", None),
        (None, b"b"),
        ("", None),
        (None, b""),
    ]


async def test_json(app: App) -> None:
    """From text or bytes; sent as text."""

    @app.websocket("/ws")
    async def double(ws: WebSocket) -> None:
        for _ in range(2):
            await ws.send_json({"twice": 2 * (await ws.receive_json())["n"]})

    peer = SocketPeer(app)
    peer.say_text('{"n": 1}')
    peer.say_bytes(b'{"n": 2}')
    await peer.run()
    assert [message.get("text") for message in peer.sent] == [None, '{"twice":2}', '{"twice":4}', None]


async def test_json_that_is_none_is_the_peers_fault(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Closed with 1008, and nobody is woken up for it."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.receive_json()

    peer = SocketPeer(app)
    peer.say_text("{")
    await peer.run()
    assert peer.close_code == 1008
    assert caplog.records == []


async def test_what_a_websocket_knows(app: App) -> None:
    """The request that opened it, as with HTTP."""

    @app.websocket("/rooms/<name>")
    async def room(ws: WebSocket, name: str) -> None:
        await ws.send_json(
            [
                name,
                ws.args["x"],
                ws.cookies["c"],
                ws.path,
                ws.url,
                ws.remote_addr,
                ws.url_for("room", name="b"),
                repr(ws),
            ]
        )

    peer = SocketPeer(app, "/rooms/a?x=1", headers=[("Cookie", "c=2")])
    await peer.run()
    assert peer.sent[1]["text"] == (
        '["a","1","2","/rooms/a","ws://localhost/rooms/a?x=1","192.0.2.1","/rooms/b","<WebSocket GET \'/rooms/a\'>"]'
    )


async def test_accept_with_headers_and_a_subprotocol(app: App) -> None:
    """Only a subprotocol that the client asked for; and only once."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        assert ws.requested_subprotocols == ["v1", "v2"]
        with pytest.raises(ValueError, match="'v3'"):
            await ws.accept(subprotocol="v3")
        await ws.accept({"X-Hello": "you"}, subprotocol="v2")
        with pytest.raises(RuntimeError, match="accepted already"):
            await ws.accept()

    peer = SocketPeer(app, subprotocols=["v1", "v2"])
    await peer.run()
    assert peer.sent[0] == {"type": "websocket.accept", "subprotocol": "v2", "headers": [(b"x-hello", b"you")]}


async def test_accept_comes_before_everything_else(app: App) -> None:
    """The first message accepts by itself, also if two tasks begin at once and the answer takes a while."""

    class Slow(SocketPeer):
        async def send(self, message: Message) -> None:
            await trio.lowlevel.checkpoint()
            await super().send(message)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, "a")
            nursery.start_soon(ws.send, "b")

    peer = Slow(app)
    await peer.run()
    assert peer.types() == ["websocket.accept", "websocket.send", "websocket.send", "websocket.close"]


async def test_a_handler_that_returns_closes_in_order(app: App) -> None:
    """With 1000; before accepting that is a refusal, of which servers make a 403."""

    @app.websocket("/open")
    async def opened(ws: WebSocket) -> None:
        await ws.accept()

    @app.websocket("/closed")
    async def closed(ws: WebSocket) -> None:
        await ws.close(4000, "enough")
        with assert_checkpoints():
            await ws.close()

    @app.websocket("/never")
    async def never(ws: WebSocket) -> None:
        pass

    for path, types, code in [
        ("/open", ["websocket.accept", "websocket.close"], 1000),
        ("/closed", ["websocket.close"], 4000),
        ("/never", ["websocket.close"], 1000),
    ]:
        peer = SocketPeer(app, path)
        await peer.run()
        assert (peer.types(), peer.close_code) == (types, code)


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
            await wait_all_tasks_blocked()
            await ws.close(4001)
            with pytest.raises(WebSocketClosed):
                await ws.receive()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        done.append("all")

    peer = SocketPeer(app)
    nursery.start_soon(peer.run)
    await trio.sleep(2)
    peer.go(4001)
    await peer.returned.wait()
    assert done == ["read", "all"]
    assert peer.types() == ["websocket.accept", "websocket.close"]


async def test_only_str_and_bytes_are_messages(app: App) -> None:
    """Anything else is a mistake, and found before anything is sent."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        with pytest.raises(TypeError, match="dict; see send_json"):
            await ws.send({})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await ws.send(bytearray(b"x"))

    peer = SocketPeer(app)
    await peer.run()
    assert [message.get("bytes") for message in peer.sent] == [None, b"x", None]


# -- the peer goes -------------------------------------------------------------------------------------------------


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


# -- failures --------------------------------------------------------------------------------------------------------


async def test_a_handler_that_raises_closes_with_1011(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the peer nothing."""

    @app.websocket("/<kind>")
    async def handler(ws: WebSocket, kind: str) -> None:
        await ws.accept()
        if kind == "aborts":
            abort(503)
        raise {"fails": ValueError("secret"), "times-out": LockTimeoutError(1), "ended": SessionEndedError("expired")}[
            kind
        ]

    for kind in ("fails", "times-out", "ended"):
        peer = SocketPeer(app, f"/{kind}")
        await peer.run()
        assert peer.close_code == 1011
        assert "secret" not in str(peer.sent)
        assert caplog.records.pop().exc_info
    caplog.clear()
    peer = SocketPeer(app, "/aborts")
    await peer.run()
    assert peer.close_code == 1011
    assert caplog.records == []


async def test_a_handshake_is_refused_with_a_page(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """If the server can do that; otherwise it is a bare 403."""

    @app.websocket("/<kind>")
    async def handler(ws: WebSocket, kind: str) -> None:
        match kind:
            case "abort":
                abort(401, "Who are you?")
            case "response":
                abort(Response("own", 418, {"Set-Cookie": "a=1"}))
            case "stream":
                abort(Response(ws, 409))
            case "busy":
                raise LockTimeoutError(1)
            case _:
                raise ValueError("secret")

    for kind, status, text in [
        ("abort", 401, "Who are you?"),
        ("response", 418, "own"),
        ("stream", 409, ""),
        ("busy", 503, "Please try again later"),
        ("fail", 500, "Internal Server Error"),
    ]:
        peer = SocketPeer(app, f"/{kind}", can_refuse=True)
        await peer.run()
        start, body = peer.sent
        assert start["type"] == "websocket.http.response.start"
        assert body["type"] == "websocket.http.response.body"
        assert start["status"] == status
        assert text in body["body"].decode()
        assert b"secret" not in body["body"]
        peer = SocketPeer(app, f"/{kind}")
        await peer.run()
        assert peer.sent == [{"type": "websocket.close"}]
    assert "secret" in caplog.text


async def test_failures_after_the_end_say_nothing_more(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Closed is closed, and the log has the rest."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.close(4000)
        raise ValueError("afterwards")

    peer = SocketPeer(app)
    await peer.run()
    assert peer.types() == ["websocket.close"]
    assert "afterwards" in caplog.text


# -- origins ---------------------------------------------------------------------------------------------------------

SAME = "same"


def _handshakes() -> Iterator[tuple[object, str, list[str], str, bool]]:
    """(origins, Origin, headers Host, scheme, allowed)."""
    here = ["example.com"]
    yield SAME, "", here, "ws", True  # no browser
    yield SAME, "http://example.com", here, "ws", True
    yield SAME, "https://example.com", here, "ws", True  # TLS ends at a proxy
    yield SAME, "https://example.com", here, "wss", True
    yield SAME, "http://example.com", here, "wss", False  # somebody in the middle
    yield SAME, "HTTPS://Example.COM", here, "wss", True
    yield SAME, "https://example.com:443", here, "wss", True
    yield SAME, "https://example.com", ["example.com:443"], "wss", True
    yield SAME, "https://example.com:8443", here, "wss", False
    yield SAME, "https://example.com", ["example.com:8443"], "wss", False
    yield SAME, "http://localhost:8000", ["localhost:8000"], "ws", True
    yield SAME, "http://[::1]:8000", ["[::1]:8000"], "ws", True
    yield SAME, "https://evil.example", here, "wss", False
    yield SAME, "https://example.com.evil.example", here, "wss", False
    yield SAME, "https://evil.example.com", here, "wss", False
    yield SAME, "https://example.com@evil.example", here, "wss", False
    yield SAME, "https://user@example.com", here, "wss", False  # no browser sends that
    yield SAME, "null", here, "ws", False
    yield SAME, "ftp://example.com", here, "ws", False
    yield SAME, "https://example.com:port", here, "wss", False
    yield SAME, "https://", here, "wss", False
    yield SAME, "http://example.com", [], "ws", False
    yield SAME, "http://example.com", ["example.com:port"], "ws", False
    yield "*", "https://evil.example", here, "ws", True
    yield "https://Friend.example", "https://friend.example", here, "ws", True
    yield "https://friend.example", "https://example.com", here, "ws", True
    yield "https://friend.example", "https://evil.example", here, "ws", False
    yield ["https://a.example", "null"], "null", here, "ws", True
    yield ["https://a.example", "https://b.example"], "https://b.example", here, "wss", True


@pytest.mark.parametrize(("origins", "origin", "host", "scheme", "allowed"), list(_handshakes()))
async def test_pages_of_other_sites_are_refused(
    app: App, origins: str | list[str], origin: str, host: list[str], scheme: str, allowed: bool
) -> None:
    """Browsers send our cookies along for any page: only the same site, or who is named, may open a WebSocket."""

    @app.websocket("/ws", origins=origins)
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    peer = SocketPeer(app, headers=[("Origin", origin)] if origin else [], scheme=scheme, can_refuse=True)
    peer.scope["headers"] = [header for header in peer.scope["headers"] if header[0] != b"host"]
    peer.scope["headers"] += [(b"host", name.encode()) for name in host]
    await peer.run()
    if allowed:
        assert peer.types() == ["websocket.accept", "websocket.close"]
    else:
        assert peer.sent[0]["status"] == 403
        assert "other sites" in peer.sent[1]["body"].decode()


async def test_two_origins_are_none(app: App) -> None:
    """A request with several is forged or broken."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    peer = SocketPeer(app, headers=[("Origin", "http://localhost"), ("Origin", "http://localhost")])
    await peer.run()
    assert peer.types() == ["websocket.close"]


@pytest.mark.parametrize(
    "origins", ["example.com", "https://example.com/path", "ws://example.com", ["https://"], ["x"]]
)
def test_malformed_origins_are_refused_at_once(app: App, origins: str | list[str]) -> None:
    """One that can never match would look like protection against nobody."""
    with pytest.raises(ValueError, match="is no origin"):
        app.websocket("/ws", origins=origins)


async def test_websockets_and_hooks(app: App) -> None:
    """Hooks are for HTTP; a WebSocket's handler does everything itself."""

    @app.before_request
    async def never(request: Request) -> None:
        raise AssertionError

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    peer = SocketPeer(app)
    await peer.run()
    assert peer.close_code == 1000
