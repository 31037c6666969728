"""The shared connection to a server: whose reply is whose, and what becomes of callers when it is lost."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_session import RedisConnection
from trio_session._tasks import open_service_nursery
from trio_session.redis._address import Destination
from trio_session.redis._connection import Connection
from trio_session.redis._link import Command, Link
from trio_session.redis._resp import Reply, pack
from trio_session.redis._supervisor import PATIENCE

from .redis_servers import redis_server

NAME = "redis://cache.example:6379/0"


class Peer:
    """A server whose every word is the test's: it reads when it is told to, and says what it is told to say."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None  # of the next connections
        self.attempts: list[float] = []
        self.writes: list[bytes] = []  # one for each `send_all`
        self.may_send = trio.Event()  # a write that has been taken over ends when it is set
        self.may_send.set()
        self.may_connect = trio.Event()  # the same of a connection
        self.may_connect.set()
        self._stream: trio.abc.Stream | None = None

    async def connect(self) -> Connection:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        await self.may_connect.wait()
        if self.refusal is not None:
            raise self.refusal
        ours, theirs = memory_stream_pair()

        async def note() -> None:
            with suppress(trio.WouldBlock):  # all of it was withdrawn
                self.writes.append(bytes(ours.send_stream.get_data_nowait()))
            await self.may_send.wait()

        ours.send_stream.send_all_hook = note
        self._stream = theirs
        return Connection(ours)

    async def say(self, *replies: bytes) -> None:
        """Send these replies as they are."""
        assert self._stream is not None
        await self._stream.send_all(b"".join(replies))
        await wait_all_tasks_blocked()

    async def hang_up(self) -> None:
        assert self._stream is not None
        stream, self._stream = self._stream, None
        await stream.aclose()
        await wait_all_tasks_blocked()

    @property
    def connections(self) -> int:
        return len(self.attempts)

    def heard(self) -> bytes:
        """All that was written since the last look."""
        heard = b"".join(self.writes)
        self.writes.clear()
        return heard


class Call:
    """A caller in a task of its own, and what it got."""

    def __init__(
        self, link: Link, nursery: trio.Nursery, word: str, *, insists: bool = False, asking: bool = False
    ) -> None:
        self.payload = pack(("ECHO", word))
        self.command: Command | None = None
        self.ended_at = inf
        self.scope = trio.CancelScope()
        nursery.start_soon(self._run, link, insists, asking)

    async def _run(self, link: Link, insists: bool, asking: bool) -> None:
        with self.scope:
            self.command = await link.call(self.payload, insists=insists, asking=asking)
        self.ended_at = trio.current_time()

    @property
    def reply(self) -> Reply:
        assert self.command is not None, "no reply yet"
        assert self.command.failure is None
        return self.command.reply

    @property
    def failure(self) -> str:
        assert self.command is not None, "no answer yet"
        return str(self.command.failure)

    @property
    def waits(self) -> bool:
        return self.ended_at == inf


class Bench:
    """A link, its peer, and callers in the order in which they called."""

    def __init__(self, peer: Peer, link: Link, nursery: trio.Nursery) -> None:
        self.peer = peer
        self.link = link
        self.nursery = nursery

    async def call(self, *words: str, insists: bool = False, asking: bool = False) -> list[Call]:
        calls: list[Call] = []
        for word in words:
            calls.append(Call(self.link, self.nursery, word, insists=insists, asking=asking))
            await wait_all_tasks_blocked()
        return calls


@asynccontextmanager
async def open_bench(refusal: Exception | None = None) -> AsyncIterator[Bench]:
    peer = Peer()
    peer.refusal = refusal
    link = Link(NAME, peer.connect)
    async with open_service_nursery() as start, trio.open_nursery() as nursery:
        start(link.run)
        if refusal is None:
            await link.opened()
            await wait_all_tasks_blocked()
        yield Bench(peer, link, nursery)
        nursery.cancel_scope.cancel()


def payloads(*words: str) -> bytes:
    return b"".join(pack(("ECHO", word)) for word in words)


