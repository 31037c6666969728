"""Every error this library raises, and whose fault each one is.

    SessionError                    the world failed; trying again may help
    ├── StorageUnavailableError     the store cannot be reached, or refuses to work
    ├── LockTimeoutError            somebody else held the session for too long (also trio.TooSlowError)
    ├── LockLostError               we held the lock and lost it; nothing was written
    ├── SessionBusyError            too many tasks of this process already wait for this session
    ├── CommitUnknownError          the store went away in mid-commit; it may have been written
    ├── CommittedNotReplicatedError it was written, and its replicas did not say so in time (`durability`)
    ├── SessionEndedError           the session was destroyed, replaced or expired; nothing was written
    ├── SessionDataError            the stored bytes cannot be decoded
    └── SessionTooLargeError        the data would not fit into a record
    SessionStateError(RuntimeError) the program is wrong; trying again does not help
    ├── SessionNotReadError         data was asked for before it was read
    ├── SessionNotLockedError       data was changed without holding the lock
    └── SessionFinishedError        too late: the response has started, or the request or the manager is over
    ConfigError(ValueError)         a setting is wrong

Messages carry no session ids, no values and no passwords: they end up in logs.
"""

from __future__ import annotations

from typing import Literal

import trio

#: Why a session is no more. ``orphaned`` is ``destroyed`` when the browser could not be told at once,
#: because the response had already started.
EndReason = Literal["destroyed", "orphaned", "replaced", "expired"]

#: Why a lock was lost: its lease ran out or was taken over, the body ran longer than
#: ``lock_hold_limit``, or the request that owned the session ended.
LossReason = Literal["lease_expired", "hold_limit", "request_ended"]

#: Why nobody can say that replicas have a commit: not enough of them said so in time, or the server that has taken it
#: did not stay the primary until they had.
DoubtReason = Literal["timeout", "primary_lost"]

_LOSS_TEXT: dict[LossReason, str] = {
    "lease_expired": "its lease ran out before it could be renewed",
    "hold_limit": "it was held longer than lock_hold_limit",
    "request_ended": "the request or manager it belonged to ended",
}


_DOUBT_TEXT: dict[DoubtReason, str] = {
    "timeout": "not enough replicas confirmed it in time: should its server die now, it is lost",
    "primary_lost": "its server did not stay the primary until replicas had confirmed it: it may be lost",
}


class SessionError(Exception):
    """Something outside the program went wrong. Never raised itself, only its kinds are."""


class StorageUnavailableError(SessionError):
    """The store cannot be reached or refuses to work; nothing was written. `__cause__` says why."""


class LockTimeoutError(SessionError, trio.TooSlowError):
    """The lock could not be had in time. Nobody is at fault: the session is simply in use.

    Attributes:
        timeout: how long was waited, in seconds.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(f"the session's lock was not free within {timeout:g} s")
        self.timeout = timeout


class LockLostError(SessionError):
    """The lock was lost while it was held: the body was cancelled and nothing was written.

    Attributes:
        reason: `lease_expired`, `hold_limit` or `request_ended`.
    """

    def __init__(self, reason: LossReason = "lease_expired") -> None:
        super().__init__(f"the session's lock was lost, {_LOSS_TEXT[reason]}; nothing was written")
        self.reason: LossReason = reason


class SessionBusyError(SessionError):
    """`max_waiters` tasks of this process already wait for this session's lock.

    Attributes:
        max_waiters: the configured bound.
    """

    def __init__(self, max_waiters: int) -> None:
        super().__init__(f"{max_waiters} tasks already wait for this session's lock (max_waiters)")
        self.max_waiters = max_waiters


class CommitUnknownError(SessionError):
    """The store went away in mid-commit, and nobody else can tell: the change may or may not be there.

    Not a `LockLostError`: that one promises that nothing was written.
    """

    def __init__(self) -> None:
        super().__init__("the store went away in mid-commit; it may or may not have been written")


class CommittedNotReplicatedError(SessionError):
    """The change is written, and others can see it; but not as many replicas as `durability` asks for have said so.

    The session has committed, its lock is free, and a new id's cookie goes out as ever. Only, should the server that
    has the change die right now, it may be gone. Do not make the change again: it is most likely there. Not a
    `CommitUnknownError`: that one does not know whether it was written.

    Attributes:
        reason: `timeout` (not enough replicas said so within `commit_timeout`) or `primary_lost` (the server that has
            taken it did not stay the primary until they had: the next one may know the change, or not).
    """

    def __init__(self, reason: DoubtReason = "timeout") -> None:
        super().__init__(f"the change is written, but {_DOUBT_TEXT[reason]}")
        self.reason: DoubtReason = reason


class SessionEndedError(SessionError):
    """The session was ended by somebody else; the change was not written and never will be.

    Attributes:
        reason: `destroyed` (a logout), `orphaned` (the same, but the browser was not told),
            `replaced` (a new id was issued, as at a login) or `expired`.
    """

    def __init__(self, reason: EndReason) -> None:
        text = "destroyed" if reason == "orphaned" else reason
        super().__init__(f"the session was {text} in the meantime; nothing was written")
        self.reason: EndReason = reason


class SessionDataError(SessionError):
    """The stored bytes cannot be decoded: damaged, foreign or newer. `clear()` still works."""


class SessionTooLargeError(SessionError):
    """The encoded session is larger than `max_size`; nothing was written.

    Attributes:
        size: encoded size in bytes.
        max_size: the configured bound in bytes.
    """

    def __init__(self, size: int, max_size: int) -> None:
        super().__init__(f"the session encodes to {size} bytes, more than max_size={max_size}; nothing was written")
        self.size = size
        self.max_size = max_size


class SessionStateError(RuntimeError):
    """The program uses the session wrongly; the message shows the fix."""


class SessionNotReadError(SessionStateError):
    """Data was asked for, but the session has not been read in this request."""


class SessionNotLockedError(SessionStateError):
    """A change was made, or a lock was ended, by a task that does not hold the lock."""


class SessionFinishedError(SessionStateError):
    """Too late: the response has started and needs a new cookie, or the request or manager is over."""


class ConfigError(ValueError):
    """A setting is wrong; the message names it."""
