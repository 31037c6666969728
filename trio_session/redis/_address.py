"""How to get to a server: address, TLS, credentials; worked out of a `RedisConnection`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import redis.exceptions
import trio
from redis.connection import parse_url

from .._errors import ConfigError
from .._redis_connection import RedisConnection, split_hosts
from ._connection import Connection, RefusedError, log_in

__all__ = ["CONNECT_TIMEOUT", "Address", "Destination", "OpenStream", "Prepare"]

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]
Prepare = Callable[[Connection], Awaitable[None]]

# How long a connection, with TLS and log-in, may take.
CONNECT_TIMEOUT: Final = 2.0  # seconds

# A dead peer is found by the kernel, without a timer of ours: after 30 s of silence it asks, every 10 s, three times;
# and what was sent must be acknowledged within 10 s.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000))


@dataclass(frozen=True, slots=True)
class Address:
    """A server and how to log in. Neither its str nor its repr has credentials.

    Attributes:
        host: with the scheme `unix`, the path of the socket.
        db: None for a Sentinel, which has no databases.
        tls: not None with the scheme `rediss`.
        stream: opens the byte stream instead.
    """

    scheme: Literal["redis", "rediss", "unix"]
    host: str
    port: int = 6379
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int | None = 0
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    stream: OpenStream | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" + ("" if self.db is None else f"/{self.db}")

    def at(self, host: str, port: int) -> Address:
        """The same on another server."""
        return replace(self, scheme="redis" if self.scheme == "unix" else self.scheme, host=host, port=port)

    async def located(self) -> Address:
        """For a server that stays where it is."""
        return self

    async def open_stream(self) -> trio.abc.Stream:
        if self.stream is not None:
            return await self.stream()
        if self.scheme == "unix":
            return await trio.open_unix_socket(self.host)
        stream = await trio.open_tcp_stream(self.host, self.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if self.tls is None:
            return stream
        # Servers close without saying so in TLS, hence https_compatible.
        return trio.SSLStream(stream, self.tls, server_hostname=self.host, https_compatible=True)

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
                await log_in(
                    connection,
                    username=self.username,
                    password=self.password,
                    db=self.db,
                )
                await prepare(connection)
            except BaseException as error:
                await trio.aclose_forcefully(stream)
                if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                    raise RefusedError(f"its certificate is not accepted: {error.__cause__.verify_message}") from error
                raise
            return connection
        raise redis.exceptions.TimeoutError(f"no connection within {CONNECT_TIMEOUT:g} s")


@dataclass(frozen=True, slots=True)
class Destination:
    """What a `RedisConnection` means.

    Attributes:
        kind: one server, Sentinels that know which one, or a cluster.
        addresses: of the server; of the Sentinels; or of some nodes of the cluster.
        data: how to log in to the servers with the data, whichever host they are on.
        service: what the Sentinels call the primary.
    """

    kind: Literal["server", "sentinel", "cluster"]
    addresses: tuple[Address, ...]
    data: Address
    service: str = ""

    def __str__(self) -> str:
        if self.kind == "server":
            return str(self.data)
        hosts = ",".join(str(address).partition("://")[2].partition("/")[0] for address in self.addresses)
        path = f"{self.service}/{self.data.db}" if self.kind == "sentinel" else "0"
        return f"{self.data.scheme}+{self.kind}://{hosts}/{path}"

    @classmethod
    def of(cls, connection: RedisConnection, *, open_stream: OpenStream | None = None) -> Destination:
        """Work it out.

        Args:
            connection: where Redis is.
            open_stream: opens the byte stream to the server instead.

        Raises:
            ConfigError: the URL has options that do not fit.
        """
        scheme, hosts, service, options = _read(connection)
        base, _, kind = scheme.partition("+")
        if kind and open_stream is not None:
            raise ConfigError("open_stream is for one server, not for Sentinels or a cluster")
        data = Address(
            scheme=base,  # type: ignore[arg-type]  # checked by RedisConnection
            host=options["path"] if base == "unix" else hosts[0][0],
            port=hosts[0][1],
            username=options.get("username"),
            password=options.get("password"),
            db=options.get("db", 0),
            tls=_tls_context(options) if base == "rediss" else None,
            stream=open_stream,
        )
        if kind == "sentinel":
            pattern = replace(
                data,
                username=options.get("sentinel_username"),
                password=options.get("sentinel_password"),
                db=None,
            )
            return cls("sentinel", tuple(pattern.at(*host) for host in hosts), data, service)
        return cls("cluster" if kind else "server", tuple(data.at(*host) for host in hosts), data)


def _read(connection: RedisConnection) -> tuple[str, list[tuple[str, int]], str, dict[str, Any]]:
    """Scheme, hosts, service, and options by redis-py's names."""
    if connection.url is None:
        scheme: str = connection.scheme
        text, service = connection.host, connection.service or ""
        names = ("username", "password", "db", "sentinel_username", "sentinel_password")
        options: dict[str, Any] = {name: getattr(connection, name) for name in names}
        options["path"] = connection.host
    else:
        scheme, text, service, options = _read_url(connection.url)
    if scheme == "unix":
        return scheme, [("", 0)], "", options
    port = connection.port if connection.url is None else options.get("port")
    if "+" not in scheme:
        return scheme, [(text, port or 6379)], "", options
    return scheme, split_hosts(text, port or (26379 if scheme.endswith("sentinel") else 6379)), service, options


def _read_url(url: str) -> tuple[str, str, str, dict[str, Any]]:
    parts = urlsplit(url)
    service, db = "", parts.path
    base, _, kind = parts.scheme.partition("+")
    login, at, hosts = parts.netloc.rpartition("@")
    if kind == "sentinel":
        service, _, db = parts.path[1:].partition("/")
    if kind:
        url = f"{base}://{login}{at}several/{db.strip('/')}?{parts.query}"
    try:
        options = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"url has an option that does not fit: {error}") from error
    if kind:
        del options["host"]
        given = parse_qs(parts.query)
        options |= {name: given[name][0] for name in ("sentinel_username", "sentinel_password") if name in given}
    return parts.scheme, hosts if kind else options.get("host") or "127.0.0.1", service, options


# -- TLS --------------------------------------------------------------------------------------------------------------


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
