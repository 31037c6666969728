"""Data to bytes and back, by msgpack, with every type kept exactly.

msgspec alone would flatten what it meets: tuples and sets become arrays, Decimals and UUIDs text,
enums their values, and data would change its types between two requests. So a walk goes over it
first. Plain data passes untouched, at the cost of a look at each type. What msgpack has no exact
form for is put into one of the extensions below, and what cannot be kept is refused.

    code  type        payload
    -1    datetime    in UTC: msgpack's own timestamp
    1     int         beyond 64 bits: two's complement, big-endian
    2     str         with lone surrogates: UTF-8, `surrogatepass`
    3     tuple       msgpack array
    4     set         msgpack array, sorted by the members' encodings
    5     frozenset   the same
    6     dict        with keys other than plain str: msgpack array of key, value, key, value, ...
    7     datetime    _DATE and _TIME, then the zone
    8     date        _DATE
    9     time        _TIME, then the zone
    10    timedelta   _DURATION
    11    UUID        its 16 bytes
    12    Decimal     its text

A zone is nothing (naive), `z` and the key of a ZoneInfo, `o` and an _OFFSET, or `n`, an _OFFSET
and the name it was given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from struct import Struct
from typing import Any, final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Raw
from msgspec.msgpack import Decoder, Encoder, Ext

from ._errors import SessionDataError
from .abc import Codec

# The first byte of every record. A change of the format takes the next number.
_FORMAT = b"\x01"

#: So begins what `EncryptedCodec` makes, and no other record.
ENCRYPTED = b"enc1"

# How deep containers may nest. More than a session needs, and little enough that what was encoded
# can be decoded: each level takes up to 3 of the 1000 that Python allows by default.
_MAX_DEPTH = 100

_INT, _STR, _TUPLE, _SET, _FROZENSET, _DICT = 1, 2, 3, 4, 5, 6
_DATETIME, _JUST_DATE, _JUST_TIME, _TIMEDELTA, _UUID, _DECIMAL = 7, 8, 9, 10, 11, 12

_DATE = Struct(">HBB")  # year, month, day
_TIME = Struct(">BBBIB")  # hour, minute, second, microsecond, fold
_DURATION = Struct(">iII")  # days, seconds, microseconds
_OFFSET = Struct(">iI")  # seconds east of UTC, microseconds

# How much of a place an error message names.
_MAX_STEPS = 8

_encode = Encoder().encode


@final
class MsgpackCodec(Codec):
    """The default codec: compact, fast, and exact.

    None, bool, int of any size, float, str, bytes, list, tuple, dict, set, frozenset, datetime
    (naive, or with a fixed offset or a ZoneInfo), date, time, timedelta, UUID and Decimal come back
    as they were. Everything else is refused, subclasses of these included: something else would
    come back. The order of a dict is kept and counts as part of the data. That one object is in two
    places is not kept: two equal ones come back.

    Never pickle: whoever could write into the store could run code here.

        codec = MsgpackCodec()
        blob = codec.encode({"user": 7, "tags": {"a", "b"}}, context=b"")
        assert codec.decode(blob, context=b"") == {"user": 7, "tags": {"a", "b"}}

    `context` is ignored. It is for codecs with a secret, which bind a record to its place, so that
    nobody can copy one under another session's key. Without a secret anybody could bind it anew.
    """

    def encode(self, data: dict[str, Any], *, context: bytes) -> bytes:
        """Encode `data`; equal data of equal types gives equal bytes.

        Raises:
            TypeError: something cannot be kept exactly; the message says where it is, not what.
        """
        if type(data) is not dict:
            raise TypeError(f"session: the data must be a dict, not {type(data).__name__}")
        try:
            try:
                return _FORMAT + _encode(_quick_walk.keep_dict(data, 1))
            except (OverflowError, UnicodeEncodeError):
                # A large int or a lone surrogate: too rare to look for in the first place.
                return _FORMAT + _encode(_careful_walk.keep_dict(data, 1))
        except _UnkeptError as error:
            raise TypeError(f"session{error.place}: {error.problem}") from None
        except RecursionError:
            raise TypeError("session: the stack is too full to encode it") from None

    def decode(self, blob: bytes, *, context: bytes) -> dict[str, Any]:
        """Decode what `encode` made.

        Raises:
            SessionDataError: the bytes are damaged, foreign, or from a newer version.
        """
        if not blob.startswith(_FORMAT):
            if blob.startswith(ENCRYPTED):
                raise SessionDataError("the stored session is encrypted, and there is no key: set SESSION_KEYS")
            raise SessionDataError("the stored session has a format unknown to this version")
        try:
            data: dict[str, Any] = _decode(blob[1:])
        except Exception as error:
            # Not a list of kinds: what damaged bytes can make the constructors raise has no end.
            raise SessionDataError("the stored session cannot be decoded") from error
        if type(data) is not dict:
            raise SessionDataError("the stored session is not a dict")
        return data


class _UnkeptError(Exception):
    """Something cannot be kept. The walk notes the place on its way out, innermost step first."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[str] = []

    @property
    def place(self) -> str:
        return "".join(self.steps[: -_MAX_STEPS - 1 : -1]) + "..." * (len(self.steps) > _MAX_STEPS)