def refused() -> OSError:
    return OSError("connection refused")


# -- whose reply is whose ---------------------------------------------------------------------------------------------


async def test_commands_of_many_tasks_leave_in_one_write(mock_clock: MockClock) -> None:
    """Who calls while a write is under way shares the next one; that is what makes the link fast."""
    async with open_bench() as bench:
        bench.peer.may_send = trio.Event()
        first = await bench.call("first")
        others = await bench.call("b", "c", "d")
        assert bench.peer.writes == [payloads("first")]
        bench.peer.may_send.set()
        await wait_all_tasks_blocked()
        assert bench.peer.writes == [payloads("first"), payloads("b", "c", "d")]
        await bench.peer.say(b"+first\r\n+b\r\n+c\r\n", b":4\r\n")
        assert [call.reply for call in first + others] == [b"first", b"b", b"c", 4]
        assert repr(bench.link) == f"<Link {NAME} up, 0 queued, 0 sent>"


async def test_a_write_has_a_bound(mock_clock: MockClock) -> None:
    """A megabyte of commands goes out in pieces, so what is not yet written can still be withdrawn."""
    async with open_bench() as bench:
        bench.peer.may_send = trio.Event()
        await bench.call("first")
        large = await bench.call(*(letter * 40_000 for letter in "abcd"))
        large[3].scope.cancel()
        bench.peer.may_send.set()
        await wait_all_tasks_blocked()
        assert [len(write) // 40_000 for write in bench.peer.writes] == [0, 2, 1]


async def test_a_reply_in_pieces(mock_clock: MockClock) -> None:
    """However the network cuts it, a reply is one; and nothing is read beyond it."""
    async with open_bench() as bench:
        one, two = await bench.call("one", "two")
        for byte in b"*2\r\n$3\r\nabc\r\n:7\r\n":
            assert one.waits
            await bench.peer.say(bytes([byte]))
        assert one.reply == [b"abc", 7]
        assert two.waits


async def test_a_caller_cancelled_in_time_says_nothing(mock_clock: MockClock) -> None:
    """A command that was not yet written is never on the wire once its caller has gone."""
    async with open_bench() as bench:
        bench.peer.may_send = trio.Event()
        (first,) = await bench.call("first")
        withdrawn, last = await bench.call("withdrawn", "last")
        withdrawn.scope.cancel()
        await wait_all_tasks_blocked()
        bench.peer.may_send.set()
        await bench.peer.say(b"+1\r\n", b"+2\r\n")
        assert bench.peer.heard() == payloads("first", "last")
        assert (first.reply, last.reply) == (b"1", b"2")


async def test_a_late_reply_reaches_nobody(mock_clock: MockClock) -> None:
    """The reply to a caller who has gone is thrown away; the next caller gets its own."""
    async with open_bench() as bench:
        gone, other = await bench.call("gone", "next")
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        assert gone.command is None
        await bench.peer.say(b"+meant for the one who went\r\n")
        assert other.waits
        await bench.peer.say(b"+mine\r\n")
        assert other.reply == b"mine"


async def test_a_caller_that_lets_another_go_first(mock_clock: MockClock) -> None:
    """Its reply is there, but somebody else has it go on. If it is cancelled meanwhile, it goes on with its reply."""

    def let_go_first(command: Command) -> None:
        command.patient = True

    async with open_bench() as bench:
        commands: list[Command] = []

        async def call(payload: str) -> None:
            commands.append(await bench.link.call(payloads(payload), on_done=let_go_first))

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, "first")
                await wait_all_tasks_blocked()
                await bench.peer.say(b"+1\r\n")
                assert commands == []
                scope.cancel()
        assert [command.reply for command in commands] == [b"1"]


