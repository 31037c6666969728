"""One connection: bytes in and out, the log-in, and what a server has to be before we use it."""

from __future__ import annotations

import os
from typing import Final

import hiredis
import redis.exceptions
import trio

from ._resp import NOTHING, Reply, ServerError, Verdict, feed, new_reader, next_reply, pack, to_exception, verdict_on

__all__ = ["LINK_ERRORS", "OLDEST", "Connection", "RefusedError", "log_in"]

_CHUNK: Final = 65_536  # bytes

#: Which version we need.
OLDEST: Final = (6, 2)


class RefusedError(Exception):
    """The server, or its certificate, said no; asking again will not change its mind. `__cause__` says why."""


#: What can happen to a connection, while it is made and afterwards.
LINK_ERRORS: Final = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    redis.exceptions.RedisError,
    hiredis.HiredisError,
    RefusedError,
)


class Connection:
    """A byte stream with a parser of replies.

    Attributes:
        is_cluster: the server is part of one.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.is_cluster = False
        self.reader = new_reader()
        # Of a plain socket, which trio has made non-blocking.
        self._fd = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else None

    async def feed(self) -> None:
        """Wait for bytes from the server and give them to the parser.

        Raises:
            redis.exceptions.ConnectionError: there will be none.
        """
        if self._fd is None:
            data = bytes(await self.stream.receive_some(_CHUNK))
        else:
            # A stream would try first and wait then. Here nothing has arrived yet, as a rule.
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return
        if not data:
            raise redis.exceptions.ConnectionError("the server closed the connection")
        feed(self.reader, data)

    def write_at_once(self, data: bytes) -> int:
        """Write as much as can be written without waiting; how much that was. Nobody may be writing."""
        if self._fd is None:
            return 0
        try:
            return os.write(self._fd, data)
        except OSError:  # full, or broken: whoever writes next and waits will see which
            return 0

    async def ask(self, *commands: tuple[str | bytes | int, ...]) -> list[Reply]:
        """Send commands in one go and collect their replies; only for as long as nobody else uses the connection."""
        await self.stream.send_all(b"".join(map(pack, commands)))
        return [await self.receive() for _ in commands]

    async def receive(self) -> Reply:
        """The next reply.

        Raises:
            redis.exceptions.ConnectionError: there will be none.
        """
        reply: Reply
        while (reply := next_reply(self.reader)) is NOTHING:
            await self.feed()
        return reply


async def log_in(connection: Connection, *, username: str | None, password: str | None, db: int | None) -> None:
    """Say who we are and which database we want, and see what the server is.

    Args:
        connection: a new one.
        username: None is the default user.
        password: None if it needs none.
        db: None if it is to be a Sentinel, which has no databases.

    Raises:
        OSError, trio.BrokenResourceError, redis.exceptions.RedisError, hiredis.HiredisError: it did not work this time.
        RefusedError: it will not work next time either.
    """
    hello: list[str | int] = ["HELLO", 2]
    if username is not None or password is not None:
        hello += ["AUTH", username or "default", password or ""]
    hello += ["SETNAME", f"trio_session-{os.getpid()}"]
    await connection.stream.send_all(pack(tuple(hello)) + (b"" if db is None else pack(("SELECT", db))))
    # First: a server that says no may hang up then.
    connection.is_cluster = _check_greeting(await connection.receive(), wants_sentinel=db is None)
    if db is not None:
        selected = await connection.receive()
        if isinstance(selected, ServerError):
            raise _refusal(selected, f"database {db}: ")


def _refusal(error: ServerError, what: str = "") -> Exception:
    """What an error in the log-in means: that it will pass, or not."""
    reason = to_exception(error)
    if verdict_on(error) is Verdict.WAIT or "max number of clients" in str(error):
        return reason
    said = str(error).partition(", with args")[0]  # which may have the password
    refusal = RefusedError(what + said)
    refusal.__cause__ = type(reason)(said)
    return refusal


def _check_greeting(greeting: Reply, *, wants_sentinel: bool) -> bool:
    """Whether it is part of a cluster."""
    if isinstance(greeting, ServerError):
        raise _refusal(greeting)
    pairs = zip(greeting[::2], greeting[1::2], strict=False) if isinstance(greeting, list) else ()
    said = {name: value for name, value in pairs if isinstance(name, bytes)}
    number = said.get(b"version")
    if not isinstance(number, bytes):
        raise RefusedError("it does not greet as Redis does")
    version = number[:20].decode("ascii", "replace")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if parts < OLDEST:
        raise RefusedError(f"Redis {version} is too old, at least 6.2 is needed")
    mode = said.get(b"mode")
    if (mode == b"sentinel") is not wants_sentinel:
        raise RefusedError(
            "it is no Sentinel" if wants_sentinel else "it is a Sentinel, which redis+sentinel:// is for"
        )
    if mode not in {b"sentinel", b"cluster"} and said.get(b"role") != b"master":  # in a cluster it says who is instead
        raise redis.exceptions.ReadOnlyError("it is a replica, which cannot be written to")
    return mode == b"cluster"
