"""FakeRedis: a Redis server for tests, in memory and on trio's clock, that breaks down on demand.

It runs the true Lua scripts. From the bottom up: `_fake_redis_replies` what it says · `_fake_redis_data` keys and the
commands on them · `_fake_redis_scripts` Lua · `_fake_redis_server` who asks and what they get · `_fake_redis_faults`
what goes wrong · `_fake_redis_wire` bytes in, bytes out. Only the wire and this file wait for anything.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Final, final

import trio
from trio.testing import memory_stream_pair

from .._tasks import open_service_nursery
from ..redis._resp import pack
from ..redis._scripts import SCRIPTS
from ._fake_redis_data import Value
from ._fake_redis_faults import Fault, Faults, Only
from ._fake_redis_server import Server, Settings
from ._fake_redis_wire import Wire

__all__ = ["FakeRedis", "open_fake_redis"]

# So often a WAIT looks how many replicas there are.
_LOOK_AGAIN: Final = 0.01  # seconds

_SCRIPT_NAMES: Final = {hashlib.sha1(script.text, usedforsecurity=False).hexdigest(): script.name for script in SCRIPTS}


@final
class FakeRedis(Settings):
    """A Redis server for tests. Open one with `open_fake_redis()`.

    Whatever of Redis 7.0 it implements, it answers to the byte like the original, error messages included; that is
    what our store needs and a little more. Keys expire on trio's clock.

    Its faults can be meant for certain requests. `only` is the name of a command or of one of our scripts ("GET",
    "commit"), or a function that gets the words of a request and says whether it is meant; by default it is the next
    request, also if that belongs to a log-in. Faults that wait for the same request strike one after the other.

    Attributes:
        calls: how many requests have arrived in full, by command, and by script too.
        delay: so many seconds lie between the execution of a request and the arrival of its reply.
        password: new connections have to give it; None: they need not.
        username: whose password it is; None: the default user's.
        version: as HELLO and INFO tell it.
        read_only: it is a replica: says so in HELLO, and refuses writes with READONLY.
        out_of_memory: commands that need memory are refused with OOM; a script's, unless it has written already.
        maxmemory: as INFO tells it, in bytes; 0: no limit.
        maxmemory_policy: as INFO tells it.
        replicas: so many are connected, and have all that was written; WAIT says so.
        replid: names the history of its writes, as INFO tells it; set another one, and it has been a replica meanwhile.
    """

    def __init__(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.delay = 0.0
        self._start = start
        self._server = Server(self, trio.current_time)
        self._faults = Faults()
        self._wires: set[Wire] = set()
        self._refusals: float = 0
        self._thawed = trio.Event()
        self._thawed.set()

    def __repr__(self) -> str:
        state = "" if self._thawed.is_set() else ", frozen"
        return f"<FakeRedis {len(self._wires)} connections, {len(self.keys())} keys, {len(self._faults)} faults{state}>"

    async def open_stream(self) -> trio.abc.Stream:
        """Connect: the client's end of a new connection. Give this method to `open_redis_store`.

        Raises:
            ConnectionRefusedError: `refuse` says so.
        """
        await trio.lowlevel.checkpoint()
        if self._refusals > 0:
            self._refusals -= 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the fake server refuses connections")
        theirs, ours = memory_stream_pair()
        wire = Wire(
            self._server,
            ours,
            handle=self._handle,
            until_thawed=self._until_thawed,
            until_replicated=self._until_replicated,
            delay=lambda: self.delay,
        )
        self._wires.add(wire)
        self._start(lambda: self._serve(wire))
        return theirs

    async def _serve(self, wire: Wire) -> None:
        try:
            await wire.run()
        finally:
            self._wires.discard(wire)

    async def _until_thawed(self) -> None:
        await self._thawed.wait()

    async def _until_replicated(self, words: list[bytes]) -> None:
        """What a WAIT waits for: as many replicas, or that so many ms have passed; 0 are for ever."""
        if len(words) != 3 or not words[1].isdigit() or not words[2].isdigit():
            return  # and is told so
        with trio.move_on_after(int(words[2]) / 1000 or inf):
            while self.replicas < int(words[1]):  # noqa: ASYNC110 - an attribute does not tell that it was changed
                await trio.sleep(_LOOK_AGAIN)

    def _handle(self, wire: Wire, words: list[bytes]) -> None:
        """A request has arrived: execute it, or what is left of that."""
        names = _names_of(words)
        fault = self._faults.strike(names, words)
        if fault is not None and fault.request_bytes is not None:
            wire.stop_listening()
            if fault.request_bytes < len(pack(tuple(words))):
                wire.fall_silent()
                return
        self.calls.update(names)
        if fault is None:
            wire.say(wire.execute(words))
        elif fault.error is not None:
            wire.say(b"-%b\r\n" % fault.error.encode())
        else:
            wire.say(wire.execute(words)[: fault.reply_bytes])
            wire.fall_silent()

    # -- data ---------------------------------------------------------------------------------------------------------

    def keys(self, *, db: int = 0) -> list[str]:
        """The keys that have not expired, in alphabetical order."""
        return sorted(key.decode("utf-8", "backslashreplace") for key in self._server.database(db))

    def get(self, key: str | bytes, *, db: int = 0) -> Value | None:
        """The value of a key: bytes, a list, or a dict; None if there is none."""
        value = self._server.database(db).find(_key(key))
        return value if value is None or isinstance(value, bytes) else value.copy()

    def time_left(self, key: str | bytes, *, db: int = 0) -> float | None:
        """How many seconds a key has left to live; `math.inf` if it does not expire, None if it is not there."""
        keys, name = self._server.database(db), _key(key)
        if keys.find(name) is None:
            return None
        end = keys.ends_at(name)
        return inf if end is None else (end - keys.now_ms) / 1000

    def pass_over(self, key: str | bytes, seconds: float, *, db: int = 0) -> None:
        """Let time pass for one key alone: it expires so much earlier. A key that does not expire is not touched."""
        keys, name = self._server.database(db), _key(key)
        end = keys.ends_at(name)
        if end is not None:
            keys.set_end(name, end - round(seconds * 1000))

    def expire(self, key: str | bytes, *, db: int = 0) -> None:
        """Let a key expire, or be evicted, now; if it is there."""
        self._server.database(db).remove(_key(key))

    # -- faults -------------------------------------------------------------------------------------------------------

    def cut_request_after(self, n_bytes: int, *, only: Only = None) -> None:
        """The connection dies when so many bytes of the request have arrived.

        It is not executed, unless these are all of its bytes; then its reply is lost.
        """
        self._faults.add(Fault(only, request_bytes=n_bytes))

    def cut_reply_after(self, n_bytes: int, *, only: Only = None) -> None:
        """The request is executed, but only so many bytes of its reply get through; then the connection dies.

        Requests that arrived together with it are executed too.
        """
        self._faults.add(Fault(only, reply_bytes=n_bytes))

    def lose_reply(self, *, only: Only = None) -> None:
        """The request is executed, but the connection dies before its reply gets through."""
        self.cut_reply_after(0, only=only)

    def fail_with(self, error: str, *, times: float = 1, only: Only = None) -> None:
        """So many requests are not executed but answered with this error: "LOADING Redis is loading", say."""
        self._faults.add(Fault(only, times=times, error=error.removeprefix("-")))

    def refuse(self, connections: float = inf) -> None:
        """So many attempts to connect fail from now on, all by default, with an OSError; 0: none any more."""
        self._refusals = connections

    def freeze(self) -> None:
        """It keeps its connections, and takes new ones, and says nothing.

        What arrives meanwhile is executed after `thaw()`, even if its sender is gone by then: so does a real server.
        """
        if self._thawed.is_set():
            self._thawed = trio.Event()

    def thaw(self) -> None:
        """End `freeze()`."""
        self._thawed.set()

    async def restart(self, *, keep_data: bool = True) -> None:
        """All connections die, subscriptions and scripts are gone, and so is the data if it is not to be kept."""
        for wire in list(self._wires):
            wire.close()
        self._server.restart(keep_data=keep_data)
        self.thaw()
        await trio.lowlevel.checkpoint()

    def heal(self) -> None:
        """End all faults: those that wait for a request, and those of attributes and methods."""
        self._faults.clear()
        self.refuse(0)
        self.thaw()
        self.delay = 0.0
        self.read_only = self.out_of_memory = False

    @property
    def faults_left(self) -> int:
        """How many faults still wait for their request. 0 proves to a test that its fault has struck."""
        return len(self._faults)


def _key(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _names_of(words: list[bytes]) -> list[str]:
    """The command, and the script that it runs."""
    command = words[0].decode("latin-1").upper()
    if command not in {"EVAL", "EVALSHA"} or len(words) < 2:
        return [command]
    digest = words[1].decode("latin-1").lower()
    if command == "EVAL":
        digest = hashlib.sha1(words[1], usedforsecurity=False).hexdigest()
    return [command, _SCRIPT_NAMES.get(digest, digest)]


@asynccontextmanager
async def open_fake_redis(*, password: str | None = None, username: str | None = None) -> AsyncIterator[FakeRedis]:
    """Run a fake Redis server for the length of a block.

        async def test_visits(autojump_clock):
            async with open_fake_redis() as fake:
                async with open_redis_store("redis://fake", open_stream=fake.open_stream) as store:
                    async with open_session_manager(SessionConfig(driver="redis"), store=store) as manager:
                        session = manager.session()
                        fake.lose_reply(only="commit")
                        assert await session.increment("visits") == 1  # sent again, and counted once
                        assert fake.calls["commit"] == 2

    The address in the URL does not matter, but its credentials and its database do. A store is a process as far as a
    server can see: open several on one server to see them compete.

    Args:
        password: connections have to give it.
        username: whose password it is; by default the default user's.

    Raises:
        ImportError: lupa is not installed.

    Cancellation: leaving the block ends all connections. Until then they are served, even if the block is cancelled.
    """
    async with open_service_nursery() as start:
        fake = FakeRedis(start)
        fake.password, fake.username = password, username
        try:
            yield fake
        finally:
            fake.refuse()
