"""The test client's server against the real one: the same application, asked the same, sees and says the same.

Each case runs twice, under Hypercorn on a socket of this machine and under the test client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import wsproto
from hypercorn.config import Config
from hypercorn.trio import serve
from trio.testing import MockClock
from wsproto import events as ws

from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.testing import WebSocketClosed, WebSocketRejected, open_test_client

Log = list[object]
Script = Callable[[Log, Scope, Receive, Send], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-answer", b"1")]}
BODY: Message = {"type": "http.response.body", "body": b"hello"}
MORE: Message = {**BODY, "more_body": True}
ACCEPT: Message = {"type": "websocket.accept", "headers": [(b"x-answer", b"1")]}
TEXT: Message = {"type": "websocket.send", "text": "hello"}
CLOSE: Message = {"type": "websocket.close", "code": 4000, "reason": "bye"}


def sized(length: int) -> Message:
    return {**START, "headers": [(b"content-length", b"%d" % length)]}


def app_of(script: Script, log: Log) -> ASGIApp:
    """An application that follows a script, and logs how that ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        try:
            await script(log, scope, receive, send)
        except Exception as error:
            log.append(type(error).__name__)
            raise

    return app


def sends(*messages: Message) -> Script:
    """A script that sends messages until one is refused, and logs which were not."""

    async def script(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
            log.append(message["type"])

    return script


@asynccontextmanager
async def hypercorn(app: ASGIApp) -> AsyncIterator[str]:
    """The address of a real server."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = 1
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(serve, app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type] # Hypercorn's own messages
        binds: list[str] = await nursery.start(run)
        yield binds[0].removeprefix("http://")
        stop.set()


# -- HTTP ------------------------------------------------------------------------------------------------------------


async def ask_hypercorn(script: Script, method: str, path: str, **options: Any) -> tuple[Log, object]:
    log: Log = []
    async with (
        hypercorn(app_of(script, log)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", verify=False) as client,
    ):
        try:
            response = await client.request(method, path, **options)
        except httpx.RemoteProtocolError:
            return log, "broken"
        await trio.sleep(1)
        return log, (response.status_code, response.headers.get("x-answer"), response.content)


async def ask_the_client(script: Script, method: str, path: str, **options: Any) -> tuple[Log, object]:
    log: Log = []
    async with open_test_client(app_of(script, log), raise_app_exceptions=False) as client:
        try:
            response = await client.request(method, path, **options)
        except trio.BrokenResourceError:
            return log, "broken"
        return log, (response.status_code, response.headers.get("x-answer"), response.content)


async def _scope(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(name, value) for name, value in scope.pop("headers") if name.startswith((b"x-", b"cookie", b"content"))]
    client, server = scope.pop("client"), scope.pop("server")
    log.extend([sorted(scope.items()), sorted(headers), client[0], type(client), server[0], type(server)])
    await sends(START, BODY)(log, scope, receive, send)


async def _body(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    log.extend([await receive(), await receive()])
    await send(START)
    await send(BODY)
    log.append(await receive())
    with trio.move_on_after(1):
        log.append(await receive())


async def _raises(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("before the start")


async def _raises_late(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(MORE)
    raise KeyError("after the start")


HTTP_CASES: dict[str, tuple[Script, str, str, dict[str, Any]]] = {
    "scope": (_scope, "GET", "/a%20b/caf\u00e9?x=1&y=%C3%A9", {"headers": [("X-Odd", "a"), ("x-odd", "b")]}),
    "scope of a post": (_scope, "POST", "/", {"content": b"abc", "headers": {"Cookie": "a=1; b=2"}}),
    "scope of an empty post": (_scope, "POST", "/", {}),
    "scope of a form": (_scope, "POST", "/", {"data": {"a": "1 2", "b": "\u00e9"}}),
    "scope of json": (_scope, "PUT", "/", {"json": {"a": [1, None, "\u00e9"]}}),
    "body": (_body, "POST", "/", {"content": b"abc"}),
    "response": (sends(START, MORE, BODY), "GET", "/", {}),
    "response without headers": (sends({"type": START["type"], "status": 201}, {"type": BODY["type"]}), "GET", "/", {}),
    "head": (sends(START, BODY), "HEAD", "/", {}),
    "204": (sends({**START, "status": 204}, BODY), "GET", "/", {}),
    "nothing": (sends(), "GET", "/", {}),
    "start only": (sends(START), "GET", "/", {}),
    "no end": (sends(START, MORE), "GET", "/", {}),
    "raises": (_raises, "GET", "/", {}),
    "raises late": (_raises_late, "GET", "/", {}),
    "body first": (sends(BODY), "GET", "/", {}),
    "two starts": (sends(START, START), "GET", "/", {}),
    "body after the end": (sends(START, BODY, BODY), "GET", "/", {}),
    "start after the end": (sends(START, BODY, START), "GET", "/", {}),
    "trailers": (sends(START, MORE, {"type": "http.response.trailers", "headers": []}), "GET", "/", {}),
    "push": (sends({"type": "http.response.push", "path": "/", "headers": []}), "GET", "/", {}),
    "early hint": (sends({"type": "http.response.early_hint", "links": []}), "GET", "/", {}),
    "unknown": (sends({"type": "http.nonsense"}), "GET", "/", {}),
    "content-length": (sends(sized(5), BODY), "GET", "/", {}),
    "too much": (sends(sized(4), BODY), "GET", "/", {}),
    "too little": (sends(sized(6), BODY), "GET", "/", {}),
    "header that is text": (sends({**START, "headers": [("x", "y")]}), "GET", "/", {}),
    "header with a line break": (sends({**START, "headers": [(b"x", b"a\r\nb")]}), "GET", "/", {}),
    "pseudo header": (sends({**START, "headers": [(b":status", b"200")]}), "GET", "/", {}),
    "header with spaces around": (sends({**START, "headers": [(b" X-Answer ", b" 2 ")]}, BODY), "GET", "/", {}),
    "no status": (sends({"type": START["type"], "headers": []}), "GET", "/", {}),
}


@pytest.mark.parametrize("case", HTTP_CASES.values(), ids=HTTP_CASES)
async def test_requests(case: tuple[Script, str, str, dict[str, Any]], autojump_clock: MockClock) -> None:
    """What the application sees and may do, and what its client gets."""
    script, method, path, options = case
    real = await ask_hypercorn(script, method, path, **options)
    ours = await ask_the_client(script, method, path, **options)
    assert ours == real


# -- WebSockets ------------------------------------------------------------------------------------------------------


async def talk_to_hypercorn(script: Script, say: str | None) -> tuple[Log, object]:
    """Speak with wsproto over a plain socket; the outcome is what comes back, as wsproto reads it."""
    log: Log = []
    outcome: list[Any] = []
    async with hypercorn(app_of(script, log)) as address:
        host, _, port = address.partition(":")
        wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(wire.send(ws.Request(host=address, target="/ws?x=1", subprotocols=["a", "b"])))
            with trio.move_on_after(1):
                while data := await stream.receive_some():
                    wire.receive_data(data)
                    for event in wire.events():
                        match event:
                            case ws.AcceptConnection():
                                outcome.append((event.subprotocol, dict(event.extra_headers).get(b"x-answer")))
                                if say is not None:
                                    await stream.send_all(wire.send(ws.TextMessage(say)))
                            case ws.TextMessage() | ws.BytesMessage():
                                outcome.append(event.data)
                            case ws.CloseConnection():
                                outcome.append((event.code, event.reason or ""))
                                await stream.send_all(wire.send(event.response()))
                            case ws.RejectConnection():
                                outcome += [event.status_code, b""]
                            case ws.RejectData():
                                outcome.append(b"".join([outcome.pop(), event.data]))
                            case _:
                                pytest.fail(f"not expected: {event}")
        await trio.sleep(1)
    return log, outcome


async def talk_to_the_client(script: Script, say: str | None) -> tuple[Log, object]:
    log: Log = []
    outcome: list[object] = []
    async with open_test_client(app_of(script, log), raise_app_exceptions=False) as client:
        try:
            async with client.websocket("/ws?x=1", subprotocols=["a", "b"]) as websocket:
                outcome.append((websocket.subprotocol, websocket.headers["x-answer"].encode()))
                if say is not None:
                    await websocket.send(say)
                with trio.move_on_after(1):
                    while True:
                        outcome.append(await websocket.receive())
        except WebSocketClosed as error:
            outcome.append((error.code, error.reason))
        except WebSocketRejected as error:
            outcome += [error.status_code, error.body]
    return log, outcome


async def _websocket_scope(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    client, server = scope.pop("client"), scope.pop("server")
    names = {b"upgrade", b"connection", b"sec-websocket-version", b"sec-websocket-protocol"}
    headers = {name: value.lower() for name, value in scope.pop("headers") if name in names}
    log.extend([sorted(scope.items()), sorted(headers.items()), client[0], server[0]])
    await _echo(log, scope, receive, send)


async def _echo(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    log.append(await receive())
    await send({**ACCEPT, "subprotocol": "b"})
    while True:
        message = await receive()
        log.append(message)
        if message["type"] == "websocket.disconnect":
            break
        await send({**message, "type": "websocket.send"})
    await send(TEXT)  # to nobody
    log.append("end")


async def _closes(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await send(TEXT)
    await send(CLOSE)
    log.append(await receive())


async def _refuses(log: Log, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-length", b"2")]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"n", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"o"})


WEBSOCKET_CASES: dict[str, tuple[Script, str | None]] = {
    "scope": (_websocket_scope, None),
    "echo": (_echo, "hello"),
    "closed by the application": (_closes, None),
    "refused": (_refuses, None),
    "closed before the acceptance": (sends(CLOSE), None),
    "nothing": (sends(), None),
    "raises": (_raises, None),
    "returns": (sends(ACCEPT, TEXT), None),
    "two acceptances": (sends(ACCEPT, ACCEPT), None),
    "sent before the acceptance": (sends(TEXT), None),
    "a response after the acceptance": (sends(ACCEPT, {**START, "type": "websocket.http.response.start"}), None),
    "unknown": (sends(ACCEPT, {"type": "websocket.nonsense"}), None),
    "text that is bytes": (sends(ACCEPT, {"type": "websocket.send", "text": b"x"}), None),
    "no data": (sends(ACCEPT, {"type": "websocket.send"}), None),
}


@pytest.mark.parametrize("case", WEBSOCKET_CASES.values(), ids=WEBSOCKET_CASES)
async def test_websockets(case: tuple[Script, str | None], autojump_clock: MockClock) -> None:
    """What the application sees and may do, and what its client gets."""
    real = await talk_to_hypercorn(*case)
    ours = await talk_to_the_client(*case)
    assert ours == real
