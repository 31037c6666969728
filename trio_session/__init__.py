"""Server-side sessions for Trio, with locks that structured concurrency can be trusted with.

For users: `trio_session.web.App` has sessions on every request, `SessionMiddleware` gives them to any ASGI
application, and `open_session_manager()` to programs without one. What a session can do is in `help(Session)`.

The house, from the ground up:

    ground floor    _errors _settings _redis_connection _config _codec _encryption _ids _cookies _states _known
                    _working _generators
    one lock        _gate (this process's queue) · a store (all processes; abc, _local_store, .redis) · _leases; _locks;
                    _instruments (who is told)
    one session     _lifecycle (the machine), _block (a lock held) · _session (its face) · _engine, _manager (shared)
    one server      _middleware (any ASGI application; _asgi, _lifespan); .web, .testing and .cli stand on top
"""

from __future__ import annotations

import typing as _typing

from ._codec import MsgpackCodec as MsgpackCodec
from ._config import SessionConfig as SessionConfig
from ._encryption import EncryptedCodec as EncryptedCodec
from ._errors import (
    CommittedNotReplicatedError as CommittedNotReplicatedError,
    CommitUnknownError as CommitUnknownError,
    ConfigError as ConfigError,
    LockLostError as LockLostError,
    LockTimeoutError as LockTimeoutError,
    SessionBusyError as SessionBusyError,
    SessionDataError as SessionDataError,
    SessionEndedError as SessionEndedError,
    SessionError as SessionError,
    SessionFinishedError as SessionFinishedError,
    SessionNotLockedError as SessionNotLockedError,
    SessionNotReadError as SessionNotReadError,
    SessionStateError as SessionStateError,
    SessionTooLargeError as SessionTooLargeError,
    StorageUnavailableError as StorageUnavailableError,
)
from ._local_store import LocalStore as LocalStore
from ._locks import SessionStatistics as SessionStatistics
from ._manager import SessionManager as SessionManager, open_session_manager as open_session_manager
from ._middleware import SessionMiddleware as SessionMiddleware, get_session as get_session
from ._redis_connection import RedisConnection as RedisConnection
from ._session import Session as Session
from .abc import (
    Codec as Codec,
    SessionEvent as SessionEvent,
    SessionInstrument as SessionInstrument,
    SessionStore as SessionStore,
)

if _typing.TYPE_CHECKING:  # pragma: no cover - only type checkers go through here
    from .redis import RedisStore as RedisStore, open_redis_store as open_redis_store

__all__ = [
    "Codec",
    "CommitUnknownError",
    "CommittedNotReplicatedError",
    "ConfigError",
    "EncryptedCodec",
    "LocalStore",
    "LockLostError",
    "LockTimeoutError",
    "MsgpackCodec",
    "RedisConnection",
    "RedisStore",
    "Session",
    "SessionBusyError",
    "SessionConfig",
    "SessionDataError",
    "SessionEndedError",
    "SessionError",
    "SessionEvent",
    "SessionFinishedError",
    "SessionInstrument",
    "SessionManager",
    "SessionMiddleware",
    "SessionNotLockedError",
    "SessionNotReadError",
    "SessionStateError",
    "SessionStatistics",
    "SessionStore",
    "SessionTooLargeError",
    "StorageUnavailableError",
    "get_session",
    "open_redis_store",
    "open_session_manager",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in {"RedisStore", "open_redis_store"}:  # they bring redis along, which takes a while to load
        from . import redis

        return getattr(redis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
