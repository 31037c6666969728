"""Settings: what is accepted works, and what is wrong is named before the first request."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping
from math import inf, nan
from typing import Any

import pytest

from trio_session import RedisConnection, SessionConfig
from trio_session._codec import MsgpackCodec
from trio_session._errors import ConfigError


def test_the_defaults() -> None:
    """Nothing has to be set, and what it then is stands in the reference."""
    config = SessionConfig()
    assert (config.driver, config.lifetime, config.absolute_lifetime) == ("local", 7200.0, inf)
    assert (config.lock_timeout, config.lock_lease, config.lock_hold_limit) == (10.0, 5.0, 30.0)
    assert (config.commit_timeout, config.max_waiters, config.max_size) == (5.0, 256, 262_144)
    assert (config.path, config.domain, config.secure) == ("/", None, "auto")
    assert (config.http_only, config.same_site, config.partitioned) == (True, "Lax", False)
    assert (config.undecodable, config.codec, config.redis) == ("raise", None, {})


WRONG: list[tuple[str, Any]] = [
    ("driver", "files"),
    ("driver", ["local"]),
    *(
        (name, value)
        for name in (
            "lifetime",
            "absolute_lifetime",
            "lock_timeout",
            "lock_lease",
            "lock_hold_limit",
            "commit_timeout",
        )
        for value in ("60", None, True, nan, 0, -1.0, -inf, 10**400, -(10**400))
    ),
    ("lock_lease", inf),
    ("commit_timeout", inf),
    ("commit_timeout", 241),
    ("touch_interval", "1"),
    ("touch_interval", -1),
    ("touch_interval", 7200),
    ("connection", 1),
    *(("cookie_name", value) for value in ("", "a b", "a;b", "a=b", "a\n", "é", b"a", 1)),
    *(("path", value) for value in ("", "a", "/a;b", "/a\n", "/é", None)),
    *(("domain", value) for value in ("", "a b", "a;b", "a\n", "https://a", "a:80", "é", "a..b", 1)),
    *(("secure", value) for value in ("true", "", 1, 0, None)),
    ("http_only", 1),
    ("partitioned", None),
    *(("same_site", value) for value in ("", "lax ", "no", None)),
    *((name, value) for name in ("max_waiters", "max_size") for value in (0, 1.0, True, "1")),
    ("undecodable", "ignore"),
    *(
        ("durability", value)
        for value in ("", "replicas", "replicas:0", "replicas:-1", "replicas:1 ", "wait:1", 1, True)
    ),
    ("codec", MsgpackCodec),
    ("redis", [RedisConnection()]),
    ("redis", {1: RedisConnection()}),
    ("redis", {"a": "redis://localhost"}),
    ("app_name", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    """The message begins with the setting that is wrong."""
    with pytest.raises(ConfigError, match=f"^{name}\\b"):
        SessionConfig(**{name: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("connection", {"driver": "redis"}),
        ("connection", {"driver": "redis", "connection": "b", "redis": {"a": RedisConnection()}}),
        ("durability", {"durability": "replicas:1"}),
        ("same_site", {"same_site": "None", "secure": False}),
        ("partitioned", {"partitioned": True, "secure": False}),
        ("cookie_name", {"cookie_name": "__Host-a"}),
        ("cookie_name", {"cookie_name": "__host-a", "secure": True, "path": "/a"}),
        ("cookie_name", {"cookie_name": "__Host-a", "secure": True, "domain": "a.example"}),
        ("cookie_name", {"cookie_name": "__Secure-a", "secure": "auto"}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(name: str, settings: dict[str, Any]) -> None:
    """What would be silently refused by browsers, or fail at the first request, fails here."""
    with pytest.raises(ConfigError, match=f"^{name}\\b"):
        SessionConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"lifetime": inf, "touch_interval": inf, "lock_timeout": inf, "lock_hold_limit": inf},
        {"touch_interval": 0, "lifetime": 1},
        {"domain": ".example.com"},
        {"domain": "localhost", "path": "/a/b c"},
        {"same_site": "None", "secure": "auto"},
        {"cookie_name": "__Host-a", "secure": True},
        {"cookie_name": "__Secure-a", "secure": True, "domain": "example.com"},
        {"driver": "redis", "redis": {"default": RedisConnection()}},
        {"codec": MsgpackCodec()},
    ],
)
def test_what_is_unusual_but_right_is_accepted(settings: dict[str, Any]) -> None:
    """Nobody is kept from a setting that works."""
    config = SessionConfig(**settings)
    assert all(getattr(config, name) == value for name, value in settings.items())


def test_same_site_may_be_written_in_any_case() -> None:
    """`lax` is as good as `Lax`, and becomes it."""
    assert SessionConfig(same_site="sTRICT").same_site == "Strict"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "trio_session"),
        ({"app_name": "My Shop (beta)"}, "my_shop_beta_session"),
        ({"app_name": "Ünïcode"}, "n_code_session"),
        ({"app_name": " -- "}, "trio_session"),
        ({"cookie_name": "sid", "secure": True}, "sid"),
        ({"secure": True}, "__Host-trio_session"),
        ({"secure": True, "app_name": "Shop"}, "__Host-shop_session"),
        ({"secure": True, "path": "/shop"}, "trio_session"),
        ({"secure": True, "domain": "example.com"}, "trio_session"),
    ],
)
def test_the_cookie_name(settings: dict[str, Any], name: str) -> None:
    """As given, or made from the program's name, with the strictest prefix that is allowed."""
    assert SessionConfig(**settings).resolved_cookie_name == name


