"""Request: what it knows without waiting, and its body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from trio_session.web import App, HTTPException, Request

from .web_peer import Peer, ask

JSON = [("Content-Type", "application/json")]


@pytest.fixture
def app() -> App:
    return App(sessions=False)


async def test_what_a_request_knows(app: App) -> None:
    """The names are Werkzeug's, so Flask's and Quart's."""

    @app.post("/a b/")
    async def show(request: Request) -> list[object]:
        assert request.scope["type"] == "http"
        return [
            request.method,
            request.path,
            request.full_path,
            request.url,
            request.base_url,
            request.host,
            request.scheme,
            request.is_secure,
            request.args.to_dict(flat=False),
            request.headers["x-two"],
            request.cookies.to_dict(),
            request.remote_addr,
            request.is_json,
            request.mimetype,
            request.accept_mimetypes.best,
            str(request.user_agent),
        ]

    answer = await ask(
        app,
        "/a b/?x=1&x=2&y=%C3%A9",
        method="POST",
        headers=[
            ("X-Two", "2"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
            ("Content-Type", "application/problem+json; charset=utf-8"),
            ("Accept", "text/html, */*;q=0.1"),
            ("User-Agent", "test"),
        ],
    )
    assert answer.json() == [
        "POST",
        "/a b/",
        "/a b/?x=1&x=2&y=%C3%A9",
        "http://localhost/a b/?x=1&x=2&y=%C3%A9".replace(" ", "%20").replace(
            "%C3%A9", "\N{LATIN SMALL LETTER E WITH ACUTE}"
        ),
        "http://localhost/a b/".replace(" ", "%20"),
        "localhost",
        "http",
        False,
        {"x": ["1", "2"], "y": ["\N{LATIN SMALL LETTER E WITH ACUTE}"]},
        "2",
        {"a": "1", "b": "2"},
        "192.0.2.1",
        True,
        "application/problem+json",
        "text/html",
        "test",
    ]


async def test_what_a_server_may_leave_out(app: App) -> None:
    """On a unix socket there are no addresses, and some keys of a scope are optional."""

    @app.get("/")
    async def show(request: Request) -> list[object]:
        return [request.remote_addr, request.server, request.scheme, request.url]

    peer = Peer(app, client=None, server=None)
    del peer.scope["scheme"], peer.scope["root_path"], peer.scope["extensions"]
    peer.scope["headers"] = []
    await peer.run()
    assert peer.json() == [None, None, "http", "http:///"]


def test_a_request_shows_no_query() -> None:
    """Queries hold tokens, and reprs end up in logs."""
    request = Request(
        {"type": "http", "method": "GET", "path": "/x", "query_string": b"token=1", "headers": []}, _never
    )
    assert repr(request) == "<Request GET '/x'>"


def test_attributes_that_do_not_exist() -> None:
    """A misspelt name is an AttributeError, as ever."""
    request = Request({"type": "http", "path": "/", "headers": []}, _never)
    with pytest.raises(AttributeError, match="'Request' object has no attribute 'header'"):
        _ = request.header  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # the point


@pytest.mark.parametrize("query", [b"x=%FF", b"x=\xff", b"%C3=1"])
async def test_a_query_that_is_not_utf_8_is_400(app: App, query: bytes) -> None:
    """Quoted or not; the URL can still be shown, quoted."""

    @app.get("/")
    async def show(request: Request) -> str:
        assert request.full_path.isascii()
        assert request.url.startswith("http://localhost/?")
        return str(request.args)

    answer = await ask(app, query_string=query)
    assert answer.status == 400
    assert "The query is not UTF-8" in answer.text


async def test_get_data(app: App) -> None:
    """All chunks, once and again, as bytes or as text."""

    @app.post("/")
    async def show(request: Request) -> list[str]:
        with assert_checkpoints():
            first = await request.get_data()
        with assert_checkpoints():
            assert await request.get_data() == first
        return [first.decode(), await request.get_data(as_text=True)]

    peer = Peer(app, method="POST", body=None)
    for chunk in (b"one ", b"", b"two"):
        peer.say_body(chunk, more=True)
    peer.say_body(b"")
    await peer.run()
    assert peer.json() == ["one two", "one two"]


async def test_text_that_is_not_utf_8_is_400(app: App) -> None:
    """Unless the handler takes it as bytes."""

    @app.post("/")
    async def show(request: Request) -> str:
        assert await request.get_data() == b"\xff"
        return await request.get_data(as_text=True)

    assert (await ask(app, method="POST", body=b"\xff")).status == 400


async def test_get_json(app: App) -> None:
    """Decoded once: the same object for everybody."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        with assert_checkpoints():
            value = await request.get_json()
        with assert_checkpoints():
            assert await request.get_json() is value
        return [value]

    assert (await ask(app, method="POST", headers=JSON, body=b'{"a": [1.5]}')).json() == [{"a": [1.5]}]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'"\xff"', b"NaN", b"1" * 5000, b"1e999", b'"\\ud800"', b"[" * 100_000, b"\xef\xbb\xbf{}"],
)
async def test_what_is_not_json_is_400(app: App, body: bytes) -> None:
    """Malformed, not UTF-8, out of range, nested too deeply: always the client's fault, never a 500."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        assert await request.get_json(silent=True) is None
        return [await request.get_json()]

    assert (await ask(app, method="POST", headers=JSON, body=body)).status == 400


async def test_json_wants_its_content_type(app: App) -> None:
    """Or the page of a stranger could send some, as a plain form; `force` does without."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        assert await request.get_json(silent=True) is None
        assert await request.get_json(force=True) == [1]
        return [await request.get_json()]

    assert (await ask(app, method="POST", body=b"[1]")).status == 415


async def test_bodies_have_a_limit(app: App) -> None:
    """Too long is 413: by what Content-Length says, before anything is read, or when it becomes so."""
    app.max_content_length = 10
    received: list[str] = []

    @app.post("/")
    async def show(request: Request) -> str:
        try:
            await request.get_data()
        except HTTPException:
            received.append(repr(request._received))
        return await request.get_data(as_text=True)

    assert (await ask(app, method="POST", body=b"x" * 10)).text == "x" * 10
    declared = await ask(app, method="POST", headers=[("Content-Length", "11")], body=b"x" * 11)
    assert (declared.status, received.pop()) == (413, "0")
    assert (await ask(app, method="POST", body=b"x" * 11)).status == 413
    assert (await ask(app, method="POST", headers=[("Transfer-Encoding", "chunked")], body=b"x" * 11)).status == 413


async def test_a_handler_may_raise_the_limit(app: App) -> None:
    """For its own request, before it reads; None is no limit at all."""
    app.max_content_length = 1

    @app.post("/")
    async def show(request: Request) -> str:
        request.max_content_length = None
        return await request.get_data(as_text=True)

    assert (await ask(app, method="POST", headers=[("Content-Length", "2")], body=b"xx")).text == "xx"


async def test_body_as_it_arrives(app: App) -> None:
    """`request.body` yields chunks while the client still sends; after that the body is gone."""
    seen: list[bytes] = []

    @app.post("/")
    async def show(request: Request) -> str:
        async for chunk in request.body:
            seen.append(chunk)  # noqa: PERF401  # one by one is what is tested
        with pytest.raises(RuntimeError, match="was read as a stream"):
            await request.get_data()
        with pytest.raises(RuntimeError, match="was read as a stream"):
            await anext(request.body)
        return "done"

    peer = Peer(app, method="POST", body=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        for chunk in (b"one", b"two"):
            peer.say_body(chunk, more=True)
            await trio.testing.wait_all_tasks_blocked()
            assert seen[-1] == chunk
        peer.say_body(b"")
    assert peer.text == "done"


async def test_body_after_get_data(app: App) -> None:
    """What is kept can be read again, also as a stream."""

    @app.post("/")
    async def show(request: Request) -> list[str]:
        data = await request.get_data()
        chunks = [chunk async for chunk in request.body]
        assert [chunk async for chunk in request.body] == chunks
        assert await request.get_data() == data
        return [chunk.decode() for chunk in chunks]

    assert (await ask(app, method="POST", body=b"all")).json() == ["all"]


async def test_a_cancelled_get_data_loses_nothing(app: App, autojump_clock: object) -> None:
    """What had arrived is kept, for the next call of whichever kind."""

    @app.post("/<how>")
    async def show(request: Request, how: str) -> str:
        with trio.move_on_after(1):
            await request.get_data()
        if how == "stream":
            return b"|".join([chunk async for chunk in request.body]).decode()
        return await request.get_data(as_text=True)

    for how, text in [("data", "onetwo"), ("stream", "one|two")]:
        peer = Peer(app, f"/{how}", method="POST", body=None)
        peer.say_body(b"one", more=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await trio.sleep(2)
            peer.say_body(b"two")
        assert peer.text == text


async def test_tasks_of_a_handler_may_read_at_the_same_time(app: App) -> None:
    """Each gets all of it."""
    got: list[object] = []

    @app.post("/")
    async def show(request: Request) -> str:
        async def read() -> None:
            got.append(await request.get_json())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
        return "done"

    peer = Peer(app, method="POST", headers=JSON, body=None)
    peer.say_body(b"[1,", more=True)
    peer.say_body(b"2]")
    await peer.run()
    assert got == [[1, 2]] * 3


async def test_a_client_that_hangs_up_in_mid_body(app: App) -> None:
    """Even a handler that shields itself gets no half of a body for the whole."""
    failures: list[str] = []

    @app.post("/")
    async def show(request: Request) -> str:
        with trio.CancelScope(shield=True):
            for _ in range(2):
                try:
                    await request.get_data()
                except HTTPException as error:
                    failures.append(type(error).__name__)
        return "to nobody"

    peer = Peer(app, method="POST", body=None)
    peer.say_body(b"half", more=True)
    peer.hang_up()
    await peer.run()
    assert failures == ["ClientDisconnected"] * 2


async def _never() -> Any:
    raise AssertionError


async def test_a_stream_of_the_body_can_be_answered_by_a_stream(app: App) -> None:
    """An echo, chunk by chunk."""

    @app.post("/")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        async for chunk in request.body:
            yield chunk.upper()

    peer = Peer(app, method="POST", body=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        for chunk in (b"one", b"two"):
            peer.say_body(chunk, more=True)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.sent[-1]["body"] == chunk.upper()
        peer.say_body(b"")
    assert peer.body == b"ONETWO"


async def test_a_line_break_in_a_header_is_a_space() -> None:
    """Few servers let one through; where one does, the request is as good as any other."""
    app = App(sessions=False)

    @app.get("/")
    async def index(request: Request) -> str:
        return repr((request.headers["X-Name"], request.cookies["a"]))

    answer = await ask(app, headers=[("X-Name", "Ada\r\nLovelace"), ("Cookie", "a=b\n")])
    assert answer.text == "('Ada  Lovelace', 'b')"
