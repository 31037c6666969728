"""docs/reference/quart.md, walked row by row: what it says is there is tried out, what it says is not is looked for.

A row without a check fails, and so does a check without a row.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import trio
from werkzeug.datastructures import Headers, ImmutableList, ImmutableMultiDict
from werkzeug.exceptions import BadRequest, MethodNotAllowed, NotFound
from werkzeug.user_agent import UserAgent

from trio_session import web
from trio_session.testing import open_test_client
from trio_session.web import App, HTTPException, Request, Response, WebSocket, WebSocketClosed, abort, redirect

from .test_docs import ROOT
from .web_peer import Peer, SocketPeer, ask

# Quart 0.22.0 on Werkzeug 3.1.9, dir() of one instance each. Where Quart is installed, it is asked itself.
OF_BOTH = """
    accept_charsets accept_encodings accept_languages accept_mimetypes access_control_request_headers
    access_control_request_method access_route args authorization base_url blueprint blueprints cache_control
    close content_encoding content_length content_md5 content_type cookies date dict_storage_class endpoint
    full_path headers host host_url http_version if_match if_modified_since if_none_match if_range
    if_unmodified_since is_json is_secure json_module list_storage_class max_forwards method mimetype
    mimetype_params origin parameter_storage_class path pragma query_string range referrer remote_addr root_path
    root_url routing_exception scheme scope script_root server trusted_hosts url url_root url_rule user_agent
    user_agent_class view_args
"""
OF_REQUEST = """
    body body_class body_timeout data files form form_data_parser_class get_data get_json json lock_class
    make_form_data_parser max_content_length max_form_memory_size max_form_parts on_json_loading_failed
    send_push_promise stream values
"""
OF_WEBSOCKET = "accept receive receive_json requested_subprotocols send send_json"

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
JSON = [("Content-Type", "application/json")]


def names_of_quart() -> tuple[set[str], set[str]]:
    """The public names of Quart's Request and of its Websocket."""
    if find_spec("quart") is None:
        return set(f"{OF_BOTH} {OF_REQUEST}".split()), set(f"{OF_BOTH} {OF_WEBSOCKET}".split())
    wrappers: Any = import_module("quart.wrappers")
    request = wrappers.Request("GET", "http", "/", b"", Headers(), "", "1.1", {}, send_push_promise=None)
    websocket = wrappers.Websocket("/", b"", "ws", Headers(), "", "1.1", [], *[None] * 4, {})
    return _public(request), _public(websocket)


def _public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


# -- the page --------------------------------------------------------------------------------------------------------