@pytest.mark.parametrize(
    ("lifetime", "given", "interval"),
    [(7200.0, None, 60.0), (100.0, None, 5.0), (inf, None, 60.0), (100.0, 0.0, 0.0)],
)
def test_how_long_records_live(lifetime: float, given: float | None, interval: float) -> None:
    """The expiry slides at most each minute, and often enough for short sessions."""
    config = SessionConfig(lifetime=lifetime, absolute_lifetime=1e6, touch_interval=given)
    life = config.life
    assert (life.idle, life.absolute, life.touch_interval) == (lifetime, 1e6, interval)


def test_a_short_lock_timeout_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    """Waiters that give up before a dead holder's lease ends would all fail: the log says so."""
    SessionConfig(lock_timeout=6.0, lock_lease=5.0)
    assert not caplog.records
    SessionConfig(lock_timeout=5.9, lock_lease=5.0)
    assert [(record.name, record.levelno) for record in caplog.records] == [("trio_session", logging.WARNING)]
    assert caplog.messages[0].startswith("lock_timeout (5.9 s) is below lock_lease")


def test_a_config_is_a_value() -> None:
    """It can be compared, hashed, copied and varied, but not changed, not even through a dict."""
    connections = {"default": RedisConnection()}
    config = SessionConfig(redis=connections)
    connections.clear()
    assert config.redis == {"default": RedisConnection()}
    assert config == copy.deepcopy(config)
    assert hash(config) == hash(copy.deepcopy(config))
    assert dataclasses.replace(config, lifetime=60.0).lifetime == 60.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lifetime = 60.0  # type: ignore[misc]