async def test_many_commands_of_one_caller(mock_clock: MockClock) -> None:
    """`call_all` sends all at once and returns when the last reply is there; an error reply is a reply."""
    async with open_bench() as bench:
        got: list[list[Command]] = []

        async def call_all() -> None:
            got.append(await bench.link.call_all([payloads("a"), payloads("b")]))

        bench.nursery.start_soon(call_all)
        await wait_all_tasks_blocked()
        assert bench.peer.writes == [payloads("a", "b")]
        await bench.peer.say(b"-ERR no\r\n")
        assert got == []
        await bench.peer.say(b"$-1\r\n")
        assert [str(command.reply) for command in got[0]] == ["ERR no", "None"]


async def test_many_commands_withdrawn_together(mock_clock: MockClock) -> None:
    """If the caller of `call_all` is cancelled, none of its commands is sent; the store is away: it is told."""
    async with open_bench() as bench:
        bench.peer.may_send = trio.Event()
        await bench.call("first")
        with trio.CancelScope() as scope:
            bench.nursery.start_soon(wait_then, scope.cancel)
            await bench.link.call_all([payloads("a"), payloads("b")])
        bench.peer.may_send.set()
        await wait_all_tasks_blocked()
        assert bench.peer.heard() == payloads("first")
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        mock_clock.jump(0.2)
        for _ in range(2):  # those who were waiting, and those who come now
            bench.nursery.start_soon(wait_then, mock_clock.jump, PATIENCE)
            commands = await bench.link.call_all([payloads("a"), payloads("b")])
            assert [command.failure for command in commands] == [bench.peer.refusal] * 2


async def wait_then(do: object, *arguments: object) -> None:
    await wait_all_tasks_blocked()
    do(*arguments)  # type: ignore[operator]


async def test_a_reply_that_nobody_has_asked_for(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Then replies and callers no longer match: the connection is given up before anybody gets a stranger's reply."""
    async with open_bench() as bench:
        await bench.peer.say(b"+surprise\r\n")
        assert "a reply that nobody has asked for" in caplog.text
        mock_clock.jump(0.2)
        (call,) = await bench.call("call")
        await bench.peer.say(b"+mine\r\n")
        assert call.reply == b"mine"
        assert bench.peer.connections == 2


async def test_no_redis_on_the_other_side(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Something that is not a reply at all ends the connection, not the program."""
    async with open_bench() as bench:
        (call,) = await bench.call("call")
        await bench.peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert "Protocol error" in caplog.text
        assert call.waits
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        await bench.peer.say(b"+mine\r\n")
        assert call.reply == b"mine"


# -- and a real server ------------------------------------------------------------------------------------------------


async def test_no_reply_ever_reaches_the_wrong_caller(capsys: pytest.CaptureFixture[str]) -> None:
    """200 tasks ask a real server for 10 000 echoes, many are cancelled meanwhile; each gets its own echo or none."""
    total = 1_000_000 if os.environ.get("TRIO_SESSION_LONG") == "1" else 10_000
    heard = cancelled = 0
    rng = random.Random(1)
    numbers = iter(range(total))

    async def ask(link: Link) -> None:
        nonlocal heard, cancelled
        for number in numbers:
            with trio.CancelScope() as scope:
                if rng.random() < 0.2:
                    scope.deadline = trio.current_time() + rng.uniform(-0.0005, 0.004)
                command = await link.call(pack(("ECHO", number)))
                assert command.reply == b"%d" % number
                heard += 1
            cancelled += scope.cancelled_caught

    with redis_server() as server:
        address = Destination.of(RedisConnection(url=server.url)).data
        link = Link(str(address), partial(address.connect, nothing_more))
        async with open_service_nursery() as start:
            start(link.run)
            await link.opened()
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(ask, link)
            await link.drain()
            assert repr(link) == f"<Link {address} up, 0 queued, 0 sent>"
    with capsys.disabled():
        print(f"{total} echoes: {heard} heard, {cancelled} cancelled")  # noqa: T201 - one can see how long the run was
    assert heard + cancelled == total
    assert cancelled > total / 1000
    assert heard > total / 2


async def nothing_more(_: Connection) -> None:
    """What a connection needs besides the log-in."""
