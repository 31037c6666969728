"""RedisStore: sessions and their locks on one Redis server, for any number of processes and hosts."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha1
from random import uniform
from typing import Final, final

import trio

from .._config import RedisConnection
from .._errors import (
    CommitUnknownError,
    ConfigError,
    EndReason,
    LockLostError,
    SessionEndedError,
    StorageUnavailableError,
)
from .._tasks import open_service_nursery
from ..abc import Committed, Lifetime, Loaded, SessionStore
from ._connection import Address, OpenStream
from ._link import Command
from ._node import Locate, Node
from ._resp import Reply
from ._scripts import ACQUIRE, COMMIT, DESTROY, LOAD, RELEASE, RENEW, ROTATE, Argument, Script
from ._topology import Topology
from ._waiters import Waiters

__all__ = ["RedisStore", "open_redis_store"]

# A process that was offered a lock has so long to claim it.
_GRACE: Final = 1000  # ms; _HAND_OVER_GRACE in _config
# Whoever waits asks again after so long, should a message have been lost; and a queue that nobody asks about any more
# disappears.
_POLL: Final = (1.0, 2.0)  # seconds
_QUEUE_LIFE: Final = 30_000  # ms
# Without a subscription there are no messages, so waiting means asking.
_POLL_ALONE: Final = (0.02, 0.1)  # seconds
# While others wait, so many of our own tasks may have the lock in a row, for so long.
_MOST_HEIRS: Final = 8
_LONGEST_REIGN: Final = 0.05  # seconds
# What is left to be sent when the store closes has so long.
_FAREWELL: Final = 1.0  # seconds

_is_prefix = re.compile(r"[!-z|~]+").fullmatch

# Of braces, which a record's name has and its key has not.
_UNTAGGED: Final = str.maketrans("", "", "{}")

_HEADER: Final = 33  # bytes; see scripts/_reading.lua
_END_OF: Final[dict[bytes, EndReason]] = {b"d": "destroyed", b"o": "orphaned", b"r": "replaced", b"": "expired"}
_KIND_OF: Final[dict[EndReason, str]] = {reason: kind.decode() for kind, reason in _END_OF.items()}


@final
class RedisStore(SessionStore):
    """Sessions on a Redis server (6.2 or newer) or Valkey. Open one with `open_redis_store()`.

    A lock and its record live on the same server and are written by the same script, so a commit is fenced: it checks
    in one indivisible step that the lock is still held and that the record is the one that was read. Two round trips
    make a change, one a read.

    Keys begin with the prefix, followed by the first two characters of the session's key in braces: all keys of a
    session share a slot. What a message of the server, a dump or `MONITOR` shows is a hash, never an id.
    """

    def __init__(self, address: Address, prefix: str) -> None:
        self._prefix = prefix
        self._name = secrets.token_hex(8)  # this process's towards the server: of its channel, and in the queues
        self._waiters = Waiters(self._refuse_offer)
        # Locks that are ours, with their leases in ms; the message that offered one may come after the fact.
        self._held: dict[str, bytes] = {}
        self._closed = False
        self._topology = Topology(self._new_node(str(address), address.located))
        self._routes = self._topology.routes
        self._reigns: dict[str, tuple[int, float]] = {}  # heirs in a row while others waited, and since when
        self._life: Lifetime | None = None
        self._life_in_ms: tuple[bytes, bytes, bytes] = (b"-1", b"-1", b"0")

    def __repr__(self) -> str:
        return f"<RedisStore {self._topology}, {len(self._waiters)} waiting>"

    def _new_node(self, name: str, locate: Locate) -> Node:
        return Node(
            name,
            locate,
            channel=f"{self._prefix}:p:{self._name}",
            on_message=self._waiters.on_offer,
            on_change=self._waiters.call_all,
        )

    # -- records ------------------------------------------------------------------------------------------------------

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        arguments = (self._record(key), *self._in_ms(life))
        node = self._routes[key[:2]]
        command = await node.link.call(LOAD.call(*arguments))  # `run`, but for a frame: reads are frequent
        if not isinstance(command.reply, list):
            command = await self._topology.persist(node, LOAD, arguments, command)
        return _loaded(command.reply, granted_at=0.0)

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: str | None = None
    ) -> Committed:
        id = _commit_id(token)
        idle, absolute, _ = self._in_ms(life)
        reign = self._reigns.get(key)
        lease = self._held.get(self._name + token, b"%d" % _GRACE)  # an heir gets the same
        arguments = (
            *self._keys(key),
            self._name + token,
            _GRACE,
            version,
            id,
            blob,
            idle,
            absolute,
            "" if heir is None else self._name + heir,
            lease,
            int(_may_go_on(reign)),
        )
        reply = await self._write(COMMIT, key, token, *arguments)
        if reply == 3:
            heirs, since = reign or (0, trio.current_time())
            self._reigns[key] = heirs + 1, since
        if heir is not None and reply != 1:
            self._held[self._name + heir] = lease
        return Committed(id, handed_on=reply != 1)

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        id = _commit_id(token)
        idle, absolute, _ = self._in_ms(life)
        arguments = (
            *self._keys(key),
            self._record(new_key),
            self._name + token,
            _GRACE,
            version,
            id,
            blob,
            idle,
            absolute,
            _KIND_OF[reason],
        )
        await self._write(ROTATE, key, token, *arguments)
        return id

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        arguments = (*self._keys(key), self._name + token, _GRACE, _commit_id(token), _KIND_OF[reason])
        await self._write(DESTROY, key, token, *arguments)

    async def _write(self, script: Script, key: str, token: str, *arguments: Argument) -> int:
        try:
            return _written(await self._topology.run(key, script, *arguments, insists=True))
        finally:
            self._forget(key, token)

    # -- locks --------------------------------------------------------------------------------------------------------

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        who, lease_in_ms = self._name + token, _ms(lease)
        keys, life_in_ms = self._keys(key)[:3], self._in_ms(life)
        self._waiters.add(who)
        try:
            while not self._closed:
                queue_life = _QUEUE_LIFE if self._routes[key[:2]].control.listening else 0
                command = await self._topology.run(
                    key, ACQUIRE, *keys, who, lease_in_ms, _GRACE, queue_life, *life_in_ms
                )
                if not isinstance(command.reply, int):
                    self._held[who] = lease_in_ms
                    return _loaded(command.reply, granted_at=command.sent_at)
                # A lease that ends by itself tells nobody, so we ask then.
                ends = max(0.0, command.reply / 1000) + 0.005
                await self._waiters.wait(who, min(ends, uniform(*_POLL if queue_life else _POLL_ALONE)))
            raise StorageUnavailableError(f"{self._topology}: the store is closed")
        except BaseException:
            self.release(key, token)
            raise
        finally:
            self._waiters.remove(who)

    def release(self, key: str, token: str) -> None:
        self._forget(key, token)
        self._topology.post(key, RELEASE, *self._keys(key)[:3], self._name + token, _GRACE)

    def _forget(self, key: str, token: str) -> None:
        self._held.pop(self._name + token, None)
        self._reigns.pop(key, None)

    def _refuse_offer(self, record: str, who: str) -> None:
        """Somebody who waits no longer was offered a lock: on it goes to the next."""
        if who not in self._held:
            key = record.removeprefix(f"{self._prefix}:").translate(_UNTAGGED)
            self._topology.post(key, RELEASE, *_keys(record)[:3], who, _GRACE)

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool]:
        if not locks:
            await trio.lowlevel.checkpoint()
            return []
        arguments = [(f"{self._record(key)}:l", self._name + token, _ms(lease)) for key, token in locks]
        (node,) = self._topology.nodes
        commands = await node.link.call_all([RENEW.call(*each) for each in arguments])
        held: list[bool] = []
        for command, each in zip(commands, arguments, strict=True):
            if command.reply not in {0, 1}:
                command = await self._topology.persist(node, RENEW, each, command)
            held.append(command.reply == 1)
        return held

    async def _close(self) -> None:
        """Let nobody wait any longer, and let what was sent arrive."""
        self._closed = True
        self._waiters.call_all()
        with trio.move_on_after(_FAREWELL, shield=True):
            await trio.lowlevel.checkpoint()  # those who waited give up
            await self._topology.drain()

    # -- names --------------------------------------------------------------------------------------------------------

    def _record(self, key: str) -> str:
        return f"{self._prefix}:{{{key[:2]}}}{key[2:]}"

    def _keys(self, key: str) -> tuple[str, str, str, str]:
        return _keys(self._record(key))

    def _in_ms(self, life: Lifetime) -> tuple[bytes, bytes, bytes]:
        if life is not self._life:
            self._life = life
            self._life_in_ms = _ms(life.idle), _ms(life.absolute), _ms(life.touch_interval)
        return self._life_in_ms


def _keys(record: str) -> tuple[str, str, str, str]:
    return record, f"{record}:l", f"{record}:q", f"{record}:c"


def _commit_id(token: str) -> bytes:
    """The name of the commit that ends an acquisition, and of the version it makes: 8 bytes of caller, 8 of number."""
    return _caller_id(token[:-8]) + token[-8:].rjust(8).encode()


@lru_cache(maxsize=64)
def _caller_id(caller: str) -> bytes:
    return sha1(caller.encode(), usedforsecurity=False).digest()[:8]


def _ms(seconds: float) -> bytes:
    """For the scripts; -1 is for ever, and so is what no clock of theirs can hold."""
    return b"%d" % round(seconds * 1000) if seconds < 1e11 else b"-1"


def _may_go_on(reign: tuple[int, float] | None) -> bool:
    """May another task of this process have the lock, although other processes wait?"""
    return reign is None or (reign[0] < _MOST_HEIRS and trio.current_time() - reign[1] < _LONGEST_REIGN)


def _loaded(reply: Reply, *, granted_at: float) -> Loaded:
    """What the scripts have read; scripts/_reading.lua has the format."""
    if not isinstance(reply, list):
        raise StorageUnavailableError(f"the server's answer makes no sense: {type(reply).__name__}")
    value, slid = reply
    assert isinstance(value, bytes)
    if not value:
        return Loaded(granted_at=granted_at)
    if value[:3] == b"ts1" and len(value) >= _HEADER:
        kind = value[3:4]
        if kind == b"=":
            return Loaded(value[4:20], value[_HEADER:], slid=slid == 1, granted_at=granted_at)
        if kind in _END_OF:
            return Loaded(ended=_END_OF[kind], granted_at=granted_at)
        if kind == b"?":  # not even a string
            return Loaded(value[4:20], value, granted_at=granted_at)
    # Foreign or newer: the codec will refuse it, but it can be cleared. scripts/_writing.lua names it in the same way.
    return Loaded(sha1(value, usedforsecurity=False).hexdigest().encode(), value, granted_at=granted_at)


def _written(command: Command) -> int:
    """What became of a write."""
    match command.reply:
        case 1 | 2 | 3:
            return command.reply
        case 0:
            raise LockLostError
        case -1 if command.sends == 1:
            raise LockLostError
        case bytes(kind):
            raise SessionEndedError(_END_OF.get(kind, "replaced"))
        case _:
            raise CommitUnknownError


@asynccontextmanager
async def open_redis_store(
    connection: RedisConnection | str, *, prefix: str = "trio_session", open_stream: OpenStream | None = None
) -> AsyncIterator[RedisStore]:
    """Keep sessions on a Redis server for the length of a block.

        async with open_redis_store("redis://cache.example/0") as store:
            async with open_session_manager(config, store=store) as manager:
                ...

    `open_session_manager()` does this by itself if the driver is `redis`.

    Args:
        connection: where the server is; a str is its URL.
        prefix: all keys and channels begin with it and a colon. Programs with the same prefix share their sessions.
            Printable ASCII without spaces and braces.
        open_stream: opens the byte stream to the server, instead of what `connection` says.

    Raises:
        ConfigError: the URL or the prefix is wrong.
        StorageUnavailableError: the server cannot be reached within two seconds, or refuses us.
    """
    if isinstance(connection, str):
        connection = RedisConnection(url=connection)
    if not _is_prefix(prefix):
        raise ConfigError("prefix must be printable ASCII without spaces and braces")
    store = RedisStore(Address.of(connection, open_stream=open_stream), prefix)
    async with open_service_nursery() as start:
        await store._topology.open(start)
        try:
            yield store
        finally:
            await store._close()
