"""What a server's words mean."""

from __future__ import annotations

import hiredis
import pytest
import redis.exceptions

from trio_session.redis._resp import (
    NOTHING,
    ServerError,
    Verdict,
    feed,
    new_reader,
    next_reply,
    pack,
    to_exception,
    verdict_on,
)
from trio_session.redis._scripts import SCRIPTS


def test_a_command_on_the_wire() -> None:
    """Text, bytes and numbers, each with its length in bytes; a zero byte is a byte."""
    assert pack(("SET", "schlüssel", b"\0\r\n", 12)) == (
        b"*4\r\n$3\r\nSET\r\n$10\r\nschl\xc3\xbcssel\r\n$3\r\n\0\r\n\r\n$2\r\n12\r\n"
    )


def test_what_cannot_be_sent() -> None:
    """A value of another type is refused before anything is sent."""
    with pytest.raises(TypeError):
        pack(("SET", "key", None))  # type: ignore[arg-type]


def test_replies() -> None:
    """One after the other, and nothing at all as long as one is not complete; an error is a reply like others."""
    reader = new_reader()
    assert reader.gets() is NOTHING
    reader.feed(b"+OK\r\n:-1\r\n$3\r\n\0\xff\n\r\n$-1\r\n*2\r\n*0\r\n$1\r\nx\r\n-ERR no\r\n$5\r\nhal")
    assert [reader.gets() for _ in range(5)] == [b"OK", -1, b"\0\xff\n", None, [[], b"x"]]
    error = reader.gets()
    assert isinstance(error, ServerError)
    assert str(error) == "ERR no"
    assert reader.gets() is NOTHING
    reader.feed(b"f.\r\n")
    assert reader.gets() == b"half."


def test_false_is_not_nothing() -> None:
    """RESP3's false is a reply: to take it for "not yet" would shift every reply after it."""
    reader = new_reader()
    reader.feed(b"#f\r\n")
    assert reader.gets() is False
    assert reader.gets() is NOTHING


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"*2147483647\r\n",  # hiredis would take the memory for it at once, and seconds to give it back
        b"%1\r\n*0\r\n:1\r\n",  # a key that no dict can have
        b">2\r\n+message\r\n+hi\r\n",  # no reply: whoever took it for one would get the next one's ever after
        b"%1\r\n+a\r\n:1\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"*1\r\n" * 100_000 + b":1\r\n",
    ],
)
def test_no_reply_at_all(words: bytes) -> None:
    """What is not Redis, or was not asked for, is told apart, and is one kind of error."""
    reader = new_reader()
    with pytest.raises(hiredis.ProtocolError):
        feed(reader, words)
        next_reply(reader)


def test_data_that_looks_like_a_reply() -> None:
    """What is in the middle of a value may look like anything."""
    reader = new_reader()
    for words in (b"$12\r\n", b"*9999999", b"\r\n:1\r\n"):
        feed(reader, words)
    assert next_reply(reader) == b"*9999999\r\n:1"


@pytest.mark.parametrize(
    ("text", "verdict", "kind"),
    [
        ("NOSCRIPT No matching script.", Verdict.LOAD_SCRIPT, redis.exceptions.ResponseError),
        ("LOADING Redis is loading the dataset in memory", Verdict.WAIT, redis.exceptions.BusyLoadingError),
        ("BUSY Redis is busy running a script.", Verdict.WAIT, redis.exceptions.ResponseError),
        ("OOM command not allowed when used memory > 'maxmemory'.", Verdict.WAIT, redis.exceptions.OutOfMemoryError),
        ("MISCONF Redis is configured to save RDB snapshots", Verdict.WAIT, redis.exceptions.ResponseError),
        ("NOREPLICAS Not enough good replicas to write.", Verdict.WAIT, redis.exceptions.ResponseError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Verdict.WAIT, redis.exceptions.ResponseError),
        ("CLUSTERDOWN The cluster is down", Verdict.WAIT, redis.exceptions.ResponseError),
        ("MASTERDOWN Link with MASTER is down", Verdict.WAIT, redis.exceptions.ResponseError),
        ("READONLY You can't write against a read only replica.", Verdict.RECONNECT, redis.exceptions.ReadOnlyError),
        ("NOPERM this user has no permissions", Verdict.GIVE_UP, redis.exceptions.NoPermissionError),
        ("NOAUTH Authentication required.", Verdict.GIVE_UP, redis.exceptions.AuthenticationError),
        ("WRONGPASS invalid username-password pair", Verdict.GIVE_UP, redis.exceptions.AuthenticationError),
        ("WRONGTYPE Operation against a key", Verdict.GIVE_UP, redis.exceptions.ResponseError),
        ("ERR unknown command 'EVALSHA'", Verdict.GIVE_UP, redis.exceptions.ResponseError),
        # A script that used up the last key of a queue, in a slot that is being moved.
        (
            "ERR Script attempted to access a non local key in a cluster node script: 5f3e, on @user_script:9.",
            Verdict.WAIT,
            redis.exceptions.ResponseError,
        ),
        # Redis 6.2 puts what a script ran into behind words of its own.
        (
            "ERR Error running script (call to f_0d6d): @user_script:7: @user_script: 7: -OOM command not allowed",
            Verdict.WAIT,
            redis.exceptions.OutOfMemoryError,
        ),
        (
            "ERR Error running script (call to f_0d6d): @user_script:7: -READONLY You can't write",
            Verdict.RECONNECT,
            redis.exceptions.ReadOnlyError,
        ),
        # Words that stand elsewhere mean nothing.
        ("ERR the key BUSY-READONLY is no OOM", Verdict.GIVE_UP, redis.exceptions.ResponseError),
        ("OOMPH", Verdict.GIVE_UP, redis.exceptions.ResponseError),
        ("", Verdict.GIVE_UP, redis.exceptions.ResponseError),
    ],
)
def test_errors(text: str, verdict: Verdict, kind: type[Exception]) -> None:
    """Each error of a server asks for something, and has a kind that callers may catch."""
    error = ServerError(text)
    assert verdict_on(error) is verdict
    exception = to_exception(error)
    assert type(exception) is kind
    assert str(exception) == text


def test_scripts_are_told_apart() -> None:
    """Their repr is their name, and no two are called by the same digest."""
    assert [repr(script) for script in SCRIPTS][:2] == ["<Script load>", "<Script acquire>"]
    assert len({script.start for script in SCRIPTS}) == len(SCRIPTS)
