"""RESP bytes: garbage from a server is one of our errors; never a reply to another caller, nor the end of a store."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from itertools import islice

import hiredis
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.integration._serving import count_tasks
from tests.test_redis_connection import SUBSCRIBED, greeting
from trio_session import SessionConfig, SessionError, SessionManager, open_redis_store, open_session_manager
from trio_session.redis._resp import NOTHING, feed, new_reader, next_reply, pack
from trio_session.redis._scripts import SCRIPTS

from ._inputs import EXAMPLES, inputs, trying

WORDS = [
    b"\r\n",
    b"$",
    b"*",
    b"+",
    b"-",
    b":",
    b"%",
    b"~",
    b">",
    b"#",
    b"_",
    b"*2\r\n",
    b"$0\r\n\r\n",
    b":1\r\n",
    b"-1",
    b"ts1=",
    b"ts1d",
    b"-NOSCRIPT ",
    b"-BUSY ",
    b"-OOM ",
    b"\x00",
    b"\xff",
]

SCRIPT_NAMES = {hashlib.sha1(each.text, usedforsecurity=False).hexdigest().encode(): each.name for each in SCRIPTS}
SCRIPTS_TRIED = ["load", "acquire", "commit", "rotate", "destroy", "release"]
EMPTY = b"*2\r\n$0\r\n\r\n:0\r\n"
LOG_IN = greeting().removesuffix(b"+OK\r\n")

# A new connection or a whole store for each takes many times as long as an answer: so only one of so many inputs.
EACH = 30

# hiredis makes room for as many elements as a reply announces. What begins an answer in that way is refused; within one
# that only a server can do which is bent on it, and it has simpler ways.
_is_endless = re.compile(rb"[*~%>|][0-9]{7}").search


class Server:
    """Gives each command the reply it wants, but for one: that gets `garbage`, and the connection hears no more."""

    def __init__(self, start: trio.Nursery) -> None:
        self._nursery = start
        self.garbage: bytes | None = None
        self.spared = 0  # so many of those get what they want before that
        self.on: str | None = None  # the command or script that gets it
        self.hangs_up = False

    async def open_stream(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        reader = new_reader()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some():
                feed(reader, bytes(data))
                answers = b""
                while isinstance(words := next_reply(reader), list):
                    name = _name(words)
                    if name == self.on and self.garbage is not None and self.spared:
                        self.spared -= 1
                    elif name == self.on and self.garbage is not None:
                        garbage, self.garbage = self.garbage, None
                        await stream.send_all(answers + garbage)
                        if not self.hangs_up:
                            while await stream.receive_some():
                                pass
                        await stream.aclose()
                        return
                    answers += _reply(name, words)
                await stream.send_all(answers)
        await stream.aclose()


def _name(words: list[object]) -> str:
    first = words[0]
    assert isinstance(first, bytes)
    if first in {b"EVALSHA", b"EVAL"}:
        digest = words[1]
        assert isinstance(digest, bytes)
        if first == b"EVAL":
            digest = hashlib.sha1(digest, usedforsecurity=False).hexdigest().encode()
        return SCRIPT_NAMES[digest]
    return first.decode()


def _reply(name: str, words: list[object]) -> bytes:
    match name:
        case "load" | "acquire":
            return EMPTY
        case "HELLO":
            return LOG_IN
        case "SUBSCRIBE":
            return SUBSCRIBED
        case "INFO":
            return b"$0\r\n\r\n"
        case "ECHO":
            return pack((words[1],)).partition(b"\r\n")[2]  # type: ignore[arg-type]
        case "SELECT" | "SCRIPT" | "PING":
            return b"+OK\r\n"
        case _:
            return b":1\r\n"


async def use(manager: SessionManager, on: str) -> None:
    """Make the store say the command `on`."""
    session = manager.session("x" * 48 if on == "load" else None)
    await session.read()
    if on != "load":
        await session.put("a", 1)
    if on == "rotate":
        await session.refresh()
    if on == "destroy":
        await session.clear()


async def test_answers_to_scripts(autojump_clock: MockClock) -> None:
    """Each is a session's data, or one of our errors; then the store works as ever."""
    breaker, stream = inputs("replies", WORDS)
    async with trio.open_nursery() as nursery:
        server = Server(nursery)
        async with (
            open_redis_store("redis://cache.example", open_stream=server.open_stream) as store,
            open_session_manager(SessionConfig(), store=store) as manager,
        ):
            await use(manager, "rotate")
            before = count_tasks()
            for data in stream:
                if _is_endless(data, 1):
                    continue
                server.on = on = breaker.random.choice(SCRIPTS_TRIED)
                with trying(data, on), trio.fail_after(60):
                    server.hangs_up = breaker.random.random() < 0.8
                    server.garbage = data
                    with suppress(SessionError):
                        await use(manager, on)
                    server.garbage = None
                    await use(manager, "load")
                    assert manager.statistics().locks_held == 0
            await trio.sleep(10)
            assert count_tasks() == before


