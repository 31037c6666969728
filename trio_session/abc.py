"""The contracts: what a store and a codec must do, and what an instrument is told. Their rules are their docstrings.

A store knows keys, bytes, tokens and seconds. It never sees a Session, an id or a value. Lock and data
live behind one protocol because only then can the write itself check that the lock is still held
(fencing); kept apart, nobody can.
`trio_session.testing.check_store` tests every promise made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from ._errors import EndReason

__all__ = [
    "TOMBSTONE_LIFETIME",
    "Codec",
    "Heir",
    "Lifetime",
    "Loaded",
    "SessionEvent",
    "SessionInstrument",
    "SessionStore",
]

#: How long an ended session's key answers "ended" instead of "unknown". It must outlast the slowest request
#: that can still be running with the old id.
TOMBSTONE_LIFETIME = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long records live. All in seconds; `math.inf` means for ever.

    Attributes:
        idle: a record expires this long after its expiry was last slid.
        absolute: and in any case this long after it was created; a new id does not restart it.
        touch_interval: reads slide the expiry only if the last slide is at least this long ago.
    """

    idle: float
    absolute: float = inf
    touch_interval: float = 0.0


@dataclass(slots=True)  # frozen in spirit: enforced, it would take twice as long to make, and each cycle makes three
class Loaded:
    """What a store knows under a key.

    Attributes:
        version: names the commit that wrote the record; `b""` if there is no living record.
        blob: the record's bytes; None if there is no living record.
        ended: why the session under this key ended, for as long as its tombstone lasts.
        slid: this call has slid the record's expiry.
        granted_at: trio time at or before which the lease began, if the call was `acquire`: when the
            request that was granted was sent, as the reply may have been slow.
    """

    version: bytes = b""
    blob: bytes | None = None
    ended: EndReason | None = None
    slid: bool = False
    granted_at: float = 0.0


@dataclass(slots=True)
class Heir:
    """The next task in the caller's own queue, which a commit may leave the lock to.

    Attributes:
        token: with which it would otherwise ask for the lock.
        inherit: to be called with the new version if it has the lock; as soon as that is known, so that it need not
            wait for the caller to go on, and not once the caller has been cancelled. Does not raise. The other
            argument, if it is not None, is called in the heir's task when that begins to run; or at once, if the heir
            waits no longer.
    """

    token: str
    inherit: Callable[[bytes, Callable[[], None] | None], None]


class SessionStore(ABC):
    """Records and their locks.

    Keys are short ASCII strings; blobs are opaque. A token names one acquisition of one lock and is never
    used again, so a store can safely repeat a request of its own with the same token after a lost reply. Its last
    eight characters count; what stands before them names the caller, who asks once at a time for a key.

    A lock is a lease: it ends by itself `lease` seconds after it was granted or last renewed. Whoever holds
    it is known by the token alone. `commit`, `rotate` and `destroy` check the token and write in one
    indivisible step, so a holder whose lease ended can never overwrite another's commit.

    Every async method raises `StorageUnavailableError` if the store cannot be reached; nothing was written
    then. `load`, `acquire` and `renew` are checkpoints, and cancelling them leaves nothing behind. The three
    writing methods are called inside a shielded scope with a deadline, and need not let other tasks run:
    they should come to a definite answer before it, as being cancelled there means that the outcome is unknown.
    """

    #: One sentence for the log at start if sessions are confined to this process, else None.
    confinement: ClassVar[str | None] = None
    #: There is more to wait for after a write: whoever has written calls `confirm`.
    confirms: bool = False

    @abstractmethod
    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        """Read a record without its lock, sliding its expiry at most once per `life.touch_interval`."""

    @abstractmethod
    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        """Wait for the lock, first come first served, and return the record as of the grant.

        Slides the expiry as `load` does. Waiting has no bound of its own: callers bring a deadline. If the
        call ends in any exception, the token holds nothing and waits for nothing.
        """

    @abstractmethod
    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        """Replace the record that `version` names (`b""`: create it) by `blob`, and give up the lock.

        The expiry starts anew. A store may leave the lock to `heir`, with a full lease, unless others wait who
        should be served first. Returns the new version.

        Raises:
            LockLostError: the token does not hold the lock; nothing was written.
            SessionEndedError: the lock is held, but the record is not the one `version` names. The lock is
                given up, nothing was written.
            CommitUnknownError: the store went away in mid-commit and cannot be asked.
        """

    @abstractmethod
    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        """Move the record to `new_key` with the content `blob`, and give up the lock; one step.

        The absolute lifetime goes on if `reason` is `replaced` and starts anew otherwise. `key` becomes a
        tombstone with `reason`. Returns the new version. Raises as `commit` does.
        """

    @abstractmethod
    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        """Remove the record, leave a tombstone with `reason`, and give up the lock; one step.

        Without a record nothing is removed and no tombstone is left. Raises as `commit` does, but never
        `SessionEndedError`: what is gone is gone.
        """

    async def confirm(self, key: str, token: str) -> None:  # noqa: B027 - most stores have nothing to add
        """Wait until what `token` has written would survive the loss of the server that has it.

        Called once after each of the three writing methods that succeeded, if the store `confirms`; in a shielded
        scope with a deadline, as they are. Being cancelled there means that it was not confirmed in time. The write
        stands in any case, and the lock is somebody else's by now.

        Raises:
            CommittedNotReplicatedError: nobody will be able to say so.
        """

    @abstractmethod
    def release(self, key: str, token: str) -> None:
        """Give up the lock, or the place in its queue, without a change.

        Synchronous, so that it works in a cancelled task: it never blocks and never fails. A remote store
        queues the message and sees to it in its own time; should it get lost, the lease bounds the damage.
        A token that holds nothing is ignored.
        """

    @abstractmethod
    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> Sequence[bool | None]:
        """Extend the leases of `(key, token)` pairs to `lease` seconds from now; which ones are still held?

        None is for those that cannot be asked about right now, while others can: a store may have many servers.
        """


