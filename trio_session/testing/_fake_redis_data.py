"""The keys of one database, and the commands that read and write them. Pure: what time it is, it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ._fake_redis_replies import OK, Answer, CommandError, Status, to_int

__all__ = ["DATA_COMMANDS", "DataCommand", "Keyspace", "Value"]

Value: TypeAlias = "bytes | list[bytes] | dict[bytes, bytes]"
T = TypeVar("T", bytes, "list[bytes]", "dict[bytes, bytes]")

_TYPE_NAMES: Final = {bytes: b"string", list: b"list", dict: b"hash"}
_LATEST: Final = 2**63 - 1  # ms

_WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
_SYNTAX: Final = "ERR syntax error"


class Keyspace:
    """Keys with values and times of expiry.

    Attributes:
        now: microseconds since 1970. It stands still while a command or a script runs, as in Redis.
    """

    def __init__(self) -> None:
        self.now = 0
        self._values: dict[bytes, Value] = {}
        self._ends: dict[bytes, int] = {}  # ms since 1970; a key is present iff it has a value that expires

    def __iter__(self) -> Iterator[bytes]:
        return (key for key in list(self._values) if self.find(key) is not None)

    @property
    def now_ms(self) -> int:
        return self.now // 1000

    def find(self, key: bytes) -> Value | None:
        """The value of a key that has not expired."""
        if self._ends.get(key, self.now_ms) < self.now_ms:
            self.remove(key)
        return self._values.get(key)

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The value of a key, which must be of this kind."""
        value = self.find(key)
        if value is None or isinstance(value, kind):
            return value
        raise CommandError(_WRONG_TYPE)

    def put(self, key: bytes, value: Value) -> None:
        """Set a value and keep the expiry. Redis has no empty lists or hashes: such a key disappears."""
        self._values[key] = value
        if not value and not isinstance(value, bytes):
            self.remove(key)

    def remove(self, key: bytes) -> bool:
        self._ends.pop(key, None)
        return self._values.pop(key, None) is not None

    def ends_at(self, key: bytes) -> int | None:
        """When a key expires, in ms since 1970; None for never."""
        return self._ends.get(key)

    def set_end(self, key: bytes, at: int | None) -> None:
        if at is None:
            self._ends.pop(key, None)
        else:
            self._ends[key] = at


@dataclass(frozen=True, slots=True)
class DataCommand:
    """A command on keys.

    Attributes:
        run: called with the keyspace and the arguments.
        arity: how many words it has, with its name; -n: at least n.
        writes: a replica refuses it.
        grows: a server without memory refuses it.
    """

    run: Callable[..., Answer]
    arity: int
    writes: bool = False
    grows: bool = False


DATA_COMMANDS: Final[dict[str, DataCommand]] = {}

Run = TypeVar("Run", bound=Callable[..., Answer])


def _command(arity: int, *, writes: bool = False, grows: bool = False) -> Callable[[Run], Run]:
    """Register a function under its name; an underscore in front keeps it apart from Python's own."""

    def register(run: Run) -> Run:
        name = run.__name__.strip("_").upper()
        DATA_COMMANDS[name] = DataCommand(run, arity, writes=writes or grows, grows=grows)
        return run

    return register


# -- any key ----------------------------------------------------------------------------------------------------------


@_command(-2, writes=True)
def _del(keys: Keyspace, *names: bytes) -> Answer:
    return sum(keys.find(name) is not None and keys.remove(name) for name in names)


@_command(-2)
def _exists(keys: Keyspace, *names: bytes) -> Answer:
    return sum(keys.find(name) is not None for name in names)


@_command(2)
def _type(keys: Keyspace, name: bytes) -> Answer:
    value = keys.find(name)
    return Status(b"none" if value is None else _TYPE_NAMES[type(value)])


@_command(2)
def _pttl(keys: Keyspace, name: bytes) -> Answer:
    if keys.find(name) is None:
        return -2
    end = keys.ends_at(name)
    return -1 if end is None else end - keys.now_ms


@_command(-3, writes=True)
def _pexpire(keys: Keyspace, name: bytes, ms: bytes, *options: bytes) -> Answer:
    if options:
        raise CommandError(b"ERR Unsupported option " + options[0])
    end = to_int(ms) + keys.now_ms
    if end > _LATEST:
        raise CommandError("ERR invalid expire time in 'pexpire' command")
    if keys.find(name) is None:
        return 0
    if end <= keys.now_ms:
        keys.remove(name)
    else:
        keys.set_end(name, end)
    return 1


@_command(2, writes=True)
def _persist(keys: Keyspace, name: bytes) -> Answer:
    if keys.find(name) is None or keys.ends_at(name) is None:
        return 0
    keys.set_end(name, None)
    return 1


@_command(1)
def _dbsize(keys: Keyspace) -> Answer:
    return sum(1 for _ in keys)


@_command(1)
def _time(keys: Keyspace) -> Answer:
    seconds, micros = divmod(keys.now, 1_000_000)
    return [b"%d" % seconds, b"%d" % micros]