# --- Encoding -------------------------------------------------------------------------------------

_are_str = frozenset({str}).issuperset


class _Walk:
    """Gives each value a form that msgspec encodes exactly: the same object if it has one already.

    Args:
        leaves: types of which every value has.
        scalars: how to keep the other types that contain nothing.
    """

    def __init__(self, leaves: Iterable[type], scalars: Mapping[type, Callable[[Any], object]]) -> None:
        self._leaves = frozenset(leaves)
        self._are_leaves = self._leaves.issuperset
        self._scalars = scalars
        self._containers: Mapping[type, Callable[[Any, int], object]] = {
            list: self._keep_list,
            dict: self.keep_dict,
            tuple: self._keep_tuple,
            set: self._keep_set,
            frozenset: self._keep_set,
        }

    def keep(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in self._leaves:
            return value
        if (keep_container := self._containers.get(kind)) is not None:
            if depth == _MAX_DEPTH:
                raise _UnkeptError(f"more than {_MAX_DEPTH} levels, or a container inside itself")
            return keep_container(value, depth + 1)
        if (keep_scalar := self._scalars.get(kind)) is not None:
            return keep_scalar(value)
        raise _UnkeptError(f"a value of type {kind.__name__} cannot be kept")

    def _keep_list(self, value: list[object], depth: int) -> list[object]:
        if self._are_leaves(map(type, value)):
            return value
        result = value
        for index, item in enumerate(value):
            if type(item) not in self._leaves:
                try:
                    kept = self.keep(item, depth)
                except _UnkeptError as error:
                    error.steps.append(f"[{index}]")
                    raise
                if kept is not item:
                    if result is value:
                        result = value.copy()
                    result[index] = kept
        return result

    def keep_dict(self, value: dict[Any, Any], depth: int) -> object:
        if not _are_str(map(type, value)):
            return self._keep_pairs(value, depth)
        if str not in self._leaves and not all(map(_is_unicode, value)):
            return self._keep_pairs(value, depth)
        if self._are_leaves(map(type, value.values())):
            return value
        result = value
        leaves, are_leaves = self._leaves, self._are_leaves
        for key, item in value.items():
            kind = type(item)
            # A plain list is what there is most often: it is spared two calls.
            is_plain = kind in leaves or (kind is list and depth < _MAX_DEPTH and are_leaves(map(type, item)))
            if not is_plain:
                try:
                    kept = self.keep(item, depth)
                except _UnkeptError as error:
                    error.steps.append(_step_to(key))
                    raise
                if kept is not item:
                    if result is value:
                        result = value.copy()
                    result[key] = kept
        return result

    def _keep_pairs(self, value: dict[Any, object], depth: int) -> Ext:
        flat: list[object] = []
        for key, item in value.items():
            try:
                flat += self.keep(key, depth), self.keep(item, depth)
            except _UnkeptError as error:
                error.steps.append(_step_to(key))
                raise
        return Ext(_DICT, _encode(flat))

    def _keep_tuple(self, value: tuple[object, ...], depth: int) -> Ext:
        return Ext(_TUPLE, _encode(self._keep_list(list(value), depth)))

    def _keep_set(self, value: set[object] | frozenset[object], depth: int) -> Ext:
        try:
            members = sorted(_encode(self.keep(member, depth)) for member in value)
        except _UnkeptError as error:
            error.steps.append("{...}")
            raise
        code = _SET if type(value) is set else _FROZENSET
        return Ext(code, _encode([Raw(member) for member in members]))


def _step_to(key: object) -> str:
    # Names that a program gives are short; a long key may be a value in itself.
    if type(key) is str and len(key) <= 40:
        return f"[{json.dumps(key)}]"
    return f"[<{type(key).__name__}>]"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keep_int(value: int) -> int | Ext:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _keep_str(value: str) -> str | Ext:
    return value if _is_unicode(value) else Ext(_STR, value.encode("utf-8", "surrogatepass"))


def _keep_datetime(value: datetime) -> datetime | Ext:
    if value.tzinfo is UTC and not value.fold:
        return value
    return Ext(_DATETIME, _pack_date(value) + _pack_time(value))


def _pack_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _pack_time(value: datetime | time) -> bytes:
    packed = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    zone = value.tzinfo
    if zone is None:
        return packed
    if type(zone) is ZoneInfo and zone.key:
        return packed + b"z" + zone.key.encode()
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        packed_offset = _OFFSET.pack(offset.days * 86_400 + offset.seconds, offset.microseconds)
        if name == timezone(offset).tzname(None):
            return packed + b"o" + packed_offset
        return packed + b"n" + packed_offset + name.encode("utf-8", "surrogatepass")
    raise _UnkeptError(f"a time zone of type {type(zone).__name__} cannot be kept")


_SCALARS: Mapping[type, Callable[[Any], object]] = {
    datetime: _keep_datetime,
    date: lambda value: Ext(_JUST_DATE, _pack_date(value)),
    time: lambda value: Ext(_JUST_TIME, _pack_time(value)),
    timedelta: lambda value: Ext(_TIMEDELTA, _DURATION.pack(value.days, value.seconds, value.microseconds)),
    UUID: lambda value: Ext(_UUID, value.bytes),
    # upper(): whether an exponent is written with e or E depends on the decimal context.
    Decimal: lambda value: Ext(_DECIMAL, str(value).upper().encode()),
}
_quick_walk = _Walk((type(None), bool, int, float, str, bytes), _SCALARS)
_careful_walk = _Walk((type(None), bool, float, bytes), {**_SCALARS, int: _keep_int, str: _keep_str})


# --- Decoding -------------------------------------------------------------------------------------


def _decode_extension(code: int, payload: memoryview) -> object:
    return _EXTENSIONS[code](bytes(payload))


_decode = Decoder(ext_hook=_decode_extension).decode
_decode_array = Decoder(list[Any], ext_hook=_decode_extension).decode


def _decode_pairs(payload: bytes) -> dict[Any, Any]:
    flat = _decode_array(payload)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _decode_datetime(payload: bytes) -> datetime:
    day = date(*_DATE.unpack_from(payload))
    return datetime.combine(day, _decode_time(payload[_DATE.size :]))


def _decode_time(payload: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(payload)
    zone = _decode_zone(payload[_TIME.size :])
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _decode_zone(packed: bytes) -> tzinfo | None:
    if not packed:
        return None
    kind, rest = packed[:1], packed[1:]
    if kind == b"z":
        return ZoneInfo(rest.decode())
    seconds, microseconds = _OFFSET.unpack_from(rest)
    offset = timedelta(seconds=seconds, microseconds=microseconds)
    name = rest[_OFFSET.size :].decode("utf-8", "surrogatepass")
    return {b"o": timezone(offset), b"n": timezone(offset, name)}[kind]


_EXTENSIONS: Mapping[int, Callable[[bytes], object]] = {
    _INT: lambda payload: int.from_bytes(payload, "big", signed=True),
    _STR: lambda payload: payload.decode("utf-8", "surrogatepass"),
    _TUPLE: lambda payload: tuple(_decode_array(payload)),
    _SET: lambda payload: set(_decode_array(payload)),
    _FROZENSET: lambda payload: frozenset(_decode_array(payload)),
    _DICT: _decode_pairs,
    _DATETIME: _decode_datetime,
    _JUST_DATE: lambda payload: date(*_DATE.unpack(payload)),
    _JUST_TIME: _decode_time,
    _TIMEDELTA: lambda payload: timedelta(*_DURATION.unpack(payload)),
    _UUID: lambda payload: UUID(bytes=payload),
    _DECIMAL: lambda payload: Decimal(payload.decode("ascii")),
}
