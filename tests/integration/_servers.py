"""The same application on plain Hypercorn and on ours: what springs a trap of the one must not touch the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, final

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from trio.testing import wait_all_tasks_blocked

from trio_session import serving
from trio_session._asgi import ASGIApp

__all__ = ["Serve", "Server", "both", "ours", "plain", "start"]

LIMIT = 15.0  # seconds of the clock of the test; a green run needs a fraction of it

Serve = Callable[..., Awaitable[None]]


async def plain(app: ASGIApp, config: Config, **options: Any) -> None:
    """Hypercorn as it is."""
    await hypercorn.trio.serve(app, config, mode="asgi", **options)  # type: ignore[arg-type]


ours = serving.serve

both = pytest.mark.parametrize("serve", [plain, ours], ids=["plain", "ours"])


@final
class Server:
    """A server in this trio run.

    Attributes:
        url, urls: where it is.
        error: what it has died of.
        ended: is set when it has, of that or because it was told to.
    """

    def __init__(self) -> None:
        self.url = ""
        self.urls: list[str] = []
        self.error: BaseException | None = None
        self.ended = trio.Event()
        self._stop = trio.Event()

    def stop(self) -> None:
        """Have it end gracefully."""
        self._stop.set()

    async def run(self, serve: Serve, app: ASGIApp, config: Config, *, task_status: trio.TaskStatus[list[str]]) -> None:
        try:
            await serve(app, config, shutdown_trigger=self._stop.wait, task_status=task_status)
        except Exception as error:
            self.error = error
            while isinstance(self.error, BaseExceptionGroup):
                self.error = self.error.exceptions[0]
            if not self.url:
                raise
        finally:
            self.ended.set()


@asynccontextmanager
async def start(serve: Serve, app: ASGIApp, **settings: Any) -> AsyncIterator[Server]:
    """Serve for the length of the block, and end then. What the server died of is not raised."""
    options = {"bind": "127.0.0.1:0", "errorlog": None, "graceful_timeout": 1.0, **settings}
    server = Server()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(partial(server.run, serve, app, Config.from_mapping(options)))
            await wait_all_tasks_blocked()  # some of the server's tasks start after it said so
            server.urls, server.url = urls, urls[0]
            yield server
            server.stop()
            with trio.move_on_after(LIMIT / 2):
                await server.ended.wait()
            nursery.cancel_scope.cancel()
