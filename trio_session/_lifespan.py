"""The lifespan of an inner application, as part of ours.

Our own lifespan must be answered whatever the inner application does: many do not speak lifespan at all and raise at
once, some return early. Hypercorn serves in either case, and so do we.
"""

from __future__ import annotations

import logging

import trio

from ._asgi import ASGIApp, Message, Scope, Send

__all__ = ["InnerLifespan"]

logger = logging.getLogger("trio_session")


class InnerLifespan:
    """Runs `app` for a lifespan and translates what it says.

    Args:
        send: the server's; what cannot wait goes there directly.
    """

    def __init__(self, app: ASGIApp, scope: Scope, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self._to_app, self._from_server = trio.open_memory_channel[Message](1)
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._failure: Message | None = None
        self._passed_on = False

    async def run(self) -> None:
        """Run the application until its lifespan is over.

        Raises only what the server raised at a message that was passed on to it: that is how a server dies.
        """
        try:
            await self._app(self._scope, self._from_server.receive, self._on_message)
        except Exception:
            if self._passed_on:
                raise
            if self._started.is_set():
                # The server goes on serving, so the sessions must go on too.
                logger.exception("the application's lifespan broke down")
            else:
                logger.debug("the application does not speak lifespan", exc_info=True)
        finally:
            self._started.set()
            self._stopped.set()

    async def _on_message(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = message
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case _:
                # `lifespan.shutdown.failed` stops the server at any time: the way to die loudly.
                self._passed_on = True
                await self._send(message)

    async def start(self) -> Message | None:
        """Start the application up; returns its `lifespan.startup.failed`, if that is what it says."""
        await self._to_app.send({"type": "lifespan.startup"})
        await self._started.wait()
        return self._failure

    async def stop(self) -> None:
        if not self._stopped.is_set():
            await self._to_app.send({"type": "lifespan.shutdown"})
            await self._stopped.wait()
