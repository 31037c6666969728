"""Can stored sessions be read, with the codec and the keys that are configured? A sample of them is tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from ..._codec import MsgpackCodec
from ..._config import SessionConfig
from ..._encryption import EncryptedCodec
from ..._errors import SessionDataError
from ...redis._connection import Connection
from .._keyspace import key_of, parse_record, scan
from ._findings import Finding, Level

__all__ = ["look_at_codec", "look_at_records"]

# A server may have millions of keys that are not ours: so many are looked at, at most.
_STEPS: Final = 20
_STEP: Final = 500  # keys
# And so much is read: enough to see a pattern, and little enough for a slow connection.
_SAMPLE: Final = 50  # records
_MOST_BYTES: Final = 1 << 20


def look_at_codec(config: SessionConfig) -> Iterator[Finding]:
    """What the settings say about encryption."""
    codec = config.codec
    if not isinstance(codec, EncryptedCodec):
        return
    first, *others = codec.fingerprints
    also = f"; {', '.join(others)} can still be read" if others else ""
    if codec.plaintext == "write":
        yield Finding(
            Level.WARNING,
            "encryption",
            "sessions are stored in plain although there are keys (plaintext='write'): that begins a roll-out",
            "once every process has the keys: SESSION_PLAINTEXT=read",
        )
    elif codec.plaintext == "read":
        yield Finding(
            Level.WARNING,
            "encryption",
            "sessions in plain are accepted (plaintext='read'): whoever can write to the server can make up such a one",
            "once none is left, unset SESSION_PLAINTEXT\ntrio-session stats   # how many there are",
        )
    else:
        yield Finding(Level.OK, "encryption", f"sessions are encrypted with the key {first}{also}")


async def look_at_records(connection: Connection, *, server: str, prefix: str, config: SessionConfig) -> list[Finding]:
    """Try to read some of the records.

    Raises:
        redis.exceptions.RedisError: we may not look for them.
    """
    codec = config.codec or MsgpackCodec()
    problems: Counter[str] = Counter()
    sample = await _take_sample(connection, prefix)
    for key, blob in sample:
        try:
            codec.decode(blob, context=key.encode())
        except SessionDataError as error:
            problems[str(error)] += 1
    if not sample:
        return [Finding(Level.OK, "records", f"{server}: no sessions yet")]
    if not problems:
        return [
            Finding(Level.OK, "records", f"{server}: sessions that are stored can be read ({len(sample)} were tried)")
        ]
    ((problem, _),) = problems.most_common(1)
    return [
        Finding(
            Level.PROBLEM if config.undecodable == "raise" else Level.WARNING,
            "records",
            f"{server}: {problems.total()} of {len(sample)} sessions that were tried cannot be read: {problem}",
            "give it the keys that the others have: SESSION_KEYS\ntrio-session stats   # which keys are in use",
        )
    ]


async def _take_sample(connection: Connection, prefix: str) -> list[tuple[str, bytes]]:
    """Keys and records of some sessions, the first that come."""
    sample: list[tuple[str, bytes]] = []
    room = _MOST_BYTES
    cursor = b"0"
    for _ in range(_STEPS):
        cursor, names = await scan(connection, prefix, cursor, count=_STEP)
        for name in names:
            key = key_of(name, prefix)
            if key is None:
                continue
            (value,) = await connection.ask(("GET", name))
            record = parse_record(value) if isinstance(value, bytes) else None
            if record is not None and record.living:
                sample.append((key, record.blob))
                room -= len(record.blob)
            if len(sample) == _SAMPLE or room < 0:
                return sample
        if cursor == b"0":
            break
    return sample
