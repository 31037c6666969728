"""What our keys and records on a server look like from outside, and how to go through them without stopping it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..redis._connection import Connection
from ..redis._resp import ServerError, to_exception

__all__ = ["HEADER", "Record", "key_of", "parse_record", "scan"]

#: Bytes in front of each value: scripts/_reading.lua has the format.
HEADER: Final = 33

_is_key = re.compile(rb"\{([A-Za-z0-9_-]{2})\}(:[A-Za-z0-9_-]{22})").fullmatch


@dataclass(frozen=True, slots=True)
class Record:
    """What can be seen of a record without its codec.

    Attributes:
        created: when, in ms since 1970 by the server's clock; 0 if it does not say.
        living: it is no tombstone.
        blob: what the codec made, or as much as was read of it.
    """

    created: int
    living: bool
    blob: bytes


def key_of(name: bytes, prefix: str) -> str | None:
    """The key of the session whose record has that name; None if it is not one of a record."""
    found = _is_key(name.removeprefix(f"{prefix}:".encode()))
    return None if found is None else (found[1] + found[2]).decode()


def parse_record(value: bytes) -> Record | None:
    """What a value says of itself; None if it is not one of ours."""
    if value[:3] != b"ts1" or value[3:4] not in {b"=", b"d", b"o", b"r"} or len(value) < HEADER:
        return None
    created = value[20:HEADER]
    return Record(int(created) if created.isdigit() else 0, value[3:4] == b"=", value[HEADER:])


async def scan(connection: Connection, prefix: str, cursor: bytes, *, count: int) -> tuple[bytes, list[bytes]]:
    """A step through the keys of a prefix: from `cursor`, at first `b"0"`, to the one that is returned with the keys.

    When that is `b"0"` again, every key that was there all the time has come at least once. The server looks at
    `count` keys and then lets others have their turn, where KEYS would stop it until it has gone through everything.

    Raises:
        redis.exceptions.RedisError: the server says no.
    """
    pattern = re.sub(r"([\\*?\[\]^])", r"\\\1", prefix) + ":*"
    (reply,) = await connection.ask(("SCAN", cursor, "MATCH", pattern, "COUNT", count))
    if isinstance(reply, ServerError):
        raise to_exception(reply)
    assert isinstance(reply, list)
    following, names = reply
    assert isinstance(following, bytes)
    assert isinstance(names, list)
    return following, [name for name in names if isinstance(name, bytes)]
