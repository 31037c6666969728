"""Counting what is on a server: sessions, their age, their size and their keys of encryption; locks, and who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self, final

from .._encryption import fingerprint_of
from ..redis._connection import Connection
from ..redis._resp import Reply, ServerError, to_exception
from ._keyspace import HEADER, key_of, parse_record, scan

__all__ = ["AGES", "Survey", "survey"]

_STEP: Final = 1000  # keys that the server looks at before others have their turn: about a millisecond
_HEAD: Final = HEADER + 8  # bytes of a value that tell enough

#: Names of ages, and the seconds at which they end.
AGES: Final = {
    "under a minute": 60.0,
    "under an hour": 3600.0,
    "under a day": 86_400.0,
    "under a week": 604_800.0,
    "older": float("inf"),
}


@final
@dataclass(slots=True)
class Survey:
    """What is on a server.

    Attributes:
        server: where.
        sessions: that are alive.
        size: of their records in bytes, headers included; not what the server needs around them.
        largest: of these.
        ages: how many sessions of which age; since they began, not since they were used.
        keys: how many are encrypted with the key of a fingerprint, or are `plain`.
        ended: tombstones, which are there for a minute.
        locks: that are held.
        awaited: sessions whose lock somebody waits for.
        waiting: who wait for one, in all processes.
        others: keys with our prefix that are none of ours.
    """

    server: str
    sessions: int = 0
    size: int = 0
    largest: int = 0
    ages: Counter[str] = field(default_factory=Counter[str])
    keys: Counter[str] = field(default_factory=Counter[str])
    ended: int = 0
    locks: int = 0
    awaited: int = 0
    waiting: int = 0
    others: int = 0

    @classmethod
    def sum(cls, surveys: Iterable[Survey]) -> Self:
        """Of all servers together."""
        total = cls("all")
        for each in surveys:
            for name in ("sessions", "size", "ended", "locks", "awaited", "waiting", "others"):
                setattr(total, name, getattr(total, name) + getattr(each, name))
            total.largest = max(total.largest, each.largest)
            total.ages += each.ages
            total.keys += each.keys
        return total

    def add_record(self, size: int, head: bytes, now: float) -> None:
        """Count a record of so many bytes that begins so. `now` is in seconds since 1970, by the server's clock."""
        record = parse_record(head)
        if record is None:
            self.others += 1
        elif not record.living:
            self.ended += 1
        else:
            self.sessions += 1
            self.size += size
            self.largest = max(self.largest, size)
            self.ages[next(name for name, end in AGES.items() if now - record.created / 1000 < end)] += 1
            self.keys[fingerprint_of(record.blob) or "plain"] += 1


async def survey(
    connection: Connection, server: str, prefix: str, *, report: Callable[[Survey, float], None]
) -> Survey:
    """Go through the keys of a server, a step at a time.

    Args:
        connection: to it, logged in.
        server: its name.
        prefix: of our keys.
        report: called after each step with what was found until now, and how far we have come, from 0 to 1.

    Raises:
        redis.exceptions.RedisError: the server says no.
    """
    found = Survey(server)
    size, time = await connection.ask(("DBSIZE",), ("TIME",))
    total = size if isinstance(size, int) else 0  # not everybody may ask
    now = float(_allowed(time)[0])
    seen = 0
    cursor = b"0"
    while True:
        cursor, names = await scan(connection, prefix, cursor, count=_STEP)
        await _count(connection, names, prefix, found, now)
        seen += _STEP
        if cursor == b"0":
            report(found, 1.0)
            return found
        report(found, min(seen / total, 0.99) if total else 0.0)


async def _count(connection: Connection, names: list[bytes], prefix: str, found: Survey, now: float) -> None:
    records: list[bytes] = []
    queues: list[bytes] = []
    for name in names:
        if key_of(name, prefix) is not None:
            records.append(name)
        elif key_of(name[:-2], prefix) is None or name[-2:] not in {b":l", b":q", b":c"}:
            found.others += 1
        elif name.endswith(b":l"):
            found.locks += 1
        elif name.endswith(b":q"):
            queues.append(name)
    commands: list[tuple[str | bytes | int, ...]] = [("LLEN", name) for name in queues]
    for name in records:
        commands += ("STRLEN", name), ("GETRANGE", name, 0, _HEAD - 1)
    if not commands:
        return
    replies = await connection.ask(*commands)
    for length in replies[: len(queues)]:
        found.awaited += 1
        found.waiting += _allowed(length)
    for size, head in zip(replies[len(queues) :: 2], replies[len(queues) + 1 :: 2], strict=True):
        if _allowed(size):  # else it has ended meanwhile
            found.add_record(_allowed(size), _allowed(head), now)


def _allowed(reply: Reply) -> Any:
    """A reply that is none but what was asked for. Not a key of another type: those are not called like ours."""
    if isinstance(reply, ServerError):
        raise to_exception(reply)
    return reply
