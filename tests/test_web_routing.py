"""Routing: which handler answers what, and what is answered where there is none."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

import pytest
from werkzeug.routing import BaseConverter

from trio_session.web import App, Request, WebSocket

from .web_peer import SocketPeer, ask


@pytest.fixture
def app() -> App:
    return App(sessions=False)


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
async def test_each_verb_has_its_decorator(app: App, method: str) -> None:
    """`@app.<verb>(path)` answers that verb, and no other."""

    async def handler(request: Request) -> str:
        return request.method

    getattr(app, method)("/")(handler)
    assert (await ask(app, method=method.upper())).text == method.upper()
    other = await ask(app, method="POST" if method == "get" else "GET")
    assert other.status == 405


async def test_a_route_can_have_several_methods(app: App) -> None:
    """`methods=` names them; GET is the only one if it is left out."""

    @app.route("/both", methods=["GET", "POST"])
    async def both(request: Request) -> str:
        return request.method

    @app.route("/one")
    async def one(request: Request) -> str:
        return request.method

    assert (await ask(app, "/both", method="POST")).text == "POST"
    assert (await ask(app, "/both")).text == "GET"
    assert (await ask(app, "/one")).text == "GET"
    assert (await ask(app, "/one", method="POST")).status == 405


async def test_values_in_the_path_are_converted_and_passed_by_name(app: App) -> None:
    """`<int:id>` gives an int called id, and `request.view_args` knows it too."""

    @app.get("/users/<int:id>/<uuid:token>/<path:rest>")
    async def show(request: Request, id: int, token: UUID, rest: str) -> list[object]:
        assert isinstance(token, UUID)
        assert request.view_args == {"id": id, "token": token, "rest": rest}
        return [id, str(token), rest]

    token = "0a0a0a0a-0b0b-0c0c-0d0d-0e0e0e0e0e0e"
    assert (await ask(app, f"/users/7/{token}/a/b")).json() == [7, token, "a/b"]
    assert (await ask(app, "/users/seven/x/y")).status == 404
    assert (await ask(app, f"/users/{'9' * 5000}/{token}/a")).status == 404


async def test_default_values(app: App) -> None:
    """An argument with a default may be left out of one of the paths."""

    @app.get("/page")
    @app.get("/page/<int:number>")
    async def page(request: Request, number: int = 1) -> list[int]:
        return [number]

    assert (await ask(app, "/page")).json() == [1]
    assert (await ask(app, "/page/2")).json() == [2]
    assert app.url_for(page) == "/page"
    assert app.url_for(page, number=2) == "/page/2"


async def test_own_converters(app: App) -> None:
    """`app.url_map.converters` takes Werkzeug's converters of one's own; what they raise is a plain 500."""

    class Hex(BaseConverter):
        regex = "[0-9a-z]+"

        def to_python(self, value: str) -> int:
            return int(value, 16)

    app.url_map.converters["hex"] = Hex

    @app.get("/<hex:n>")
    async def show(request: Request, n: int) -> dict[str, int]:
        return {"n": n}

    assert (await ask(app, "/ff")).json() == {"n": 255}
    broken = await ask(app, "/zz")
    assert broken.status == 500
    assert "base 16" not in broken.text


async def test_unknown_path_is_404(app: App) -> None:
    """Nothing registered, nothing found."""
    answer = await ask(app, "/nowhere")
    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_wrong_method_is_405_and_says_which_are_right(app: App) -> None:
    """`Allow` has every method of the path, also of several handlers, and the automatic ones."""

    @app.get("/thing")
    async def show(request: Request) -> str:
        return ""

    @app.put("/thing")
    async def change(request: Request) -> str:
        return ""

    answer = await ask(app, "/thing", method="DELETE")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PUT"


async def test_head_comes_with_get(app: App) -> None:
    """HEAD runs the handler of GET and sends its headers alone."""

    @app.get("/")
    async def hello(request: Request) -> str:
        return "hello"

    answer = await ask(app, method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/users/<int:id>", "/users/<int:number>"),
        ("/<name>/<path:rest>", "/<string:word>/<path:rest>"),
        ("/<any(a, b):which>", "/<any(a, b):which>"),
    ],
)
async def test_a_path_has_one_handler_for_each_method(app: App, first: str, second: str) -> None:
    """A second one would never be called, so it is refused, whatever the values in the path are called."""

    async def handler(request: Request, **values: object) -> str:
        return "first"

    async def other(request: Request, **values: object) -> str:
        return "other"

    app.route(first, methods=["get", "PUT"])(handler)
    with pytest.raises(ValueError, match=r"GET already.*handler"):
        app.get(second)(other)
    with pytest.raises(ValueError, match="GET and PUT already"):
        app.route(second, methods=["PUT", "GET"])(handler)
    app.post(second)(other)
    assert (await ask(app, "/users/7" if "int" in first else "/a/b" if "path" in first else "/a")).text == "first"


@pytest.mark.parametrize(
    ("first", "second"), [("/<int:n>", "/<float:n>"), ("/<int:n>", "/<n>"), ("/a", "/a/"), ("/a", "/A")]
)
def test_paths_that_only_look_alike_are_two(app: App, first: str, second: str) -> None:
    """Another converter matches other paths, and a slash at the end is a path of its own."""

    async def handler(request: Request, **values: object) -> str:
        return ""

    app.get(first)(handler)
    app.get(second)(handler)


def test_a_path_has_one_websocket(app: App) -> None:
    """The slash at the end does not matter here, and neither does a page at the same path."""

    async def page(request: Request) -> str:
        return ""

    async def talk(ws: WebSocket) -> None:
        pass

    app.get("/ws")(page)
    app.websocket("/ws")(talk)
    with pytest.raises(ValueError, match="'/ws/' has a handler for WebSocket already"):
        app.websocket("/ws/")(talk)


@pytest.mark.parametrize("head_first", [True, False])
async def test_head_may_have_a_handler_of_its_own(app: App, head_first: bool) -> None:
    """Then the one for GET is spared, whichever of them was there first."""
    called: list[str] = []

    async def get(request: Request) -> str:
        called.append("get")
        return "costly"

    async def head(request: Request) -> tuple[str, int, dict[str, str]]:
        called.append("head")
        return "", 200, {"X-Cheap": "yes", "Content-Length": "6"}

    for register in [1, 0] if head_first else [0, 1]:
        if register:
            app.route("/", methods=["HEAD"])(head)
        else:
            app.get("/")(get)
    app.post("/")(get)
    answer = await ask(app, method="HEAD")
    assert (answer.headers["x-cheap"], answer.headers["content-length"]) == ("yes", "6")
    assert (await ask(app)).text == "costly"
    assert called == ["head", "get"]
    assert (await ask(app, method="DELETE")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    with pytest.raises(ValueError, match="HEAD already"):
        app.route("/", methods=["HEAD"])(head)


async def test_options_is_answered_by_itself(app: App) -> None:
    """OPTIONS says what is allowed, unless a handler is registered for it."""

    @app.get("/")
    async def hello(request: Request) -> str:
        return "hello"

    @app.route("/own", methods=["OPTIONS"])
    async def own(request: Request) -> str:
        return "mine"

    answer = await ask(app, method="OPTIONS")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD, OPTIONS", b"")
    assert (await ask(app, "/own", method="OPTIONS")).text == "mine"
    assert (await ask(app, "/nowhere", method="OPTIONS")).status == 404


@pytest.mark.parametrize(
    ("asked", "root_path", "target"),
    [
        ("/docs?a=1&b=%20", "", "/docs/?a=1&b=%20"),
        ("/docs", "/app", "/app/docs/"),
        ("/one//docs", "", "/one/docs"),
        ("//evil.example//docs", "", "/evil.example/docs"),
    ],
)
async def test_slashes_are_put_right_by_a_redirect(app: App, asked: str, root_path: str, target: str) -> None:
    """A missing or doubled slash costs a redirect to a path of our own, with the query, never to another host."""

    @app.get("/docs/")
    async def docs(request: Request) -> str:
        return "docs"

    @app.get("/<name>/docs")
    async def others(request: Request, name: str) -> str:
        return name

    answer = await ask(app, asked, root_path=root_path)
    assert answer.status == 308
    assert answer.headers["location"] == target


@pytest.mark.parametrize(
    ("path", "root_path", "seen"),
    [
        ("/app/users", "/app", "/users"),  # the specification
        ("/app/users", "/app/", "/users"),
        ("/users", "/app", "/users"),  # a proxy that strips, and a server that does not put it back
        ("/apple/users", "/app", "/apple/users"),
        ("users", "", "/users"),
        ("//users", "", "/users"),
    ],
)
async def test_root_path_is_not_part_of_the_route(app: App, path: str, root_path: str, seen: str) -> None:
    """Mounted below a path, the App routes what comes after it, and builds URLs with it."""

    @app.get("/users")
    async def users(request: Request) -> list[str]:
        return [request.path, request.url, request.url_for(users)]

    @app.get("/apple/users")
    async def apples(request: Request) -> list[str]:
        return [request.path, request.url, request.url_for(users)]

    root = root_path.rstrip("/")
    answer = await ask(app, path, root_path=root_path)
    assert answer.json() == [seen, f"http://localhost{root}{seen}", f"{root}/users"]


async def test_root_path_alone_is_the_front_page(app: App) -> None:
    """`/app` below `/app` is `/`."""

    @app.get("/")
    async def front(request: Request) -> str:
        return "front"

    assert (await ask(app, "/app", root_path="/app")).text == "front"


@pytest.mark.parametrize(
    ("path", "raw_path", "status"),
    [
        ("/caf\N{LATIN SMALL LETTER E WITH ACUTE}", b"/caf%C3%A9", 200),
        ("/caf\N{REPLACEMENT CHARACTER}", b"/caf%E9", 400),
        ("/caf\N{REPLACEMENT CHARACTER}", b"/caf%EF%BF%BD?q=%FF", 200),
        ("/caf\N{REPLACEMENT CHARACTER}", None, 200),
        ("/caf\udce9", None, 400),
    ],
)
async def test_a_path_that_is_not_utf_8_is_400(app: App, path: str, raw_path: bytes | None, status: int) -> None:
    """However the server decodes it, and even if the error handler shows the path."""

    @app.get("/<name>")
    async def show(request: Request, name: str) -> str:
        return name

    @app.errorhandler(400)
    async def bad(request: Request, error: Exception) -> tuple[str, int]:
        return f"{request.path} {request.url} {request!r}", 400

    assert (await ask(app, path, raw_path=raw_path)).status == status


def test_malformed_paths_are_refused(app: App) -> None:
    """Unknown converters and paths without a slash."""

    async def handler(request: Request, **values: object) -> str:
        return ""

    with pytest.raises(LookupError):
        app.get("/<nothing:x>")(handler)
    with pytest.raises(ValueError, match="slash"):
        app.get("x")(handler)


async def test_http_and_websocket_do_not_answer_for_each_other(app: App) -> None:
    """The same path can have both; one that has only the other is 400 for HTTP, and refused for a WebSocket."""

    @app.get("/both")
    async def page(request: Request) -> str:
        return "page"

    @app.websocket("/both/")
    async def talk(ws: WebSocket) -> None:
        await ws.accept()

    @app.websocket("/ws")
    async def ws_only(ws: WebSocket) -> None:
        await ws.accept()

    @app.websocket("/a/ws")
    async def deeper(ws: WebSocket) -> None:
        await ws.accept()

    @app.post("/http")
    async def http_only(request: Request) -> str:
        return ""

    assert (await ask(app, "/both")).text == "page"
    assert (await ask(app, "/ws")).status == 400
    for path, status in [("/http", 404), ("/a//ws", 404), ("/nowhere", 404)]:
        peer = SocketPeer(app, path, can_refuse=True)
        await peer.run()
        assert peer.sent[0]["type"] == "websocket.http.response.start"
        assert peer.sent[0]["status"] == status
    for path in ["/ws", "/both", "/both/", "/ws/"]:
        peer = SocketPeer(app, path)
        await peer.run()
        assert peer.types() == ["websocket.accept", "websocket.close"]


async def test_middlewares_may_copy_the_scope(app: App) -> None:
    """Hypercorn's ProxyFix deep-copies it, and the handler sees what the copy says."""

    class Copying:
        def __init__(self, app: Any, *, client: str) -> None:
            self.app = app
            self.client = client

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope = copy.deepcopy(scope)
            scope["client"] = (self.client, 0)
            await self.app(scope, receive, send)

    @app.get("/<int:n>")
    async def show(request: Request, n: int) -> list[object]:
        return [n, request.remote_addr]

    app.add_middleware(Copying, client="inner")
    app.add_middleware(Copying, client="outer")  # the last one is the outermost: its word is overwritten
    assert (await ask(app, "/3")).json() == [3, "inner"]


async def test_unknown_kinds_of_scope_are_refused(app: App) -> None:
    """An ASGI message type from the future is not taken for a WebSocket."""

    async def nothing(*_: object) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="telepathy"):
        await app({"type": "telepathy"}, nothing, nothing)


def test_a_forgotten_path_is_told_at_once(app: App) -> None:
    """`@app.get` without its path would drop the handler without a word."""

    async def visits(request: Request) -> str:
        return "never"

    with pytest.raises(TypeError, match=r"@app\.get\("):
        app.get(visits)  # type: ignore[arg-type]
