"""The codec: what is put in comes out, exactly, or is refused with its place; bytes never do harm."""
# ruff: noqa: DTZ001, DTZ901  (a datetime without a zone is one of the things to keep)

from __future__ import annotations

import decimal
import enum
import io
import struct
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, strategies as st

from trio_session._codec import MsgpackCodec
from trio_session._errors import SessionDataError

codec = MsgpackCodec()


def encode(data: Any) -> bytes:
    """The bytes of `data`; its place in the store does not matter to this codec."""
    return codec.encode(data, context=b"Ab:here")


def decode(blob: bytes) -> dict[str, Any]:
    """The data of `blob`, read at another place."""
    return codec.decode(blob, context=b"Ab:there")


def shape(value: Any) -> Any:
    """Everything there is to tell about a value, so that equal shapes are values of no difference.

    `==` will not do: to it 1, 1.0 and True are the same, 0.0 and -0.0 too, and nan is not itself.
    """
    kind = type(value)
    inside: Any = value
    if kind is float:
        inside = struct.pack(">d", value)
    elif kind is Decimal:
        inside = value.as_tuple()
    elif kind in (list, tuple):
        inside = tuple(shape(item) for item in value)
    elif kind in (set, frozenset):
        inside = frozenset(shape(item) for item in value)
    elif kind is dict:
        inside = tuple((shape(key), shape(item)) for key, item in value.items())
    elif kind in (datetime, time):
        inside = (value.replace(tzinfo=None).isoformat(), value.fold, zone_shape(value.tzinfo))
    return (kind.__name__, inside)


