"""What a session adds to a request, in this process: no server, no sockets, the local store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

from trio_session import SessionConfig, SessionMiddleware, get_session, open_session_manager
from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send

from ._harness import Comparison, Operation

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY: Message = {"type": "http.response.body", "body": b"ok"}

# About 300 bytes when encoded, as a login with a small cart.
DATA = {"user": 7, "name": "Ada Lovelace", "locale": "en", "cart": ["tea", "milk"], "note": "x" * 220}


async def _answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(BODY)


async def _reads(scope: Scope, receive: Receive, send: Send) -> None:
    get_session(scope)["user"]
    await _answers(scope, receive, send)


async def _counts(scope: Scope, receive: Receive, send: Send) -> None:
    async with get_session(scope).locked() as data:
        data["visits"] = data.get("visits", 0) + 1
    await _answers(scope, receive, send)


async def _receive() -> NoReturn:
    await trio.sleep_forever()


async def _send(message: Message) -> None:
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _open_candidates() -> AsyncIterator[dict[str, Operation]]:
    async with open_session_manager(SessionConfig()) as manager:
        session = manager.session()
        async with session.locked() as data:
            data.update(DATA)

        def requests_to(app: ASGIApp) -> Operation:
            headers = [
                (b"host", b"example.org"),
                (b"user-agent", b"Mozilla/5.0"),
                (b"accept", b"*/*"),
                (b"cookie", f"theme=dark; trio_session={session.id}".encode()),
            ]

            async def request() -> None:
                scope = {"type": "http", "http_version": "1.1", "scheme": "http", "path": "/", "headers": headers}
                await app(scope, _receive, _send)

            return request

        yield {
            "without sessions": requests_to(_answers),
            "session autoloaded, unused": requests_to(SessionMiddleware(_answers, manager=manager)),
            "session read": requests_to(SessionMiddleware(_reads, manager=manager)),
            "session changed under its lock": requests_to(SessionMiddleware(_counts, manager=manager)),
        }


COMPARISONS = (Comparison(name="a request in-process", open=_open_candidates),)
