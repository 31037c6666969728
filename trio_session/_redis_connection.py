"""Where Redis is: one server, or the Sentinels or the cluster that know where it is right now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final
from urllib.parse import SplitResult, urlsplit

from ._settings import check_choice, check_int, check_type, construct, to_int, wrong

__all__ = ["RedisConnection", "redis_from_env", "split_hosts"]

_MULTIPLE = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_SCHEMES = ("redis", "rediss", "unix", *_MULTIPLE)

_find_host = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::([0-9]{1,5}))?").fullmatch
_is_service = re.compile(r"[A-Za-z0-9._-]+").fullmatch  # Sentinel takes no others


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RedisConnection:
    """Where Redis is: a `url`, or else the other fields.

        RedisConnection(url="rediss://user:password@cache.example:6380/1")
        RedisConnection(scheme="unix", host="/run/redis/redis.sock")
        RedisConnection(url="redis+sentinel://user:password@s1,s2:26380,s3/mymaster/0?sentinel_password=other")
        RedisConnection(scheme="redis+cluster", host="node1,node2,node3", username="user", password="password")

    Its repr shows neither users nor passwords.

    Attributes:
        url: begins with one of the schemes and `://`; special characters in its user and password are
            percent-encoded. The other fields then count for nothing. User and password are those of the servers with
            the data; Sentinels have `sentinel_username` and `sentinel_password` in the query.
        scheme: `redis`, `unix`, `redis+sentinel` or `redis+cluster`; with `rediss` instead of `redis`, all connections
            use TLS.
        host: a name or address; with `unix`, the path of the socket; with Sentinels or a cluster one or more of them,
            with commas in between and ports of their own if need be.
        port: of the hosts that have none of their own; None is 6379, of Sentinels 26379.
        username: of the servers with the data.
        password: the same.
        db: the number of the database; a cluster has only 0.
        service: what the Sentinels call the primary.
        sentinel_username: of the Sentinels.
        sentinel_password: the same.
    """

    url: str | None = None
    scheme: Literal[
        "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
    ] = "redis"
    host: str = "127.0.0.1"
    port: int | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0
    service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            _check_url("url", self.url)
        check_choice("scheme", self.scheme, *_SCHEMES)
        check_type("host", self.host, str, "a str")
        if self.scheme == "unix" and not self.host.startswith("/"):
            wrong("host", "must be the path of a socket if scheme is 'unix'")
        if not self.host:
            wrong("host", "must not be empty")
        if self.scheme in _MULTIPLE:
            _check_hosts("host", self.host)
        if self.port is not None:
            check_int("port", self.port, 1, 65_535)
        for name in ("username", "password", "service", "sentinel_username", "sentinel_password"):
            check_type(name, getattr(self, name), (str, type(None)), "a str or None")
        check_int("db", self.db, 0)
        if self.scheme.endswith("+sentinel") and not _is_service(self.service or ""):
            wrong("service", "must be the name that the Sentinels have for the primary")
        if self.scheme.endswith("+cluster") and self.db != 0:
            wrong("db", "must be 0: a cluster has no other database")

    def __repr__(self) -> str:
        if self.url is not None:
            parts = urlsplit(self.url)
            where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        elif self.scheme == "unix":
            where = f"unix://{self.host}?db={self.db}"
        elif self.scheme in _MULTIPLE:
            port = f":{self.port}" if self.port else ""
            where = f"{self.scheme}://{self.host}{port}/{f'{self.service}/' if self.service else ''}{self.db}"
        else:
            where = f"{self.scheme}://{self.host}:{self.port or 6379}/{self.db}"
        return f"<RedisConnection {where}>"


def redis_from_env(environ: Mapping[str, str], name: str) -> RedisConnection:
    """The connection `name`, as the environment has it: `REDIS_URL`, or `REDIS_HOST` and so on."""
    slug = "" if name == "default" else re.sub(r"[^A-Z0-9]+", "_", name.upper()) + "_"
    prefix = f"REDIS_{slug}"
    if environ.get(f"{prefix}URL"):
        return construct(RedisConnection, environ, url=(f"{prefix}URL", str))
    return construct(
        RedisConnection,
        environ,
        scheme=(f"{prefix}SCHEME", str.lower),
        host=(f"{prefix}HOST", str),
        port=(f"{prefix}PORT", to_int),
        username=(f"{prefix}USERNAME", str),
        password=(f"{prefix}PASSWORD", str),
        db=(f"{prefix}DB", to_int),
        service=(f"{prefix}SERVICE", str),
        sentinel_username=(f"{prefix}SENTINEL_USERNAME", str),
        sentinel_password=(f"{prefix}SENTINEL_PASSWORD", str),
    )


def split_hosts(text: str, port: int) -> list[tuple[str, int]]:
    """The hosts in a list with commas, and their ports, or `port`.

    Raises:
        ValueError: it is none. The message does not quote it.
    """
    hosts: list[tuple[str, int]] = []
    for part in text.split(","):
        found = _find_host(part.strip())
        if found is None or int(found[3] or port) not in range(1, 65_536):
            raise ValueError("not a list of hosts")
        hosts.append((found[1] or found[2], int(found[3] or port)))
    return hosts


def _check_hosts(name: str, text: str) -> None:
    try:
        split_hosts(text, 1)
    except ValueError:
        wrong(name, "must be hosts with commas in between, as in one.example,two.example:6380")


def _check_url(name: str, value: object) -> None:
    # urllib's own messages quote what follows a colon, which may be half of a password. For the
    # same reason a URL with an @ in the wrong place is refused: a / # or ? in the password makes
    # the rest of it the path, and that one is shown.
    check_type(name, value, str, "a str or None")
    try:
        parts = urlsplit(str(value))
        if parts.scheme in _MULTIPLE:
            split_hosts(parts.netloc.rpartition("@")[2], 1)
        else:
            _ = parts.port  # a ValueError unless it is one
    except ValueError:
        wrong(name, "is not a URL; special characters in its password must be percent-encoded")
    if parts.scheme not in _SCHEMES:
        wrong(name, f"must begin with {'://, '.join(_SCHEMES[:-1])}:// or {_SCHEMES[-1]}://")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/"):
            wrong(name, "must name a socket, as in unix:///run/redis/redis.sock")
    elif not parts.hostname or "@" in parts.path + parts.query + parts.fragment:
        wrong(name, "must name a host; special characters in its password must be percent-encoded")
    elif parts.scheme not in _MULTIPLE and "," in parts.netloc.rpartition("@")[2]:
        wrong(name, "must name one host; several are for redis+sentinel:// and redis+cluster://")
    else:
        _check_path(name, parts)


def _check_path(name: str, parts: SplitResult) -> None:
    kind = parts.scheme.partition("+")[2]
    if kind == "sentinel":
        if not re.fullmatch(r"/[A-Za-z0-9._-]+(/[0-9]*)?", parts.path):
            wrong(name, "must end with the Sentinels' name for the primary, as in redis+sentinel://one,two/mymaster/0")
    elif kind == "cluster":
        if parts.path not in {"", "/", "/0"}:
            wrong(name, "must not end with a database: a cluster has only 0")
    elif not re.fullmatch(r"/?[0-9]*", parts.path):
        wrong(name, "must end with the number of a database, as in redis://localhost/0")