def zone_shape(zone: tzinfo | None) -> Any:
    """What tells one time zone from another."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    return None if zone is None else (zone.utcoffset(None), zone.tzname(None))


# --- every type comes back ------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1),
        *(255 * 2**64, -(2**71), 2**71, 10**5000, 0.0, -0.0, 1.0, float("nan"), float("-inf")),
        *("", "a", "é", "\0", "😀", "\ud800", "a\udfff", b"", b"\xff", b"a"),
        *([], [[]], (), ((),), ([],), {}, {"a": {}}, set(), frozenset(), {frozenset({(1, "a")})}),
        *({1: "a", "1": "b"}, {(1, "a"): [2]}, {"\ud800": 1}, {True: 1, None: 2, b"a": 3, 1.5: 4}),
        *(datetime.min, datetime.max, datetime(2026, 10, 25, 2, 30, 0, 1, fold=1)),
        *(datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        *(datetime(2026, 1, 1, tzinfo=UTC, fold=1), datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
        *(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (0, 1)),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5, microseconds=1))),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "GMT\udc80")),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "")),
        *(date.min, date.max, time.min, time.max, time(2, 30, tzinfo=BERLIN, fold=1)),
        *(time(1, tzinfo=UTC), timedelta.min, timedelta.max, timedelta(0), timedelta(-1, 1, 1)),
        *(UUID(int=0), UUID(int=2**128 - 1)),
        *map(Decimal, ("0", "-0", "0.10", "1E+10", "1e-999999", "sNaN7", "-NaN", "-Infinity")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_type_comes_back_as_it_was(value: object) -> None:
    """Alone and inside each container: same type, same value, down to the last bit."""
    data = {"alone": value, "list": [value], "tuple": (value, 1), "dict": {"a": value}, "n": [1]}
    assert shape(decode(encode(data))) == shape(data)


def placed(value: Any, zone: tzinfo | None, fold: int) -> Any:
    """A datetime or time, with a zone and a fold."""
    return value.replace(tzinfo=zone, fold=fold)


offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
zones = st.one_of(
    st.sampled_from([None, UTC, BERLIN, ZoneInfo("UTC")]),
    st.builds(timezone, offsets),
    st.builds(timezone, offsets, st.text()),
)
any_text = st.text(st.characters(exclude_categories=()))  # with lone surrogates
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    any_text,
    st.binary(),
    st.builds(placed, st.datetimes(), zones, st.integers(0, 1)),
    st.builds(placed, st.times(), zones, st.integers(0, 1)),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals().filter(lambda value: not value.is_snan()),  # the only one without a hash
)
# Small: what is wrong with a type, or with one inside another, shows in three of them, and many are tried.
hashables = st.recursive(
    scalars,
    lambda inner: st.frozensets(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(any_text, inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
        st.sets(hashables, max_size=3),
        st.frozensets(hashables, max_size=3),
    ),
    max_leaves=8,
)
sessions = st.dictionaries(any_text, values, max_size=3)


@given(sessions)
def test_all_data_comes_back_as_it_was(data: dict[str, Any]) -> None:
    """Whatever is made of these types survives, and gives the same bytes when it is encoded again."""
    before = shape(data)
    blob = encode(data)
    again = decode(blob)
    assert shape(again) == before
    assert encode(again) == blob
    assert shape(data) == before  # and encoding has left the original alone


def test_plain_data_is_plain_msgpack() -> None:
    """After the version byte, any msgpack library in any language can read plain data."""
    data = {"user": 7, "cart": [1, "a", None, True, 1.5, b"x"], "prefs": {"theme": "dark"}}
    assert encode(data) == b"\x01" + msgspec.msgpack.encode(data)


def test_one_odd_value_changes_no_other() -> None:
    """Beside a large int or a lone surrogate, plain values are stored as plainly as ever."""
    plain = {"a": 2**64 - 1, "b": -(2**63), "c": "text", "d": [1]}
    for odd in (2**64, "\ud800"):
        assert encode({**plain, "odd": odd})[2:].startswith(msgspec.msgpack.encode(plain)[1:])


def test_what_is_in_two_places_comes_back_twice() -> None:
    """Sharing is not kept: a change at one place is not seen at the other."""
    shared = [1]
    data = decode(encode({"a": shared, "b": shared}))
    assert data == {"a": [1], "b": [1]}
    assert data["a"] is not data["b"]


# --- equal data, equal bytes ----------------------------------------------------------------------


@given(st.lists(hashables, max_size=10), st.randoms(use_true_random=False))
def test_sets_do_not_depend_on_their_history(members: list[Any], random: Any) -> None:
    """A set built in another order is the same set, and is not written again."""
    first = set(members)
    other = list(first)
    random.shuffle(other)
    fillers = {("filler", number) for number in range(1000)}
    second = {*fillers, *other}
    for filler in fillers:
        second.discard(filler)  # leaves a larger table, and so another order
    assert encode({"a": first}) == encode({"a": second})
    assert encode({"a": frozenset(first)}) == encode({"a": frozenset(second)})


def test_the_order_of_a_dict_is_data() -> None:
    """It comes back as it was, so another order is a change."""
    assert list(decode(encode({"b": 1, "a": 2}))) == ["b", "a"]
    assert encode({"b": 1, "a": 2}) != encode({"a": 2, "b": 1})


def test_the_decimal_context_does_not_matter() -> None:
    """A program that sets its own decimal context reads and writes the same bytes."""
    data = {"a": Decimal("1E+10"), "b": Decimal("3.14159265358979")}
    blob = encode(data)
    with decimal.localcontext(prec=2, capitals=0, Emax=1, Emin=-1):
        assert encode(data) == blob
        assert shape(decode(blob)) == shape(data)


# --- what cannot be kept --------------------------------------------------------------------------


Wrap = Callable[[Any], Any]


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


@dataclass
class Point:
    x: int = 0


class MyZone(ZoneInfo):
    pass


class Pair(NamedTuple):
    a: int
    b: int


class Stamp(datetime):
    pass


REFUSED: list[Any] = [
    *(Colour.RED, Name("a"), Point(), Pair(1, 2), OrderedDict(a=1), Stamp(2026, 1, 1), object(), int),
    *(bytearray(b"a"), memoryview(b"a"), 1j, range(3), iter([]), Path("a"), print),
]
PLACES: list[tuple[str, Wrap]] = [
    ('["a"]', lambda value: {"a": value}),
    ('["cart"][1][0]', lambda value: {"cart": [1, [value]]}),
    ('["cart"][0]["x"]', lambda value: {"cart": ({"x": value},)}),
    ('["\\u00e9\\n"]', lambda value: {"é\n": value}),
    ('["a"][0]', lambda value: {"big": 2**64, "a": [value]}),
    ('["a"][<int>]', lambda value: {"a": {7: value}}),
    ('["a"][<str>]', lambda value: {"a": {"k" * 41: value}}),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(("place", "wrap"), PLACES, ids=[place for place, _ in PLACES])
def test_what_cannot_be_kept_is_refused_with_its_place(value: object, place: str, wrap: Wrap) -> None:
    """Subclasses too: they would come back as something else. The value itself is not shown."""
    with pytest.raises(TypeError) as caught:
        encode(wrap(value))
    kind = type(value).__name__
    assert str(caught.value) == f"session{place}: a value of type {kind} cannot be kept"


def test_keys_and_members_are_refused_too() -> None:
    """A key is kept exactly or not at all, as is a set's member."""
    with pytest.raises(TypeError, match=r'^session\["a"\]\[<Name>\]: a value of type Name cannot'):
        encode({"a": {Name("a"): 1}})
    with pytest.raises(TypeError, match=r'^session\["a"\]\{\.\.\.\}: a value of type Colour cannot'):
        encode({"a": {Colour.RED}})


MOON: tzinfo = type("Moon", (tzinfo,), {})()

# The smallest file that describes a zone: UTC, and no name of its own.
NAMELESS = ZoneInfo.from_file(io.BytesIO(b"TZif" + bytes(32) + b"\0\0\0\1\0\0\0\4" + bytes(6) + b"UTC\0"))


@pytest.mark.parametrize("zone", [MOON, MyZone("UTC"), NAMELESS], ids=["one of ours", "a subclass", "without a name"])
def test_time_zones_that_cannot_be_found_again_are_refused(zone: tzinfo) -> None:
    """Only the key of a ZoneInfo and a fixed offset mean the same in another process."""
    for value in (datetime(2026, 1, 1, tzinfo=zone), time(tzinfo=zone)):
        with pytest.raises(TypeError, match=r'^session\["a"\]: a time zone of type .* cannot be kept$'):
            encode({"a": value})


