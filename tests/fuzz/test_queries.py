"""Query strings: parsed, or refused as the client's mistake; and none of them leads anybody elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlencode

import pytest
import trio
from hypothesis import given, settings, strategies as st
from werkzeug.exceptions import HTTPException

from trio_session import SessionConfig, open_session_manager
from trio_session.web._forms import parse_query

from ._inputs import EXAMPLES, inputs, parser_inputs, trying
from ._target import Target

WORDS = [b"&", b"=", b"%", b"%00", b"%0d%0a", b"%c3", b"\xff", b"+", b";", b"//", b"?", b"#", b"\r\n", b"\0", b"%2f"]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with open_session_manager(SessionConfig()) as manager:
        target = Target(manager)
        await target.settle()
        yield target


async def test_queries(target: Target) -> None:
    """200 or 400; a redirect for the sake of a slash stays here, whatever is behind the question mark."""
    breaker, stream = inputs("queries", WORDS)
    for data in stream:
        path = breaker.random.choice(("/", "/", "/folder"))
        with trying(data), trio.fail_after(60):
            peer = await target.ask(path, query=data)
            if path == "/":
                assert peer.status in {200, 400}
            else:
                assert peer.status == 308
                assert peer.headers["location"].partition("?")[0] == "/folder/"


def test_parsing_queries() -> None:
    """A query is pairs of text, or the client's mistake."""
    _, stream = parser_inputs("queries", WORDS)
    for data in stream:
        with trying(data), suppress(HTTPException):
            for name, value in parse_query(data, what="", max_fields=100).items(multi=True):
                (name + value).encode()  # or else it is no text


@given(st.lists(st.tuples(st.text(), st.text())))
@settings(max_examples=EXAMPLES)
def test_what_a_form_sends_arrives(pairs: list[tuple[str, str]]) -> None:
    """Whatever names and values are, as long as they are text."""
    assert sorted(parse_query(urlencode(pairs).encode(), what="").items(multi=True)) == sorted(pairs)
