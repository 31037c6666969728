"""What a store says to the server, ready to be sent. Pure: keys, tokens and durations in, bytes out.

A command is put together of parts that are kept. That takes a third of the time it would take to encode it anew.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha1
from typing import Final

from .._errors import EndReason
from ..abc import Lifetime
from ._answers import KIND_OF
from ._resp import bulk
from ._scripts import ACQUIRE, COMMIT, DESTROY, LOAD, RELEASE, RENEW, ROTATE

__all__ = ["GRACE_PERIOD", "Requests", "commit_id", "inheritance"]

#: A process that was offered a lock has so long to claim it.
GRACE_PERIOD: Final = 1.0  # seconds; _HAND_OVER_GRACE in _config
_GRACE: Final = bulk(round(GRACE_PERIOD * 1000))
# A queue that nobody asks about any more disappears.
_QUEUE_LIFE: Final = bulk(30_000)  # ms
_NO_QUEUE: Final = bulk(0)
_NO_HEIR: Final = bulk("") + bulk(0) + bulk(0)

# What is different each time, in one go.
_BULK: Final = b"$%d\r\n%b\r\n"
_WRITE: Final = _BULK + _GRACE + _BULK * 3

# The beginnings of so many sessions' commands are kept.
_MOST_NAMES: Final = 1024

# Of braces, which a record's name has and its key has not.
_UNTAGGED: Final = str.maketrans("", "", "{}")


class _Starts:
    """How commands for a session begin: which script, and what its keys are called."""

    __slots__ = ("acquire", "all", "commit", "load", "lock", "record", "three")

    def __init__(self, record: str) -> None:
        self.record = bulk(record)
        self.lock = bulk(f"{record}:l")
        self.three = self.record + self.lock + bulk(f"{record}:q")
        self.all = self.three + bulk(f"{record}:c")
        # The others are rare enough to be put together when they are needed.
        self.load = LOAD.start + self.record
        self.acquire = ACQUIRE.start + self.three
        self.commit = COMMIT.start + self.all


class Requests:
    """The commands of one store. `who` is always the name of a process, followed by a token.

    Args:
        prefix: all keys begin with it and a colon.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._starts = lru_cache(_MOST_NAMES)(self._new_starts)
        self._life: Lifetime | None = None
        self._life_of_reads = self._life_of_writes = b""

    # -- names --------------------------------------------------------------------------------------------------------

    def key_of(self, record: str) -> str:
        """The session's key, given what its record is called."""
        return record.removeprefix(f"{self._prefix}:").translate(_UNTAGGED)

    def channel(self, process: str) -> str:
        """On which a process hears of locks."""
        return f"{self._prefix}:p:{process}"

    def mark(self, key: str) -> str:
        """A key in the same slot that belongs to no session."""
        return f"{self._prefix}:{{{key[:2]}}}:w"

    def _new_starts(self, key: str) -> _Starts:
        return _Starts(f"{self._prefix}:{{{key[:2]}}}{key[2:]}")

    # -- commands -----------------------------------------------------------------------------------------------------

    def load(self, key: str, life: Lifetime) -> bytes:
        """Ask for a record."""
        if life is not self._life:
            self._prepare(life)
        return self._starts(key).load + self._life_of_reads

    def acquire(self, key: str, who: str, lease: float, life: Lifetime, *, is_queued: bool) -> bytes:
        """Ask for a lock, and for a place in its queue."""
        if life is not self._life:
            self._prepare(life)
        name = who.encode()
        terms = _acquire_terms(lease, self._life_of_reads, is_queued=is_queued)
        return b"".join((self._starts(key).acquire, _BULK % (len(name), name), terms))

    def commit(
        self,
        key: str,
        who: str,
        version: bytes,
        id: bytes,
        blob: bytes,
        life: Lifetime,
        inheritance: bytes = _NO_HEIR,
    ) -> bytes:
        """Write a record, and end the lock; `inheritance` is for whom it is."""
        if life is not self._life:
            self._prepare(life)
        name = who.encode()
        parts = (
            self._starts(key).commit,
            _WRITE % (len(name), name, len(version), version, len(id), id, len(blob), blob),
            self._life_of_writes,
            inheritance,
        )
        return b"".join(parts)

    def rotate(
        self,
        key: str,
        who: str,
        version: bytes,
        id: bytes,
        new_key: str,
        blob: bytes,
        life: Lifetime,
        reason: EndReason,
    ) -> bytes:
        """Move a record, and end the lock."""
        self._prepare(life)
        name = who.encode()
        parts = (
            ROTATE.start,
            self._starts(key).all,
            self._starts(new_key).record,
            _WRITE % (len(name), name, len(version), version, len(id), id, len(blob), blob),
            self._life_of_writes,
            bulk(KIND_OF[reason]),
        )
        return b"".join(parts)

    def destroy(self, key: str, who: str, id: bytes, reason: EndReason) -> bytes:
        """Remove a record, and end the lock."""
        return b"".join((DESTROY.start, self._starts(key).all, bulk(who), _GRACE, bulk(id), bulk(KIND_OF[reason])))

    def release(self, key: str, who: str) -> bytes:
        """End a lock, or leave its queue."""
        return RELEASE.start + self._starts(key).three + bulk(who) + _GRACE

    def renew(self, key: str, who: str, lease: float) -> bytes:
        """Extend a lease."""
        return RENEW.start + self._starts(key).lock + bulk(who) + bulk(_ms(lease))

    def _prepare(self, life: Lifetime) -> None:
        # As a rule it never changes.
        self._life = life
        self._life_of_writes = bulk(_ms(life.idle)) + bulk(_ms(life.absolute))
        self._life_of_reads = self._life_of_writes + bulk(_ms(life.touch_interval))


def inheritance(who: str, lease: float, *, may_go_on: bool) -> bytes:
    """Who is to have the lock after a commit.

    Args:
        who: the heir.
        lease: the heir's, in seconds.
        may_go_on: also if others wait.
    """
    return bulk(who) + _heirs_terms(lease, may_go_on=may_go_on)


def commit_id(token: str) -> bytes:
    """The name of the commit that ends an acquisition, and of the version it makes: 8 bytes of caller, 8 of number."""
    return _caller_id(token[:-8]) + token[-8:].rjust(8).encode()


@lru_cache(maxsize=64)
def _caller_id(caller: str) -> bytes:
    return sha1(caller.encode(), usedforsecurity=False).digest()[:8]


@lru_cache(maxsize=64)
def _acquire_terms(lease: float, life: bytes, *, is_queued: bool) -> bytes:
    return bulk(_ms(lease)) + _GRACE + (_QUEUE_LIFE if is_queued else _NO_QUEUE) + life


@lru_cache(maxsize=64)
def _heirs_terms(lease: float, *, may_go_on: bool) -> bytes:
    return bulk(_ms(lease)) + bulk(int(may_go_on))


@lru_cache(maxsize=64)
def _ms(seconds: float) -> bytes:
    """For the scripts; -1 is for ever, and so is what no clock of theirs can hold."""
    return b"%d" % round(seconds * 1000) if seconds < 1e11 else b"-1"
