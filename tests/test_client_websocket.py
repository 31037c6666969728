"""The test client's WebSockets: handshake and refusal, messages, and the two ways to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from hypercorn.utils import UnexpectedMessageError
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.testing import ClientWebSocket, WebSocketClosed, WebSocketRejected, open_test_client

Handle = Callable[[Scope, Receive, Send], Awaitable[None]]

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}
DENIAL: Message = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"Set-Cookie", b"why=login")]}
DENIAL_BODY: Message = {"type": "websocket.http.response.body", "body": b"who are you?"}


def only_websockets(handle: Handle) -> ASGIApp:
    """An application without lifespan and HTTP."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            assert await receive() == {"type": "websocket.connect"}
            await handle(scope, receive, send)

    return app


def sends(*messages: Message) -> Handle:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return handle


@asynccontextmanager
async def connected(handle: Handle, **options: Any) -> AsyncIterator[ClientWebSocket]:
    async with open_test_client(only_websockets(handle), **options) as client, client.websocket("/ws") as ws:
        yield ws


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says everything back; ends when the client has left."""
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        assert message.keys() == {"type", "bytes", "text"}
        await send({**message, "type": "websocket.send"})


# -- the handshake ---------------------------------------------------------------------------------------------------


async def test_the_scope_is_that_of_a_handshake() -> None:
    """Scheme, subprotocols and headers as a browser and Hypercorn make them; cookies come along."""
    scopes: list[Scope] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({**ACCEPT, "subprotocol": "b"} if scope["subprotocols"] else ACCEPT)

    async with open_test_client(only_websockets(handle), base_url="https://testserver") as client:
        client.cookies["id"] = "1"
        async with client.websocket("/ws?x=1", subprotocols=["a", "b"], headers={"Origin": "https://testserver"}) as ws:
            assert ws.subprotocol == "b"
            assert ws.headers["sec-websocket-protocol"] == "b"
        async with client.websocket("ws://testserver/ws"):
            pass
    scope = scopes[0]
    assert "method" not in scope
    assert (scope["type"], scope["scheme"], scope["path"], scope["query_string"]) == ("websocket", "wss", "/ws", b"x=1")
    assert scope["subprotocols"] == ["a", "b"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    headers = dict(scope["headers"])
    assert headers[b"upgrade"] == b"websocket"
    assert headers[b"sec-websocket-protocol"] == b"a, b"
    assert headers[b"origin"] == b"https://testserver"
    assert headers[b"cookie"] == b"id=1"
    assert (scopes[1]["scheme"], scopes[1]["subprotocols"]) == ("ws", [])


async def test_the_acceptance_may_bring_cookies() -> None:
    """They are in the jar for the next request."""
    accept = {**ACCEPT, "headers": [(b"set-cookie", b"a=1; Path=/"), (b"X-Room", b"7")]}
    async with open_test_client(only_websockets(sends(accept))) as client, client.websocket("/ws") as ws:
        assert ws.headers["x-room"] == "7"
        assert ws.subprotocol is None
        assert client.cookies == {"a": "1"}


async def test_a_close_before_the_acceptance_is_a_403() -> None:
    """Whatever code the application gives."""
    with pytest.raises(WebSocketRejected, match="status 403") as caught:
        async with connected(sends({**CLOSE, "code": 4001})):
            pytest.fail("the block must not run")
    assert (caught.value.status_code, caught.value.body) == (403, b"")
    assert caught.value.headers["content-length"] == "0"


async def test_a_refusal_may_have_a_body_and_cookies() -> None:
    """The websocket.http.response extension, in one piece or in several."""
    bodies = [{**DENIAL_BODY, "more_body": True}, {"type": "websocket.http.response.body"}]
    async with open_test_client(only_websockets(sends(DENIAL, *bodies))) as client:
        with pytest.raises(WebSocketRejected) as caught:
            async with client.websocket("/ws"):
                pytest.fail("the block must not run")
        assert client.cookies == {"why": "login"}
    assert (caught.value.status_code, caught.value.body) == (401, b"who are you?")
    assert caught.value.headers["set-cookie"] == "why=login"


async def test_a_refused_client_has_left() -> None:
    """The application is told, with 1000, and its end is awaited."""
    events: list[Message] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(CLOSE)
        events.append(await receive())

    with pytest.raises(WebSocketRejected):
        async with connected(handle):
            pytest.fail("the block must not run")
    assert events == [{"type": "websocket.disconnect", "code": 1000}]


async def test_an_application_that_says_nothing_is_answered_for() -> None:
    """500; and a refusal that never ends is a broken connection."""
    with pytest.raises(WebSocketRejected, match="status 500"):
        async with connected(sends()):
            pytest.fail("the block must not run")
    with pytest.raises(trio.BrokenResourceError):
        async with connected(sends(DENIAL, {**DENIAL_BODY, "more_body": True})):
            pytest.fail("the block must not run")


async def test_what_the_application_raises_in_the_handshake() -> None:
    """It comes out bare, or is a 500."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("in the handshake")

    with pytest.raises(KeyError, match="in the handshake"):
        async with connected(handle):
            pytest.fail("the block must not run")
    with pytest.raises(WebSocketRejected, match="status 500"):
        async with connected(handle, raise_app_exceptions=False):
            pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([DENIAL_BODY], UnexpectedMessageError),
        ([ACCEPT, CLOSE, {"type": "websocket.send", "text": "late"}], UnexpectedMessageError),
        ([{**ACCEPT, "subprotocol": "not asked for"}], ValueError),
        ([{**ACCEPT, "headers": [(b"sec-websocket-protocol", b"x")]}], ValueError),
        ([{**ACCEPT, "headers": [(b":status", b"200")]}], ValueError),
        ([{**ACCEPT, "headers": [(b"x", b"a\r\nb")]}], h11.LocalProtocolError),
        ([{**DENIAL, "headers": [(b":status", b"200")]}, DENIAL_BODY], ValueError),
        ([{"type": "websocket.http.response.start", "status": 401}, DENIAL_BODY], KeyError),
    ],
)
async def test_messages_out_of_order_raise_in_the_application(messages: list[Message], error: type[Exception]) -> None:
    """As they do on Hypercorn; test_client_fidelity has more of them."""
    raised: list[Exception] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(error) as caught:
            for message in messages:
                await send(message)
        raised.append(caught.value)
        await send(CLOSE)

    if messages[0] is ACCEPT:
        async with connected(handle) as ws:
            await wait_all_tasks_blocked()
            with pytest.raises(WebSocketClosed):
                await ws.receive()
    else:
        with pytest.raises(WebSocketRejected):
            async with connected(handle):
                pytest.fail("the block must not run")
    assert len(raised) == 1


