"""SessionTrainer: sessions prepared and watched by a unit test, as amphp's trainer of the same name does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from types import TracebackType
from typing import Any, Self, final

from .._config import SessionConfig
from .._errors import EndReason
from .._ids import Ids
from .._local_store import LocalStore
from .._manager import SessionManager, open_session_manager
from ..abc import Heir, Lifetime, Loaded, SessionStore

__all__ = ["SessionTrainer"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class _TrainerIds(Ids):
    """Ids a reader can tell apart: a, b, …, z, aa, ab, …; any short word of small letters will do for a test's own."""

    def __init__(self) -> None:
        self._next = 0
        self.taken: set[str] = set()

    def new(self, like: str | None = None) -> str:
        while True:
            number, id = self._next, ""
            self._next += 1
            while number >= 0:
                number, letter = divmod(number, len(_LETTERS))
                id = _LETTERS[letter] + id
                number -= 1
            if id not in self.taken:
                return id

    def is_valid(self, id: str) -> bool:
        return 0 < len(id) <= 48 and id.isascii() and id.replace("-", "").replace("_", "").isalnum()


class _CountingStore(SessionStore):
    """A LocalStore that counts what is asked of it, by key."""

    confirms = True  # at once: whoever tests with the configuration of production need not take its `durability` out

    def __init__(self) -> None:
        self._store = LocalStore()
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.locks: Counter[str] = Counter()
        self.blobs: dict[str, bytes] = {}  # what was last written, also if it has expired by now
        self._holders: dict[str, str] = {}

    def is_locked(self, key: str) -> bool:
        return key in self._holders

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        loaded = await self._store.load(key, life=life)
        self.reads[key] += 1
        return loaded

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        loaded = await self._store.acquire(key, token, lease=lease, life=life)
        self._got(key, token)
        return loaded

    def _got(self, key: str, token: str) -> None:
        self.reads[key] += 1
        self.locks[key] += 1
        self._holders[key] = token

    def _lost(self, key: str, token: str) -> None:
        if self._holders.get(key) == token:
            del self._holders[key]

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        handed_on = False

        def inherit(version: bytes, on_begun: Callable[[], None] | None) -> None:
            nonlocal handed_on
            assert heir is not None
            handed_on = True
            self._wrote(key, token, blob)
            self._got(key, heir.token)
            heir.inherit(version, on_begun)

        ours = None if heir is None else Heir(heir.token, inherit)
        new_version = await self._store.commit(key, token, version=version, blob=blob, life=life, heir=ours)
        if not handed_on:
            self._wrote(key, token, blob)
        return new_version

    def _wrote(self, key: str, token: str, blob: bytes) -> None:
        self.writes[key] += 1
        self.blobs[key] = blob
        self._lost(key, token)

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        new_version = await self._store.rotate(
            key, token, version=version, new_key=new_key, blob=blob, life=life, reason=reason
        )
        self.writes[key] += 1
        self.writes[new_key] += 1
        self.blobs[new_key] = blob
        self.blobs.pop(key, None)
        self._lost(key, token)
        return new_version

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        await self._store.destroy(key, token, reason=reason)
        self.writes[key] += 1
        self.blobs.pop(key, None)
        self._lost(key, token)

    def release(self, key: str, token: str) -> None:
        self._store.release(key, token)
        self._lost(key, token)

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool]:
        return await self._store.renew(locks, lease=lease)


@final
class SessionTrainer:
    """Gives sessions to the code under test, and tells afterwards what it did with them.

        async with SessionTrainer() as trainer:
            await trainer.given_session("a", {"user": 7})
            app = App(manager=trainer.manager)
            ...
            assert trainer.added_keys("a") == {"cart"}

    Sessions are in memory; new ones get the ids `a`, `b`, … in turn. Counts begin at a `given_session`, else at 0.

    Args:
        config: None for the defaults; nothing is read from the environment.
    """

    def __init__(self, config: SessionConfig | None = None) -> None:
        self._config = config or SessionConfig()
        self._ids = _TrainerIds()
        self._store = _CountingStore()
        self._given: dict[str, set[str]] = {}
        self._manager: SessionManager | None = None
        self._stack = AsyncExitStack()
        self._tokens = count()

    async def __aenter__(self) -> Self:
        self._manager = await self._stack.enter_async_context(
            open_session_manager(self._config, store=self._store, ids=self._ids)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    @property
    def manager(self) -> SessionManager:
        """The manager to give to the application: `App(manager=trainer.manager)`."""
        if self._manager is None:
            raise RuntimeError("the trainer is not open: `async with SessionTrainer() as trainer:`")
        return self._manager

    async def given_session(self, id: str, data: Mapping[str, Any]) -> None:
        """Have a session under `id`, a short word, with this data; it replaces what was there."""
        manager = self.manager
        if not self._ids.is_valid(id):
            raise ValueError("an id for the trainer is made of at most 48 ASCII letters, digits, - and _")
        self._ids.taken.add(id)
        key = self._ids.key(id)
        engine = manager._engine
        token = f"trainer-{next(self._tokens)}"
        life = engine.config.life
        blob = engine.codec.encode(dict(data), context=key.encode())
        loaded = await self._store.acquire(key, token, lease=60.0, life=life)
        await self._store.commit(key, token, version=loaded.version, blob=blob, life=life)
        self._given[id] = set(data)
        for counts in (self._store.reads, self._store.writes, self._store.locks):
            del counts[key]

    def added_keys(self, id: str) -> set[str]:
        """Names that are stored now and were not given."""
        return self._stored_keys(id) - self._given.get(id, set())

    def removed_keys(self, id: str) -> set[str]:
        """Names that were given and are not stored now."""
        return self._given.get(id, set()) - self._stored_keys(id)

    def _stored_keys(self, id: str) -> set[str]:
        blob = self._store.blobs.get(self._ids.key(id))
        return set() if blob is None else set(self.manager._engine.decode(blob, id))

    def read_count(self, id: str) -> int:
        """How often the session was read, with or without its lock."""
        return self._store.reads[self._ids.key(id)]

    def write_count(self, id: str) -> int:
        """How often the session was written, moved or destroyed; an unchanged one is not written."""
        return self._store.writes[self._ids.key(id)]

    def lock_count(self, id: str) -> int:
        """How often the session's lock was taken."""
        return self._store.locks[self._ids.key(id)]

    def is_locked(self, id: str) -> bool:
        """Whether somebody holds the session's lock now."""
        return self._store.is_locked(self._ids.key(id))
