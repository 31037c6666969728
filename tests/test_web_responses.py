"""What handlers return, and what the client gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from werkzeug.datastructures import Headers

from trio_session.web import App, HTTPException, Request, Response, WebSocket, abort, redirect
from trio_session.web._response import ResponseValue

from .web_peer import Peer, ask


def app_returning(value: ResponseValue, *, path: str = "/") -> App:
    """An App whose only handler returns `value`."""
    app = App(sessions=False)

    @app.route(path, methods=["GET", "POST"])
    async def handler(request: Request) -> ResponseValue:
        return value

    return app


class OwnMapping(Mapping[str, object]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> object:
        return {"a": 1}[key]

    def __iter__(self) -> Any:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "text/html; charset=utf-8", b"caf\xc3\xa9"),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ({"a": [1, None]}, "application/json", b'{"a":[1,null]}'),
        ([1, 2], "application/json", b"[1,2]"),
        ([{"a": 1}, 200], "application/json", b'[{"a":1},200]'),
        (OwnMapping(), "application/json", b'{"a":1}'),
        ({"inner": MappingProxyType({"b": 2})}, "application/json", b'{"inner":{"b":2}}'),
        ({"at": datetime(2026, 1, 2, tzinfo=UTC)}, "application/json", b'{"at":"2026-01-02T00:00:00Z"}'),
        (Response("x", mimetype="text/csv"), "text/csv; charset=utf-8", b"x"),
        (Response("x", content_type="text/x-odd"), "text/x-odd", b"x"),
        (Response("x", headers={"Content-Type": "image/svg+xml"}), "image/svg+xml", b"x"),
    ],
)
async def test_the_kind_of_value_decides_the_content_type(value: Any, content_type: str, body: bytes) -> None:
    """A str is HTML, bytes are bytes, dict and list are JSON, and a Response says itself what it is."""
    answer = await ask(app_returning(value))
    assert answer.status == 200
    assert (answer.headers["content-type"], answer.body) == (content_type, body)
    assert answer.headers["content-length"] == str(len(body))


async def test_status_and_headers_in_a_tuple() -> None:
    """(body, status) and (body, status, headers); headers replace the ones of the body, and may be repeated."""
    answer = await ask(app_returning(({"id": 7}, 201)))
    assert (answer.status, answer.json()) == (201, {"id": 7})
    answer = await ask(app_returning(("a,b", HTTPStatus.ACCEPTED, {"Content-Type": "text/csv", "X-Kind": "table"})))
    assert (answer.status, answer.text) == (202, "a,b")
    assert (answer.headers["content-type"], answer.headers["x-kind"]) == ("text/csv", "table")
    answer = await ask(
        app_returning((Response("x", 200, {"A": "1"}), 404, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    )
    assert answer.status == 404
    assert answer.headers["a"] == "1"
    cookies = [value for name, value in answer.sent[0]["headers"] if name == b"set-cookie"]
    assert cookies == [b"a=1", b"b=2"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType is no response"),
        (7, "int is no response"),
        (("x",), r"a tuple is \(body, status\)"),
        (("x", "200"), r"a tuple is"),
        (("x", 200, {}, 1), r"a tuple is"),
        ((None, 200), "NoneType is no response"),
        (("x", 99), "99 is not the status"),
        ({"f": object()}, "object cannot be made into JSON"),
        (Response("x", headers={"X": "\N{SNOWMAN}"}), "latin-1"),
    ],
)
async def test_a_value_that_is_no_response_is_a_500(value: Any, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """The program is wrong: the log says why, the client is told nothing."""
    answer = await ask(app_returning(value))
    assert answer.status == 500
    assert "an error in the application" in answer.text
    assert "Error:" not in answer.text
    assert caplog.records[0].exc_info
    with pytest.raises((TypeError, ValueError), match=message):
        raise caplog.records[0].exc_info[1]  # type: ignore[misc]


async def test_responses_without_a_body() -> None:
    """204 and 304 have neither body nor content type, or the client would wait for them."""
    for status in (204, 304):
        answer = await ask(app_returning(("ignored", status, {"ETag": '"1"'})))
        assert (answer.status, answer.body, answer.headers) == (status, b"", {"etag": '"1"'})


async def test_content_length_is_that_of_the_body() -> None:
    """A wrong one of the handler's would break the connection."""
    answer = await ask(app_returning(("four", 200, {"Content-Length": "9"})))
    assert answer.headers["content-length"] == "4"


