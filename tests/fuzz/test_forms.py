"""Multipart bodies: forms, or the client's mistake; within the limits, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings, strategies as st
from werkzeug.exceptions import HTTPException

from trio_session import SessionConfig, open_session_manager
from trio_session.web._forms import parse_multipart

from ._inputs import EXAMPLES, inputs, parser_inputs, trying
from ._target import Target

WORDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"--B",
    b"--B--",
    b"\r\n--B\r\n",
    b"\r\n\r\n",
    b'Content-Disposition: form-data; name="a"',
    b'; filename="f"',
    b"; filename*=UTF-8''%ff",
    b"Content-Type: text/plain; charset=utf-16",
    b"Content-Transfer-Encoding: base64",
    b"; boundary=B",
    b"\0",
    b"\xff",
    b'"',
    b"\\",
    b"-",
    b"x" * 3000,
]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with open_session_manager(SessionConfig()) as manager:
        target = Target(manager)
        await target.settle()
        yield target


async def test_forms(target: Target) -> None:
    """200, or the client is told that it was its mistake; no form is larger than allowed, and files are closed."""
    breaker, stream = inputs("forms", WORDS)
    for data in stream:
        kind, _, body = data.partition(b"\n")
        with trying(data), trio.fail_after(60):
            headers = [(b"content-type", kind)]
            peer = await target.ask(headers=headers, body=breaker.pieces(body))
            assert peer.status in {200, 400, 413}
            assert sum(len(value.encode("utf-8", "replace")) for _, value in target.fields) <= 3 * 2_000
            assert len(target.fields) + len(target.files) <= 10


async def test_parsing_forms() -> None:
    """A body is a form within the limits, or the client's mistake."""
    breaker, stream = parser_inputs("forms", WORDS)
    for data in stream:
        pieces = breaker.pieces(data.partition(b"\n")[2])
        with trying(data), trio.fail_after(60), suppress(HTTPException):
            form = await parse_multipart(reader(pieces), "B", max_memory=2_000, max_parts=10)
            form.close()
            assert sum(len(value) for _, value in form.fields.items(multi=True)) <= 2_000
            assert len([*form.fields.items(multi=True), *form.files.items(multi=True)]) <= 10


PARTS = st.lists(st.tuples(st.from_regex("[a-z]{1,9}", fullmatch=True), st.binary(), st.booleans()), max_size=9)


@given(PARTS, st.lists(st.integers(0, 1_000), max_size=5))
@settings(max_examples=EXAMPLES)
def test_what_a_browser_sends_arrives(parts: list[tuple[str, bytes, bool]], cuts: list[int]) -> None:
    """Files to the byte, and fields that are text, wherever the network cuts the body; else it is malformed."""
    boundary = "boundary-that-is-nowhere-else"
    body = b""
    for name, data, is_file in parts:
        filename = '; filename="x"' if is_file else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
        body += data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    ends = sorted(cut for cut in cuts if 0 < cut < len(body))
    pieces = [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]

    async def main() -> None:
        form = await parse_multipart(reader(pieces), boundary, max_memory=None, max_parts=None)
        got = [(name, storage.read(), True) for name, storage in form.files.items(multi=True)]
        got += [(name, value.encode(), False) for name, value in form.fields.items(multi=True)]
        form.close()
        assert sorted(got) == sorted(parts)

    if all(is_file or _is_text(data) for _, data, is_file in parts):
        trio.run(main)


def reader(pieces: list[bytes]) -> Callable[[], Awaitable[bytes]]:
    """What gives one piece after the other, and then the end."""
    left = iter([piece for piece in pieces if piece])

    async def read() -> bytes:
        await trio.lowlevel.checkpoint()
        return next(left, b"")

    return read


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
