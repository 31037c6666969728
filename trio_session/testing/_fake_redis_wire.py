"""One connection of the fake server: bytes in, bytes out, with a delay, and with a sudden death if need be."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import hiredis
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream

from ..redis._resp import NOTHING, new_reader
from ._fake_redis_server import Server

__all__ = ["Wire"]

_Stream: TypeAlias = "trio.StapledStream[MemorySendStream, MemoryReceiveStream]"


class Wire:
    """Serves one client.

    Args:
        server: executes the requests.
        stream: the server's end.
        handle: called with each request that has arrived.
        until_thawed: awaited before anything is done.
        until_replicated: awaited before a WAIT is answered, which it gets.
        delay: called to learn how long a reply takes to arrive.
    """

    def __init__(
        self,
        server: Server,
        stream: _Stream,
        *,
        handle: Callable[[Wire, list[bytes]], None],
        until_thawed: Callable[[], Awaitable[None]],
        until_replicated: Callable[[list[bytes]], Awaitable[None]],
        delay: Callable[[], float],
    ) -> None:
        self._server = server
        self._stream = stream
        self._handle = handle
        self._until_thawed = until_thawed
        self._until_replicated = until_replicated
        self._delay = delay
        self._client = server.add_client(self.say)
        self._outbox: deque[tuple[float, bytes]] = deque()  # when it has to arrive, and what
        self._has_work = trio.Event()  # for the sender
        self._silent = False  # nothing gets through any more
        self._deaf = False  # nothing arrives any more
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Serve until the connection ends."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_lost, self._send)
                    nursery.start_soon(self._until_lost, self._receive)
        finally:
            self.close()

    def close(self) -> None:
        """The connection is dead at once, and what was under way is lost."""
        self._server.remove_client(self._client)
        self._stream.send_stream.close()
        self._stream.receive_stream.close()
        self._scope.cancel()

    def execute(self, words: list[bytes]) -> bytes:
        """Execute a request and return its reply."""
        return self._server.execute(self._client, words)

    def say(self, data: bytes) -> None:
        """Send something, in its own time."""
        if not self._silent:
            self._outbox.append((trio.current_time() + self._delay(), data))
            self._has_work.set()

    def fall_silent(self) -> None:
        """What was said so far gets through, then the connection dies."""
        self._silent = True
        self._has_work.set()
        self._server.remove_client(self._client)

    def stop_listening(self) -> None:
        """Nothing arrives any more."""
        self._deaf = True

    async def _receive(self) -> None:
        reader = new_reader()
        while data := await self._stream.receive_some():
            await self._until_thawed()
            reader.feed(bytes(data))
            while not self._deaf and (words := reader.gets()) is not NOTHING:
                if not isinstance(words, list) or not words or not all(isinstance(word, bytes) for word in words):
                    raise hiredis.ProtocolError("not a request")
                if words[0].upper() == b"WAIT":
                    await self._until_replicated(words)
                self._handle(self, words)
            if self._silent:
                await trio.sleep_forever()  # until the last reply has been sent

    async def _send(self) -> None:
        outbox = self._outbox
        while outbox or not self._silent:
            if not outbox:
                self._has_work = trio.Event()
                await self._has_work.wait()
                continue
            await trio.sleep_until(outbox[0][0])
            await self._until_thawed()
            now, batch = trio.current_time(), bytearray()
            while outbox and outbox[0][0] <= now:
                batch += outbox.popleft()[1]
            await self._stream.send_all(batch)

    async def _until_lost(self, service: Callable[[], Awaitable[None]]) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, hiredis.HiredisError):
            await service()
        self._scope.cancel()
