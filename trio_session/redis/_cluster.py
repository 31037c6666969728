"""A cluster: each of its primaries has some of the slots, and who has which changes while we look."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import shuffle, uniform
from typing import Final, NoReturn

import redis.exceptions
import trio

from .._errors import StorageUnavailableError
from .._tasks import StartService
from ._address import Address, Destination
from ._asking import ask_all, ask_once
from ._connection import LINK_ERRORS, RefusedError
from ._link import Command
from ._node import NewNode, Node
from ._resp import ServerError
from ._scripts import Script
from ._slots import SLOTS, Endpoint, Redirection, SlotTable, slot_of
from ._supervisor import PATIENCE, describe
from ._topology import Topology

__all__ = ["Cluster", "locate_primaries"]

logger = logging.getLogger("trio_session.redis")

# So many nodes are asked who has which slots; the one that knows of the latest change is believed.
_WITNESSES: Final = 3
# While a node is away, its replica may take its place at any time, and nobody tells. So we ask that often.
_RECHECK: Final = (0.2, 0.4)  # seconds


class GoneError(redis.exceptions.ConnectionError):
    """This node has no slots any more; whatever was asked of it is to be asked of others."""


class Cluster(Topology):
    """Many primaries; connections to each are made when it is first needed.

    Args:
        on_move: called when keys may have got another node.
    """

    def __init__(self, destination: Destination, new_node: NewNode, on_move: Callable[[], None]) -> None:
        super().__init__(str(destination))
        self._data = destination.data
        self._seeds = [(address.host, address.port) for address in destination.addresses]
        self._new_node = new_node
        self._on_move = on_move
        self._table = SlotTable(0, [None] * SLOTS, frozenset())
        self._by_endpoint: dict[Endpoint, Node] = {}
        self._doubted = trio.Event()  # the table may be out of date

    async def open(self, start: StartService) -> None:
        self._start = start
        gives_up_at = trio.current_time() + PATIENCE
        while True:
            try:
                await self._look()
                break
            except LINK_ERRORS as error:
                if isinstance(error, RefusedError) or trio.current_time() >= gives_up_at:
                    raise StorageUnavailableError(f"{self.name}: {describe(error)}") from error
                await trio.sleep(uniform(*_RECHECK))
        start(self._keep_looking)

    # -- who has what -------------------------------------------------------------------------------------------------

    def _find(self, tag: str) -> Node:
        endpoint = self._table.owners[slot_of(tag)]
        if endpoint is None:  # anybody else can say so, and the server's words are better than ours
            endpoint = next((owner for owner in self._table.owners if owner is not None), self._seeds[0])
        return self._node_at(endpoint)

    def _node_at(self, endpoint: Endpoint) -> Node:
        node = self._by_endpoint.get(endpoint)
        if node is None:
            address = self._data.at(*endpoint)
            node = self._by_endpoint[endpoint] = self._new_node(str(address), partial(self._locate, address))
            self.nodes = list(self._by_endpoint.values())
            self._start(node.run)
        return node

    async def _locate(self, address: Address) -> Address:
        self._doubted.set()  # it is new to us, or was lost: then another one may have taken its place
        return address

    async def _keep_looking(self) -> NoReturn:
        while True:
            await self._doubted.wait()
            self._doubted = trio.Event()
            try:
                await self._look()
            except LINK_ERRORS as error:
                logger.info("%s: nobody says who has which slots: %s", self.name, describe(error))
            await trio.sleep(uniform(*_RECHECK))
            if not all(node.link.is_up for node in self.nodes):
                self._doubted.set()

    async def _look(self) -> None:
        """Find out who has which slots."""
        endpoints = list(self._table.nodes.union(self._seeds))
        shuffle(endpoints)
        while True:
            witnesses = [self._data.at(*endpoints.pop()) for _ in range(min(_WITNESSES, len(endpoints)))]
            try:
                tables = await ask_all(witnesses, _ask)
            except LINK_ERRORS:
                if not endpoints:
                    raise
            else:
                self._believe(max(tables, key=lambda table: table.epoch))
                return

    def _believe(self, table: SlotTable) -> None:
        if table.owners == self._table.owners:
            return
        self._table = table
        for endpoint in self._by_endpoint.keys() - set(table.owners):
            node = self._by_endpoint.pop(endpoint)
            node.stop(GoneError(f"{node.name} has no slots any more"))
        self.nodes = list(self._by_endpoint.values())
        self._moved()

    def _moved(self) -> None:
        self.routes.clear()
        self._on_move()

    # -- where nodes send us ------------------------------------------------------------------------------------------

    def _redirect(self, node: Node, error: ServerError) -> tuple[Node, bool] | None:
        if str(error).startswith("CLUSTERDOWN"):
            self._doubted.set()
            return None
        assert node.address is not None
        redirection = Redirection.of(error, host=node.address.host)
        if redirection is None:
            return None
        if not redirection.asking and self._table.owners[redirection.slot] != redirection.endpoint:
            self._table.owners[redirection.slot] = redirection.endpoint
            self._doubted.set()
            self._moved()
        return self._node_at(redirection.endpoint), redirection.asking

    def _elsewhere(self, key: str, failure: Exception) -> Node | None:
        return self.routes[key[:2]] if isinstance(failure, GoneError) else None

    def _see_to_it(self, key: str, node: Node, script: Script, payload: bytes, command: Command) -> None:
        async def persist() -> None:
            with suppress(StorageUnavailableError):
                await self.persist(key, node, script, payload, command)

        self._start(persist)


async def locate_primaries(destination: Destination) -> list[Address]:
    """All primaries that have slots.

    Raises:
        redis.exceptions.ConnectionError: nobody can be asked right now.
        RefusedError: we may not ask, or it is no cluster.
    """
    table = max(await ask_all(destination.addresses, _ask), key=lambda table: table.epoch)
    return [destination.data.at(*endpoint) for endpoint in sorted(set(table.owners) - {None})]  # type: ignore[misc,type-var]


async def _ask(address: Address) -> SlotTable:
    slots, info = await ask_once(address, ("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"))
    if not isinstance(slots, list):
        raise RefusedError(str(slots))
    return SlotTable.of(slots, info, host=address.host)