def _read_page() -> dict[str, dict[str, tuple[str, str]]]:
    """For each section its rows: what is there, and the remark, by name."""
    sections: dict[str, dict[str, tuple[str, str]]] = {}
    rows: dict[str, tuple[str, str]] = {}
    for line in (ROOT / "docs/reference/quart.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            rows = sections.setdefault(line.removeprefix("## "), {})
        elif found := re.fullmatch(r"\| (.+?) \| (yes|differs|no) \|(?: (.+))? \|", line):
            name = found[1].strip("`")
            assert name not in rows, f"{name} is there twice"
            rows[name] = (found[2], found[3] or "")
        else:
            assert not re.match(r"\| (?!Quart)", line), f"this row cannot be read: {line}"
    return sections


PAGE = _read_page()
BOTH, REQUEST, WEBSOCKET, APP, PAGES = (
    PAGE[section] for section in ("Request and WebSocket", "Request", "WebSocket", "App", "What Quart's pages show")
)


def test_every_name_of_quart_has_its_row() -> None:
    """Neither is one left out, nor is one made up."""
    of_request, of_websocket = names_of_quart()
    assert {*BOTH, *REQUEST} == of_request
    assert {*BOTH, *WEBSOCKET} == of_websocket


def test_what_is_different_is_explained() -> None:
    """Whoever reads that something differs, or is not there, reads what to do instead."""
    silent = [name for rows in PAGE.values() for name, (there, remark) in rows.items() if there != "yes" and not remark]
    assert not silent


def test_every_row_has_its_check() -> None:
    """And every check its row."""
    pairs: list[tuple[Mapping[str, tuple[str, str]], Mapping[str, object]]]
    pairs = [(BOTH, LOOKS), (REQUEST, REQUESTS), (WEBSOCKET, WEBSOCKETS), (APP, APPS)]
    for rows, checks in pairs:
        assert {name for name, (there, _) in rows.items() if there != "no"} == set(checks)
    for name, (there, remark) in PAGES.items():
        assert there == "no" or re.search(r"`tests/test_\w+\.py::test_\w+`$", remark), name  # test_docs looks it up


def test_what_is_not_there_is_not_there() -> None:
    """If it comes one day, the page has to say so."""
    connections = [(name, kind) for name in _missing(BOTH) for kind in (Request, WebSocket)]
    connections += [(name, Request) for name in _missing(REQUEST)]
    assert not [(name, kind) for name, kind in connections if hasattr(kind, name)]
    assert not [name for name in _missing(APP) if hasattr(App, name) or hasattr(web, name)]


def _missing(rows: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (there, _) in rows.items() if there == "no"]


# -- what both have, looked at ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What a handler sees.

    Attributes:
        see: looks at its request or WebSocket.
        expected: what is seen; `Each` where a request and a WebSocket are not the same.
        headers: what the client says.
        path: what the client asks for.
    """

    see: Callable[[Any], object]
    expected: object
    headers: tuple[tuple[str, str], ...] = ()
    path: str = "/app/users/7?x=1&x=2"


class Each(list[object]):
    """What is seen in a request, and what in a WebSocket."""


def header(name: str, value: str, see: Callable[[Any], object], expected: object) -> Look:
    """Something that is read in a header."""
    return Look(see, expected, ((name, value),))


def trusting(connection: Any) -> object:
    """What becomes of a host that is not trusted."""
    connection.trusted_hosts = ["example.com"]
    with pytest.raises(BadRequest):
        return connection.host
    connection.trusted_hosts = [".localhost", "localhost"]
    return connection.host


async def page(request: Request, id: int) -> str:
    """A handler that shows its request to the test."""
    request.scope["show"](request)
    return ""


async def talk(ws: WebSocket, id: int) -> None:
    """The same for a WebSocket."""
    ws.scope["show"](ws)


LOOKS = {
    "accept_charsets": header("Accept-Charset", "x;q=0.1, utf-8", lambda c: c.accept_charsets.best, "utf-8"),
    "accept_encodings": header("Accept-Encoding", "gzip, br;q=0.5", lambda c: c.accept_encodings.best, "gzip"),
    "accept_languages": header(
        "Accept-Language", "de, en;q=0.5", lambda c: c.accept_languages.best_match(["en", "de"]), "de"
    ),
    "accept_mimetypes": header("Accept", "text/html, */*;q=0.1", lambda c: c.accept_mimetypes.best, "text/html"),
    "access_control_request_headers": header(
        "Access-Control-Request-Headers", "X-A, X-B", lambda c: list(c.access_control_request_headers), ["X-A", "X-B"]
    ),
    "access_control_request_method": header(
        "Access-Control-Request-Method", "PUT", lambda c: c.access_control_request_method, "PUT"
    ),
    "access_route": header(
        "X-Forwarded-For", "192.0.2.9, 192.0.2.8", lambda c: c.access_route, ["192.0.2.9", "192.0.2.8"]
    ),
    "args": Look(lambda c: c.args.getlist("x"), ["1", "2"]),
    "authorization": header(
        "Authorization", "Basic dTpw", lambda c: (c.authorization.username, c.authorization.password), ("u", "p")
    ),
    "base_url": Look(lambda c: c.base_url, Each(["http://localhost/app/users/7", "ws://localhost/app/users/7"])),
    "cache_control": header("Cache-Control", "max-age=5", lambda c: c.cache_control.max_age, 5),
    "content_encoding": header("Content-Encoding", "gzip", lambda c: c.content_encoding, "gzip"),
    "content_length": header("Content-Length", "0", lambda c: c.content_length, 0),
    "content_md5": header("Content-MD5", "x", lambda c: c.content_md5, "x"),
    "content_type": header("Content-Type", "text/plain; a=b", lambda c: c.content_type, "text/plain; a=b"),
    "cookies": header("Cookie", "a=1; b=2", lambda c: c.cookies.to_dict(), {"a": "1", "b": "2"}),
    "date": header("Date", "Fri, 02 Jan 2026 00:00:00 GMT", lambda c: c.date, datetime(2026, 1, 2, tzinfo=UTC)),
    "dict_storage_class": Look(lambda c: c.dict_storage_class, ImmutableMultiDict),
    "endpoint": Look(lambda c: c.endpoint, Each([page, talk])),
    "full_path": Look(lambda c: c.full_path, "/users/7?x=1&x=2"),
    "headers": header("X-A", "1", lambda c: (c.headers["x-a"], len(c.headers)), ("1", 2)),
    "host": Look(lambda c: c.host, "localhost"),
    "host_url": Look(lambda c: c.host_url, Each(["http://localhost/", "ws://localhost/"])),
    "http_version": Look(lambda c: c.http_version, "1.1"),
    "if_match": header("If-Match", '"a"', lambda c: "a" in c.if_match, True),
    "if_modified_since": header(
        "If-Modified-Since", "Fri, 02 Jan 2026 00:00:00 GMT", lambda c: c.if_modified_since.day, 2
    ),
    "if_none_match": header("If-None-Match", 'W/"a"', lambda c: c.if_none_match.contains_weak("a"), True),
    "if_range": header("If-Range", '"a"', lambda c: c.if_range.etag, "a"),
    "if_unmodified_since": header(
        "If-Unmodified-Since", "Fri, 02 Jan 2026 00:00:00 GMT", lambda c: c.if_unmodified_since.day, 2
    ),
    "is_json": header("Content-Type", "application/json", lambda c: c.is_json, True),
    "is_secure": Look(lambda c: c.is_secure, False),
    "list_storage_class": Look(lambda c: c.list_storage_class, ImmutableList),
    "max_forwards": header("Max-Forwards", "3", lambda c: c.max_forwards, 3),
    "method": Look(lambda c: c.method, "GET"),
    "mimetype": header("Content-Type", "text/Plain; a=b", lambda c: c.mimetype, "text/plain"),
    "mimetype_params": header("Content-Type", "text/plain; a=b", lambda c: c.mimetype_params, {"a": "b"}),
    "origin": header("Origin", "http://localhost", lambda c: c.origin, "http://localhost"),
    "parameter_storage_class": Look(lambda c: c.parameter_storage_class, ImmutableMultiDict),
    "path": Look(lambda c: c.path, "/users/7"),
    "pragma": header("Pragma", "no-cache", lambda c: "no-cache" in c.pragma, True),
    "query_string": Look(lambda c: c.query_string, b"x=1&x=2"),
    "range": header("Range", "bytes=1-2", lambda c: c.range.ranges, [(1, 3)]),
    "referrer": header("Referer", "http://example.com/", lambda c: c.referrer, "http://example.com/"),
    "remote_addr": Look(lambda c: c.remote_addr, "192.0.2.1"),
    "root_path": Look(lambda c: c.root_path, "/app"),
    "root_url": Look(lambda c: c.root_url, Each(["http://localhost/app/", "ws://localhost/app/"])),
    "routing_exception": Look(lambda c: c.routing_exception, None),
    "scheme": Look(lambda c: c.scheme, Each(["http", "ws"])),
    "scope": Look(lambda c: c.scope["type"], Each(["http", "websocket"])),
    "script_root": Look(lambda c: c.script_root, "/app"),
    "server": Look(lambda c: c.server, ("localhost", 80)),
    "trusted_hosts": Look(trusting, "localhost"),
    "url": Look(lambda c: c.url, Each(["http://localhost/app/users/7?x=1&x=2", "ws://localhost/app/users/7?x=1&x=2"])),
    "url_root": Look(lambda c: c.url_root, Each(["http://localhost/app/", "ws://localhost/app/"])),
    "url_rule": Look(lambda c: c.url_rule.rule, "/users/<int:id>"),
    "user_agent": header("User-Agent", "Mozilla/5.0", lambda c: c.user_agent.string, "Mozilla/5.0"),
    "user_agent_class": Look(lambda c: c.user_agent_class, UserAgent),
    "view_args": Look(lambda c: c.view_args, {"id": 7}),
}


@pytest.mark.parametrize("name", LOOKS)
async def test_what_both_have(name: str) -> None:
    """A request and a WebSocket for the same path, with the same headers, know the same."""
    look = LOOKS[name]
    app = App(sessions=False)
    app.get("/users/<int:id>")(page)
    app.websocket("/users/<int:id>")(talk)
    seen: list[object] = []
    for peer in (Peer, SocketPeer):
        await peer(
            app, look.path, root_path="/app", headers=look.headers, show=lambda c: seen.append(look.see(c))
        ).run()
    assert seen == (look.expected if isinstance(look.expected, Each) else [look.expected, look.expected])


async def test_what_is_known_where_nothing_is_routed_to() -> None:
    """An error handler finds out what the client wanted."""
    app = App(sessions=False)
    app.get("/users/<int:id>")(page)
    seen: list[tuple[object, ...]] = []

    @app.errorhandler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> str:
        seen.append((request.endpoint, request.url_rule, request.view_args, type(request.routing_exception)))
        return ""

    await ask(app, "/nowhere")
    await ask(app, "/users/7", method="PUT")
    assert seen == [(None, None, {}, NotFound), (None, None, {}, MethodNotAllowed)]


# -- requests --------------------------------------------------------------------------------------------------------

Check = Callable[[], Awaitable[None]]


def check_of(checks: dict[str, Check], *names: str) -> Callable[[Check], Check]:
    """Register the check of one row, or of several."""

    def register(check: Check) -> Check:
        checks.update(dict.fromkeys(names, check))
        return check

    return register


async def posted(
    see: Callable[[Request], Awaitable[object]],
    body: bytes = b"",
    *,
    headers: list[tuple[str, str]] | None = None,
    path: str = "/",
) -> tuple[int, object]:
    """What a handler sees of a request that is posted, and the status of the answer."""
    app = App(sessions=False)
    seen: list[object] = []

    @app.post("/")
    async def handler(request: Request) -> str:
        seen.append(await see(request))
        return ""

    answer = await ask(app, path, method="POST", headers=headers or [], body=body)
    return answer.status, seen[0] if seen else None


REQUESTS: dict[str, Check] = {}


@check_of(REQUESTS, "body")
async def _body() -> None:
    async def see(request: Request) -> object:
        return [chunk async for chunk in request.body]

    async def see_limited(request: Request) -> object:
        request.max_content_length = 2
        return await see(request)

    assert await posted(see, b"abc") == (200, [b"abc"])
    assert await posted(see_limited, b"abc") == (413, None)


@check_of(REQUESTS, "body_timeout")
async def _body_timeout() -> None:
    async def see(request: Request) -> object:
        return request.body_timeout

    assert await posted(see) == (200, 60)


@check_of(REQUESTS, "data")
async def _data() -> None:
    async def see(request: Request) -> object:
        return await request.data

    assert await posted(see, b"a=1") == (200, b"a=1")
    assert await posted(see, b"a=1", headers=FORM) == (200, b"")


@check_of(REQUESTS, "files", "form")
async def _files() -> None:
    async def see(request: Request) -> object:
        file = (await request.files)["f"]
        return (await request.form)["a"], file.filename, await trio.to_thread.run_sync(file.read)

    boundary = [("Content-Type", "multipart/form-data; boundary=AaB03x")]
    part = "--AaB03x\r\nContent-Disposition: form-data; name="
    body = f'{part}"a"\r\n\r\n1\r\n{part}"f"; filename="f.txt"\r\n\r\nx\r\n--AaB03x--\r\n'.encode()
    assert await posted(see, body, headers=boundary) == (200, ("1", "f.txt", b"x"))
    assert await posted(see, body[:-9], headers=boundary) == (400, None)


@check_of(REQUESTS, "get_data")
async def _get_data() -> None:
    async def see(request: Request) -> object:
        assert await request.get_data(parse_form_data=True) == b"abc"
        assert await request.get_data(as_text=True) == "abc"
        assert await request.get_data(cache=False) == b"abc"
        with pytest.raises(RuntimeError):
            await request.get_data()
        return "done"

    assert await posted(see, b"abc") == (200, "done")


@check_of(REQUESTS, "get_json", "json")
async def _get_json() -> None:
    async def see(request: Request) -> object:
        if await request.get_json(silent=True) is None:
            assert await request.get_json(force=True, cache=True) == [1]
        return await request.json == await request.get_json(cache=False) == [1]

    assert await posted(see, b"[1]", headers=JSON) == (200, True)
    assert await posted(see, b"[1]") == (415, None)


@check_of(REQUESTS, "max_content_length", "max_form_memory_size", "max_form_parts")
async def _limits() -> None:
    async def see(request: Request) -> object:
        return request.max_content_length, request.max_form_memory_size, request.max_form_parts

    assert await posted(see) == (200, (16 * 1024 * 1024, 500_000, 1000))
    for name in ("max_content_length", "max_form_memory_size", "max_form_parts"):

        async def see_limited(request: Request) -> object:
            setattr(request, name, 1)  # noqa: B023  # called in this very round
            return await request.form

        assert await posted(see_limited, b"a=1&b=2", headers=FORM) == (413, None)


@check_of(REQUESTS, "values")
async def _values() -> None:
    async def see(request: Request) -> object:
        return (await request.values).getlist("a")

    assert await posted(see, b"a=2", headers=FORM, path="/?a=1") == (200, ["1", "2"])


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_requests_have(name: str) -> None:
    """The body, in all its ways."""
    await REQUESTS[name]()


# -- WebSockets ------------------------------------------------------------------------------------------------------

WEBSOCKETS: dict[str, Check] = {}


async def talked(handle: Callable[[WebSocket], Awaitable[None]], *texts: str, go: bool = False) -> SocketPeer:
    """What a WebSocket's handler makes of messages; with `go`, of a peer that goes after them."""
    app = App(sessions=False)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await handle(ws)

    peer = SocketPeer(app, subprotocols=["a", "b"])
    for text in texts:
        peer.say_text(text)
    if go:
        peer.go()
    await peer.run()
    return peer


@check_of(WEBSOCKETS, "accept", "requested_subprotocols")
async def _accept() -> None:
    async def handle(ws: WebSocket) -> None:
        await ws.accept(headers={"X-A": "1"}, subprotocol=ws.requested_subprotocols[1])
        with pytest.raises(RuntimeError):
            await ws.accept()

    accepted = (await talked(handle)).sent[0]
    assert (accepted["headers"], accepted["subprotocol"]) == ([(b"x-a", b"1")], "b")


@check_of(WEBSOCKETS, "close")
async def _close() -> None:
    async def handle(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4000, "enough")
        await ws.close()

    assert (await talked(handle)).sent[1:] == [{"type": "websocket.close", "code": 4000, "reason": "enough"}]


@check_of(WEBSOCKETS, "receive", "send")
async def _receive() -> None:
    async def handle(ws: WebSocket) -> None:
        await ws.send(await ws.receive())
        for _ in range(2):
            with pytest.raises(WebSocketClosed):
                await ws.receive()
        with pytest.raises(WebSocketClosed):
            await ws.send("to nobody")

    peer = await talked(handle, "hello", go=True)
    assert peer.types() == ["websocket.accept", "websocket.send"]
    assert peer.sent[1]["text"] == "hello"


@check_of(WEBSOCKETS, "receive_json", "send_json")
async def _json() -> None:
    async def handle(ws: WebSocket) -> None:
        while True:
            await ws.send_json(await ws.receive_json())

    peer = await talked(handle, "[1]", "[")
    assert peer.sent[1]["text"] == "[1]"
    assert peer.close_code == 1008


@pytest.mark.parametrize("name", WEBSOCKETS)
async def test_what_websockets_have(name: str) -> None:
    """Messages, and the two ends."""
    await WEBSOCKETS[name]()


# -- the App ---------------------------------------------------------------------------------------------------------

APPS: dict[str, Check] = {}


async def answered(register: Callable[[App], None], method: str = "GET") -> tuple[int, str]:
    """The status and the text that an App answers for `/`."""
    app = App(sessions=False)
    register(app)
    answer = await ask(app, method=method)
    return answer.status, answer.text


async def hello(request: Request) -> str:
    """A handler."""
    return "hello"


@check_of(APPS, "delete", "get", "patch", "post", "put")
async def _verbs() -> None:
    for verb in ("delete", "get", "patch", "post", "put"):

        def register(app: App) -> None:
            getattr(app, verb)("/")(hello)  # noqa: B023  # called in this very round

        assert await answered(register, verb.upper()) == (200, "hello")
        assert (await answered(register, "TRACE"))[0] == 405


@check_of(APPS, "route", "url_map")
async def _route() -> None:
    def register(app: App) -> None:
        app.route("/", methods=["GET", "POST"])(hello)
        with pytest.raises(ValueError, match="already"):
            app.post("/")(hello)
        assert [rule.rule for rule in app.url_map.iter_rules()] == ["/"]

    for method in ("GET", "POST"):
        assert await answered(register, method) == (200, "hello")


@check_of(APPS, "abort")
async def _abort() -> None:
    async def fail(request: Request) -> str:
        with pytest.raises(ValueError, match="200"):
            abort(200)
        abort(409, "Not now.")

    def register(app: App) -> None:
        app.get("/")(fail)

    status, text = await answered(register)
    assert status == 409
    assert "Not now." in text


@check_of(APPS, "redirect")
async def _redirect() -> None:
    assert redirect("/login", 303).headers["Location"] == "/login"
    with pytest.raises(ValueError, match="200"):
        redirect("/login", 200)


@check_of(APPS, "before_request", "after_request", "errorhandler")
async def _hooks() -> None:
    def register(app: App) -> None:
        @app.before_request
        async def fail(request: Request) -> None:
            raise LookupError(request.path)

        @app.errorhandler(LookupError)
        async def explain(request: Request, error: LookupError) -> str:
            return f"failed at {error.args[0]}"

        @app.after_request
        async def shout(request: Request, response: Response) -> None:
            response.data = response.data.upper()

        app.get("/")(hello)

    def register_no_route(app: App) -> None:
        @app.before_request
        async def never(request: Request) -> None:
            raise AssertionError

    assert await answered(register) == (200, "FAILED AT /")
    assert (await answered(register_no_route))[0] == 404


@check_of(APPS, "url_for")
async def _url_for() -> None:
    app = App(sessions=False)
    app.get("/users/<int:id>")(page)
    assert app.url_for(page, id=7) == app.url_for("page", id=7) == "/users/7"


@check_of(APPS, "websocket")
async def _websocket() -> None:
    app = App(sessions=False)

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    own, strange = (SocketPeer(app, headers=[("Origin", f"http://{host}")]) for host in ("localhost", "evil.example"))
    await own.run()
    await strange.run()
    assert own.types() == ["websocket.accept", "websocket.close"]
    assert strange.types() == ["websocket.close"]


@check_of(APPS, "while_serving", "nursery")
async def _while_serving() -> None:
    app = App(sessions=False)
    steps: list[str] = []

    @app.while_serving
    async def around() -> AsyncIterator[None]:
        steps.append("begin")
        yield
        steps.append("end")

    @app.get("/")
    async def handler(request: Request) -> str:
        done = trio.Event()

        async def task(step: str) -> None:
            steps.append(step)
            done.set()

        app.nursery.start_soon(task, "task")
        await done.wait()
        return ""

    async with open_test_client(app) as client:
        await client.get("/")
    assert steps == ["begin", "task", "end"]


@pytest.mark.parametrize("name", APPS)
async def test_what_apps_have(name: str) -> None:
    """Routes, hooks, and what runs besides."""
    await APPS[name]()
