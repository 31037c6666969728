"""Server-side sessions for Trio, with locks that structured concurrency can be trusted with.

ground floor    _errors _ids _cookies _config _codec _states _known _working: decide, never wait
one lock        _gate (this process's queue) · a store (all processes; abc, _local_store) · _leases; _locks joins them
one session     _lifecycle (the machine) · _session (its face) · _manager (what sessions share)
one server      _middleware (any ASGI application); trio_session.web, .testing and .cli stand on top
"""

from __future__ import annotations

from ._codec import MsgpackCodec as MsgpackCodec
from ._config import RedisConnection as RedisConnection
from ._config import SessionConfig as SessionConfig
from ._errors import (
    CommitUnknownError as CommitUnknownError,
)
from ._errors import (
    ConfigError as ConfigError,
)
from ._errors import (
    LockLostError as LockLostError,
)
from ._errors import (
    LockTimeoutError as LockTimeoutError,
)
from ._errors import (
    SessionBusyError as SessionBusyError,
)
from ._errors import (
    SessionDataError as SessionDataError,
)
from ._errors import (
    SessionEndedError as SessionEndedError,
)
from ._errors import (
    SessionError as SessionError,
)
from ._errors import (
    SessionFinishedError as SessionFinishedError,
)
from ._errors import (
    SessionNotLockedError as SessionNotLockedError,
)
from ._errors import (
    SessionNotReadError as SessionNotReadError,
)
from ._errors import (
    SessionStateError as SessionStateError,
)
from ._errors import (
    SessionTooLargeError as SessionTooLargeError,
)
from ._errors import (
    StorageUnavailableError as StorageUnavailableError,
)
from ._local_store import LocalStore as LocalStore
from ._locks import SessionStatistics as SessionStatistics
from ._manager import SessionManager as SessionManager
from ._manager import open_session_manager as open_session_manager
from ._middleware import SessionMiddleware as SessionMiddleware
from ._middleware import get_session as get_session
from ._session import Session as Session
from .abc import Codec as Codec
from .abc import SessionStore as SessionStore

__version__ = "0.1.0"
