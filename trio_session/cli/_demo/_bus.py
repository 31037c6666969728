"""From whatever happens, in whichever process, to every page that is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import final

import trio

from ..._config import SessionConfig
from ..._redis_connection import RedisConnection
from ..._tasks import open_service_nursery
from ...redis._address import Destination
from ...redis._node import Locate, Node
from ...redis._opening import open_topology
from ...redis._resp import pack
from ...redis._topology import Topology

__all__ = ["Bus", "make_bus"]

# So many lines a page may be behind before it misses some.
_BACKLOG = 10_000

_CHANNEL = "trio_session:demo"
_MEETING_POINT = "__"  # whoever has the keys that begin so


class Bus:
    """For one process: its own pages hear what happens in it."""

    def __init__(self) -> None:
        self._pages: set[trio.MemorySendChannel[str]] = set()

    def tell(self, line: str) -> None:
        """Tell all pages. Never waits: it is called by whoever holds a lock."""
        for page in self._pages:
            with suppress(trio.WouldBlock):
                page.send_nowait(line)

    @contextmanager
    def listening(self) -> Iterator[trio.MemoryReceiveChannel[str]]:
        """For one page."""
        page, lines = trio.open_memory_channel[str](_BACKLOG)
        self._pages.add(page)
        try:
            with page, lines:
                yield lines
        finally:
            self._pages.remove(page)

    async def run(self) -> None:
        """Carry lines until cancelled."""


@final
class RedisBus(Bus):
    """For several processes: they meet in a channel of their Redis server, or of one of those.

    While the server is away, lines are lost: a demo's picture is no reason to fail.
    """

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__()
        self._destination = Destination.of(connection)
        self._topology: Topology | None = None

    def tell(self, line: str) -> None:
        node = self._node()
        if node is not None:
            node.link.post(pack(("PUBLISH", _CHANNEL, line)))

    async def run(self) -> None:
        async with open_service_nursery() as start:
            self._topology = await open_topology(self._destination, self._new_node, self._listen, start)
            self._listen()
            try:
                await trio.sleep_forever()
            finally:
                self._topology = None  # locks are still given back after this, and nobody looks any more

    def _node(self) -> Node | None:
        """Where we tell and listen. In a cluster any node would do; but two would tell everything twice."""
        return None if self._topology is None else self._topology.routes[_MEETING_POINT]

    def _listen(self) -> None:
        self._node()  # it listens from when it is first needed

    def _new_node(self, name: str, locate: Locate) -> Node:
        return Node(
            f"{name}, for the picture",
            locate,
            channel=_CHANNEL,
            on_message=self._on_message,
            on_change=lambda: None,
        )

    def _on_message(self, node: Node, line: bytes) -> None:
        if node is self._node():  # once we have met elsewhere, we listen to both
            super().tell(line.decode("utf-8", "replace"))


def make_bus(config: SessionConfig) -> Bus:
    """The one that reaches all processes which have these sessions."""
    return Bus() if config.driver == "local" else RedisBus(config.redis[config.connection])