async def test_response_data_can_be_replaced() -> None:
    """`response.data` is what will be sent."""
    response = Response("before")
    assert response.data == b"before"
    response.data = "after"
    assert response.data == b"after"
    response.data = b"bytes"
    assert (await ask(app_returning(response))).body == b"bytes"


async def test_a_streamed_response_has_no_data_until_it_is_given_some() -> None:
    """Reading it would have to wait; replacing it ends the streaming."""

    async def chunks() -> AsyncIterator[str]:
        yield "never"

    response = Response(chunks())
    assert response.is_streamed
    with pytest.raises(RuntimeError, match="streamed"):
        _ = response.data
    response.data = "given"
    assert not response.is_streamed
    assert (await ask(app_returning(response))).text == "given"


async def test_cookies_are_werkzeugs() -> None:
    """`set_cookie` and `delete_cookie`, as in Flask and Quart."""
    response = Response("")
    response.set_cookie("theme", "dark", httponly=True)
    answer = await ask(app_returning(response))
    assert answer.headers["set-cookie"] == "theme=dark; HttpOnly; Path=/"


async def test_redirect() -> None:
    """302 unless another one is asked for; what is not ASCII is quoted."""
    answer = await ask(app_returning(redirect("/caf\N{LATIN SMALL LETTER E WITH ACUTE}?a=b")))
    assert (answer.status, answer.headers["location"]) == (302, "/caf%C3%A9?a=b")
    assert redirect("/", 303).status_code == 303
    with pytest.raises(ValueError, match="200 is not the status of a redirect"):
        redirect("/", 200)


async def test_abort_with_a_status() -> None:
    """The page has the description; any status of an error will do, also those Werkzeug has no class for."""
    app = App(sessions=False)

    @app.get("/<int:status>")
    async def fail(request: Request, status: int) -> str:
        abort(status, "Sorry <you>")

    for status in (400, 402, 405, 418, 429, 499, 503, 599):
        answer = await ask(app, f"/{status}")
        assert answer.status == status
        assert "Sorry &lt;you&gt;" in answer.text
    assert (await ask(app, "/200")).status == 500
    with pytest.raises(ValueError, match="302"):
        abort(302)


async def test_abort_with_a_response() -> None:
    """The response is sent as it is, past the error handlers."""
    app = App(sessions=False)

    @app.errorhandler(Exception)
    async def never(request: Request, error: Exception) -> str:
        raise AssertionError

    @app.get("/")
    async def fail(request: Request) -> str:
        abort(redirect("/login"))

    answer = await ask(app)
    assert (answer.status, answer.headers["location"]) == (302, "/login")


async def test_exceptions_with_a_response_of_werkzeugs() -> None:
    """Libraries for Werkzeug raise HTTP exceptions with its own kinds of responses."""
    from werkzeug.sansio.response import Response as SansIOResponse
    from werkzeug.wrappers import Response as WerkzeugResponse

    app = App(sessions=False)

    @app.get("/wsgi")
    async def wsgi(request: Request) -> str:
        raise HTTPException(response=WerkzeugResponse("theirs", 409, {"X": "1"}))

    @app.get("/sansio")
    async def sansio(request: Request) -> str:
        raise HTTPException(response=SansIOResponse(410))

    answer = await ask(app, "/wsgi")
    assert (answer.status, answer.text, answer.headers["x"]) == (409, "theirs", "1")
    answer = await ask(app, "/sansio")
    assert (answer.status, answer.text) == (410, "")


def test_responses_take_what_headers_take() -> None:
    """A mapping, pairs, or Werkzeug's Headers."""
    for headers in ({"A": "1"}, [("A", "1")], Headers({"A": "1"})):
        assert Response("", headers=headers).headers["a"] == "1"
    assert Response(bytearray(b"x")).data == Response(memoryview(b"x")).data == b"x"


async def test_the_start_is_sent_when_the_handler_is_done() -> None:
    """Not before: until then, a new session can still get its cookie."""
    app = App(sessions=False)
    peers: list[Peer] = []

    @app.get("/")
    async def handler(request: Request) -> str:
        assert peers[0].sent == []
        return "done"

    peers.append(Peer(app))
    await peers[0].run()
    assert peers[0].types() == ["http.response.start", "http.response.body"]


async def test_before_request_runs_for_routes_and_may_answer() -> None:
    """What it returns is the response; where there is no route, it does not run."""
    app = App(sessions=False)
    seen: list[str] = []

    @app.before_request
    async def note(request: Request) -> None:
        seen.append(request.path)

    @app.before_request
    async def members_only(request: Request) -> tuple[str, int] | None:
        return ("go away", 403) if request.path == "/secret" else None

    @app.get("/<name>")
    async def show(request: Request, name: str) -> str:
        return name

    answer = await ask(app, "/secret")
    assert (answer.status, answer.text) == (403, "go away")
    assert (await ask(app, "/open")).text == "open"
    assert (await ask(app, "/no/where")).status == 404
    assert seen == ["/secret", "/open"]


