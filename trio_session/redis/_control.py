"""The connection over which a process hears that a lock it waits for has been offered to it.

It is a connection of its own because Redis cuts off subscribers whose unread output exceeds 32 MB, which large replies
on a shared connection would do. Without it, for want of leave to subscribe say, locks are polled for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis.exceptions
import trio

from .._errors import StorageUnavailableError
from ._connection import Connection, RefusedError
from ._resp import Reply, ServerError, to_exception
from ._supervisor import Supervisor

__all__ = ["Control"]


class Control:
    """Listens on one channel.

    Args:
        name: the server's, for messages.
        connect: opens a connection to it, and prepares that with `subscribe`.
        channel: which one.
        on_message: called with each message.
        on_change: called when `listening` has changed; messages may have been lost.

    Attributes:
        listening: the server knows that we listen. Otherwise it would take us for dead, so we must not queue up.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Connection]],
        *,
        channel: str,
        on_message: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._on_message = on_message
        self._on_change = on_change
        self._supervisor = Supervisor(f"{name}, for wake-ups", connect=connect, serve=self._serve, quiet=True)
        self._serving = trio.CancelScope()
        self.listening = False

    async def run(self) -> None:
        """Keep listening until cancelled."""
        await self._supervisor.run()

    async def tried(self) -> None:
        """Wait until we listen, or cannot for now."""
        with suppress(StorageUnavailableError):
            await self._supervisor.opened()

    async def subscribe(self, connection: Connection) -> None:
        """Prepare a connection."""
        (reply,) = await connection.ask(("SUBSCRIBE", self._channel))
        if isinstance(reply, ServerError):
            raise RefusedError(str(reply)) from to_exception(reply)  # nobody has to wait for the next attempt
        match reply:
            case [b"subscribe", _, 1]:
                pass
            case _:
                raise redis.exceptions.InvalidResponse("something other than the start of a subscription")

    def restart(self) -> None:
        """Locks are offered on another server now: listen there."""
        self.listening = False
        self._serving.cancel()
        self._supervisor.hurry()

    async def _serve(self, connection: Connection) -> Exception:
        self._change(listening=True)
        try:
            with trio.CancelScope() as self._serving:
                while True:
                    self._heed(await connection.receive())
        finally:
            self._change(listening=False)
        return redis.exceptions.ConnectionError("locks are offered on another server now")

    def _heed(self, reply: Reply) -> None:
        if isinstance(reply, ServerError):
            raise to_exception(reply)
        match reply:
            case [b"message", _, bytes(message)]:
                self._on_message(message)
            case _:
                raise redis.exceptions.InvalidResponse("something other than a message on a subscribed connection")

    def _change(self, *, listening: bool) -> None:
        self.listening = listening
        self._on_change()
