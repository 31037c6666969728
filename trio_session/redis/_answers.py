"""What the scripts answer, and what it means for a session. Pure."""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from .._errors import CommitUnknownError, EndReason, LockLostError, SessionEndedError, StorageUnavailableError
from ..abc import Loaded
from ._link import Command
from ._resp import Reply

__all__ = ["KIND_OF", "loaded_from", "written"]

_HEADER: Final = 33  # bytes; see scripts/_reading.lua
_END_OF: Final[dict[bytes, EndReason]] = {b"d": "destroyed", b"o": "orphaned", b"r": "replaced", b"": "expired"}
_KINDS: Final = _END_OF.keys() | {b"=", b"?"}  # what a write may find instead of the version it is to replace
#: How scripts are told why a session ends.
KIND_OF: Final[dict[EndReason, str]] = {reason: kind.decode() for kind, reason in _END_OF.items()}


def loaded_from(reply: Reply, *, granted_at: float) -> Loaded:
    """What the scripts have read; scripts/_reading.lua has the format."""
    value, slid = reply if isinstance(reply, list) and len(reply) == 2 else (None, None)
    if not isinstance(value, bytes):
        raise StorageUnavailableError(f"the server's answer makes no sense: {type(reply).__name__}")
    if value[:4] == b"ts1=" and len(value) >= _HEADER:
        return Loaded(value[4:20], value[_HEADER:], None, slid == 1, granted_at)
    if not value:
        return Loaded(granted_at=granted_at)
    if value[:3] == b"ts1" and len(value) >= _HEADER:
        kind = value[3:4]
        if kind in _END_OF:
            return Loaded(ended=_END_OF[kind], granted_at=granted_at)
        if kind == b"?":  # not even a string
            return Loaded(value[4:20], value, granted_at=granted_at)
    # Foreign or newer: the codec will refuse it, but it can be cleared. scripts/_writing.lua names it in the same way.
    return Loaded(sha1(value, usedforsecurity=False).hexdigest().encode(), value, granted_at=granted_at)


def written(command: Command) -> int:
    """What became of a write."""
    match command.reply:
        case 1 | 2 | 3:
            return command.reply
        case _ if command.strayed and command.sends > 1:
            raise CommitUnknownError  # not here; but where it went first it may have landed, and that one may come back
        case 0:
            raise LockLostError
        case -1 if command.sends == 1:
            raise LockLostError
        case bytes(kind) if kind in _KINDS:
            raise SessionEndedError(_END_OF.get(kind, "replaced"))
        case _:
            raise CommitUnknownError
