"""App: routes, hooks and sessions, as one ASGI application."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar, cast, final

import trio
from werkzeug.routing import Map

from .._asgi import ASGIApp, Message, Receive, Scope, Send
from .._config import SessionConfig
from .._errors import SessionStateError
from .._manager import SessionManager
from .._middleware import SessionMiddleware
from ..abc import SessionInstrument
from ._failures import ErrorHandler, Failures
from ._inbox import RequestInbox, SocketInbox
from ._origins import allowed_origins
from ._request import Request
from ._response import Response, ResponseValue, make_response
from ._routing import ROUTE_KEY, Route, Router, check_async, match_of
from ._serving import Serving, Setup
from ._websocket import dispatch_websocket

__all__ = ["App"]

BeforeHook = Callable[[Request], Awaitable[ResponseValue | None]]
AfterHook = Callable[[Request, Response], Awaitable[Response | None]]

# Decorators give back what they decorate, with its own type.
H = TypeVar("H", bound=Callable[..., Awaitable[ResponseValue] | AsyncIterator[str | bytes]])
W = TypeVar("W", bound=Callable[..., Awaitable[ResponseValue | None]])
B = TypeVar("B", bound=BeforeHook)
A = TypeVar("A", bound=AfterHook)
E = TypeVar("E", bound=ErrorHandler)
S = TypeVar("S", bound=Setup)


@final
class App:
    """A web application with sessions.

        app = App()

        @app.get("/visits")
        async def visits(request: Request) -> dict[str, int]:
            async with request.session.locked() as data:
                data["visits"] = data.get("visits", 0) + 1
            return {"visits": data["visits"]}

    Serve it with `trio-session serve module:app`; any server that runs ASGI on Trio will do. Handlers return str
    (HTML), bytes, a dict or a list (JSON), a `Response`, `(body, status)`, `(body, status, headers)`, or an async
    iterator, which is streamed.

    Args:
        config: None for `SessionConfig.from_env()`, read now.
        manager: an open session manager of your own, which is used and never closed.
        sessions: False for an application without any; what is configured does not matter then.
        instruments: see `SessionMiddleware`.

    Attributes:
        max_content_length: see `Request`; for every request, unless its handler says otherwise.
        max_form_memory_size: the same.
        max_form_parts: the same.
        body_timeout: the same.

    Cancellation:
        A client that hangs up cancels its handler, after its body was read. HTTP/3 servers never tell.
    """

    def __init__(
        self,
        config: SessionConfig | None = None,
        *,
        manager: SessionManager | None = None,
        sessions: bool = True,
        instruments: Iterable[SessionInstrument] = (),
    ) -> None:
        self.max_content_length = Request.max_content_length
        self.max_form_memory_size = Request.max_form_memory_size
        self.max_form_parts = Request.max_form_parts
        self.body_timeout = Request.body_timeout
        self._router = Router()
        self._failures = Failures()
        self._serving = Serving()
        self._before: list[BeforeHook] = []
        self._after: list[AfterHook] = []
        self._inside: ASGIApp = self._dispatch  # and the user's middlewares around it
        self._middleware: SessionMiddleware | None = None
        self._outside: ASGIApp = self._enter_inside
        if sessions:
            self._middleware = SessionMiddleware(
                self._enter_inside,
                config,
                manager=manager,
                autoload=lambda scope: match_of(scope).autoload,
                instruments=instruments,
            )
            self._middleware._drains_bodies = False  # the inbox does
            self._outside = self._middleware

    # -- routes ------------------------------------------------------------------------------------------------------

    def route(self, path: str, *, methods: Iterable[str] = ("GET",), autoload: bool = True) -> Callable[[H], H]:
        """Have a handler answer a path: `async def handler(request, **path_values)`.

        HEAD comes with GET, and OPTIONS with everything, unless they have handlers of their own.

        Args:
            path: with converters, as in `/users/<int:id>`: `string` (the default), `int`, `float`, `path`, `uuid`,
                `any(a, b)`. A path that ends in a slash is redirected to from the one without.
            methods: which ones.
            autoload: read the session before the handler runs, if the request has one. Without it, use
                `await request.session.read()`.

        Raises:
            TypeError: the handler is not `async`, or does not take what the path gives.
            ValueError, LookupError: the path is malformed, or names an unknown converter, or has a handler for one of
                the methods already.
        """
        if not isinstance(path, str):
            raise TypeError('a route needs its path: `@app.get("/visits")`, not `@app.get`')

        def register(handler: H) -> H:
            self._router.add(path, Route(handler, autoload), methods=methods)
            return handler

        return register

    def get(self, path: str, *, autoload: bool = True) -> Callable[[H], H]:
        """`route` for GET, and so for HEAD."""
        return self.route(path, methods=("GET",), autoload=autoload)

    def post(self, path: str, *, autoload: bool = True) -> Callable[[H], H]:
        """`route` for POST."""
        return self.route(path, methods=("POST",), autoload=autoload)

    def put(self, path: str, *, autoload: bool = True) -> Callable[[H], H]:
        """`route` for PUT."""
        return self.route(path, methods=("PUT",), autoload=autoload)

    def patch(self, path: str, *, autoload: bool = True) -> Callable[[H], H]:
        """`route` for PATCH."""
        return self.route(path, methods=("PATCH",), autoload=autoload)

    def delete(self, path: str, *, autoload: bool = True) -> Callable[[H], H]:
        """`route` for DELETE."""
        return self.route(path, methods=("DELETE",), autoload=autoload)

    def websocket(self, path: str, *, origins: str | Iterable[str] = "same", autoload: bool = True) -> Callable[[W], W]:
        """Have a handler serve a WebSocket: `async def handler(ws, **path_values)`.

        When the handler returns, the WebSocket is closed: with 1000; with 1011 after an exception. One that was never
        accepted is refused: with the response that the handler returns, or with 403.

        Args:
            path: as in `route`; a slash at the end does not matter.
            origins: whose pages may open it, besides our own: `"same"` for nobody's, `"https://example.com"`, several
                of these, or `"*"` for everybody's. Browsers send a visitor's cookies along whoever asks, so `"*"`
                lets any page speak in the visitor's name.
            autoload: as in `route`.

        Raises:
            ValueError: an origin is malformed; otherwise as `route`.
        """
        allowed = allowed_origins(origins)

        def register(handler: W) -> W:
            self._router.add(path, Route(handler, autoload, allowed), methods=None, websocket=True)
            return handler

        return register

    def url_for(self, endpoint: Callable[..., Any] | str, /, **values: object) -> str:
        """The path that leads to a handler; `Request.url_for` adds where we are mounted.

        Args:
            endpoint: the handler, or its name if no other has it.
            values: what stands in the path; what does not becomes the query.

        Raises:
            LookupError: there is no such handler, or a value is missing.
        """
        return self._router.url_for(endpoint, values)

    @property
    def url_map(self) -> Map:
        """Werkzeug's map of the routes, for converters of your own: `app.url_map.converters["hex"] = Hex`."""
        return self._router.map

    # -- hooks -------------------------------------------------------------------------------------------------------

    def before_request(self, hook: B) -> B:
        """Run `async def hook(request)` before the handler of every route; what it returns is the response, if any.

        Where nothing is routed to, nothing is run: such requests have no session either.
        """
        check_async(hook)
        self._before.append(hook)
        return hook

    def after_request(self, hook: A) -> A:
        """Run `async def hook(request, response)` on every response, the last hook first.

        It changes the response, or returns another one. It runs before the response starts, so it may still commit.
        """
        check_async(hook)
        self._after.append(hook)
        return hook

    def errorhandler(self, error: int | type[Exception]) -> Callable[[E], E]:
        """Answer a status or a kind of exception by `async def handler(request, error)`, as handlers do.

        A status comes before a kind, and the nearest kind before others. Exceptions are HTTP errors as well: those of
        a session that pass are 503, others 500; their cause is the original. One that is alone in a group, as it comes
        out of a nursery, counts as itself.
        """

        def register(handler: E) -> E:
            check_async(handler)
            self._failures.add(error, handler)
            return handler

        return register

    def while_serving(self, setup: S) -> S:
        """Run a generator around serving: up to its `yield` before the first request, the rest after the last one."""
        check: Callable[[object], bool] = inspect.isasyncgenfunction  # one that does not narrow the type
        if not check(setup):
            raise TypeError("while_serving is for an `async def` with one `yield`")
        self._serving.setups.append(setup)
        return setup

    def add_middleware(self, cls: Callable[..., object], **options: object) -> None:
        """Put an ASGI middleware around the routes, inside the session; the last one is outermost.

        Args:
            cls: is called with the application inside it, and the options.
            options: its keyword arguments.
        """
        self._inside = cast("ASGIApp", cls(self._inside, **options))

    # -- while serving -----------------------------------------------------------------------------------------------

    @property
    def nursery(self) -> trio.Nursery:
        """For tasks that outlive a request: `app.nursery.start_soon(send_mail, address)`.

        They are cancelled when the server has answered its last request. One that fails stops the server, loudly.

        Raises:
            RuntimeError: the App is not being served.
        """
        if self._serving.nursery is None:
            raise RuntimeError("this App is not being served: its nursery is open during the lifespan only")
        return self._serving.nursery

    @property
    def sessions(self) -> SessionManager:
        """The session manager, while serving.

        Raises:
            SessionStateError: the App is not being served, or has no sessions.
        """
        if self._middleware is None:
            raise SessionStateError("this App was made with sessions=False")
        if self._middleware.manager is None:
            raise SessionStateError(
                "this App is not being served: its sessions are open during the lifespan only; "
                "or give it an open manager: `App(manager=manager)`"
            )
        return self._middleware.manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI 3: http, websocket and lifespan."""
        match scope["type"]:
            case "http":
                inbox: RequestInbox | SocketInbox = RequestInbox(receive, send)
            case "websocket":
                inbox = SocketInbox(receive, send)
            case "lifespan":
                await self._outside(scope, receive, send)
                return
            case other:
                raise ValueError(f"an App serves http, websocket and lifespan, not {other!r}")
        # A copy: what we put in is for those inside.
        scope = {**scope, ROUTE_KEY: self._router.match(scope)}
        await inbox.serve(partial(self._outside, scope))

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _enter_inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inside(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The innermost application."""
        if scope["type"] == "http":
            await self._dispatch_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await dispatch_websocket(scope, receive, send)
        else:
            await self._serving.serve(receive, send)

    async def _dispatch_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request.max_content_length = self.max_content_length
        request.max_form_memory_size = self.max_form_memory_size
        request.max_form_parts = self.max_form_parts
        request.body_timeout = self.body_timeout
        try:
            response = await self._respond(request)
            try:
                response, start = await self._finish(request, response)
            except Exception as error:  # noqa: BLE001  # whatever a hook does, the client gets an answer
                # Not by way of the hooks again: they may be what is broken.
                response = await self._failures.answer(request, error)
                start = response._start(head=request.method == "HEAD")
            # From here on there is no way back: an exception makes the server cut the connection.
            await response._send(send, start, head=request.method == "HEAD")
        finally:
            request._close()

    async def _respond(self, request: Request) -> Response:
        try:
            return make_response(await self._handle(request))
        except Exception as error:  # noqa: BLE001  # what is not foreseen is logged there
            return await self._failures.answer(request, error)

    async def _handle(self, request: Request) -> object:
        match = match_of(request.scope)
        if match.error is not None:
            raise match.error
        if match.route is None:
            return Response(b"", 204, {"Allow": ", ".join(match.allowed)})
        for hook in self._before:
            early = await hook(request)
            if early is not None:
                return early
        result = match.route.handler(request, **match.values)
        # A generator function is a handler too.
        return await result if inspect.isawaitable(result) else result

    async def _finish(self, request: Request, response: Response) -> tuple[Response, Message]:
        """Run the hooks, and make the start of the response: what can fail, fails before that is sent."""
        try:
            for hook in reversed(self._after):
                value = await hook(request, response)
                if value is not None and value is not response:
                    old, response = response, make_response(value)
                    await old.aclose()
            return response, response._start(head=request.method == "HEAD")
        except BaseException:
            await response.aclose()
            raise
