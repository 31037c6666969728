"""The fake Redis server against a real one: asked the same, it says the same, byte for byte.

Times are compared with a tolerance, as the two have clocks of their own, and so are the messages of errors if the real
server is not the version that the fake one copies.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from itertools import count

import hiredis
import pytest
import trio
from hypothesis import given, strategies as st

from tests.redis_servers import RedisServer, binaries, redis_server
from trio_session.redis._resp import NOTHING, new_reader, pack
from trio_session.redis._scripts import ACQUIRE, COMMIT, DESTROY, LOAD, RELEASE, RENEW, ROTATE, SCRIPTS
from trio_session.testing import FakeRedis, open_fake_redis

Words = tuple[str | bytes | int, ...]

COPIED = "7.0"
TOLERANCE = 10_000  # ms; all times here are either gone or far longer

PROCESS_A, PROCESS_B, DEAD_PROCESS = b"a" * 16, b"b" * 16, b"d" * 16


@pytest.fixture(scope="module", params=sorted(binaries()))
def real(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Each real server of this machine in turn."""
    with redis_server(binaries()[request.param]) as server:
        yield server


class Peer:
    """A connection on which replies are seen as bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def ask(self, *words: str | bytes | int) -> bytes:
        await self.stream.send_all(pack(words))
        return await self.receive()

    async def receive(self) -> bytes:
        reader, raw = new_reader(), bytearray()
        while reader.gets() is NOTHING:
            data = await self.stream.receive_some()
            assert data, "the connection is gone"
            raw += data
            reader.feed(bytes(data))
        return bytes(raw)

    async def ask_all(self, commands: Sequence[Words]) -> list[bytes]:
        """The reply to each of these, which are sent at once: a round trip costs more than a command."""
        await self.stream.send_all(b"".join(map(pack, commands)))
        reader, raw, replies = new_reader(), bytearray(), list[bytes]()
        while len(replies) < len(commands):
            data = await self.stream.receive_some()
            assert data, "the connection is gone"
            for byte in data:  # a reader does not say where a reply ends
                raw.append(byte)
                reader.feed(bytes(raw[-1:]))
                if reader.gets() is not NOTHING:
                    replies.append(bytes(raw))
                    raw.clear()
        return replies


class Pair:
    """A real and a fake server, asked the same."""

    def __init__(self, real: RedisServer, fake: FakeRedis, exits: AsyncExitStack) -> None:
        self.real = real
        self.fake = fake
        self._exits = exits
        self.is_exact = f" {COPIED}." in f" {fake.version}"
        self._asked = count(1)
        self.peers: tuple[Peer, Peer]

    async def connect(self) -> tuple[Peer, Peer]:
        streams = await trio.open_unix_socket(str(self.real.socket)), await self.fake.open_stream()
        for stream in streams:
            await self._exits.enter_async_context(stream)
        return Peer(streams[0]), Peer(streams[1])

    async def same(self, *words: str | bytes | int, peers: tuple[Peer, Peer] | None = None) -> bytes:
        """Ask both; returns what the fake server said."""
        theirs, ours = [await peer.ask(*words) for peer in peers or self.peers]
        self._check(theirs, ours, f"{words} (number {next(self._asked)})")
        return ours

    async def same_all(self, commands: Sequence[Words]) -> list[bytes]:
        """Ask both all of it; returns what the fake server said."""
        ours = await self.peers[1].ask_all(commands)
        await self.as_said(commands, ours)
        return ours

    async def as_said(self, commands: Sequence[Words], ours: Sequence[bytes]) -> None:
        """Ask the real server what the fake one has been asked, and compare."""
        for words, reply, theirs in zip(commands, ours, await self.peers[0].ask_all(commands), strict=True):
            self._check(theirs, reply, f"{words} (number {next(self._asked)})")

    def _check(self, theirs: bytes, ours: bytes, about: str) -> None:
        if theirs.startswith(b"-") and ours.startswith(b"-") and not self.is_exact:
            return
        if _is_time(theirs) and _is_time(ours) and abs(int(theirs[1:]) - int(ours[1:])) < TOLERANCE:
            return
        if ours.endswith(b"@user_script:0.\r\n"):  # `return redis.call(…)`, in which it cannot see the line
            theirs = re.sub(rb"(\d+)\.\r\n$", b"0.\r\n", theirs)
        assert _without_times(ours) == _without_times(theirs), about

    async def same_data(self) -> None:
        """Both hold the same keys, with the same values, for the same time."""
        keys = sorted(hiredis_list(await self.peers[0].ask("KEYS", "*")))
        assert self.fake.keys() == [key.decode() for key in keys]
        kinds = await self.same_all([("TYPE", key) for key in keys])
        reads: dict[bytes, Words] = {b"+string\r\n": ("GET",), b"+list\r\n": ("LRANGE", 0, -1)}
        found = [(key, reads[kind]) for key, kind in zip(keys, kinds, strict=True) if kind in reads]
        await self.same_all([(what, key, *rest) for key, (what, *rest) in found])
        await self.same_all([("PTTL", key) for key in keys])
        for key in [key for key, kind in zip(keys, kinds, strict=True) if kind not in reads]:  # in any order
            value = self.fake.get(key)
            assert isinstance(value, dict)
            theirs = hiredis_list(await self.peers[0].ask("HGETALL", key))
            assert value == dict(zip(theirs[::2], theirs[1::2], strict=True))


def hiredis_list(raw: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(raw)
    found = reader.gets()
    assert isinstance(found, list)
    return found


def _is_time(reply: bytes) -> bool:
    return re.fullmatch(rb":\d{4,}\r\n", reply) is not None


def _without_times(reply: bytes) -> bytes:
    """Without the times of creation in headers, the time of day, and the number of a connection."""
    reply = re.sub(rb"(ts1[=dor].{16})(?!0{13})\d{13}", rb"\1CREATED", reply, flags=re.DOTALL)
    reply = re.sub(rb"^\*2\r\n\$10\r\n\d{10}\r\n\$\d\r\n\d{1,6}\r\n$", b"TIME", reply)
    return re.sub(rb"(\$2\r\nid\r\n):\d+", rb"\1:ID", reply)


@cache
def version_of(real: RedisServer) -> str:
    """What it says of itself."""
    with real.client() as client:
        info = client.info("server")
    assert isinstance(info, dict)
    return str(info["redis_version"])


@asynccontextmanager
async def pair_of(real: RedisServer) -> AsyncIterator[Pair]:
    async with open_fake_redis() as fake, AsyncExitStack() as exits:
        fake.version = version_of(real)
        pair = Pair(real, fake, exits)
        pair.peers = await pair.connect()
        await pair.peers[0].ask_all([("FLUSHALL",), ("SCRIPT", "FLUSH")])
        yield pair


# -- chosen ------------------------------------------------------------------------------------------------------------

CHOSEN = """
PING | PING x | PING x y | FOO a b | GET | GET a b
HELLO | HELLO 2 | HELLO 4 | HELLO x | HELLO 2 FOO | HELLO 2 AUTH x | HELLO 2 AUTH default x SETNAME abc
HELLO 2 SETNAME \0 | HELLO 2 AUTH foo x | AUTH x | AUTH default x | AUTH foo x | AUTH a b c | TIME | TIME x
SELECT 1 | SET a 1 | DBSIZE | SELECT x | SELECT 16 | SELECT -1 | SELECT 0 | GET a
SCRIPT | SCRIPT FOO | SCRIPT LOAD | SCRIPT EXISTS | SCRIPT FLUSH | SCRIPT FLUSH x | SCRIPT FLUSH SYNC
SET a | SET a b PX | SET a b PX 0 | SET a b PX x | SET a b PX -1 | SET a b EX 99999999999999999 | SET a b FOO
SET a b NX XX | SET a b PX 1000 EX 1 | SET a b XX | SET a b px 100000 nx | SET a c NX | PTTL a | GET a
SET a b XX KEEPTTL | PTTL a | SET a b EX 200 | PTTL a | SET a b | PTTL a | PEXPIRE a x | PEXPIRE a 01
PEXPIRE a +1 | PEXPIRE a 9223372036854775807 | PEXPIRE a 9223372036854775808 | PEXPIRE nope 5 | PEXPIRE a 1 FOO
PERSIST a | PEXPIRE a 100000 | PERSIST a | PERSIST a | PEXPIRE a -9223372036854775808 | EXISTS a | PTTL a
SET a hello | GETRANGE a 1 -2 | GETRANGE a -3 -4 | GETRANGE a -3 -2 | GETRANGE a 3 1 | GETRANGE a 0 99
GETRANGE a -99 -98 | GETRANGE a -99 1 | GETRANGE a x 1 | GETRANGE nope 0 -1 | DEL | DEL a a nope | EXISTS a
LPUSH l a b | RPUSH l c a | LLEN l | LLEN nope | LPOS l a | LPOS l x | LPOS nope a | LPOP nope | GET l
LRANGE l 0 -1 | LRANGE l 1 2 | LRANGE l -2 -1 | LRANGE l -9 -8 | LRANGE l 3 1 | LRANGE nope 0 -1 | LRANGE l x 0
LREM l x a | LREM l -1 a | LRANGE l 0 -1 | LREM l 0 a | LREM nope 0 a | LPOP l | LPOP l | EXISTS l | TYPE l
HSET h a | HSET h a 1 b | HSET h a 1 b 2 | HSET h a 3 c 4 | HGET h a | HGET h z | HGET nope a | TYPE h | GET h
LLEN h | LPUSH h a | LPOP h | SET h a | HSET h a 1 | HGET h a | TYPE nope | TYPE | PUBLISH c x | PUBLISH c
INFO nosuchsection | FLUSHALL x | FLUSHALL ASYNC | EXISTS h | EVALSHA ffff 0 | EVAL x x | EVAL x -1 | EVAL x 1
WAIT | WAIT 0 | WAIT 0 1 | WAIT 1 1 | WAIT x 1 | WAIT 1 x | WAIT 0 -1 | WAIT -1 1 | WAIT 0 1 2 | wait 0 0
SUBSCRIBE c d | GET x | PING | PING x | FOO x | SUBSCRIBE | SELECT 1
""".strip()

LUA = """
retur 1
return KEYS[1]
return {KEYS[1], ARGV[1], ARGV[2], #ARGV}
return {1, 2.9, 'a', true, false, {1}, nil, 3}
return {1, false, -2.9, 1e17}
return {ok = 'fine'}
return {err = 'My error'}
return {ok = 1}
return 1 + nil
error('oops')
local x = nil; return x.y
x = 1
return x
return redis.call('SET', KEYS[1], 1.5)
return redis.call('GET', KEYS[1])
return redis.call('SET', KEYS[1], 1e17)
return redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], 1700000000000); return redis.call('GET', KEYS[1])
return redis.call('SET', KEYS[1], 'x', 'NX')
return redis.call('LPUSH', KEYS[1], 'x')
return redis.pcall('LPUSH', KEYS[1], 'x')
return {redis.pcall('LPUSH', KEYS[1], 'x'), 1}
return pcall(redis.call, 'LPUSH', KEYS[1], 'x')
return redis.pcall('LPUSH', KEYS[1], 'x').err
return redis.call('TYPE', KEYS[1])
return redis.call('TYPE', KEYS[1]).ok
return {redis.call('TYPE', KEYS[1]), redis.call('GET', 'nope')}
return type(redis.call('GET', 'nope'))
return redis.call('NOSUCH', 'x')
return redis.call('GET')
return redis.call('PUBLISH', 'x')
return redis.call('PUBLISH', 'x', 'y')
return redis.call('SUBSCRIBE', 'x')
return redis.call('WAIT', '0', '1')
return redis.call('GET', {})
return redis.call('GET', true)
return redis.call()
return redis.sha1hex('a')
return redis.sha1hex()
return string.format('%013.0f', 1600000000000)
return #redis.call('TIME')
return function() end
return 'a\\0\\255'
""".strip().splitlines()

# By more than the text of an error.
DIFFER_IN_62 = {"SCRIPT EXISTS", "return print"}


async def test_chosen_commands(real: RedisServer) -> None:
    """Right and wrong, plain commands get the answer that Redis gives."""
    async with pair_of(real) as pair:
        for words in re.split(r" \| |\n", CHOSEN):
            if pair.is_exact or words not in DIFFER_IN_62:
                await pair.same(*words.split())


async def test_chosen_scripts(real: RedisServer) -> None:
    """Scripts see what they see in Redis, and what they return or raise comes out in the same way."""
    async with pair_of(real) as pair:
        for text in LUA:
            if text in DIFFER_IN_62 and not pair.is_exact:
                continue
            await pair.same("SCRIPT", "LOAD", text)
            await pair.same("EVAL", text, 1, "key", "one", b"\x00\xff")
            await pair.same("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0)
        await pair.same("EVAL", "return 1", 0)
        await pair.same("EVALSHA", "E0E1F9FABFC9D4800C877A703B823AC0578FF8DB", 0)
        await pair.same("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "x")
        await pair.same("SCRIPT", "FLUSH")
        await pair.same("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")


SHORT_OF_MEMORY: list[Words] = [
    ("SET", "a", "b"),
    ("LPUSH", "x", "y"),
    ("HSET", "x", "y", "z"),
    ("DEL", "x"),
    ("PUBLISH", "x", "y"),
    ("EVAL", "redis.call('SET','a','b')\nreturn 1", 0),
    ("EVAL", "redis.call('GET','a')\nredis.call('PUBLISH','a','b')\nredis.call('SET','a','b')\nreturn 1", 0),
    ("EVAL", "redis.call('DEL','a') redis.call('SET','a','b') return redis.call('GET', 'a')", 0),
    ("EVAL", "return redis.call('GET','a')", 0),
]


async def test_without_memory(real: RedisServer) -> None:
    """A server without memory refuses what would grow, and the first write of a script alone."""
    with redis_server(real.binary, maxmemory=1) as full:
        async with pair_of(full) as pair:
            pair.fake.out_of_memory = True
            for words in SHORT_OF_MEMORY:
                await pair.same(*words)


async def test_a_replica(real: RedisServer) -> None:
    """A replica says so, answers questions and refuses writes, those of scripts too."""
    with redis_server(real.binary) as replica:
        async with pair_of(replica) as pair:
            pair.fake.read_only = True
            with replica.client() as client:
                client.execute_command("REPLICAOF", "127.0.0.1", 1)
            questions: list[Words] = [("HELLO", 2), ("GET", "a"), ("FLUSHALL",), ("WAIT", 0, 1)]
            for words in questions + SHORT_OF_MEMORY:
                await pair.same(*words)


async def test_passwords(real: RedisServer) -> None:
    """Who does not give the password gets nothing, and hears why in the words of Redis."""
    with redis_server(real.binary) as guarded:
        async with pair_of(guarded) as pair:
            with guarded.client() as client:
                client.config_set("requirepass", "secret")
            pair.fake.password = "secret"
            pair.peers = await pair.connect()
            wrong = ["PING", "HELLO 2", "FOO", "GET", "HELLO 2 AUTH default bad", "AUTH bad", "AUTH foo secret"]
            for words in [*wrong, "HELLO 2 AUTH default secret SETNAME x", "PING", "AUTH bad", "AUTH secret", "PING"]:
                await pair.same(*words.split())


# -- random ------------------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
items = st.sampled_from([b"x", b"y", b"\x00\xff\r\n"])
numbers = st.integers(-4, 4)
spans = st.sampled_from([100_000, 500_000])
plain_commands = st.one_of(
    st.tuples(st.sampled_from(["GET", "PTTL", "TYPE", "LLEN", "LPOP", "PERSIST", "EXISTS", "DEL"]), names),
    st.tuples(st.sampled_from(["LPUSH", "RPUSH"]), names, items, items),
    st.tuples(st.just("SET"), names, items),
    st.tuples(st.just("SET"), names, items, st.just("PX"), spans),
    st.tuples(st.just("SET"), names, items, st.sampled_from(["NX", "XX", "KEEPTTL"])),
    st.tuples(st.just("PEXPIRE"), names, st.one_of(spans, st.sampled_from([0, -1]))),
    st.tuples(st.sampled_from(["GETRANGE", "LRANGE"]), names, numbers, numbers),
    st.tuples(st.just("LREM"), names, numbers, items),
    st.tuples(st.just("LPOS"), names, items),
    st.tuples(st.just("HSET"), names, items, items),
    st.tuples(st.just("HGET"), names, items),
)


@given(st.lists(plain_commands, max_size=40))
async def test_any_commands(real: RedisServer, commands: list[Words]) -> None:
    """Whatever the sequence of commands, replies and data are the same in the end."""
    async with pair_of(real) as pair:
        await pair.same_all(commands)
        await pair.same_data()


RECORDS = "p:{aa}1", "p:{aa}2"
records = st.sampled_from(RECORDS)
whos = st.tuples(st.sampled_from([PROCESS_A, PROCESS_B, DEAD_PROCESS]), st.sampled_from([b"1", b"2"])).map(b"".join)
ids = st.tuples(st.sampled_from([b"ProcessA", b"ProcessB"]), st.sampled_from([b"00000001", b"00000002"])).map(b"".join)
versions = st.one_of(st.just("what is there"), st.sampled_from([b"", b"no such version!"]))
lives = st.tuples(st.sampled_from([-1, 100_000, 500_000]), st.sampled_from([-1, 300_000]))
graces, leases = st.just(60_000), st.just(90_000)
kinds = st.sampled_from(["d", "o", "r"])
queue_lives = st.sampled_from([0, 80_000])
script_calls = st.one_of(
    st.tuples(st.just(LOAD), records, lives, st.sampled_from([0, 50_000])),
    st.tuples(st.just(ACQUIRE), records, whos, leases, graces, queue_lives, lives, st.sampled_from([0, 50_000])),
    st.tuples(
        st.just(COMMIT),
        *(records, whos, graces, versions, ids, items, lives),
        st.one_of(st.just(b""), whos),
        leases,
        st.integers(0, 1),
    ),
    st.tuples(st.just(ROTATE), records, records, whos, graces, versions, ids, items, lives, kinds),
    st.tuples(st.just(DESTROY), records, whos, graces, ids, kinds),
    st.tuples(st.just(RELEASE), records, whos, graces),
    st.tuples(st.just(RENEW), records, whos, leases),
    # What happens by itself, or by somebody else's hand: keys expire, are evicted, or hold something of another kind.
    st.tuples(st.just("PEXPIRE"), records, st.sampled_from(["", ":l", ":q", ":c"]), st.just(0)),
    st.tuples(st.sampled_from(["SET", "LPUSH"]), records, st.sampled_from(["", "", ":l", ":q"]), st.just(b"ts1junk")),
)


@given(st.lists(script_calls, max_size=30))
async def test_any_script_calls(real: RedisServer, calls: list[tuple[object, ...]]) -> None:
    """Our scripts do the same on the fake server as on a real one: replies, data and wake-ups, whatever came before."""
    async with pair_of(real) as pair:
        hearers = [await pair.connect() for _ in range(2)]
        for process, hearer in zip((PROCESS_A, PROCESS_B), hearers, strict=True):
            await pair.same("SUBSCRIBE", b"p:p:" + process, peers=hearer)
        await pair.same_all([("SCRIPT", "LOAD", script.text) for script in SCRIPTS])
        asked, said = list[Words](), list[bytes]()
        for what, record, *arguments in calls:
            assert isinstance(record, str)
            asked.append(_as_command(pair.fake, what, record, arguments))
            said.append(await pair.peers[1].ask(*asked[-1]))
        await pair.as_said(asked, said)
        await pair.same_data()
        for theirs, ours in hearers:
            assert await everything_heard(ours) == await everything_heard(theirs)


def _as_command(fake: FakeRedis, what: object, record: str, arguments: list[object]) -> Words:
    """Arguments as the scripts have them: lifetimes are two, and a version may be the one that is there."""
    if isinstance(what, str):
        suffix, *rest = arguments
        return (what, f"{record}{suffix}", *rest)  # type: ignore[arg-type]
    script = next(script for script in SCRIPTS if script is what)
    keys = [f"{record}:l"] if script is RENEW else [record, f"{record}:l", f"{record}:q", f"{record}:c"]
    if script is ROTATE:
        keys.append(str(arguments.pop(0)))
    keys = keys[: int(script._keys)]
    words: list[str | bytes | int] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            words += argument
        elif argument == "what is there":
            value = fake.get(record)
            words.append(value[4:20] if isinstance(value, bytes) and value.startswith(b"ts1=") else b"")
        else:
            assert isinstance(argument, str | bytes | int)
            words.append(argument)
    return ("EVALSHA", script._digest, len(keys), *keys, *words)


async def everything_heard(hearer: Peer) -> bytes:
    """All messages on a subscribed connection, up to the answer to a PING."""
    await hearer.stream.send_all(pack(("PING",)))
    end, heard = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", bytearray()
    while not heard.endswith(end):
        data = await hearer.stream.receive_some()
        assert data, "the connection is gone"
        heard += data
    return bytes(heard)
