"""Encryption at rest: what is stored tells nothing, cannot be tampered with, and outlives a change of keys."""

from __future__ import annotations

import base64
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, strategies as st
from trio.testing import MockClock

from trio_session import (
    Codec,
    ConfigError,
    EncryptedCodec,
    LocalStore,
    MsgpackCodec,
    RedisConnection,
    Session,
    SessionConfig,
    SessionDataError,
    SessionManager,
    open_session_manager,
)
from trio_session._ids import Ids
from trio_session.abc import Lifetime
from trio_session.redis import open_redis_store
from trio_session.testing import SessionTrainer, open_test_client
from trio_session.web import App, Request

from .redis_servers import RedisServer

OLD, NEW, OTHER = (EncryptedCodec.new_key() for _ in range(3))
DATA = {"user": 7, "name": "Ada Lovelace"}
HERE, THERE = b"Ab:here", b"Cd:there"

# -- one record -------------------------------------------------------------------------------------------------------


@given(data=st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.binary(), st.lists(st.none()))))
def test_what_goes_in_comes_out(data: dict[str, Any]) -> None:
    """Encryption changes no value, and adds 28 bytes to the record in plain minus nothing."""
    codec = EncryptedCodec([NEW])
    blob = codec.encode(data, context=HERE)
    assert codec.decode(blob, context=HERE) == data
    assert len(blob) == len(MsgpackCodec().encode(data, context=HERE)) + 24


def test_what_is_stored_tells_nothing() -> None:
    """No value shows, and equal data of two sessions, or under two keys, look different."""
    codec = EncryptedCodec([NEW])
    blob = codec.encode(DATA, context=HERE)
    assert b"Ada" not in blob
    assert b"user" not in blob
    assert codec.encode(DATA, context=THERE)[8:24] != blob[8:24]
    assert EncryptedCodec([OLD]).encode(DATA, context=HERE)[8:24] != blob[8:24]
    assert codec.encode({**DATA, "user": 8}, context=HERE)[-8:] != blob[-8:]


def test_equal_data_gives_equal_bytes() -> None:
    """As the library finds changes by that; in every process that has the key."""
    assert EncryptedCodec([NEW]).encode(DATA, context=HERE) == EncryptedCodec([NEW, OLD]).encode(DATA, context=HERE)


def test_records_of_earlier_releases_stay_readable() -> None:
    """The format is a promise: this record was made when it was new."""
    key = base64.b64encode(bytes(range(32))).decode()
    codec = EncryptedCodec([key])
    assert codec.fingerprints == ("229e6115",)
    blob = bytes.fromhex(
        "656e6331229e61150d35a8887e94ab853aeddff7c6c384dae06f036f243726a6fc220313c2a26976d811a8f0f7fc1720b956"
    )
    assert codec.decode(blob, context=HERE) == DATA
    assert codec.encode(DATA, context=HERE) == blob


def test_a_swapped_record_is_refused() -> None:
    """A record put in another session's place is no session, or one user could be made another."""
    codec = EncryptedCodec([NEW])
    with pytest.raises(SessionDataError, match="another session's place"):
        codec.decode(codec.encode(DATA, context=HERE), context=THERE)


def test_every_bit_counts() -> None:
    """Whatever is changed, cut off or added is noticed, and never a crash of another kind."""
    codec = EncryptedCodec([NEW])
    blob = codec.encode(DATA, context=HERE)
    damaged = [blob[:length] for length in range(len(blob))]
    damaged += [blob[:i] + bytes([blob[i] ^ 1 << bit]) + blob[i + 1 :] for i in range(len(blob)) for bit in range(8)]
    damaged += [blob + b"\0", b"enc1" + blob]
    for other in damaged:
        with pytest.raises(SessionDataError):
            codec.decode(other, context=HERE)


def test_a_codec_of_ones_own_is_encrypted() -> None:
    """Also one that has nothing to say."""

    class Silent(Codec):
        def encode(self, data: dict[str, Any], *, context: bytes) -> bytes:
            assert context == HERE
            return b""

        def decode(self, blob: bytes, *, context: bytes) -> dict[str, Any]:
            assert (blob, context) == (b"", HERE)
            return {"silent": True}

    codec = EncryptedCodec([NEW], codec=Silent())
    assert codec.decode(codec.encode({}, context=HERE), context=HERE) == {"silent": True}


