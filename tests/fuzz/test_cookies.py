"""Cookie headers: whoever sends what, sessions are those of the ids that we gave out, and nobody breaks down."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trio_session import SessionConfig, open_session_manager
from trio_session._cookies import candidate_ids

from ._inputs import EXAMPLES, inputs, parser_inputs, trying
from ._target import Target

NAME = b"trio_session"
WORDS = [NAME, b"LIVE", b"OTHER", b"DEAD", b"=", b";", b"; ", b'"', b"\\", b",", b"\0", b"\r\n", b"\xff", b"%3d", b"\t"]


@pytest.fixture
async def target(mock_clock: MockClock) -> AsyncIterator[Target]:
    async with open_session_manager(SessionConfig(lifetime=3600.0)) as manager:
        target = Target(manager)
        await target.settle()
        yield target


async def test_cookies(target: Target, mock_clock: MockClock) -> None:
    """An id that we did not give out is never adopted, two living ones are nobody's, a cookie is set at most once."""
    manager = target.manager
    ids: dict[bytes, bytes] = {}
    for word in (b"LIVE", b"OTHER", b"DEAD"):
        session = manager.session()
        await session.put("n", 0)
        assert session.id is not None
        ids[word] = session.id.encode()
        if word == b"DEAD":
            await session.clear()
    breaker, stream = inputs("cookies", WORDS)
    for data in stream:
        with trying(data):
            for word, id in ids.items():
                data = data.replace(word, id)
            method = breaker.random.choice(["GET"] * 7 + ["POST"])
            headers = [(b"cookie", piece) for piece in breaker.pieces(data)]
            with trio.fail_after(60):
                peer = await target.ask(method=method, headers=headers)
            assert peer.status in {200, 409}
            set_cookies = [value for name, value in peer.sent[0]["headers"] if name == b"set-cookie"]
            assert len(set_cookies) <= 1
            known = {ids[b"LIVE"], ids[b"OTHER"]} & {id.encode() for id in candidate_ids(headers, NAME.decode())}
            if method == "GET":
                assert peer.status == 200
                assert (peer.json()["n"] is not None) == (len(known) == 1)
            for cookie in set_cookies:
                id = cookie.partition(b";")[0].partition(b"=")[2]
                assert id in known or id not in data or not id
        mock_clock.jump(1)  # sessions of those who had none expire in time
        await manager.session(ids[b"LIVE"].decode()).read()
        await manager.session(ids[b"OTHER"].decode()).read()
    assert int(repr(manager._engine.store).split()[1]) < 3600


def test_scanning_for_ids() -> None:
    """It never raises, and what it finds is ASCII and in one of the headers, each value once."""
    breaker, stream = parser_inputs("cookies", WORDS)
    for data in stream:
        with trying(data):
            scan(breaker.pieces(data))


def scan(lines: list[bytes]) -> list[str]:
    found = candidate_ids([(b"cookie", line) for line in lines], NAME.decode())
    assert len(set(found)) == len(found)
    assert all(any(id.encode("ascii") in line for line in lines) for id in found)
    return found


@given(st.lists(st.binary() | st.sampled_from([b"trio_session=x", b'trio_session="y"', b"trio_session = z "])))
@settings(max_examples=EXAMPLES)
def test_ids_are_found(lines: list[bytes]) -> None:
    """Beside whatever else there is."""
    found = scan(lines)
    pairs = [pair for line in lines for pair in line.split(b";")]
    for pair, value in ((b"trio_session=x", "x"), (b'trio_session="y"', "y"), (b"trio_session = z ", "z")):
        assert pair not in pairs or value in found
