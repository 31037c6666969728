"""What a Redis server says, and what it means for us. Pure: bytes in, values out."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, TypeAlias

import hiredis
import redis.exceptions

__all__ = [
    "NOTHING",
    "Reply",
    "ServerError",
    "Verdict",
    "bulk",
    "in_script",
    "new_reader",
    "pack",
    "to_exception",
    "verdict_on",
]

ServerError = hiredis.ReplyError

#: A reply as RESP2 has it. Errors are values too: a script's answer may be one.
Reply: TypeAlias = "bytes | int | list[Reply] | hiredis.ReplyError | None"

#: What a reader gives when it needs more bytes. Its default, False, is a value in RESP3.
NOTHING: Final = object()


def pack(command: tuple[str | bytes | int, ...]) -> bytes:
    """A command as the server reads it."""
    return hiredis.pack_command(command)  # type: ignore[arg-type, no-any-return]


def bulk(value: bytes | str | int) -> bytes:
    """One part of a command. Who keeps the parts that do not change has a command in a third of the time of `pack`."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def new_reader() -> hiredis.Reader:
    """A parser for one connection."""
    return hiredis.Reader(notEnoughData=NOTHING)


class Verdict(Enum):
    """What an error reply asks of us."""

    LOAD_SCRIPT = "load_script"  # it does not know the script (any more)
    WAIT = "wait"  # it is busy or short of something: it will pass
    RECONNECT = "reconnect"  # it is no primary any more: look for the one that is
    GIVE_UP = "give_up"  # it will say so again


# The words stand at the start of a reply. Redis 6.2 wraps what a script ran into: "ERR Error running script …: -OOM …".
_VERDICTS: Final = {
    "NOSCRIPT": Verdict.LOAD_SCRIPT,
    "LOADING": Verdict.WAIT,
    "BUSY": Verdict.WAIT,
    "TRYAGAIN": Verdict.WAIT,
    "CLUSTERDOWN": Verdict.WAIT,
    "MASTERDOWN": Verdict.WAIT,
    "OOM": Verdict.WAIT,
    "MISCONF": Verdict.WAIT,
    "NOREPLICAS": Verdict.WAIT,
    "READONLY": Verdict.RECONNECT,
}
_EXCEPTIONS: Final[dict[str, type[redis.exceptions.RedisError]]] = {
    "LOADING": redis.exceptions.BusyLoadingError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
    "NOAUTH": redis.exceptions.AuthenticationError,
    "WRONGPASS": redis.exceptions.AuthenticationError,
    "NOPERM": redis.exceptions.NoPermissionError,
}
_find_word = re.compile(rf"(?:^|[\s:]-)({'|'.join(_VERDICTS.keys() | _EXCEPTIONS.keys())})\b").search


def _word(error: ServerError) -> str:
    found = _find_word(str(error))
    return found[1] if found else ""


def verdict_on(error: ServerError) -> Verdict:
    """What to do about an error reply."""
    return _VERDICTS.get(_word(error), Verdict.GIVE_UP)


def in_script(error: ServerError) -> bool:
    """The error came up inside a script. Unless its first write was refused, it may have written before."""
    text = str(error)
    return _word(error) not in _VERDICTS and (" script: " in text or "running script" in text)


def to_exception(error: ServerError) -> redis.exceptions.RedisError:
    """The exception that redis-py would raise."""
    return _EXCEPTIONS.get(_word(error), redis.exceptions.ResponseError)(str(error))