# -- keys -------------------------------------------------------------------------------------------------------------


def test_the_first_key_writes_and_all_of_them_read() -> None:
    """So a new key can be added before it is used, and an old one stay for as long as it is needed."""
    old, ring = EncryptedCodec([OLD]), EncryptedCodec([NEW, OLD])
    assert ring.decode(old.encode(DATA, context=HERE), context=HERE) == DATA
    blob = ring.encode(DATA, context=HERE)
    assert EncryptedCodec([OTHER, OLD, NEW]).decode(blob, context=HERE) == DATA
    with pytest.raises(SessionDataError):
        old.decode(blob, context=HERE)


def test_a_lost_key_is_named() -> None:
    """By its fingerprint, which whoever put it away can compare; a key itself is never shown."""
    lost, codec = EncryptedCodec([OLD]), EncryptedCodec([NEW, OTHER])
    with pytest.raises(SessionDataError) as failure:
        codec.decode(lost.encode(DATA, context=HERE), context=HERE)
    text = str(failure.value)
    assert f"with the key {lost.fingerprints[0]}, which is not among the keys" in text
    assert all(fingerprint in text for fingerprint in codec.fingerprints)
    for shown in (text, repr(codec), repr(SessionConfig(codec=codec))):
        assert not any(key[:10] in shown for key in (OLD, NEW, OTHER))
    assert " ".join(codec.fingerprints) in repr(codec)


def test_keys_in_either_alphabet() -> None:
    """`openssl rand -base64 32` writes + and / and a =, others leave the = out; it is the same key."""
    raw = bytes(range(200, 232))
    texts = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    assert len({EncryptedCodec([text]).fingerprints for text in texts}) == 1
    assert len(texts) == 2


WRONG_KEYS: list[tuple[Any, str]] = [
    ([], "must not be empty"),
    (NEW, "must be a sequence of str, not str"),
    (7, "must be a sequence of str, not int"),
    ([NEW, OLD, NEW], "must differ; number 3 is there twice"),
    *(
        ([NEW, bad], "must be 32 random bytes in base64, .* number 2 is not")
        for bad in ("", "hunter2", NEW[:-5], NEW + NEW, "0123456789abcdef" * 4, "é" * 43, NEW.encode(), 7, None)
    ),
]


@pytest.mark.parametrize(("keys", "problem"), WRONG_KEYS, ids=map(str, range(len(WRONG_KEYS))))
def test_keys_that_are_none(keys: Any, problem: str) -> None:
    """What is no key is refused before the first request, and not shown."""
    with pytest.raises(ConfigError, match=f"^keys {problem}") as failure:
        EncryptedCodec(keys)
    shown = str(failure.value)
    assert NEW not in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(("option", "value"), [("plaintext", "yes"), ("plaintext", True), ("codec", 7)])
def test_options_that_are_wrong(option: str, value: Any) -> None:
    """They are named, as every setting is."""
    with pytest.raises(ConfigError, match=f"^{option} must be"):
        EncryptedCodec([NEW], **{option: value})


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not installed the package for it reads what to type."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigError, match=r"^keys need the package cryptography: pip install 'trio_session\[crypto\]'"):
        EncryptedCodec([NEW])


