"""LocalStore: sessions in this process's memory, under the full lock protocol.

Tokens, leases and fencing work as in a remote store: an expired lease is refused at the commit. That makes it the
reference for other stores, and lets the whole protocol be tested on trio's clock.
"""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import ClassVar, Final, final

import trio

from ._errors import EndReason, LockLostError, SessionEndedError
from .abc import TOMBSTONE_LIFETIME, Heir, Lifetime, Loaded, SessionStore

__all__ = ["LocalStore"]

logger = logging.getLogger("trio_session.store")

# Expired records that one operation clears away at most, so that none of them takes long.
_CLEANED_PER_OPERATION: Final = 32


class _Record:
    __slots__ = ("alarm", "blob", "created", "ended", "expires", "slid", "version")

    def __init__(self, created: float) -> None:
        self.created = created
        self.blob: bytes | None = None
        self.version = b""
        self.ended: EndReason | None = None
        self.slid = created  # when the expiry was last slid
        self.expires = inf
        self.alarm = inf  # the time of this record's one valid entry in the heap

    def slide(self, now: float, life: Lifetime) -> None:
        self.slid = now
        self.expires = min(now + life.idle, self.created + life.absolute)


class _Lock:
    """A lease, and the tokens that wait for it. The dict of locks has it iff it is held or waited for."""

    __slots__ = ("expires", "lease", "token", "waiters")

    def __init__(self) -> None:
        self.token: str | None = None
        self.lease = 0.0
        self.expires = -inf
        self.waiters: OrderedDict[str, tuple[trio.Event, float]] = OrderedDict()

    def grant(self, token: str, lease: float, now: float) -> None:
        self.token, self.lease, self.expires = token, lease, now + lease

    def grant_next(self) -> None:
        """Give the lock, which must be free, to whoever waits first."""
        self.token = None
        if self.waiters:
            token, (granted, lease) = self.waiters.popitem(last=False)
            self.grant(token, lease, trio.current_time())
            granted.set()