async def test_after_request_changes_every_response() -> None:
    """Errors too; the last hook runs first; None keeps the response, another one replaces it."""
    app = App(sessions=False)

    @app.after_request
    async def last(request: Request, response: Response) -> Response | None:
        response.headers["X-Order"] = response.headers.get("X-Order", "") + "last"
        return Response("replaced", 200, response.headers) if request.path == "/replace" else None

    @app.after_request
    async def first(request: Request, response: Response) -> Response:
        response.headers["X-Order"] = "first "
        return response

    @app.get("/<name>")
    async def show(request: Request, name: str) -> str:
        return name

    answer = await ask(app, "/x")
    assert (answer.text, answer.headers["x-order"]) == ("x", "first last")
    assert (await ask(app, "/replace")).text == "replaced"
    answer = await ask(app, "/no/where")
    assert (answer.status, answer.headers["x-order"]) == (404, "first last")


async def test_a_broken_after_request_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the page says nothing, and the hooks are not run again; an abort() in it is an answer.

    A stream that is not sent after all is closed.
    """
    app = App(sessions=False)
    closed: list[str] = []

    @app.after_request
    async def broken(request: Request, response: Response) -> Response:
        if request.path == "/replace":
            return Response("replaced")
        if request.path == "/polite":
            abort(418)
        raise ValueError("secret")

    async def chunks() -> AsyncIterator[str]:
        yield "never"

    class Closing:
        def __aiter__(self) -> AsyncIterator[str]:
            return chunks()

        async def aclose(self) -> None:
            closed.append("closed")

    @app.get("/<name>")
    async def stream(request: Request, name: str) -> Response:
        return Response(Closing())

    answer = await ask(app, "/x")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    assert closed == ["closed"]
    assert (await ask(app, "/polite")).status == 418
    assert (await ask(app, "/replace")).text == "replaced"
    assert closed == ["closed"] * 3


async def test_a_stream_that_is_not_sent_after_all_is_closed(nursery: trio.Nursery) -> None:
    """Whichever of two a broken hook leaves behind, and also when the client hangs up before the start."""
    app = App(sessions=False)
    opened: list[trio.MemorySendChannel[str]] = []

    def stream() -> Response:
        send_channel, receive_channel = trio.open_memory_channel[str](0)
        opened.append(send_channel)
        return Response(receive_channel)

    @app.after_request
    async def last(request: Request, response: Response) -> Response | None:
        match request.path:
            case "/replace-and-fail":
                raise ValueError
            case "/value":
                return cast("Response", object())
            case "/wait":
                await trio.sleep_forever()
            case _:
                pass
        return None

    @app.after_request
    async def first(request: Request, response: Response) -> Response:
        return stream() if request.path == "/replace-and-fail" else response

    @app.get("/<name>")
    async def handler(request: Request, name: str) -> Response:
        return stream()

    assert (await ask(app, "/replace-and-fail")).status == 500
    assert (await ask(app, "/value")).status == 500
    peer = Peer(app, "/wait")
    nursery.start_soon(peer.run)
    await wait_all_tasks_blocked()
    peer.hang_up()
    await peer.returned.wait()
    assert len(opened) == 4
    for channel in opened:
        with pytest.raises(trio.BrokenResourceError):
            channel.send_nowait("to nobody")


async def test_typed_handlers() -> None:
    """The type checkers take every kind of handler that works; this is a test for them."""
    app = App(sessions=False)

    @app.get("/1")
    async def one(request: Request) -> dict[str, int]:
        return {"a": 1}

    @app.get("/2")
    async def two(request: Request) -> Response | tuple[str, int]:
        return "x", 201

    @app.get("/3")
    async def three(request: Request) -> tuple[list[int], int, dict[str, str]]:
        return [1], 200, {"A": "b"}

    @app.get("/4")
    async def four(request: Request) -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"

        return chunks()

    @app.websocket("/5")
    async def five(ws: WebSocket) -> None:
        await ws.close()

    for number, status in enumerate([200, 201, 200, 200], 1):
        assert (await ask(app, f"/{number}")).status == status
    assert (await one(Request({"type": "http", "path": "/", "headers": []}, Peer(app).run)))["a"] == 1  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
