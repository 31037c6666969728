"""Every setting, checked once: a `SessionConfig` that exists is one that works."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Literal, final

from ._encryption import EncryptedCodec
from ._errors import ConfigError
from ._redis_connection import RedisConnection, redis_from_env
from ._settings import (
    check_choice,
    check_int,
    check_seconds,
    check_type,
    construct,
    replicas_in,
    to_minutes,
    to_switch,
    wrong,
)
from .abc import Codec, Lifetime

logger = logging.getLogger("trio_session")

# How long after a dead holder's lease a waiter may still have to wait until the lock is its own.
_HAND_OVER_GRACE = 1.0  # seconds

# A server remembers for five minutes what became of a commit whose answer was lost.
_LONGEST_COMMIT = 240.0  # seconds

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 6265 4.1.1
_is_path = re.compile(r"/[ -:<-~]*").fullmatch  # RFC 6265 4.1.1: printable ASCII but ";"
_is_domain = re.compile(r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*").fullmatch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """All settings, each checked when the config is made.

        config = SessionConfig(lifetime=30 * 60, secure=True)
        config = SessionConfig.from_env()

    Durations are seconds; `math.inf` means never. A wrong value is a `ConfigError` that begins
    with the name of the setting.

    Attributes:
        driver: `local` keeps sessions in this process, `redis` in the server that `connection`
            names in `redis`.
        lifetime: a session ends when it was not used for so long; two hours.
        absolute_lifetime: and in any case so long after it began.
        cookie_name: by default made from `app_name`; see `resolved_cookie_name`.
        path: the cookie is sent to URLs below it.
        domain: None is the current host alone; a name adds all its subdomains, and whoever runs
            one of these can then read and replace the cookie.
        secure: `auto` sends the cookie over TLS only if it was set over TLS. Behind a proxy that
            ends TLS say True: forwarded headers are never trusted.
        http_only: False lets scripts read the cookie, and so every injected script steal it.
        same_site: `None` sends the cookie with requests that other sites cause, which then need
            a protection against forgery of their own.
        partitioned: one cookie for each site that embeds this one (CHIPS).
        lock_timeout: how long `lock()` waits; 10 s.
        lock_lease: how long a dead process can keep others waiting; 5 s.
        lock_hold_limit: how long a living one can; 30 s.
        commit_timeout: how long a commit may take, at most 240 s; it cannot be cancelled meanwhile; 5 s.
        max_waiters: how many tasks of this process may wait for the same session.
        max_size: of a session's encoded data, in bytes.
        touch_interval: reading slides the expiry, but only so often; None is a twentieth of the
            lifetime, at most 60 s.
        undecodable: what to do with data that cannot be decoded: `raise` a `SessionDataError`, or
            `discard` it and begin anew.
        codec: None is `MsgpackCodec`; `EncryptedCodec` encrypts.
        redis: connections by name.
        durability: with Redis, None calls a change committed when the server has it; `replicas:1` when one of its
            replicas has it too, `replicas:2` when two have. If not enough of them say so within `commit_timeout`, that
            is a `CommittedNotReplicatedError`.
        app_name: the program's name, for the cookie.
    """

    driver: Literal["local", "redis"] = "local"
    lifetime: float = 7200.0
    absolute_lifetime: float = inf
    connection: str = "default"
    cookie_name: str | None = None
    path: str = "/"
    domain: str | None = None
    secure: bool | Literal["auto"] = "auto"
    http_only: bool = True
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    partitioned: bool = False
    lock_timeout: float = 10.0
    lock_lease: float = 5.0
    lock_hold_limit: float = 30.0
    commit_timeout: float = 5.0
    max_waiters: int = 256
    max_size: int = 262_144
    touch_interval: float | None = None
    undecodable: Literal["raise", "discard"] = "raise"
    codec: Codec | None = None
    redis: Mapping[str, RedisConnection] = field(default_factory=dict[str, RedisConnection], hash=False)
    durability: str | None = None
    app_name: str | None = None

    def __post_init__(self) -> None:
        self._check_times()
        self._check_cookie()
        self._check_storage()

    def _check_times(self) -> None:
        check_seconds("lifetime", self.lifetime)
        check_seconds("absolute_lifetime", self.absolute_lifetime)
        check_seconds("lock_timeout", self.lock_timeout)
        check_seconds("lock_lease", self.lock_lease, forever=False)
        check_seconds("lock_hold_limit", self.lock_hold_limit)
        check_seconds("commit_timeout", self.commit_timeout, forever=False)
        if self.commit_timeout > _LONGEST_COMMIT:
            wrong("commit_timeout", f"must be at most {_LONGEST_COMMIT:g} seconds")
        if self.touch_interval is not None:
            check_seconds("touch_interval", self.touch_interval, zero=True)
            if self.touch_interval >= self.lifetime < inf:
                wrong("touch_interval", "must be below lifetime, or sessions end while in use")
        if self.lock_timeout < self.lock_lease + _HAND_OVER_GRACE:
            logger.warning(
                "lock_timeout (%g s) is below lock_lease + %g s (%g s): should a process die while"
                " it holds a lock, all who wait for it fail; raise the one or lower the other",
                self.lock_timeout,
                _HAND_OVER_GRACE,
                self.lock_lease + _HAND_OVER_GRACE,
            )

    def _check_cookie(self) -> None:
        check_choice("secure", self.secure, True, False, "auto")
        check_type("http_only", self.http_only, bool, "a bool")
        check_type("partitioned", self.partitioned, bool, "a bool")
        check_type("app_name", self.app_name, (str, type(None)), "a str or None")
        check_type("same_site", self.same_site, str, "a str")
        same_site = self.same_site.capitalize()
        check_choice("same_site", same_site, "Lax", "Strict", "None")
        object.__setattr__(self, "same_site", same_site)
        check_type("path", self.path, str, "a str")
        if not _is_path(self.path):
            wrong("path", "must start with '/' and be printable ASCII without ';'")
        if self.domain is not None:
            check_type("domain", self.domain, str, "a str or None")
            if not _is_domain(self.domain):
                wrong("domain", "must be a host name in ASCII, without scheme and port")
        if self.secure is False and self.same_site == "None":
            wrong("same_site", "'None' needs secure=True: browsers refuse such a cookie")
        if self.secure is False and self.partitioned:
            wrong("partitioned", "needs secure=True: browsers refuse such a cookie")
        if self.cookie_name is not None:
            self._check_cookie_name(self.cookie_name)

    def _check_cookie_name(self, name: str) -> None:
        check_type("cookie_name", name, str, "a str or None")
        if not _is_token(name):
            wrong("cookie_name", "must consist of letters, digits and !#$%&'*+-.^_`|~")
        prefix = name.lower()  # browsers compare it without regard to case
        if prefix.startswith("__host-") and not self._can_be_host_only:
            wrong("cookie_name", "with __Host- needs secure=True, path='/' and no domain")
        if prefix.startswith("__secure-") and self.secure is not True:
            wrong("cookie_name", "with __Secure- needs secure=True")

    def _check_storage(self) -> None:
        check_choice("driver", self.driver, "local", "redis")
        check_choice("undecodable", self.undecodable, "raise", "discard")
        check_int("max_waiters", self.max_waiters, 1)
        check_int("max_size", self.max_size, 1)
        check_type("codec", self.codec, (Codec, type(None)), "a Codec or None")
        check_type("connection", self.connection, str, "a str")
        check_type("redis", self.redis, Mapping, "a mapping of names to RedisConnection")
        for name, value in self.redis.items():
            check_type("redis", name, str, "a mapping with str keys")
            check_type(f"redis[{name!r}]", value, RedisConnection, "a RedisConnection")
        object.__setattr__(self, "redis", dict(self.redis))  # nobody else's to change
        if self.driver == "redis" and self.connection not in self.redis:
            wrong("connection", f"{self.connection!r} must be one of the names in redis")
        if replicas_in(self.durability) and self.driver != "redis":
            wrong("durability", "is for driver='redis': nothing else has replicas")

    @property
    def _can_be_host_only(self) -> bool:
        return self.secure is True and self.path == "/" and self.domain is None

    @property
    def resolved_cookie_name(self) -> str:
        """The cookie's name: as given, or else made from `app_name`.

        A name of our own gets the prefix `__Host-` where that is allowed. Browsers then take the
        cookie from this host alone, and no neighbouring subdomain can plant one.
        """
        if self.cookie_name is not None:
            return self.cookie_name
        slug = re.sub(r"[^a-z0-9]+", "_", (self.app_name or "").lower()).strip("_")
        name = f"{slug}_session" if slug else "trio_session"
        return f"__Host-{name}" if self._can_be_host_only else name

    @property
    def life(self) -> Lifetime:
        """How long records live, in a store's words."""
        interval = self.touch_interval
        if interval is None:
            interval = min(60.0, self.lifetime / 20)
        return Lifetime(self.lifetime, self.absolute_lifetime, interval)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> SessionConfig:
        """Read the settings from environment variables; empty ones count as unset.

        These are `SESSION_DRIVER`, `SESSION_LIFETIME` (in minutes), `SESSION_CONNECTION`,
        `SESSION_COOKIE_NAME`, `SESSION_DOMAIN`, `SESSION_SECURE_COOKIE` (true, false or auto),
        `SESSION_SAME_SITE`, `SESSION_DURABILITY`, `SESSION_KEYS` (for an `EncryptedCodec`: its keys, with
        commas or spaces between them), `SESSION_PLAINTEXT` (its `plaintext`), `APP_NAME`, and either `REDIS_URL` or
        `REDIS_SCHEME`, `_HOST`, `_PORT`, `_USERNAME`, `_PASSWORD`, `_DB`, `_SERVICE`,
        `_SENTINEL_USERNAME` and `_SENTINEL_PASSWORD`. With `SESSION_CONNECTION=cache` the latter are
        `REDIS_CACHE_URL` and so on.

        Args:
            environ: by default `os.environ`.

        Raises:
            ConfigError: a variable is wrong; the message begins with its name.
        """
        # Not `environ=os.environ`: help() would print the whole environment.
        environ = os.environ if environ is None else environ
        name = environ.get("SESSION_CONNECTION") or "default"
        redis: dict[str, RedisConnection] = {}
        try:
            redis[name] = redis_from_env(environ, name)
        except ConfigError:
            # Kubernetes sets REDIS_PORT=tcp://… as soon as some service is called redis. That is
            # no reason to fail for those who do not use Redis.
            if environ.get("SESSION_DRIVER", "").lower() == "redis":
                raise
        return construct(
            partial(cls, redis=redis, codec=_codec_from_env(environ)),
            environ,
            driver=("SESSION_DRIVER", str.lower),
            lifetime=("SESSION_LIFETIME", to_minutes),
            connection=("SESSION_CONNECTION", str),
            cookie_name=("SESSION_COOKIE_NAME", str),
            domain=("SESSION_DOMAIN", str),
            secure=("SESSION_SECURE_COOKIE", to_switch),
            same_site=("SESSION_SAME_SITE", str),
            durability=("SESSION_DURABILITY", str.lower),
            app_name=("APP_NAME", str),
        )


def _codec_from_env(environ: Mapping[str, str]) -> Codec | None:
    if not environ.get("SESSION_KEYS"):
        if environ.get("SESSION_PLAINTEXT"):
            wrong("SESSION_PLAINTEXT", "needs SESSION_KEYS")  # who wants keys must not go without because one is lost
        return None
    return construct(
        EncryptedCodec,
        environ,
        keys=("SESSION_KEYS", lambda text: text.replace(",", " ").split()),
        plaintext=("SESSION_PLAINTEXT", str.lower),
    )