@final
class LocalStore(SessionStore):
    """Sessions of one process, in memory, on trio's clock.

    The store cleans itself in passing: every operation clears away a few expired records, so it needs no task and no
    timer. It is bounded: past `max_sessions` the record that is nearest to its expiry makes room.

    Args:
        max_sessions: records kept at most. A record takes about half a kilobyte beside its data.
    """

    confinement: ClassVar[str | None] = "sessions live in this process only: serve with one worker process"

    def __init__(self, *, max_sessions: int = 1_048_576) -> None:
        self._max_sessions = max_sessions
        self._records: dict[str, _Record] = {}
        self._locks: dict[str, _Lock] = {}
        self._alarms: list[tuple[float, str]] = []  # a heap; an entry is valid iff it is its record's `alarm`
        self._commits = 0
        self._evicted = False

    def __repr__(self) -> str:
        return f"<LocalStore {len(self._records)} records, {len(self._locks)} locks>"

    # -- reading ---------------------------------------------------------------------------------------------------

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        await trio.lowlevel.checkpoint()
        return self._load(key, life, trio.current_time(), granted_at=0.0)

    def _load(self, key: str, life: Lifetime, now: float, *, granted_at: float) -> Loaded:
        self._clean(now)
        record = self._current(key, now)
        if record is None:
            return Loaded(granted_at=granted_at)
        if record.ended is not None:
            return Loaded(ended=record.ended, granted_at=granted_at)
        slid = now - record.slid >= life.touch_interval
        if slid:
            record.slide(now, life)
            self._set_alarm(key, record)
        return Loaded(record.version, record.blob, slid=slid, granted_at=granted_at)

    def _current(self, key: str, now: float) -> _Record | None:
        record = self._records.get(key)
        return record if record is not None and record.expires > now else None

    # -- locks -----------------------------------------------------------------------------------------------------

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        try:
            await trio.lowlevel.checkpoint()
            while True:
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = _Lock()
                now = trio.current_time()
                if lock.token == token:
                    break  # handed on to us while we waited
                if lock.expires <= now and not lock.waiters:
                    lock.grant(token, lease, now)
                    break
                await self._wait(lock, token, lease)
        except BaseException:
            self.release(key, token)
            raise
        return self._load(key, life, now, granted_at=lock.expires - lease)

    async def _wait(self, lock: _Lock, token: str, lease: float) -> None:
        granted = trio.Event()
        lock.waiters[token] = (granted, lease)  # keeps its place, if it has one
        with trio.move_on_at(lock.expires):  # a holder that died says nothing
            await granted.wait()
        if lock.expires <= trio.current_time():
            lock.grant_next()

    def _holds(self, key: str, token: str, now: float) -> bool:
        lock = self._locks.get(key)
        return lock is not None and lock.token == token and lock.expires > now

    def release(self, key: str, token: str) -> None:
        lock = self._locks.get(key)
        if lock is None:
            return
        if lock.token == token:
            lock.grant_next()
        else:
            lock.waiters.pop(token, None)
        if lock.token is None and not lock.waiters:
            del self._locks[key]

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool]:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        return [self._renew(key, token, lease, now) for key, token in locks]

    def _renew(self, key: str, token: str, lease: float, now: float) -> bool:
        held = self._holds(key, token, now)
        if held:
            self._locks[key].grant(token, lease, now)
        return held

    # -- writing: nothing below awaits between the check and the write ----------------------------------------------

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        self._clean(now)
        record = self._checked(key, token, version, now)
        if record is None:
            record = self._create(key, now)
        self._write(key, record, blob, now, life)
        lock = self._locks[key]
        if heir is not None and not lock.waiters:
            lock.grant(heir.token, lock.lease, now)
            heir.inherit(record.version, None)
        else:
            self.release(key, token)
        return record.version

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        old = self._checked(key, token, version, now)
        self._clean(now)
        record = self._create(new_key, now)
        if old is not None and reason == "replaced":
            record.created = old.created
        self._write(new_key, record, blob, now, life)
        self._bury(key, now, reason)
        self.release(key, token)
        return record.version

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        if not self._holds(key, token, now):
            raise LockLostError("lease_expired")
        self._clean(now)
        record = self._current(key, now)
        if record is not None and record.ended is None:
            self._bury(key, now, reason)
        self.release(key, token)

    def _checked(self, key: str, token: str, version: bytes, now: float) -> _Record | None:
        """The record that may be written now. The fence: who lost the lock, or the record, does not pass."""
        if not self._holds(key, token, now):
            raise LockLostError("lease_expired")
        record = self._current(key, now)
        if record is not None and record.ended is None and record.version == version:
            return record
        if record is None and version == b"":
            return None
        self.release(key, token)
        if record is None:
            raise SessionEndedError("expired")
        raise SessionEndedError(record.ended or "replaced")

    def _write(self, key: str, record: _Record, blob: bytes, now: float, life: Lifetime) -> None:
        self._commits += 1
        record.version = b"%d" % self._commits
        record.blob = blob
        record.slide(now, life)
        self._set_alarm(key, record)

    def _create(self, key: str, now: float) -> _Record:
        self._records.pop(key, None)
        while len(self._records) >= self._max_sessions:
            self._evict_one()
        record = self._records[key] = _Record(now)
        return record

    def _bury(self, key: str, now: float, reason: EndReason) -> None:
        record = self._records[key] = _Record(now)
        record.ended = reason
        record.expires = now + TOMBSTONE_LIFETIME
        self._set_alarm(key, record)

    # -- expiry ----------------------------------------------------------------------------------------------------

    def _set_alarm(self, key: str, record: _Record) -> None:
        """See to it that the heap comes back to this record no later than it expires.

        An entry that comes too early is cheap, it is put off then; so sliding an expiry costs nothing here.
        """
        if record.expires < record.alarm:
            record.alarm = record.expires
            heapq.heappush(self._alarms, (record.expires, key))

    def _clean(self, now: float) -> None:
        """Clear away some expired records."""
        alarms = self._alarms
        for _ in range(_CLEANED_PER_OPERATION):
            if not alarms or alarms[0][0] > now:
                break
            self._heed_alarm(now)

    def _heed_alarm(self, now: float) -> None:
        """Take the first alarm; its record goes if it has expired at `now`, and else has its alarm put off."""
        time, key = heapq.heappop(self._alarms)
        record = self._records.get(key)
        if record is None or record.alarm != time:
            return  # replaced in the meantime
        if record.expires <= now:
            del self._records[key]
            return
        record.alarm = inf
        self._set_alarm(key, record)

    def _evict_one(self) -> None:
        """Make room for one record: the one nearest to its expiry goes."""
        del self._records[self._idlest()]
        if not self._evicted:
            self._evicted = True
            logger.warning("more than max_sessions=%d local sessions: the idlest make room", self._max_sessions)

    def _idlest(self) -> str:
        while self._alarms:
            due, key = self._alarms[0]
            record = self._records.get(key)
            if record is not None and record.alarm == due == record.expires:
                return key
            self._heed_alarm(due)
        return next(iter(self._records))  # nothing here ever expires: the oldest
