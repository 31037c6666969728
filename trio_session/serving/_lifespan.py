"""One run of the application's lifespan: it started, it broke down, or it ended; and nothing of that gets lost."""

from __future__ import annotations

from typing import Any, cast, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper

from .._asgi import WORKERS, Message

__all__ = ["AddressError", "BreakdownError", "Lifespan", "ServingError", "StartupError"]


class ServingError(Exception):
    """The application cannot be served, or no longer. No client can be the reason."""


class AddressError(ServingError):
    """An address cannot be listened on: it is taken, or not ours, or no address."""


class StartupError(ServingError):
    """The application could not start: it said so, or it took longer than `startup_timeout`."""


class BreakdownError(ServingError):
    """The application broke down while it was served, or while it ended: see the log."""


@final
class Lifespan:
    """Runs an application for a lifespan.

    Args:
        state: where it leaves what its requests should find.
        workers: how many processes serve it.

    Attributes:
        broken: is set when it breaks down before it was told to end. The server should stop then.
    """

    def __init__(self, app: AppWrapper, config: Config, state: dict[str, Any], *, workers: int = 1) -> None:
        self._app = app
        self._config = config
        self._scope = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": state,
            WORKERS: workers,
        }
        self._to_app, self._from_server = trio.open_memory_channel[Message](2)  # all there can be
        self._answered = trio.Event()  # the start: with success, with failure, or not at all
        self._ended = trio.Event()
        self._phase = "startup"
        self._failure: str | None = None
        self.broken = trio.Event()

    async def run(self) -> None:
        """Run the application until its lifespan is over. Raises no `Exception`."""
        app = cast("Any", self._app)  # its type has no room for a receive and a send that are not Hypercorn's
        try:
            await app(
                self._scope, self._from_server.receive, self._on_message, trio.to_thread.run_sync, trio.from_thread.run
            )
        except Exception as error:  # noqa: BLE001 - it is logged
            if not self._answered.is_set():
                # The specification lets an application say so that it does not speak lifespan.
                reason = f"{type(error).__name__}: {error}".removesuffix(": ")
                await self._config.log.info("The application does not speak lifespan (%s)", reason)
            elif self._failure is None:
                await self._config.log.exception("The application's lifespan broke down")
                self._fail(f"{type(error).__name__}: {error}".removesuffix(": "))
        finally:
            self._answered.set()
            self._ended.set()

    async def start(self) -> None:
        """Wait until the application has started, or does not care.

        Raises:
            StartupError: it cannot.
        """
        self._to_app.send_nowait({"type": "lifespan.startup"})
        patience = self._config.startup_timeout
        with trio.move_on_after(patience) as waiting:
            await self._answered.wait()
        if waiting.cancelled_caught:
            raise StartupError(f"it took longer than {patience:g} s (`startup_timeout`)")
        if self._failure is not None:
            raise StartupError(self._failure)
        self._phase = "serving"

    async def stop(self) -> None:
        """End the lifespan. To be called when nothing else of the application runs.

        Raises:
            BreakdownError: the application broke down, now or before.
        """
        self._phase = "shutdown"
        if not self._ended.is_set():
            self._to_app.send_nowait({"type": "lifespan.shutdown"})
            patience = self._config.shutdown_timeout
            with trio.move_on_after(patience) as waiting:
                await self._ended.wait()
            if waiting.cancelled_caught and self._failure is None:
                self._failure = f"its end took longer than {patience:g} s (`shutdown_timeout`)"
        if self._failure is not None:
            raise BreakdownError(self._failure)

    async def _on_message(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._answered.set()
            case "lifespan.startup.failed":
                self._failure = message.get("message") or "it does not say why"
                self._answered.set()
            case "lifespan.shutdown.complete":
                self._ended.set()
            case "lifespan.shutdown.failed":
                # Also in the midst of serving: that is how an application says that it is broken.
                self._fail(message.get("message") or "it does not say why")
                if self._phase == "shutdown":
                    self._ended.set()
            case other:
                raise ValueError(f"a lifespan has no message {other!r}")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        if self._phase == "serving":
            self.broken.set()