async def test_whose_reply_is_whose(autojump_clock: MockClock) -> None:
    """Callers at once get their own replies, or an error, or what the server made of it; never another caller's."""
    breaker, stream = inputs("replies", WORDS)
    async with trio.open_nursery() as nursery:
        server = Server(nursery)
        async with open_redis_store("redis://cache.example", open_stream=server.open_stream) as store:
            link = store._topology.nodes[0].link
            for number, data in enumerate(islice(stream, 0, None, EACH)):
                if _is_endless(data, 1):
                    continue
                own = [b"%d of %d" % (each, number) for each in range(5)]
                got: dict[bytes, object] = {}

                async def ask(word: bytes, got: dict[bytes, object] = got) -> None:
                    command = await link.call(pack(("ECHO", word)))
                    got[word] = command.reply if command.failure is None else None

                server.on, server.spared, server.garbage = "ECHO", breaker.random.randrange(5), data
                server.hangs_up = breaker.random.random() < 0.8
                with trying(data), trio.fail_after(60):
                    async with trio.open_nursery() as callers:
                        for word in own:
                            callers.start_soon(ask, word)
                    for word in own:
                        assert got[word] == word or got[word] not in own
                    assert sum(got[word] == word for word in own) >= 4 or b"\r\n" in data


async def test_greetings(autojump_clock: MockClock) -> None:
    """Whatever there is at the address: the store opens, or says why it does not."""
    breaker, stream = inputs("replies", WORDS)
    async with trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        before = count_tasks()
        for data in islice(stream, 0, None, EACH):
            if _is_endless(data, 1):
                continue
            server = Server(nursery)
            server.on = breaker.random.choice(["HELLO", "SELECT", "SCRIPT", "INFO", "SUBSCRIBE"])
            server.hangs_up = breaker.random.random() < 0.8
            server.garbage = data
            with trying(data, server.on), trio.fail_after(120), suppress(SessionError):
                async with open_redis_store("redis://cache.example", open_stream=server.open_stream) as store:
                    assert await store.renew([("aa:b", "t")], lease=5) == [True]
            await wait_all_tasks_blocked()
            assert count_tasks() == before


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"*2\r\n", b"$2\r\n", b":1\r\n", b"\r\n", b"+x\r\n"])))
@settings(max_examples=EXAMPLES)
def test_parsing(pieces: list[bytes]) -> None:
    """Wherever the network cuts them, bytes are the same replies, or none of Redis's."""

    def replies(pieces: list[bytes]) -> list[str]:
        reader, found = new_reader(), []
        try:
            for piece in pieces:
                feed(reader, piece)
                while (reply := next_reply(reader)) is not NOTHING:
                    found.append(repr(reply))
        except hiredis.ProtocolError:
            found.append("garbage")
        return found

    whole = b"".join(pieces)
    if not _is_endless(whole):
        assert replies(pieces) == replies([whole]) == replies([whole[i : i + 1] for i in range(len(whole))])
