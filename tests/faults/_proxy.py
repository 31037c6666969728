"""A TCP proxy that does to a connection what networks do: delays it, tears it to pieces, stops it, cuts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import trio

__all__ = ["Proxy", "open_proxy"]


class Proxy:
    """Between a store and its server. "Up" is to the server, "down" to the store.

    The connection for wake-ups, which begins with its SUBSCRIBE, is passed on untouched unless said otherwise.

    Attributes:
        delay: each piece of data waits so long, in seconds.
        piece: data is passed on in pieces of so many bytes.
        left: by direction, so many more bytes are passed on, then the connection is cut; 0: with the next one.
        flowing: by direction, data waits until it is set.
        cut: set when a connection has been cut because of `left`.
        stops_then: and nothing goes up any more, until `flowing["up"]` is set.
        control_too: all this happens to the connection for wake-ups, too.
        deaf: wake-ups are swallowed.
        passed: by direction, how many bytes were.
        connections: how many there have been.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0  # where it listens
        self.delay, self.piece = 0.0, 65_536
        self.left = {"up": inf, "down": inf}
        self.flowing = {"up": trio.Event(), "down": trio.Event()}
        self.flowing["up"].set()
        self.flowing["down"].set()
        self.cut = trio.Event()
        self.stops_then = self.control_too = self.deaf = False
        self.passed = {"up": 0, "down": 0}
        self.connections = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def open_stream(self) -> trio.abc.Stream:
        """What `open_redis_store()` takes."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def _serve(self, store: trio.SocketStream) -> None:
        self.connections += 1
        is_control = trio.Event()
        async with store, await trio.open_tcp_stream("127.0.0.1", self._port) as server, trio.open_nursery() as nursery:
            for direction, source, target in (("up", store, server), ("down", server, store)):
                nursery.start_soon(self._pass_on, direction, source, target, is_control, nursery.cancel_scope)

    async def _pass_on(
        self,
        way: str,
        source: trio.SocketStream,
        target: trio.SocketStream,
        is_control: trio.Event,
        both: trio.CancelScope,
    ) -> None:
        try:
            while data := bytes(await source.receive_some(65_536)):
                if way == "up" and b"SUBSCRIBE" in data:
                    is_control.set()
                if is_control.is_set() and not self.control_too:
                    await target.send_all(b"" if self.deaf else data)
                    continue
                while data and self.left[way] > 0:
                    piece = data[: int(min(self.piece, self.left[way]))]
                    data = data[len(piece) :]
                    self.left[way] -= len(piece)
                    await trio.sleep(self.delay)
                    await self.flowing[way].wait()
                    await target.send_all(piece)
                    self.passed[way] += len(piece)
                if self.left[way] <= 0:
                    self._on_cut()
                    break
        except trio.BrokenResourceError:
            pass
        both.cancel()

    def _on_cut(self) -> None:
        self.left = {"up": inf, "down": inf}
        if self.stops_then:
            self.flowing["up"] = trio.Event()
        self.cut.set()
        self.cut = trio.Event()


@asynccontextmanager
async def open_proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy to a port of this machine, for the length of a block."""
    proxy = Proxy(port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, proxy._serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