def test_with_an_openssl_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a setting that cannot be used, and is said as such."""

    def too_old(key: bytes) -> None:
        raise UnsupportedAlgorithm("no AES-SIV here")

    monkeypatch.setattr("cryptography.hazmat.primitives.ciphers.aead.AESSIV", too_old)
    with pytest.raises(ConfigError, match=r"^keys need AES-SIV, which OpenSSL has since 3\.0"):
        EncryptedCodec([NEW])


# -- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_keys_from_the_environment(separator: str) -> None:
    """`SESSION_KEYS` has them in their order, `SESSION_PLAINTEXT` says what becomes of records in plain."""
    codec = SessionConfig.from_env({"SESSION_KEYS": separator.join([NEW, OLD])}).codec
    assert isinstance(codec, EncryptedCodec)
    assert codec.fingerprints == EncryptedCodec([NEW, OLD]).fingerprints
    assert codec.plaintext == "refuse"
    codec = SessionConfig.from_env({"SESSION_KEYS": NEW, "SESSION_PLAINTEXT": "Read"}).codec
    assert isinstance(codec, EncryptedCodec)
    assert codec.plaintext == "read"
    assert SessionConfig.from_env({"SESSION_KEYS": ""}).codec is None


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"SESSION_KEYS": "hunter2"}, "SESSION_KEYS must be 32 random bytes"),
        ({"SESSION_KEYS": ","}, "SESSION_KEYS must not be empty"),
        ({"SESSION_KEYS": NEW, "SESSION_PLAINTEXT": "yes"}, "SESSION_PLAINTEXT must be one of"),
        ({"SESSION_PLAINTEXT": "read"}, "SESSION_PLAINTEXT needs SESSION_KEYS"),
    ],
)
def test_an_environment_that_is_wrong(environ: dict[str, str], problem: str) -> None:
    """Its variable is named, and no key shown; nobody goes without encryption because a variable was lost."""
    with pytest.raises(ConfigError, match=f"^{problem}") as failure:
        SessionConfig.from_env(environ)
    assert "hunter2" not in str(failure.value)


# -- sessions ---------------------------------------------------------------------------------------------------------


async def start(manager: SessionManager, data: dict[str, Any]) -> str:
    """A user logs in; the id that goes into the cookie."""
    session = manager.session()
    async with session.locked() as working:
        working.update(data)
    assert session.id is not None
    return session.id


async def read(manager: SessionManager, id: str) -> dict[str, Any]:
    session = await manager.session(id).read()
    return dict(session.data)


@asynccontextmanager
async def processes(store: LocalStore, *codecs: Codec | None) -> AsyncIterator[Sequence[SessionManager]]:
    """Processes of one program that differ in their settings, as they do while these are changed."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_session_manager(SessionConfig(codec=codec), store=store))
            for codec in codecs
        ]


async def check_that_all_can_work(managers: Sequence[SessionManager], id: str) -> None:
    """Each process serves a user whom each of the others may have served before."""
    for one, other in itertools.product(managers, repeat=2):
        count = await one.session(id).increment("visits")
        assert (await read(other, id))["visits"] == count
        assert (await read(other, id))["user"] == 7


async def test_encryption_is_rolled_out_under_users_who_are_logged_in(autojump_clock: MockClock) -> None:
    """At each step old and new processes serve the same users; nobody is logged out, nothing is in plain in the end."""
    steps: list[Codec | None] = [
        None,
        EncryptedCodec([NEW], plaintext="write"),
        EncryptedCodec([NEW], plaintext="read"),
    ]
    store = LocalStore()
    async with processes(store, None) as (manager,):
        id = await start(manager, DATA)
        idle = await start(manager, DATA)  # a user who does nothing meanwhile
    for before, after in itertools.pairwise(steps):
        async with processes(store, before, after) as managers:
            await check_that_all_can_work(managers, id)
    async with processes(store, *steps[-1:], EncryptedCodec([NEW])) as (reading, refusing):
        assert await read(reading, idle) == DATA
        with pytest.raises(SessionDataError, match="not encrypted"):
            await read(refusing, idle)
        await reading.session(idle).increment("visits")
        await check_that_all_can_work([reading, refusing], idle)
        await check_that_all_can_work([reading, refusing], id)


async def test_keys_rotate_under_users_who_are_logged_in(autojump_clock: MockClock) -> None:
    """The new key behind the old one, then before it, then alone: nobody is logged out."""
    steps = [EncryptedCodec([OLD]), EncryptedCodec([OLD, NEW]), EncryptedCodec([NEW, OLD])]
    store = LocalStore()
    async with processes(store, steps[0]) as (manager,):
        id = await start(manager, DATA)
    for before, after in itertools.pairwise(steps):
        async with processes(store, before, after) as managers:
            await check_that_all_can_work(managers, id)
    async with processes(store, *steps[-1:], EncryptedCodec([NEW])) as (both, alone):
        await both.session(id).increment("visits")
        await check_that_all_can_work([both, alone], id)


