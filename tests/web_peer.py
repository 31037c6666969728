"""The other end of an App, for tests: says ASGI messages one by one, and keeps what the App says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import inf
from typing import Any

import trio

from trio_session._asgi import ASGIApp, Message, Scope

Fields = Iterable[tuple[str, str]]


def make_scope(kind: str, path: str, headers: Fields = (), **extra: Any) -> Scope:
    """A scope as Hypercorn makes it."""
    path, _, query = path.partition("?")
    return {
        "type": kind,
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in [("Host", "localhost"), *headers]],
        "client": ("192.0.2.1", 50000),
        "server": ("localhost", 80),
        "extensions": {},
        **extra,
    }


class _Peer:
    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.app = app
        self.scope = scope
        self.sent: list[Message] = []
        self.returned = trio.Event()
        self._to_app, self._from_peer = trio.open_memory_channel[Message](inf)

    async def run(self) -> None:
        """Serve this one request or WebSocket."""
        try:
            await self.app(self.scope, self._from_peer.receive, self.send)
        finally:
            self.returned.set()

    async def send(self, message: Message) -> None:
        """What the App calls."""
        self.sent.append(message)
        await trio.lowlevel.checkpoint()

    def say(self, message: Message) -> None:
        """The next message for the App."""
        self._to_app.send_nowait(message)

    def unheard(self) -> int:
        """How many messages the App has not received yet."""
        return self._from_peer.statistics().current_buffer_used

    def types(self) -> list[str]:
        """The kinds of what the App has sent."""
        return [message["type"] for message in self.sent]


class Peer(_Peer):
    """An HTTP client."""

    def __init__(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Fields = (),
        body: bytes | None = b"",
        **extra: Any,
    ) -> None:
        super().__init__(app, make_scope("http", path, headers, method=method, **extra))
        if body is not None:
            self.say_body(body)

    def say_body(self, chunk: bytes, *, more: bool = False) -> None:
        """Send a part of the body, or the last one."""
        self.say({"type": "http.request", "body": chunk, "more_body": more})

    def hang_up(self) -> None:
        """Close the connection."""
        self.say({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(app: ASGIApp, path: str = "/", **options: Any) -> Peer:
    """Send one request and wait for the end of its response."""
    peer = Peer(app, path, **options)
    await peer.run()
    return peer


class SocketPeer(_Peer):
    """A WebSocket client, which answers a close.

    Args:
        can_refuse: the server lets the application answer the handshake with a page.
        answers: False for one that is silent after a close.
    """

    def __init__(
        self,
        app: ASGIApp,
        path: str = "/ws",
        *,
        headers: Fields = (),
        can_refuse: bool = False,
        answers: bool = True,
        **extra: Any,
    ) -> None:
        extensions: Any = {"websocket.http.response": {}} if can_refuse else {}
        super().__init__(app, make_scope("websocket", path, headers, extensions=extensions, **extra))
        self.say({"type": "websocket.connect"})
        self._answers = answers

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "websocket.close" and self._answers:
            self.go(1000)

    def say_text(self, text: str) -> None:
        """Send a text message."""
        self.say({"type": "websocket.receive", "text": text, "bytes": None})

    def say_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        self.say({"type": "websocket.receive", "bytes": data, "text": None})

    def go(self, code: int = 1006) -> None:
        """Close the connection."""
        self.say({"type": "websocket.disconnect", "code": code})

    @property
    def close_code(self) -> int | None:
        """The code the App has closed with."""
        return next((message.get("code") for message in self.sent if message["type"] == "websocket.close"), None)
