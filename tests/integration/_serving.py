"""An ASGI application on a real Hypercorn, in this very trio run, and what all these tests look at.

Everything in a `serving()` block is bounded: its body, and the shutdown after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import cast
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework
from trio.testing import wait_all_tasks_blocked

from trio_session import SessionManager
from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send

__all__ = ["address", "at_rest", "count_tasks", "eventually", "respond", "serving"]

# A green run needs a fraction of these; a noisy machine may need more of it.
LIMIT = 15.0  # seconds for the body of a `serving()` block
SHUTDOWN_LIMIT = 5.0  # seconds


@asynccontextmanager
async def serving(app: ASGIApp, *, graceful: float = 2.0, keep_alive: float = 5.0) -> AsyncIterator[str]:
    """Serve `app` for the length of the block; yields its URL.

    What a request raises is logged nowhere, but it comes out of this block, as does what breaks the server.

    Args:
        app: any ASGI application.
        graceful: seconds that requests get to finish after the block.
        keep_alive: seconds an idle connection is kept; for so long Hypercorn also keeps the tasks of a connection
            whose client was gone before it had sent a whole request.
    """
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.backlog = 512  # a full queue would cost clients a second each
    config.errorlog = None
    config.graceful_timeout = graceful
    config.keep_alive_timeout = keep_alive
    raised: list[Exception] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "lifespan":  # there it is the custom of those who do not speak it
                raised.append(error)
            raise

    stop = trio.Event()

    async def server(*, task_status: trio.TaskStatus[list[str]]) -> None:
        framework = cast("Framework", noting)
        await serve(framework, config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")

    try:
        with trio.fail_after(inf) as bound:
            async with trio.open_nursery() as nursery:
                bound.deadline = trio.current_time() + LIMIT
                binds: list[str] = await nursery.start(server)
                await wait_all_tasks_blocked()  # some of the server's tasks start after it said so
                yield binds[0]
                bound.deadline = trio.current_time() + SHUTDOWN_LIMIT
                stop.set()
    except BaseExceptionGroup as group:
        raise _alone(group) from None
    if raised:
        raise ExceptionGroup("requests failed", raised)


def _alone(error: BaseException) -> BaseException:
    """A lone exception without the groups around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def address(url: str) -> tuple[str, int]:
    """The host and the port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def respond(
    send: Send, body: bytes = b"", *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a request from a plain ASGI application."""
    length = (b"content-length", b"%d" % len(body))
    start: Message = {"type": "http.response.start", "status": status, "headers": [length, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def count_tasks() -> int:
    """All tasks of this trio run."""

    def count(task: trio.lowlevel.Task) -> int:
        return 1 + sum(count(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return count(root)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` is true; what makes it true is not ours to wait for in any other way."""
    with trio.fail_after(SHUTDOWN_LIMIT):
        while not condition():
            await trio.sleep(0.001)


def at_rest(manager: SessionManager) -> bool:
    """No lock is held, none is waited for, and nobody is forgotten in front of one."""
    now = manager.statistics()
    locks = manager._engine.locks
    return not now.locks_held and not now.tasks_waiting and repr(locks._gate) == "<Gate 0 passed, 0 waiting>"