async def test_a_session_moves_to_the_new_key_when_it_is_committed_next(autojump_clock: MockClock) -> None:
    """Once, changed or not; reading moves nothing, and an unchanged session is not written again."""
    before = SessionConfig(codec=EncryptedCodec([OLD]))
    async with SessionTrainer(replace(before, codec=EncryptedCodec([NEW, OLD]))) as trainer:
        store = trainer._store
        async with open_session_manager(before, store=store, ids=trainer._ids) as manager:
            id = await start(manager, DATA)
        for look, writes in ((False, 1), (True, 2), (True, 2)):
            session = await trainer.manager.session(id).read()
            assert session["user"] == 7
            if look:
                async with session.locked():
                    pass
            assert trainer.write_count(id) == writes


async def test_a_lost_key_ends_no_session(autojump_clock: MockClock) -> None:
    """The request fails and says why; with the key back the session is what it was. And a logout works without."""
    store = LocalStore()
    async with processes(store, EncryptedCodec([OLD]), EncryptedCodec([NEW]), None) as (old, new, none):
        id = await start(old, DATA)
        with pytest.raises(SessionDataError, match="not among the keys"):
            await read(new, id)
        with pytest.raises(SessionDataError, match="not among the keys"):
            await new.session(id).put("user", 8)
        with pytest.raises(SessionDataError, match="is encrypted, and there is no key: set SESSION_KEYS"):
            await read(none, id)
        assert await read(old, id) == DATA
        await new.session(id).clear()
        assert await read(old, id) == {}


async def test_a_key_that_is_gone_for_good(autojump_clock: MockClock) -> None:
    """Who says so gives up what cannot be read: its users begin anew, in the same session, and can log in again."""
    store = LocalStore()
    async with processes(store, EncryptedCodec([OLD])) as (manager,):
        id = await start(manager, DATA)
    config = SessionConfig(codec=EncryptedCodec([NEW]), undecodable="discard")
    async with open_session_manager(config, store=store) as manager:
        assert await read(manager, id) == {}
        await manager.session(id).put("user", 8)
        assert await read(manager, id) == {"user": 8}


async def test_a_new_id_is_a_new_place(autojump_clock: MockClock) -> None:
    """A login moves the record, so it is encrypted for where it goes."""
    async with processes(LocalStore(), EncryptedCodec([NEW])) as (manager,):
        session: Session = manager.session(await start(manager, DATA))
        await session.refresh()
        assert session.id is not None
        assert await read(manager, session.id) == DATA


# -- on a real server -------------------------------------------------------------------------------------------------


async def test_who_can_write_to_the_server_cannot_be_somebody_else(server: RedisServer, client: Any) -> None:
    """A record copied over another one is a 500 for its user, never another user; and nothing is lost by it."""
    config = SessionConfig(
        driver="redis", redis={"default": RedisConnection(url=server.url)}, codec=EncryptedCodec([NEW])
    )
    app = App(config)

    @app.post("/log-in/<name>")
    async def log_in(request: Request, name: str) -> str:
        await request.session.put("name", name)
        return name

    @app.get("/name")
    async def who(request: Request) -> str:
        name: str = request.session["name"]
        return name

    with trio.fail_after(20):
        async with open_test_client(app, raise_app_exceptions=False) as ada:
            await ada.post("/log-in/Ada")
            (key,) = client.keys()
            record = client.get(key)
            ada_id = ada.cookies["trio_session"]
            ada.cookies.clear()
            await ada.post("/log-in/Eve")
            (eves_key,) = set(client.keys()) - {key}
            client.set(key, client.get(eves_key))
            ada.cookies["trio_session"] = ada_id
            assert (await ada.get("/name")).status_code == 500
            client.set(key, record)
            assert (await ada.get("/name")).text == "Ada"
    assert b"Ada" not in record


async def test_plain_and_encrypted_records_share_a_server(server: RedisServer, client: Any) -> None:
    """During a roll-out each kind is under its own key, and each is read."""
    codec = EncryptedCodec([NEW], plaintext="read")
    async with open_redis_store(server.url) as store:
        config = SessionConfig(codec=codec)
        plain_config = SessionConfig()
        async with (
            open_session_manager(plain_config, store=store) as plain,
            open_session_manager(config, store=store) as encrypted,
        ):
            ids = [await start(plain, DATA), await start(encrypted, DATA)]
            assert [await read(encrypted, id) for id in ids] == [DATA, DATA]
            blobs = [(await store.load(Ids().key(id), life=Lifetime(100.0))).blob for id in ids]
    assert [blob is not None and blob.startswith(b"enc1") for blob in blobs] == [False, True]
