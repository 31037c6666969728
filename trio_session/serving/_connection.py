"""One connection of a client: whatever happens on it stays on it, and it ends without cutting off what was said.

Hypercorn's own class of this kind lets every surprise of its protocols out into the nursery of all connections, so that
one client's broken request cancels everybody else's. Beyond that, here:

- who sends cannot be cancelled in the middle of a message, but not for ever either: a client that reads nothing
  does not keep a server from stopping;
- an idle connection is closed by the task that reads it, so never while a request has just been read;
- closing waits a moment for the client to finish what it is sending. Else its system would throw away the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any, final

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from ._protocols import Leaving, Protocol
from ._tasks import Tasks, lone

__all__ = ["Connection"]

_MAX_READ = 65536  # bytes; as Hypercorn

# How long a client that was idle when the server began to stop may still send the request that was on its way already:
# a round trip, even a long one.
_GRACE = 0.2  # seconds

# How long a client that is still sending is listened to after it has got its answer (RFC 9112, 9.6).
_LINGER = 1.0  # second

# What may still be sent after the time was up.
_LAST_WORD = 1.0  # second


@final
class Connection:
    """Serves one client.

    Args:
        app: the application.
        config: Hypercorn's.
        context: the worker's.
        state: what the lifespan has left for requests.
        stream: a TCP or TLS stream, or one on a unix socket. It is closed in the end.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: dict[str, Any],
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._state = state
        self._stream = stream
        self._protocol: Protocol | None = None
        self._sending = trio.Lock()
        self._leaving = False
        self._closing = False
        self._reading = trio.CancelScope()
        self._idle_until = inf
        self._senders: set[trio.CancelScope] = set()
        self._may_send_until = inf

    async def run(self) -> None:
        """Serve until the connection ends. Never raises an `Exception`."""
        try:
            await self._run()
        except* Exception as errors:  # noqa: BLE001 - it is logged
            _, others = errors.split((OSError, trio.BrokenResourceError))
            if others is not None:  # else the client has gone
                await self._config.log.exception("A connection broke down", exc_info=lone(others))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORD):
                await self._stream.aclose()

    def leave(self) -> None:
        """Serve what has been asked for, and then end."""
        self._leaving = True
        if self._idle_until < inf:
            self._be_idle()

    async def hurry(self) -> None:
        """It should have ended by now: ask the client for it."""
        if self._protocol is not None:
            await self._protocol.hurry()

    def cut(self) -> None:
        """The time is up: whoever is sending may go on for a moment, and no longer."""
        self._may_send_until = trio.current_time() + _LAST_WORD
        for scope in self._senders:
            scope.deadline = self._may_send_until

    async def _run(self) -> None:
        alpn: str | None = None
        transport = self._stream
        if isinstance(transport, trio.SSLStream):
            with trio.move_on_after(self._config.ssl_handshake_timeout) as patience:
                await transport.do_handshake()
            if patience.cancelled_caught:
                return
            alpn = transport.selected_alpn_protocol()
            transport = transport.transport_stream
        socket = transport.socket
        client = parse_socket_addr(socket.family, socket.getpeername())
        server = parse_socket_addr(socket.family, socket.getsockname())
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            self._protocol = Protocol(
                alpn,
                self._app,
                self._config,
                self._context,
                tasks,
                ConnectionState(self._state.copy()),
                transport is not self._stream,
                client,
                server,
                self._send,
            )
            try:
                await self._protocol.initiate()
                self._be_idle()
                await self._read(self._protocol)
                await tasks.disconnect()
            except BaseException:
                self.cut()
                raise

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, protocol: Protocol) -> None:
        while (data := await self._receive()) is not None:
            if not self._closing:
                await protocol.handle(RawData(data))
            if not data:
                break
        else:
            await protocol.say_goodbye()
        await protocol.handle(Closed())

    async def _receive(self) -> bytes | None:
        """What comes next; empty at the end; None if nothing came for too long, or the client has gone."""
        quiet_until = trio.current_time() + (self._config.read_timeout or inf)
        with trio.CancelScope(deadline=min(self._idle_until, quiet_until)) as self._reading:
            try:
                return bytes(await self._stream.receive_some(_MAX_READ))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        return None

    def _be_idle(self) -> None:
        """Nothing is under way: if nothing comes, this connection ends."""
        if not self._closing:
            patience = self._config.keep_alive_timeout
            self._idle_until = trio.current_time() + (min(_GRACE, patience) if self._leaving else patience)
            self._reading.deadline = min(self._reading.deadline, self._idle_until)

    # -- sending -----------------------------------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        """What the protocol wants to have sent or done."""
        match event:
            case RawData(data=data):
                await self._send_all(data)
            case Updated(idle=True):
                self._be_idle()
            case Updated():
                if not self._closing:
                    self._idle_until = inf
            case Leaving():
                self._leaving = True
            case _:
                assert isinstance(event, Closed)
                await self._close()

    async def _send_all(self, data: bytes) -> None:
        assert self._protocol is not None
        if not await self._shielded(partial(self._stream.send_all, data)):
            await self._protocol.handle(Closed())

    async def _close(self) -> None:
        """The protocol has said all it has to say: say so to the client, and hear it out, but not for long."""
        assert self._protocol is not None
        if not self._closing:
            self._closing = True
            self._idle_until = self._reading.deadline = trio.current_time() + _LINGER
            if isinstance(self._stream, trio.SocketStream):
                await self._shielded(self._stream.send_eof)
            await self._protocol.handle(Closed())

    async def _shielded(self, say: Callable[[], Awaitable[None]]) -> bool:
        """Say something to its end; False if that could not be.

        Half a message, or one of which only the protocol believes that it was sent, would spoil all that follow.
        """
        with trio.CancelScope(shield=True, deadline=self._may_send_until) as scope:
            self._senders.add(scope)
            try:
                async with self._sending:
                    await say()
                    return True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._senders.discard(scope)
        return False
