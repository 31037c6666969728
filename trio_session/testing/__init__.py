"""Tools for testing programs with sessions.

_client         open_test_client: HTTP and WebSockets on one cookie jar, without a socket; around it _request _response
                _websocket (the client's side), _cookie_jar, and _server _http _websocket_stream _lifespan (Hypercorn's)
_trainer        SessionTrainer: sessions prepared and watched
_checks         check_store: every promise of the store protocol
_fake_redis     open_fake_redis: a Redis server in memory that fails on demand; its parts are _fake_redis_*
plugin          the fixtures `session_client` and `session_trainer`; it must not cost anything where it is not used, so
                what this door shows is loaded when it is asked for
"""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:  # pragma: no cover - only type checkers go through here
    from ._checks import check_store as check_store
    from ._client import ASGIClient as ASGIClient, open_test_client as open_test_client
    from ._cookie_jar import Cookie as Cookie, CookieJar as CookieJar
    from ._errors import (
        LifespanFailedError as LifespanFailedError,
        ResponseStatusError as ResponseStatusError,
        WebSocketClosed as WebSocketClosed,
        WebSocketRejected as WebSocketRejected,
    )
    from ._fake_redis import FakeRedis as FakeRedis, open_fake_redis as open_fake_redis
    from ._response import ClientResponse as ClientResponse, StreamedResponse as StreamedResponse
    from ._trainer import SessionTrainer as SessionTrainer
    from ._websocket import ClientWebSocket as ClientWebSocket

__all__ = [
    "ASGIClient",
    "ClientResponse",
    "ClientWebSocket",
    "Cookie",
    "CookieJar",
    "FakeRedis",
    "LifespanFailedError",
    "ResponseStatusError",
    "SessionTrainer",
    "StreamedResponse",
    "WebSocketClosed",
    "WebSocketRejected",
    "check_store",
    "open_fake_redis",
    "open_test_client",
]

_MODULES = {
    "ASGIClient": "_client",
    "ClientResponse": "_response",
    "ClientWebSocket": "_websocket",
    "Cookie": "_cookie_jar",
    "CookieJar": "_cookie_jar",
    "FakeRedis": "_fake_redis",
    "LifespanFailedError": "_errors",
    "ResponseStatusError": "_errors",
    "SessionTrainer": "_trainer",
    "StreamedResponse": "_response",
    "WebSocketClosed": "_errors",
    "WebSocketRejected": "_errors",
    "check_store": "_checks",
    "open_fake_redis": "_fake_redis",
    "open_test_client": "_client",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