# -- messages --------------------------------------------------------------------------------------------------------


async def test_messages_go_both_ways() -> None:
    """Text and bytes stay what they are, empty ones too; JSON goes as text."""
    async with connected(echo) as ws:
        for data in ("text", b"bytes", "", b""):
            await ws.send(data)
            received = await ws.receive()
            assert received == data
            assert type(received) is type(data)
        await ws.send_json({"caf\u00e9": [1, None]})
        assert await ws.receive() == '{"caf\u00e9":[1,null]}'
        await ws.send(b"[1]")
        assert await ws.receive_json() == [1]


async def test_sending_and_receiving_are_checkpoints() -> None:
    """As everything async should be."""
    async with connected(echo) as ws:
        with assert_checkpoints():
            await ws.send("x")
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await ws.receive()
        with assert_checkpoints():
            await ws.close()


async def test_a_client_that_does_not_receive_slows_the_application_down() -> None:
    """After a socket's buffer is full, `send` waits."""
    sent = 0

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(ACCEPT)
        for _ in range(4):
            await send({"type": "websocket.send", "bytes": b"x" * 40_000})
            sent += 1

    async with connected(handle) as ws:
        await wait_all_tasks_blocked()
        assert sent == 1
        for _ in range(4):
            assert len(await ws.receive()) == 40_000


async def test_receive_may_be_cancelled(autojump_clock: MockClock) -> None:
    """The WebSocket stays usable, and nothing is lost."""
    async with connected(echo) as ws:
        with trio.move_on_after(1) as scope:
            await ws.receive()
        assert scope.cancelled_caught
        await ws.send("after")
        assert await ws.receive() == "after"


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_a_close_by_the_application(autojump_clock: MockClock) -> None:
    """It comes out of receive, after the messages before it, and out of send; the application is told of its answer."""
    events: list[Message] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "last words"})
        await send({**CLOSE, "code": 4008, "reason": "session expired"})
        await send(CLOSE)
        events.append(await receive())
        with trio.move_on_after(1):
            events.append(await receive())

    async with connected(handle) as ws:
        await wait_all_tasks_blocked()
        assert events == [{"type": "websocket.disconnect", "code": 1000}]
        assert await ws.receive() == "last words"
        for call in (ws.receive, lambda: ws.send("x"), ws.receive):
            with pytest.raises(WebSocketClosed, match="4008 session expired") as caught:
                await call()
            assert (caught.value.code, caught.value.reason) == (4008, "session expired")
    assert events == [{"type": "websocket.disconnect", "code": 1000}]