# --- RedisConnection ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "text"),
    [
        (RedisConnection(), "redis://127.0.0.1:6379/0"),
        (RedisConnection(host="h", port=1, db=2, username="eve", password="pass"), "redis://h:1/2"),
        (RedisConnection(scheme="unix", host="/run/redis.sock"), "unix:///run/redis.sock?db=0"),
        (RedisConnection(url="rediss://eve:pass@h:1/2?password=pass"), "rediss://h:1/2"),
        (RedisConnection(url="unix://eve:pass@/run/r@1.sock"), "unix:///run/r@1.sock"),
        (RedisConnection(url="redis://eve:pa@ss@[::1]"), "redis://[::1]"),
        (
            RedisConnection(url="redis+sentinel://eve:pass@s1,s2:26380/mine/1?sentinel_password=pass"),
            "redis+sentinel://s1,s2:26380/mine/1",
        ),
        (
            RedisConnection(scheme="redis+sentinel", host="s1,s2", port=1, service="mine", sentinel_password="pass"),
            "redis+sentinel://s1,s2:1/mine/0",
        ),
        (RedisConnection(scheme="rediss+cluster", host="n1,n2:7", password="pass"), "rediss+cluster://n1,n2:7/0"),
    ],
)
def test_a_connection_shows_no_password(connection: RedisConnection, text: str) -> None:
    """Its repr, and so that of the whole config, may go into a log."""
    assert repr(connection) == f"<RedisConnection {text}>"
    assert "eve" not in repr(SessionConfig(redis={"default": connection}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", 1),
        ("url", ""),
        ("url", "localhost"),
        ("url", "http://localhost"),
        ("url", "redis://"),
        ("url", "redis://localhost/secret"),
        ("url", "redis://:secret"),
        ("url", "redis://:sec/ret@localhost"),
        ("url", "redis://u:12#secret@localhost"),
        ("url", "redis://u:12?secret@localhost"),
        ("url", "redis://[secret"),
        ("url", "redis://localhost:secret"),
        ("url", "redis://localhost:65536"),
        ("url", "redis+sentinel://s1,s2"),
        ("url", "redis+sentinel://s1,s2/mine/secret"),
        ("url", "redis+sentinel://:secret@s1,,s2/mine"),
        ("url", "redis+sentinel://s1:secret,s2/mine"),
        ("url", "redis+sentinel://s1,s2:65536/mine"),
        ("url", "redis+sentinel://:sec/ret@s1/mine"),
        ("url", "redis+cluster://n1,n2/1"),
        ("url", "redis+cluster://"),
        ("url", "redis://one,two:1"),
        ("url", "unix://"),
        ("url", "unix://run/redis.sock"),
        ("scheme", "http"),
        ("host", ""),
        ("host", None),
        ("port", "6379"),
        ("port", 0),
        ("port", 65_536),
        ("service", 1),
        ("sentinel_username", 1),
        ("sentinel_password", b"p"),
        ("username", b"u"),
        ("password", 1),
        ("db", -1),
    ],
)
def test_a_wrong_connection_is_named(name: str, value: object) -> None:
    """The message begins with the field and repeats nothing of it, as it may hold a password."""
    with pytest.raises(ConfigError, match=f"^{name} ") as caught:
        RedisConnection(**{name: value})  # type: ignore[arg-type]  # that is the point
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"scheme": "redis+sentinel"}, "service must be the name that the Sentinels have"),
        ({"scheme": "redis+sentinel", "service": "a b"}, "service must be the name that the Sentinels have"),
        ({"scheme": "redis+sentinel", "service": "mine", "host": "s1;s2"}, "host must be hosts with commas"),
        ({"scheme": "redis+cluster", "host": "n1:0"}, "host must be hosts with commas"),
        ({"scheme": "redis+cluster", "db": 1}, "db must be 0"),
    ],
)
def test_what_sentinels_and_clusters_need(fields: dict[str, Any], problem: str) -> None:
    """Several hosts, the name of a service, no database: the message says which."""
    with pytest.raises(ConfigError, match=f"^{problem}"):
        RedisConnection(**fields)


def test_a_socket_has_a_path() -> None:
    """With `unix`, the default host makes no sense, and the message says what would."""
    with pytest.raises(ConfigError, match=r"^host must be the path of a socket"):
        RedisConnection(scheme="unix")


# --- from_env -------------------------------------------------------------------------------------


