"""Lifespan: starts an application up and shuts it down, as Hypercorn's class of the same name does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Literal, final

import trio
from hypercorn.utils import UnexpectedMessageError

from .._asgi import ASGIApp, Message
from ._errors import LifespanFailedError

__all__ = ["Lifespan"]

logger = logging.getLogger("trio_session.testing")

# Hypercorn's `startup_timeout` and `shutdown_timeout`.
_TIMEOUT = 60.0  # seconds


class _State(Enum):
    STARTUP = auto()
    SERVING = auto()
    SHUTDOWN = auto()


@final
class Lifespan:
    """Runs an application's lifespan. What goes wrong is kept for `take_error`.

    Args:
        stop_server: called when the application says that it failed; at any time, that stops the server at once.
    """

    def __init__(self, app: ASGIApp, stop_server: Callable[[], None], *, raise_app_exceptions: bool) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._stop_server = stop_server
        self._raise_app_exceptions = raise_app_exceptions
        self._error: Exception | None = None
        self._state = _State.STARTUP
        self._to_app, self._from_server = trio.open_memory_channel[Message](2)
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._cancel_scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Run the application; raises no `Exception`."""
        scope = {"type": "lifespan", "asgi": {"spec_version": "2.0", "version": "3.0"}, "state": self.state}
        try:
            with self._cancel_scope:
                await self._app(scope, self._from_server.receive, self._send)
        except Exception as error:  # noqa: BLE001 - logged, or raised where the client is closed
            self._on_error(error)
        finally:
            self._started.set()
            self._stopped.set()

    def _on_error(self, error: Exception) -> None:
        if isinstance(self._error, LifespanFailedError):
            return  # this is it, on its way out of `send`, or what came of it
        if not self._started.is_set():
            logger.warning("the application does not speak lifespan; it is served without", exc_info=error)
        elif self._raise_app_exceptions:
            self._error = error
        else:
            logger.error("error in the application's lifespan", exc_info=error)

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
                self._cancel_scope.cancel()  # nothing runs after this
            case "lifespan.startup.failed":
                raise self._fail("startup", message.get("message", ""))
            case "lifespan.shutdown.failed":
                raise self._fail("shutdown", message.get("message", ""))
            case kind:
                raise UnexpectedMessageError(self._state, kind)

    def _fail(self, stage: Literal["startup", "shutdown"], message: str) -> LifespanFailedError:
        self._error = LifespanFailedError(stage, message)
        self._stop_server()
        return self._error

    async def start_up(self) -> None:
        """Let the application start up; if it fails, the server is stopped."""
        self._to_app.send_nowait({"type": "lifespan.startup"})
        with trio.move_on_after(_TIMEOUT) as patience:
            await self._started.wait()
        if patience.cancelled_caught:
            self._fail("startup", f"no answer within {_TIMEOUT:g} s")
        if self._error is None:
            self._state = _State.SERVING

    async def shut_down(self) -> None:
        """Let the application shut down, and end its lifespan."""
        if self._state is _State.SERVING and not self._stopped.is_set():
            self._state = _State.SHUTDOWN
            self._to_app.send_nowait({"type": "lifespan.shutdown"})
            with trio.move_on_after(_TIMEOUT) as patience:
                await self._stopped.wait()
            if patience.cancelled_caught:
                self._fail("shutdown", f"no answer within {_TIMEOUT:g} s")
        self._cancel_scope.cancel()

    def take_error(self) -> Exception | None:
        """What went wrong; from now on that is the caller's business."""
        error, self._error = self._error, None
        return error
