"""How to get to a server: address, TLS, log-in; and what it has to be before we use it."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import hiredis
import redis.exceptions
import trio
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from .._config import RedisConnection
from .._errors import ConfigError
from ._resp import NOTHING, Reply, ServerError, Verdict, feed, new_reader, next_reply, pack, to_exception, verdict_on

__all__ = ["CONNECT_TIMEOUT", "LINK_ERRORS", "OLDEST", "Address", "Connection", "OpenStream", "Prepare", "RefusedError"]

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]

# How long a connection, with TLS and log-in, may take.
CONNECT_TIMEOUT: Final = 2.0  # seconds

# A dead peer is found by the kernel, without a timer of ours: after 30 s of silence it asks, every 10 s, three times;
# and what was sent must be acknowledged within 10 s.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000))

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
    """A byte stream with a parser of replies, logged in."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
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


Prepare = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Address:
    """A server and how to log in, worked out of a `RedisConnection`. Its str has no credentials."""

    name: str
    open_stream: OpenStream = field(repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of(cls, connection: RedisConnection, *, open_stream: OpenStream | None = None) -> Address:
        """Work out an address.

        Args:
            connection: where the server is.
            open_stream: opens the byte stream instead.

        Raises:
            ConfigError: the URL has options that do not fit.
        """
        if connection.url is None:
            options: dict[str, Any] = {
                "host": connection.host,
                "port": connection.port,
                "path": connection.host,
                "username": connection.username,
                "password": connection.password,
                "db": connection.db,
            }
            scheme = connection.scheme
        else:
            try:
                options = dict(parse_url(connection.url))  # type: ignore[no-untyped-call]
            except ValueError as error:
                raise ConfigError(f"url has an option that does not fit: {error}") from error
            kind = options.get("connection_class")
            scheme = "rediss" if kind is SSLConnection else "unix" if kind is UnixDomainSocketConnection else "redis"
        name, opener = _opener(scheme, options)
        return cls(
            name=f"{name}/{options.get('db', 0)}" if scheme != "unix" else name,
            open_stream=open_stream or opener,
            username=options.get("username"),
            password=options.get("password"),
            db=options.get("db", 0),
        )

    async def located(self) -> Address:
        """For a server that stays where it is."""
        return self

    async def connect(self, prepare: Prepare) -> Connection:
        """Open a connection, log in, and `prepare` it.

        Raises:
            OSError, trio.BrokenResourceError, redis.exceptions.RedisError, hiredis.HiredisError: it did not work this
                time.
            RefusedError: it will not work next time either.
        """
        with trio.move_on_after(CONNECT_TIMEOUT):
            stream = await self.open_stream()
            try:
                connection = Connection(stream)
                await self._log_in(connection)
                await prepare(connection)
            except BaseException as error:
                await trio.aclose_forcefully(stream)
                if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                    raise RefusedError(f"its certificate is not accepted: {error.__cause__.verify_message}") from error
                raise
            return connection
        raise redis.exceptions.TimeoutError(f"no connection within {CONNECT_TIMEOUT:g} s")

    async def _log_in(self, connection: Connection) -> None:
        hello: list[str | int] = ["HELLO", 2]
        if self.username is not None or self.password is not None:
            hello += ["AUTH", self.username or "default", self.password or ""]
        hello += ["SETNAME", f"trio_session-{os.getpid()}"]
        await connection.stream.send_all(pack(tuple(hello)) + pack(("SELECT", self.db)))
        _check_greeting(await connection.receive())  # first: a server that says no may hang up then
        selected = await connection.receive()
        if isinstance(selected, ServerError):
            raise _refusal(selected, f"database {self.db}: ")


def _refusal(error: ServerError, what: str = "") -> Exception:
    """What an error in the log-in means: that it will pass, or not."""
    reason = to_exception(error)
    if verdict_on(error) is Verdict.WAIT or "max number of clients" in str(error):
        return reason
    said = str(error).partition(", with args")[0]  # which may have the password
    refusal = RefusedError(what + said)
    refusal.__cause__ = type(reason)(said)
    return refusal


def _check_greeting(greeting: Reply) -> None:
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
    if said.get(b"role") != b"master":
        raise redis.exceptions.ReadOnlyError("it is a replica, which cannot be written to")


# -- streams ----------------------------------------------------------------------------------------------------------


def _opener(scheme: str, options: dict[str, Any]) -> tuple[str, OpenStream]:
    if scheme == "unix":
        path = options["path"]
        return f"unix://{path}", partial(trio.open_unix_socket, path)
    host, port = options.get("host") or "127.0.0.1", options.get("port") or 6379
    context = _tls_context(options) if scheme == "rediss" else None

    async def open_stream() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if context is None:
            return stream
        # Servers close without saying so in TLS, hence https_compatible.
        return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)

    return f"{scheme}://{host}:{port}", open_stream


def _tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    """A context that verifies the server, unless its URL says otherwise in redis-py's words."""
    known = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname"}
    unknown = {option for option in options if option.startswith("ssl_")} - known
    if unknown:
        raise ConfigError(f"url has TLS options that are not supported: {', '.join(sorted(unknown))}")
    requirement = str(options.get("ssl_cert_reqs", "required"))
    if requirement not in {"required", "none"}:
        raise ConfigError("url: ssl_cert_reqs must be 'required' or 'none'")
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_certfile"):
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("url: the TLS certificates it names cannot be loaded") from error
    checks_name = str(options.get("ssl_check_hostname", "true")).lower() not in {"false", "0", "no"}
    context.check_hostname = checks_name and requirement == "required"
    if requirement == "none":
        context.verify_mode = ssl.CERT_NONE
    return context
