"""The topology that a destination means, or turns out to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import redis.exceptions

from .._errors import ConfigError
from .._tasks import StartService
from ._address import Destination
from ._cluster import Cluster
from ._node import NewNode
from ._sentinel import Sentinels
from ._topology import OneServer, Topology

__all__ = ["open_topology"]


async def open_topology(
    destination: Destination, new_node: NewNode, on_move: Callable[[], None], start: StartService
) -> Topology:
    """Connect, for as long as `start` keeps its tasks.

    Args:
        destination: where to.
        new_node: makes nodes.
        on_move: called when keys may have got another node.
        start: starts service tasks.

    Raises:
        StorageUnavailableError: there is no connection.
        ConfigError: the server is part of a cluster, but cannot be treated so.
    """
    if destination.kind == "cluster":
        cluster = Cluster(destination, new_node, on_move)
        await cluster.open(start)
        return cluster
    if destination.kind == "sentinel":
        sentinels = Sentinels(destination, new_node)
        await sentinels.open(start)
        return sentinels
    node = new_node(str(destination), destination.data.located)
    server = OneServer(node)
    await server.open(start)
    if not node.is_cluster:
        return server
    if destination.data.stream is not None:
        raise ConfigError("open_stream is for one server, and this one is part of a cluster")
    node.stop(redis.exceptions.ConnectionError("it is part of a cluster"))
    return await open_topology(replace(destination, kind="cluster"), new_node, on_move, start)