@pytest.mark.parametrize("data", [[], None, OrderedDict(a=1), (("a", 1),)], ids=str)
def test_only_a_dict_is_a_session(data: object) -> None:
    """Nothing else could be read back as one."""
    with pytest.raises(TypeError, match=rf"^session: the data must be a dict, not {type(data).__name__}$"):
        encode(data)


CONTAINERS: dict[str, Wrap] = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "dict": lambda value: {"a": value},
    "pairs": lambda value: {1: value},
    "frozenset": lambda value: frozenset({value}),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_nesting_has_a_bound(kind: str) -> None:
    """99 containers inside the session come back; one more is refused by name."""
    wrap = CONTAINERS[kind]
    value: Any = 1
    for _ in range(99):
        value = wrap(value)
    assert shape(decode(encode({"a": value}))) == shape({"a": value})
    with pytest.raises(TypeError, match=r'^session\["a"\][^ ]*\.\.\.: more than 100 levels') as caught:
        encode({"a": wrap(value)})
    assert len(str(caught.value)) < 150


def test_what_contains_itself_is_refused() -> None:
    """By the same bound, with the way that leads there."""
    cart: list[Any] = [1]
    cart.append(cart)
    with pytest.raises(TypeError, match=r'^session\["cart"\]\[1\]\[1\].*or a container inside itself$'):
        encode({"cart": cart})


def test_a_full_stack_is_a_type_error() -> None:
    """Called from too deep inside a recursion, encoding fails as it does for any other reason."""

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            encode({"a": ((((((((((((1,),),),),),),),),),),),)})

    with pytest.raises(TypeError, match="stack is too full"):
        dive()


# --- what cannot be read --------------------------------------------------------------------------


def extension(code: int, payload: bytes) -> bytes:
    """A record with an extension that `encode` would not write."""
    return b"\x01" + msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(code, payload)})


def nested(levels: int) -> bytes:
    """A record of tuples inside tuples."""
    blob = b"\xc0"
    for _ in range(levels):
        blob = msgspec.msgpack.encode(msgspec.msgpack.Ext(3, b"\x91" + blob))
    return b"\x01\x81\xa1a" + blob


@pytest.mark.parametrize(
    "blob",
    [
        *(b"", b"\x01", b"\x80", b"\x00\x80", b"\x02\x80", b'{"a": 1}', b"\x01\x80\x00", b"\x01\xc1"),
        *(b"\x01\xc0", b"\x01\x90", b"\x01\xa1a", b"\x01\xd4\x08\x00", b"\x01\x81\xa1\xff\x01"),
        *(b"\x01\x81\xa1a", b"\x01\xdf\xff\xff\xff\xff", b"\x01\x81\xa1a\xdd\xff\xff\xff\xff"),
        *(b"\x01\x81\xa1a" + b"\x91" * 100_000, nested(10_000)),
        *(extension(code, b"") for code in (0, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 127, -2)),
        *(extension(2, b"\xff"), extension(3, b"\x80"), extension(3, b"\x90\x00")),
        *(extension(4, b"\x91\x90"), extension(6, b"\x91\x00"), extension(6, b"\x92\x90\x00")),
        *(extension(8, b"\0\0\1\1"), extension(9, b"\x18" + b"\0" * 7), extension(12, b"one")),
        *(extension(9, b"\0" * 8 + zone) for zone in (b"zNo/Where", b"z../x", b"o\0", b"x" + b"\0" * 8)),
        extension(10, b"\x7f" + b"\xff" * 11),
    ],
    ids=lambda blob: blob[:12].hex(),
)
def test_bytes_that_are_no_session_are_refused(blob: bytes) -> None:
    """Damaged, foreign, newer or hostile: one error says so, and keeps the reason."""
    with pytest.raises(SessionDataError) as caught:
        decode(blob)
    assert str(caught.value).startswith("the stored session ")
    if "cannot be decoded" in str(caught.value):
        assert caught.value.__cause__ is not None


@given(st.one_of(st.binary(), st.binary().map(lambda blob: b"\x01\x81\xa1a" + blob)))
def test_random_bytes_are_a_dict_or_refused(blob: bytes) -> None:
    """Nothing else ever comes out of decoding."""
    with suppress(SessionDataError):
        assert type(decode(blob)) is dict


@given(sessions, st.data())
def test_damaged_bytes_are_a_dict_or_refused(data: dict[str, Any], draw: st.DataObject) -> None:
    """Also if they were a session before one byte fell over or the end was cut off."""
    blob = bytearray(encode(data))
    place = draw.draw(st.integers(0, len(blob) - 1))
    blob[place] = draw.draw(st.integers(0, 255))
    blob = blob[: draw.draw(st.integers(0, len(blob)))]
    with suppress(SessionDataError):
        assert type(decode(bytes(blob))) is dict