async def test_a_close_without_a_code_is_1000() -> None:
    """And without a reason."""
    async with connected(sends(ACCEPT, {**CLOSE, "reason": None})) as ws:
        with pytest.raises(WebSocketClosed) as caught:
            await ws.receive()
    assert (caught.value.code, caught.value.reason) == (1000, "")
    assert str(caught.value) == "the application closed the WebSocket: 1000"


async def test_an_application_that_ends_without_closing_is_1011() -> None:
    """Whether it returns, or raises what is only logged."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        raise KeyError("of the application")

    for options, app in (({}, sends(ACCEPT)), ({"raise_app_exceptions": False}, handle)):
        async with connected(app, **options) as ws:
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1011


@pytest.mark.parametrize("what", ["receive", "send", "leave"])
async def test_what_the_application_raises_comes_out(what: str) -> None:
    """Of the next call, or of the block; once."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await receive()
        raise KeyError("of the application")

    with pytest.raises(KeyError, match="of the application"):
        async with connected(handle) as ws:
            await ws.send("go")
            await wait_all_tasks_blocked()
            if what == "receive":
                await ws.receive()
            if what == "send":
                await ws.send("x")


@pytest.mark.parametrize("code", [None, 1000, 4000])
async def test_leaving_and_closing_disconnect(code: int | None) -> None:
    """With 1006, as Hypercorn passes no code on. What was sent comes first; what the application says goes nowhere."""
    events: list[Message] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        events.extend([await receive(), await receive()])
        for message in ({"type": "websocket.send", "text": "to nobody"}, CLOSE, ACCEPT):
            await send(message)
        events.append({"type": "end"})

    async with connected(handle) as ws:
        await ws.send("bye")
        if code is not None:
            await ws.close(code)
            await ws.close()
            await wait_all_tasks_blocked()
            assert events[-1] == {"type": "end"}
            for call in (ws.receive, lambda: ws.send("x")):
                with pytest.raises(trio.ClosedResourceError):
                    await call()
    assert events == [
        {"type": "websocket.receive", "text": "bye", "bytes": None},
        {"type": "websocket.disconnect", "code": 1006},
        {"type": "end"},
    ]


@pytest.mark.parametrize("code", [0, 999, 1001, 1006, 2999, 5000])
async def test_a_client_closes_with_a_code_of_its_own(code: int) -> None:
    """Those that a browser lets a page use."""
    async with connected(echo) as ws:
        with pytest.raises(ValueError, match="1000"):
            await ws.close(code)
        await ws.send("still open")
        assert await ws.receive() == "still open"


async def test_an_exception_of_the_block_comes_out_bare() -> None:
    """After the application has ended."""
    events: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        events.append("ended")

    error = KeyError("of the block")
    with pytest.raises(KeyError) as caught:
        async with connected(handle):
            raise error
    assert caught.value is error
    assert events == ["ended"]


async def test_leaving_waits_for_the_application_but_not_for_ever(autojump_clock: MockClock) -> None:
    """After `graceful_timeout` it is cancelled; that is no error."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await trio.sleep(float(scope["path"][1:]))
        events.append("slept")

    events: list[str] = []
    async with open_test_client(only_websockets(handle)) as client:
        async with client.websocket("/2"):
            pass
        assert (events, trio.current_time()) == (["slept"], 2)
        async with client.websocket("/60"):
            pass
        assert (events, trio.current_time()) == (["slept"], 5)


async def test_an_application_that_never_stops_sending_is_cancelled() -> None:
    """It lets no time pass on a test's clock, so its messages are counted instead."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "text": "tick"})

    async with connected(handle) as ws:
        assert await ws.receive() == "tick"


async def test_a_handshake_may_be_cancelled(autojump_clock: MockClock) -> None:
    """The application is told that the client has left."""
    events: list[Message] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())

    with trio.move_on_after(1) as scope:
        async with connected(handle):
            pytest.fail("the block must not run")
    assert scope.cancelled_caught
    assert events == [{"type": "websocket.disconnect", "code": 1006}]


async def test_a_server_that_stops_breaks_the_connection(autojump_clock: MockClock) -> None:
    """A WebSocket that is open when the client's block ends has its application cancelled."""
    outcomes: list[str] = []
    opened = trio.Event()

    async def talk() -> None:
        async with client.websocket("/ws") as ws:
            opened.set()
            for call in (ws.receive, lambda: ws.send("x")):
                with pytest.raises(trio.BrokenResourceError):
                    await call()
                outcomes.append("broken")

    async with trio.open_nursery() as nursery:
        async with open_test_client(only_websockets(echo)) as client:
            nursery.start_soon(talk)
            await opened.wait()
        assert trio.current_time() == 3
    assert outcomes == ["broken", "broken"]