# -- strings ----------------------------------------------------------------------------------------------------------


@_command(2)
def _get(keys: Keyspace, name: bytes) -> Answer:
    return keys.get(name, bytes)


@_command(-3, writes=True, grows=True)
def _set(keys: Keyspace, name: bytes, value: bytes, *options: bytes) -> Answer:
    lives, only_if = _read_set_options(list(options))
    exists = keys.find(name) is not None
    if (only_if == b"NX" and exists) or (only_if == b"XX" and not exists):
        return None
    keys.put(name, value)
    if lives != "keep":
        keys.set_end(name, None if lives is None else keys.now_ms + lives)
    return OK


def _read_set_options(words: list[bytes]) -> tuple[Any, bytes | None]:
    """How long the key lives, in ms, None for ever, or "keep"; and NX or XX."""
    lives: Any = None
    only_if = None
    while words:
        word = words.pop(0).upper()
        if word in {b"NX", b"XX"} and only_if in {None, word}:
            only_if = word
        elif word == b"KEEPTTL" and lives in {None, "keep"}:
            lives = "keep"
        elif word in {b"PX", b"EX"} and lives is None and words:
            lives = (word, words.pop(0))
        else:
            raise CommandError(_SYNTAX)
    if isinstance(lives, tuple):
        unit, number = lives
        lives = to_int(number) * (1 if unit == b"PX" else 1000)
        if not 0 < lives <= _LATEST // 2:
            raise CommandError("ERR invalid expire time in 'set' command")
    return lives, only_if


@_command(4)
def _getrange(keys: Keyspace, name: bytes, first: bytes, last: bytes) -> Answer:
    start, stop = to_int(first), to_int(last)
    value = keys.get(name, bytes) or b""
    if start < 0 and stop < 0 and start > stop:
        return b""
    start, stop = _range(start, stop, len(value))
    return value[start:stop]


def _range(first: int, last: int, length: int) -> tuple[int, int]:
    """From Redis's ranges, which include the last one and count from the end if negative, to Python's."""
    first = max(0, first + length) if first < 0 else first
    last = max(0, last + length) if last < 0 else last
    return first, last + 1


# -- lists ------------------------------------------------------------------------------------------------------------


@_command(-3, writes=True, grows=True)
def _lpush(keys: Keyspace, name: bytes, *elements: bytes) -> Answer:
    elements_now = [*reversed(elements), *(keys.get(name, list) or [])]
    keys.put(name, elements_now)
    return len(elements_now)


@_command(-3, writes=True, grows=True)
def _rpush(keys: Keyspace, name: bytes, *elements: bytes) -> Answer:
    elements_now = [*(keys.get(name, list) or []), *elements]
    keys.put(name, elements_now)
    return len(elements_now)


@_command(-2, writes=True)
def _lpop(keys: Keyspace, name: bytes, *options: bytes) -> Answer:
    _refuse_options("LPOP", options)
    elements = keys.get(name, list)
    if elements is None:
        return None
    keys.put(name, elements[1:])
    return bytes(elements[0])


@_command(2)
def _llen(keys: Keyspace, name: bytes) -> Answer:
    return len(keys.get(name, list) or [])


@_command(-3)
def _lpos(keys: Keyspace, name: bytes, element: bytes, *options: bytes) -> Answer:
    _refuse_options("LPOS", options)
    elements = keys.get(name, list) or []
    return elements.index(element) if element in elements else None


@_command(4, writes=True)
def _lrem(keys: Keyspace, name: bytes, count: bytes, element: bytes) -> Answer:
    most = to_int(count)
    elements = keys.get(name, list)
    if elements is None:
        return 0
    places = [place for place, each in enumerate(elements) if each == element]
    if most:
        places = places[:most] if most > 0 else places[most:]
    keys.put(name, [each for place, each in enumerate(elements) if place not in places])
    return len(places)


@_command(4)
def _lrange(keys: Keyspace, name: bytes, first: bytes, last: bytes) -> Answer:
    start, stop = to_int(first), to_int(last)
    elements = keys.get(name, list) or []
    if stop < -len(elements):
        return []
    start, stop = _range(start, stop, len(elements))
    return list(elements[start:stop])


# -- hashes -----------------------------------------------------------------------------------------------------------


@_command(-4, writes=True, grows=True)
def _hset(keys: Keyspace, name: bytes, *pairs: bytes) -> Answer:
    if len(pairs) % 2:
        raise CommandError("ERR wrong number of arguments for 'hset' command")
    before = keys.get(name, dict) or {}
    after = {**before, **dict(zip(pairs[::2], pairs[1::2], strict=True))}
    keys.put(name, after)
    return len(after) - len(before)


@_command(3)
def _hget(keys: Keyspace, name: bytes, field: bytes) -> Answer:
    return (keys.get(name, dict) or {}).get(field)


def _refuse_options(name: str, options: tuple[bytes, ...]) -> None:
    """Better no answer than a wrong one."""
    if options:
        raise CommandError(f"ERR the fake server does not know the options of {name}")
