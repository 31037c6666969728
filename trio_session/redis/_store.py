"""RedisStore: sessions and their locks on one Redis server, for any number of processes and hosts."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import uniform
from typing import Final, final

import trio

from .._errors import CommittedNotReplicatedError, ConfigError, EndReason, StorageUnavailableError
from .._redis_connection import RedisConnection
from .._settings import replicas_in
from .._tasks import StartService, open_service_nursery
from ..abc import Heir, Lifetime, Loaded, SessionStore
from ._address import Destination, OpenStream
from ._answers import loaded_from, written
from ._link import Command
from ._node import Locate, Node
from ._opening import open_topology
from ._replication import History
from ._requests import GRACE_PERIOD, Requests, commit_id, inheritance
from ._scripts import ACQUIRE, COMMIT, DESTROY, LOAD, RELEASE, RENEW, ROTATE, Script
from ._topology import Routes, Topology
from ._waiters import Waiters

__all__ = ["RedisStore", "open_redis_store"]

# Whoever waits asks again after so long, should a message have been lost.
_POLL: Final = (1.0, 2.0)  # seconds
# Without a subscription there are no messages, so waiting means asking.
_POLL_ALONE: Final = (0.02, 0.1)  # seconds
# While others wait, so many of our own tasks may have the lock in a row, for so long.
_MOST_HEIRS: Final = 8
_LONGEST_REIGN: Final = 0.05  # seconds
# What is left to be sent when the store closes has so long.
_FAREWELL: Final = 1.0  # seconds
_ANSWERS: Final = (list, int)  # what `acquire` gives
_DONE: Final = (1, 2, 3)  # what the script says of a commit that landed

_is_prefix = re.compile(r"[!-z|~]+").fullmatch

# The locks of a server have so much of the lease to be renewed in; _leases tries again after a third.
_RENEWAL_SHARE: Final = 0.3


@final
class RedisStore(SessionStore):
    """Sessions on a Redis server (6.2 or newer) or Valkey. Open one with `open_redis_store()`.

    A lock and its record live on the same server and are written by the same script, so a commit is fenced: it checks
    in one indivisible step that the lock is still held and that the record is the one that was read. Two round trips
    make a change, one a read.

    Keys begin with the prefix, followed by the first two characters of the session's key in braces: all keys of a
    session share a slot. What a message of the server, a dump or `MONITOR` shows is a hash, never an id.
    """

    def __init__(self, prefix: str, replicas: int) -> None:
        self._requests = Requests(prefix)
        self._replicas = replicas
        self.confirms = replicas > 0
        self._unconfirmed: dict[str, History | None] = {}  # by token: what a write of its is part of
        self._name = secrets.token_hex(8)  # this process's towards the server: of its channel, and in the queues
        self._waiters = Waiters(self._refuse_offer)
        # Locks that are ours, with their leases in seconds; the message that offered one may come after the fact.
        self._held: dict[str, float] = {}
        self._closed = False
        self._topology: Topology  # from `_open` on
        self._routes: Routes
        self._reigns: dict[str, tuple[int, float]] = {}  # heirs in a row while others waited, and since when

    def __repr__(self) -> str:
        return f"<RedisStore {self._topology.name}, {len(self._waiters)} waiting>"

    async def _open(self, destination: Destination, start: StartService) -> None:
        self._topology = await open_topology(destination, self._new_node, self._waiters.call_all, start)
        self._routes = self._topology.routes

    def _new_node(self, name: str, locate: Locate) -> Node:
        return Node(
            name,
            locate,
            channel=self._requests.channel(self._name),
            on_message=self._on_offer,
            on_change=self._waiters.call_all,
            replicas=self._replicas,
            mark=self._requests.mark,
        )

    # -- records ------------------------------------------------------------------------------------------------------

    async def load(self, key: str, *, life: Lifetime) -> Loaded:
        payload = self._requests.load(key, life)
        node = self._routes[key[:2]]
        command = await node.link.call(payload)
        if not isinstance(command.reply, list):
            command = await self._topology.persist(key, node, LOAD, payload, command)
        return loaded_from(command.reply, granted_at=0.0)

    async def commit(
        self, key: str, token: str, *, version: bytes, blob: bytes, life: Lifetime, heir: Heir | None = None
    ) -> bytes:
        id, who = commit_id(token), self._name + token
        bequeath: Callable[[Command], None] | None = None
        if heir is None:
            payload = self._requests.commit(key, who, version, id, blob, life)
        else:
            reign = self._reigns.get(key)
            lease = self._held.get(who, GRACE_PERIOD)  # the heir gets the same
            estate = inheritance(self._name + heir.token, lease, may_go_on=_may_go_on(reign))
            payload = self._requests.commit(key, who, version, id, blob, life, estate)
            bequeath = partial(self._bequeath, key, heir, lease, reign, id)
        node = self._routes[key[:2]]
        try:
            command = await node.link.call(payload, insists=True, on_done=bequeath)
            if command.reply not in _DONE:
                command = await self._topology.persist(key, node, COMMIT, payload, command)
                written(command)
                if bequeath is not None:
                    bequeath(command)
            if self._replicas:
                self._unconfirmed[token] = command.history
            if command.reply == 1:
                self._reigns.pop(key, None)
        except BaseException:
            self._reigns.pop(key, None)
            raise
        finally:
            self._held.pop(who, None)
        return id

    def _bequeath(
        self, key: str, heir: Heir, lease: float, reign: tuple[int, float] | None, version: bytes, command: Command
    ) -> None:
        """The answer to a commit has come: is the lock the heir's?"""
        if command.reply == 2 or command.reply == 3:
            self._held[self._name + heir.token] = lease
            if command.reply == 3:
                heirs, since = reign or (0, trio.current_time())
                self._reigns[key] = heirs + 1, since
            else:
                self._reigns.pop(key, None)
            # The heir first: the server works on its commit while our own caller does what is left to do. That makes a
            # quarter more changes per second of a session that many want.
            command.patient = True
            heir.inherit(version, command.go_on)

    async def rotate(
        self, key: str, token: str, *, version: bytes, new_key: str, blob: bytes, life: Lifetime, reason: EndReason
    ) -> bytes:
        id = commit_id(token)
        payload = self._requests.rotate(key, self._name + token, version, id, new_key, blob, life, reason)
        await self._write(ROTATE, key, token, payload)
        return id

    async def destroy(self, key: str, token: str, *, reason: EndReason) -> None:
        payload = self._requests.destroy(key, self._name + token, commit_id(token), reason)
        await self._write(DESTROY, key, token, payload)

    async def _write(self, script: Script, key: str, token: str, payload: bytes) -> None:
        node = self._routes[key[:2]]
        try:
            command = await node.link.call(payload, insists=True)
            if command.reply != 1:
                command = await self._topology.persist(key, node, script, payload, command)
            written(command)
            if self._replicas:
                self._unconfirmed[token] = command.history
        finally:
            self._forget(key, token)

    async def confirm(self, key: str, token: str) -> None:
        history = self._unconfirmed.pop(token, None)
        if history is None:
            raise CommittedNotReplicatedError("primary_lost")
        await history.confirm(key)

    # -- locks --------------------------------------------------------------------------------------------------------

    async def acquire(self, key: str, token: str, *, lease: float, life: Lifetime) -> Loaded:
        who = self._name + token
        self._waiters.add(who)
        try:
            while not self._closed:
                node = self._routes[key[:2]]
                if node.is_new:
                    await node.tried_to_listen()
                is_queued = node.control.listening
                payload = self._requests.acquire(key, who, lease, life, is_queued=is_queued)
                command = await node.link.call(payload)
                if not isinstance(command.reply, _ANSWERS):
                    command = await self._topology.persist(key, node, ACQUIRE, payload, command)
                if not isinstance(command.reply, int):
                    self._held[who] = lease
                    return loaded_from(command.reply, granted_at=command.sent_at)
                # A lease that ends by itself tells nobody, so we ask then.
                ends = max(0.0, command.reply / 1000) + 0.005
                await self._waiters.wait(who, min(ends, uniform(*_POLL if is_queued else _POLL_ALONE)))
            raise StorageUnavailableError(f"{self._topology.name}: the store is closed")
        except BaseException:
            self.release(key, token)
            raise
        finally:
            self._waiters.remove(who)

    def release(self, key: str, token: str) -> None:
        self._forget(key, token)
        self._topology.post(key, RELEASE, self._requests.release(key, self._name + token))

    def _forget(self, key: str, token: str) -> None:
        self._held.pop(self._name + token, None)
        self._reigns.pop(key, None)

    def _on_offer(self, node: Node, message: bytes) -> None:
        # In a cluster all nodes pass on the message of one, and we listen to each of them.
        if self._routes[self._requests.key_of(message.decode("ascii", "replace"))[:2]] is node:
            self._waiters.on_offer(message)

    def _refuse_offer(self, record: str, who: str) -> None:
        """Somebody who waits no longer was offered a lock: on it goes to the next."""
        if who not in self._held:
            key = self._requests.key_of(record)
            self._topology.post(key, RELEASE, self._requests.release(key, who))

    async def renew(self, locks: Sequence[tuple[str, str]], *, lease: float) -> list[bool | None]:
        if not locks:
            await trio.lowlevel.checkpoint()
            return []
        calls = [(key, self._requests.renew(key, self._name + token, lease)) for key, token in locks]
        replies = await self._topology.run_all(RENEW, calls, within=lease * _RENEWAL_SHARE)
        return [None if reply is None else reply == 1 for reply in replies]

    async def _close(self) -> None:
        """Let nobody wait any longer, and let what was sent arrive."""
        self._closed = True
        self._waiters.call_all()
        with trio.move_on_after(_FAREWELL, shield=True):
            await trio.lowlevel.checkpoint()  # those who waited give up
            await self._topology.drain()


def _may_go_on(reign: tuple[int, float] | None) -> bool:
    """May another task of this process have the lock, although other processes wait?"""
    return reign is None or (reign[0] < _MOST_HEIRS and trio.current_time() - reign[1] < _LONGEST_REIGN)


@asynccontextmanager
async def open_redis_store(
    connection: RedisConnection | str,
    *,
    prefix: str = "trio_session",
    durability: str | None = None,
    open_stream: OpenStream | None = None,
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
        durability: see `SessionConfig`.
        open_stream: opens the byte stream to the server, instead of what `connection` says.

    Raises:
        ConfigError: the URL, the prefix or the durability is wrong.
        StorageUnavailableError: the server cannot be reached within two seconds, or refuses us.
    """
    if isinstance(connection, str):
        connection = RedisConnection(url=connection)
    if not _is_prefix(prefix):
        raise ConfigError("prefix must be printable ASCII without spaces and braces")
    destination = Destination.of(connection, open_stream=open_stream)
    store = RedisStore(prefix, replicas_in(durability))
    async with open_service_nursery() as start:
        await store._open(destination, start)
        try:
            yield store
        finally:
            await store._close()
