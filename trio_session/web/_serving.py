"""The lifespan: what an App keeps open while it serves, and the tasks that run in the background."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import final

import trio

from .._asgi import Receive, Send
from .._tasks import bare_exceptions

__all__ = ["Serving", "Setup"]

logger = logging.getLogger("trio_session.web")

Setup = Callable[[], AsyncIterator[None]]


@final
class Serving:
    """Answers an App's lifespan.

    Attributes:
        setups: generator functions, run to their `yield` at the start and from there at the end.
        nursery: for the background tasks, while serving. They are cancelled first of all at the end, so that they
            can use what the setups provide for as long as they run.
    """

    def __init__(self) -> None:
        self.setups: list[Setup] = []
        self.nursery: trio.Nursery | None = None

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serve one lifespan. Failures are sent, not raised: a server takes an exception for indifference."""
        await receive()  # lifespan.startup
        if self.nursery is not None:
            await send({"type": "lifespan.startup.failed", "message": "this App is being served already"})
            return
        phase = "startup"
        try:
            async with self._background(), AsyncExitStack() as stack:
                for setup in self.setups:
                    await stack.enter_async_context(asynccontextmanager(setup)())
                phase = "shutdown"
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
                await self._stop_background()
        except Exception as error:
            logger.critical("the App %s", "cannot start" if phase == "startup" else "is broken", exc_info=error)
            # Also in the midst of serving: that is how a server is told to stop at once, and loudly.
            await send({"type": f"lifespan.{phase}.failed", "message": f"{type(error).__name__}: see the log"})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Keep `nursery` open. A failure in it cancels the block, and comes out bare."""
        self._stopped = trio.Event()
        try:
            with bare_exceptions():
                async with trio.open_nursery() as nursery:
                    self.nursery = await nursery.start(self._run_background)
                    yield
                    await self._stop_background()
        finally:
            self.nursery = None

    async def _run_background(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        try:
            with bare_exceptions():
                async with trio.open_nursery() as nursery:
                    task_status.started(nursery)
                    await trio.sleep_forever()
        finally:
            self._stopped.set()

    async def _stop_background(self) -> None:
        assert self.nursery is not None
        self.nursery.cancel_scope.cancel()
        await self._stopped.wait()
