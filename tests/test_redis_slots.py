"""What nodes of a cluster say about its slots, read."""

from __future__ import annotations

import pytest
import redis.exceptions

from trio_session.redis._resp import ServerError
from trio_session.redis._slots import SLOTS, Redirection, SlotTable, slot_of


def test_slots_of_tags() -> None:
    """A tag has the slot that the cluster specification gives to its key."""
    assert slot_of("123456789") == 12739  # the specification's own example: CRC16 is 0x31C3
    assert all(0 <= slot_of(f"{one}{two}") < SLOTS for one in "aZ_-0" for two in "bY9")


def test_a_table() -> None:
    """The first server of each range is its primary; who does not tell his host has the one that was asked."""
    table = SlotTable.of(
        [
            [0, 99, [b"10.0.0.1", 6379, b"id"], [b"10.0.0.2", 6380, b"id", []]],
            [100, 100, [b"", 7000, b"id"], [None, 7001, b"id"], [b"?", 7002, b"id"]],
            b"what",
            [1, 0, [b"10.0.0.3", 1, b"id"]],
            [0, SLOTS, [b"10.0.0.3", 1, b"id"]],
            [5, 6],
        ],
        b"cluster_state:ok\r\ncluster_current_epoch:6\r\n",
        host="asked",
    )
    assert table.epoch == 6
    assert table.owners[:102] == [("10.0.0.1", 6379)] * 100 + [("asked", 7000), None]
    assert len(table.owners) == SLOTS
    assert table.nodes == {
        ("10.0.0.1", 6379),
        ("10.0.0.2", 6380),
        ("asked", 7000),
        ("asked", 7001),
        ("asked", 7002),
    }


def test_a_table_of_one_who_may_not_ask_for_more() -> None:
    """Without the number of the last change, a table counts less than others."""
    assert SlotTable.of([], ServerError("NOPERM"), host="asked").epoch == 0


def test_a_table_that_makes_no_sense() -> None:
    """It is refused."""
    with pytest.raises(redis.exceptions.InvalidResponse, match="without a port"):
        SlotTable.of([[0, 1, b"what"]], b"", host="asked")


@pytest.mark.parametrize(
    ("text", "redirection"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(asking=False, slot=3999, endpoint=("127.0.0.1", 6381))),
        ("ASK 3999 node.example:6381", Redirection(asking=True, slot=3999, endpoint=("node.example", 6381))),
        ("MOVED 1 ::1:6381", Redirection(asking=False, slot=1, endpoint=("::1", 6381))),
        ("MOVED 1 :6381", Redirection(asking=False, slot=1, endpoint=("asked", 6381))),
        ("MOVED 1 ?:6381", Redirection(asking=False, slot=1, endpoint=("asked", 6381))),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED x 127.0.0.1:6381", None),
        ("MOVED 1 127.0.0.1", None),
        ("ERR unknown command", None),
    ],
)
def test_redirections(text: str, redirection: Redirection | None) -> None:
    """Where to go, and whether for good; a port alone is one of the host that was asked."""
    assert Redirection.of(ServerError(text), host="asked") == redirection