def test_an_empty_environment_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty variables change nothing; without an argument the real environment is read."""
    default = SessionConfig(redis={"default": RedisConnection()})
    assert SessionConfig.from_env({}) == default
    assert SessionConfig.from_env({"SESSION_DRIVER": "", "REDIS_PORT": ""}) == default
    monkeypatch.setenv("SESSION_LIFETIME", "1")
    assert SessionConfig.from_env().lifetime == 60.0


def test_every_variable() -> None:
    """Each variable sets its setting; the lifetime is in minutes."""
    environ = {
        "SESSION_DRIVER": "Redis",
        "SESSION_LIFETIME": "1.5",
        "SESSION_COOKIE_NAME": "sid",
        "SESSION_DURABILITY": "Replicas:2",
        "SESSION_DOMAIN": "example.com",
        "SESSION_SECURE_COOKIE": "TRUE",
        "SESSION_SAME_SITE": "strict",
        "APP_NAME": "Shop",
        "REDIS_SCHEME": "rediss",
        "REDIS_HOST": "h",
        "REDIS_PORT": "1",
        "REDIS_USERNAME": "u",
        "REDIS_PASSWORD": "p",
        "REDIS_DB": "2",
    }
    assert SessionConfig.from_env(environ) == SessionConfig(
        driver="redis",
        lifetime=90.0,
        cookie_name="sid",
        domain="example.com",
        secure=True,
        same_site="Strict",
        durability="replicas:2",
        app_name="Shop",
        redis={"default": RedisConnection(scheme="rediss", host="h", port=1, username="u", password="p", db=2)},
    )


@pytest.mark.parametrize(
    ("text", "secure"),
    [("true", True), ("1", True), ("False", False), ("0", False), ("auto", "auto"), ("", "auto")],
)
def test_the_secure_switch(text: str, secure: object) -> None:
    """Yes, no, or as the request came."""
    assert SessionConfig.from_env({"SESSION_SECURE_COOKIE": text}).secure == secure


def test_sentinels_in_the_environment() -> None:
    """Their hosts, what they call the primary, and their own credentials."""
    environ = {
        "REDIS_SCHEME": "redis+sentinel",
        "REDIS_HOST": "s1,s2",
        "REDIS_SERVICE": "mine",
        "REDIS_SENTINEL_USERNAME": "u",
        "REDIS_SENTINEL_PASSWORD": "p",
    }
    expected = RedisConnection(
        scheme="redis+sentinel", host="s1,s2", service="mine", sentinel_username="u", sentinel_password="p"
    )
    assert SessionConfig.from_env(environ).redis == {"default": expected}


def test_a_named_connection_has_its_own_variables() -> None:
    """`SESSION_CONNECTION=cache-1` reads `REDIS_CACHE_1_*` and nothing of the default's."""
    environ = {
        "SESSION_CONNECTION": "cache-1",
        "SESSION_DRIVER": "redis",
        "REDIS_HOST": "wrong",
        "REDIS_CACHE_1_PORT": "1",
    }
    config = SessionConfig.from_env(environ)
    assert config.connection == "cache-1"
    assert config.redis == {"cache-1": RedisConnection(port=1)}


def test_a_redis_url_wins() -> None:
    """With a URL the other variables are not looked at: Kubernetes sets a REDIS_PORT of its own."""
    environ = {"REDIS_URL": "redis://h/1", "REDIS_PORT": "tcp://10.0.0.1:6379"}
    expected = {"default": RedisConnection(url="redis://h/1")}
    assert SessionConfig.from_env({**environ, "SESSION_DRIVER": "redis"}).redis == expected


def test_redis_variables_do_not_matter_without_redis() -> None:
    """Who keeps sessions in the process is not bothered by another program's variables."""
    assert SessionConfig.from_env({"REDIS_PORT": "tcp://10.0.0.1:6379"}).redis == {}


@pytest.mark.parametrize(
    ("variable", "text", "more"),
    [
        ("SESSION_DRIVER", "files", {}),
        ("SESSION_LIFETIME", "an hour", {}),
        ("SESSION_LIFETIME", "0", {}),
        ("SESSION_LIFETIME", "nan", {}),
        ("SESSION_COOKIE_NAME", "a b", {}),
        ("SESSION_DOMAIN", "http://a", {}),
        ("SESSION_SECURE_COOKIE", "maybe", {}),
        ("SESSION_SAME_SITE", "none", {"SESSION_SECURE_COOKIE": "false"}),
        ("REDIS_URL", "localhost", {"SESSION_DRIVER": "redis"}),
        ("REDIS_SCHEME", "http", {"SESSION_DRIVER": "redis"}),
        ("REDIS_PORT", "tcp://10.0.0.1:6379", {"SESSION_DRIVER": "redis"}),
        ("REDIS_CACHE_DB", "-1", {"SESSION_DRIVER": "redis", "SESSION_CONNECTION": "cache"}),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, more: Mapping[str, str]) -> None:
    """The message begins with the variable, not with the setting behind it."""
    with pytest.raises(ConfigError, match=f"^{variable} "):
        SessionConfig.from_env({variable: text, **more})
