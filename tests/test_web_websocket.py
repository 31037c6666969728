"""WebSockets: messages, the two ends of a connection, and pages that have no business here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
import trio
from trio.testing import assert_checkpoints

from trio_session._asgi import Message
from trio_session._errors import LockTimeoutError, SessionEndedError
from trio_session.web import App, Request, Response, WebSocket, abort
from trio_session.web._response import ResponseValue

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


async def test_a_handler_that_raises_closes_with_1011(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the peer nothing."""

    @app.websocket("/<kind>")
    async def handler(ws: WebSocket, kind: str) -> None:
        await ws.accept()
        if kind == "aborts":
            abort(503)
        raise failures[kind]

    failures = {"fails": ValueError("secret"), "times-out": LockTimeoutError(1), "ended": SessionEndedError("expired")}
    for kind in failures:
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
            case "nursery":
                async with trio.open_nursery():
                    abort(402, "Pay first.")
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
        ("nursery", 402, "Pay first"),
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


async def test_a_handler_refuses_with_what_it_returns(app: App) -> None:
    """As the handler of a route answers, streams included; what is returned after `accept()` goes nowhere."""
    closed: list[str] = []

    async def chunks() -> AsyncIterator[str]:
        try:
            yield "not "
            yield "today"
        finally:
            closed.append("closed")

    @app.websocket("/<kind>")
    async def handler(ws: WebSocket, kind: str) -> ResponseValue:
        match kind:
            case "tuple":
                return "Invalid password", 403, {"Set-Cookie": "a=1"}
            case "stream":
                return chunks(), 409
            case "accepted":
                await ws.accept()
            case "closed":
                await ws.close()
            case _:
                return cast("str", 7)
        return "to nobody", 403

    refused = SocketPeer(app, "/tuple", can_refuse=True)
    await refused.run()
    assert (refused.sent[0]["status"], refused.sent[1]["body"]) == (403, b"Invalid password")
    assert (b"set-cookie", b"a=1") in refused.sent[0]["headers"]
    for can_refuse in (True, False):
        streamed = SocketPeer(app, "/stream", can_refuse=can_refuse)
        await streamed.run()
        if can_refuse:
            assert streamed.sent[0]["status"] == 409
            assert b"".join(message["body"] for message in streamed.sent[1:]) == b"not today"
            assert closed == ["closed"]
        else:
            assert streamed.sent == [{"type": "websocket.close"}]
    for path, sent in [("/accepted", ["websocket.accept", "websocket.close"]), ("/closed", ["websocket.close"])]:
        peer = SocketPeer(app, path, can_refuse=True)
        await peer.run()
        assert peer.types() == sent
    odd = SocketPeer(app, "/odd", can_refuse=True)
    await odd.run()
    assert odd.sent[0]["status"] == 500


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
