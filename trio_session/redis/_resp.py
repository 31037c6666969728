"""What a Redis server says, and what it means for us. Pure: bytes in, values out."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final, TypeAlias

import hiredis
import redis.exceptions

__all__ = [
    "NOTHING",
    "Reply",
    "ServerError",
    "Verdict",
    "bulk",
    "feed",
    "in_script",
    "new_reader",
    "next_reply",
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


# hiredis makes room for as many elements as a reply announces, and takes seconds to give it back.
_is_endless: Final = re.compile(rb"[*~%>|][0-9]{7}").match


def feed(reader: hiredis.Reader, data: bytes) -> None:
    """Give bytes to a parser.

    Raises:
        hiredis.ProtocolError: they begin a reply of a million elements or more.
    """
    if _is_endless(data) and not reader.has_data():
        raise hiredis.ProtocolError("a reply without end")
    reader.feed(data)


_REPLIES: Final = frozenset({bytes, int, list, type(None), ServerError, type(NOTHING)})


def next_reply(reader: hiredis.Reader) -> Any:
    """The next `Reply`, or `NOTHING`.

    Raises:
        hiredis.ProtocolError: a server that we have greeted as Redis does not say that.
    """
    try:
        reply = reader.gets()
    except (MemoryError, TypeError) as error:  # a length that no server means; a dict of RESP3 whose key is a list
        raise hiredis.ProtocolError("a reply that cannot be") from error
    if type(reply) not in _REPLIES:
        # RESP3, which was not asked for. What it pushes is no reply at all: all that follow would miss their callers.
        raise hiredis.ProtocolError(f"a reply of RESP3: {type(reply).__name__}")
    return reply


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
    if "non local key" in str(error):
        return Verdict.WAIT  # a cluster: its slot is on the move, and the script has used up a key meanwhile
    return _VERDICTS.get(_word(error), Verdict.GIVE_UP)


def in_script(error: ServerError) -> bool:
    """The error came up inside a script. Unless its first write was refused, it may have written before."""
    text = str(error)
    return _word(error) not in _VERDICTS and (" script: " in text or "running script" in text)


def to_exception(error: ServerError) -> redis.exceptions.RedisError:
    """The exception that redis-py would raise."""
    return _EXCEPTIONS.get(_word(error), redis.exceptions.ResponseError)(str(error))