class Codec(ABC):
    """Turns a session's data into bytes and back.

    Encoding must be deterministic, equal data giving equal bytes: that is how changes are found.
    """

    @abstractmethod
    def encode(self, data: dict[str, Any], *, context: bytes) -> bytes:
        """Encode `data`. `context` names the record, for authenticated encryption.

        Raises:
            TypeError: a value cannot be kept exactly; the message names its key, never the value.
        """

    @abstractmethod
    def decode(self, blob: bytes, *, context: bytes) -> dict[str, Any]:
        """Decode what `encode` made.

        Raises:
            SessionDataError: the bytes are damaged, foreign, or from a newer version.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """What an instrument is told. No id, no key and no value is in it, so it may go to any log.

    Attributes:
        session: a tag, 12 hexadecimal digits: the same for the same session in every process, and of no use to
            anybody who would like to be that visitor.
        lock: a number; of one manager's events, those of one lock, from being asked for to being released, have the
            same.
        waited: seconds from asking for the lock to having it; while it is waited for, so far.
        held: seconds since then; 0.0 while it is waited for.
        reason: see each hook; None where there is none.
        new_session: the tag a moved session has from now on; else None.
    """

    session: str
    lock: int
    waited: float = 0.0
    held: float = 0.0
    reason: str | None = None
    new_session: str | None = None


class SessionInstrument:
    """Is told what sessions do, for metrics, traces and pictures. Override the hooks you need; they do nothing here.

        class Waits(SessionInstrument):
            def lock_acquired(self, event: SessionEvent) -> None:
                print(f"session {event.session} waited {event.waited:.3f} s")

        app = App(instruments=[Waits()])

    What Trio's own instruments are to tasks. A hook is called when the thing happens, so it must be quick and must not
    wait; and in the context (the context variables) of the task concerned, even if it is a task of the library's that
    noticed. One that raises is logged once, and its instrument is told nothing more: it can never disturb a lock.

    A lock is `lock_requested`, and then either `lock_abandoned` or `lock_acquired`. What was acquired is
    `session_committed` or `session_rolled_back`, and `lock_released`. In between it may be `lock_lost`: then others may
    have it before the holder notices and is rolled back. A lock that proved useless, as its session had ended
    while it was waited for, is released without either; and sessions that expire do so in silence.
    """

    __slots__ = ()

    def lock_requested(self, event: SessionEvent) -> None:
        """A task asks for the lock, and may have to wait."""

    def lock_acquired(self, event: SessionEvent) -> None:
        """It has the lock, and the newest data."""

    def lock_abandoned(self, event: SessionEvent) -> None:
        """It will not have the lock.

        `reason`: `timeout` (`lock_timeout`, or a deadline of the caller's), `cancelled`, `busy` (`max_waiters`),
        `deadlock`, `unavailable` (the store), `unwanted` (the request ended, or another task of it changed the
        id), or `failed`.
        """

    def session_committed(self, event: SessionEvent) -> None:
        """The holder's changes are stored; or there were none, and nothing was written. Replicas come later."""

    def session_rolled_back(self, event: SessionEvent) -> None:
        """The holder is done, and its changes are dropped.

        `reason`: None if the program wanted it so, by an exception or a cancellation, say; `lease_expired`,
        `hold_limit` or `request_ended` if the lock was lost. If it is the commit that failed: `ended` (the session
        was destroyed or replaced), `unavailable` (the store), `unknown` (the store went away in mid-commit; alone
        among these it may have been written), or `failed`.
        """

    def lock_lost(self, event: SessionEvent) -> None:
        """The lock is gone while it was held. `reason`: `lease_expired` or `hold_limit`."""

    def lock_released(self, event: SessionEvent) -> None:
        """Others can have it. With an inheritance, the next task in this process already has."""

    def session_created(self, event: SessionEvent) -> None:
        """A commit has stored a session that was not there before."""

    def session_moved(self, event: SessionEvent) -> None:
        """A commit has given it a new id, as at a login; from now on it is `new_session`."""

    def session_destroyed(self, event: SessionEvent) -> None:
        """A commit has destroyed it, as at a logout. `reason`: `destroyed` or `orphaned` (the browser was not told)."""
