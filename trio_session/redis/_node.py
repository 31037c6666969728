"""One Redis server: a link for commands, and on the same server a connection on which we hear of locks.

And one more to ask about its replicas, if that matters.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import redis.exceptions
import trio

from ._address import Address
from ._connection import Connection
from ._control import Control
from ._link import Link
from ._replication import NAMES_HISTORY, Replication, check_rights, history_in
from ._resp import Reply
from ._scripts import SCRIPTS
from ._supervisor import PATIENCE

__all__ = ["Locate", "NewNode", "Node"]

logger = logging.getLogger("trio_session.redis")

#: Where the server is right now. Raises as `Address.connect` does.
Locate: TypeAlias = Callable[[], Awaitable[Address]]


class Node:
    """A server, and the connections to it.

    Args:
        name: for messages.
        locate: says where it is, each time before we connect.
        channel: the one on which this process hears of locks.
        on_message: called with this node and each message.
        on_change: called when `control.listening` has changed.
        replicas: so many have to have what was written before it counts.
        mark: see `Replication`.

    Attributes:
        name: for messages.
        address: where the link is, or was last.
        is_cluster: the server is part of one.
        is_new: before a lock is asked for, `tried_to_listen` has to be called.
        link: the connection that all tasks share.
        control: the connection for wake-ups.
    """

    def __init__(
        self,
        name: str,
        locate: Locate,
        *,
        channel: str,
        on_message: Callable[[Node, bytes], None],
        on_change: Callable[[], None],
        replicas: int = 0,
        mark: Callable[[str], str] = str,
    ) -> None:
        self.name = name
        self.link = Link(name, self._connect)
        self.control = Control(
            name,
            self._connect_control,
            channel=channel,
            on_message=partial(on_message, self),
            on_change=on_change,
        )
        self._replication = (
            Replication(name, self._connect_replication, replicas=replicas, mark=mark, on_history=self._compare_history)
            if replicas
            else None
        )
        self._locate = locate
        self.address: Address | None = None
        self.is_cluster = False
        self._found = trio.Event()
        self.is_new = True
        self._has_tried = False
        self._first_calls = trio.StrictFIFOLock()
        self._scope = trio.CancelScope()
        self._looked_at_memory = False

    async def run(self) -> None:
        """Keep the connections up until cancelled, or stopped."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.link.run)
                if self._replication is not None:
                    nursery.start_soon(self._replication.run)
                await self._found.wait()  # the other one has to go to the same server
                await self.control.run()

    def stop(self, reason: Exception) -> None:
        """It is not needed any more: whoever waits for an answer of it is told so."""
        self.link.end = reason
        self._scope.cancel()

    async def opened(self) -> None:
        """Wait for the first connection, and until we listen or cannot for now.

        Raises:
            StorageUnavailableError: there is no connection.
        """
        await self.link.opened()
        await self.control.tried()

    async def tried_to_listen(self) -> None:
        """Wait until we listen or cannot for now, but no longer than patience lasts.

        Who asks it for a lock before we listen there cannot queue up, and would have to take chances. They go on in the
        order in which they came.
        """
        async with self._first_calls:
            if not self._has_tried:
                with trio.move_on_after(PATIENCE):
                    await self.control.tried()
            self._has_tried = True
        self.is_new = self._first_calls.locked()

    async def _connect(self) -> Connection:
        address = await self._locate()
        connection = await address.connect(self._prepare)
        self.is_cluster = connection.is_cluster
        if address != self.address:
            self.address = address
            self.link.moved()
            self.control.restart()
        self._found.set()
        return connection

    async def _connect_control(self) -> Connection:
        assert self.address is not None
        return await self.address.connect(self.control.subscribe)

    async def _connect_replication(self) -> Connection:
        assert self.address is not None
        return await self.address.connect(_need_nothing)

    async def _prepare(self, connection: Connection) -> None:
        *_, memory = await connection.ask(*(("SCRIPT", "LOAD", script.text) for script in SCRIPTS), ("INFO", "memory"))
        if self._replication is not None:
            replies = await connection.ask(*NAMES_HISTORY)
            check_rights(replies)
            history = history_in(replies[-1])
            if not history:
                raise redis.exceptions.ConnectionError("it does not name the history that its replicas follow")
            self.link.history = self._replication.begin(history)
        if not self._looked_at_memory:
            self._looked_at_memory = True
            self._check_memory(memory)

    def _compare_history(self, present: bytes, since: float) -> None:
        """Has the server been a replica meanwhile, unnoticed by the link? What it writes now is a new history."""
        if self.link.history is not None and self.link.history.name != present:
            self.link.restart(redis.exceptions.ConnectionError("it was a replica meanwhile"), unless_since=since)

    def _check_memory(self, info: Reply) -> None:
        """Warn of a server that throws away sessions, or locks, when it is short of memory."""
        text = str(info, "utf-8", "replace") if isinstance(info, bytes) else ""  # not everybody may ask
        facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
            logger.warning(
                "%s: its maxmemory-policy is %s: when memory is short it drops sessions of users who are logged in; "
                "with noeviction it refuses new ones instead",
                self.name,
                policy,
            )


async def _need_nothing(_: Connection) -> None:
    await trio.lowlevel.checkpoint()


#: Makes the node with a name that is to be found in a way.
NewNode: TypeAlias = Callable[[str, Locate], Node]
