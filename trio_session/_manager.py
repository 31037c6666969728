"""SessionManager: store, gate, leases, codec and ids under one roof, for as long as a block lasts."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import final

from ._codec import MsgpackCodec
from ._config import SessionConfig
from ._engine import Engine
from ._errors import ConfigError
from ._ids import Ids
from ._instruments import Instruments
from ._local_store import LocalStore
from ._locks import Locks, SessionStatistics
from ._session import Session
from ._tasks import open_service_nursery
from .abc import SessionInstrument, SessionStore

__all__ = ["SessionManager", "open_session_manager"]

logger = logging.getLogger("trio_session")

# A client that sends more cookies of our name than this is not helped any further.
_MOST_CANDIDATES = 4


@final
class SessionManager:
    """Makes Sessions. Get one from `open_session_manager()`, or from the middleware."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def config(self) -> SessionConfig:
        """The configuration it was opened with."""
        return self._engine.config

    def session(self, client_id: str | None = None, *others: str) -> Session:
        """The session a client's id stands for; nothing is read yet.

        An id that the store does not know, or that does not look like one, makes an empty session: it is never
        adopted, the first commit makes a new id.

        Args:
            client_id: what the client sent, unchecked; None for a new session.
            others: further ids it sent; two known ones make it anonymous.
        """
        sent = (client_id, *others) if client_id is not None else others
        valid = [id for id in dict.fromkeys(sent) if self._engine.ids.is_valid(id)]
        return Session(self._engine, tuple(valid[:_MOST_CANDIDATES]), sent=bool(sent))

    def statistics(self) -> SessionStatistics:
        """What is held and waited for now, and what was done so far."""
        return self._engine.locks.statistics()

    def __repr__(self) -> str:
        now = self.statistics()
        state = "closed" if self._engine.closed else "open"
        return f"<SessionManager {state}, {now.locks_held} locks held, {now.tasks_waiting} tasks waiting>"


@asynccontextmanager
async def open_session_manager(
    config: SessionConfig | None = None,
    *,
    store: SessionStore | None = None,
    ids: Ids | None = None,
    instruments: Iterable[SessionInstrument] = (),
) -> AsyncIterator[SessionManager]:
    """Use sessions for the length of a block.

        async with open_session_manager() as manager:
            session = manager.session(id)
            async with session.locked() as data:
                ...

    Args:
        config: None for `SessionConfig.from_env()`.
        store: an open store of your own, instead of the configured driver's. It is not closed.
        ids: another policy for ids, for tests.
        instruments: are told what the sessions do; see `SessionInstrument`.

    Raises:
        ConfigError: the configuration cannot be used; `durability` cannot, if the `store` was opened without it.
        StorageUnavailableError: the store cannot be reached.

    Exceptions of the block come out bare, never in a group.

    Cancellation:
        Leaving the block waits for commits in flight, also when it is cancelled; at most `commit_timeout`. Locks that
        are still held then are rolled back.
    """
    config = config or SessionConfig.from_env()
    async with nullcontext(store) if store is not None else _open_store(config) as store:
        if config.durability is not None and not store.confirms:
            raise ConfigError("durability is for the store to keep: open_redis_store(…, durability=…)")
        if store.confinement is not None:
            logger.info("%s", store.confinement)
        locks = Locks(store, config, Instruments(instruments))
        engine = Engine(config, store, locks, config.codec or MsgpackCodec(), ids or Ids())
        async with open_service_nursery() as start:
            start(locks.alarm.run)
            start(locks.keeper.run)
            try:
                yield SessionManager(engine)
            finally:
                engine.closed = True
                await locks.close()


def _open_store(config: SessionConfig) -> AbstractAsyncContextManager[SessionStore]:
    if config.driver == "local":
        return nullcontext(LocalStore())
    from .redis import open_redis_store  # takes a while, and not everybody needs it

    # Programs with cookies of different names can share a server, and not each other's sessions.
    prefix = config.resolved_cookie_name.removeprefix("__Host-")
    return open_redis_store(config.redis[config.connection], prefix=prefix, durability=config.durability)
