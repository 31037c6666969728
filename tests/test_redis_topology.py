"""What the kinds of topologies have in common with nobody else: decisions that need no servers."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis.exceptions
import trio

from trio_session import RedisConnection
from trio_session.redis._address import Address, Destination
from trio_session.redis._asking import ask_all
from trio_session.redis._cluster import Cluster, GoneError
from trio_session.redis._connection import RefusedError
from trio_session.redis._slots import SLOTS, SlotTable

DESTINATION = Destination.of(RedisConnection(url="redis+cluster://one,two"))


async def test_one_who_will_not_tell_counts_more_than_those_who_are_away() -> None:
    """That does not change by waiting: whoever asks is to be told at once."""

    async def ask(address: Address) -> None:
        await trio.lowlevel.checkpoint()
        if address.host == "one":
            raise redis.exceptions.ConnectionError("away")
        raise RefusedError("NOPERM")

    with pytest.raises(RefusedError, match=r"^none of 2 says where to go: .*NOPERM"):
        await ask_all(DESTINATION.addresses, ask)


class FakeNode:
    """A node that hears when it is not needed any more."""

    def __init__(self, name: str, locate: object) -> None:
        self.name = name
        self.ended_by: Exception | None = None

    async def run(self) -> None:
        """Never called."""

    def stop(self, reason: Exception) -> None:
        self.ended_by = reason


async def test_a_node_without_slots_is_let_go() -> None:
    """Whoever waits for its answer is sent elsewhere; the others stay connected."""
    cluster = Cluster(DESTINATION, cast("Any", FakeNode), on_move=lambda: None)
    cluster._start = lambda _: None
    one, two = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
    half = SLOTS // 2
    cluster._believe(SlotTable(1, [*[one] * half, *[two] * half], frozenset({one, two})))
    first, second = (cast("Any", cluster._node_at(endpoint)) for endpoint in (one, two))
    cluster._believe(SlotTable(2, [one] * SLOTS, frozenset({one, two})))
    assert cluster.nodes == [first]
    assert first.ended_by is None
    assert isinstance(second.ended_by, GoneError)
