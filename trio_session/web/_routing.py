"""Which handler answers a path, decided before anything else and without any I/O.

The answer travels in the scope, so that the session middleware can ask whether the route wants its session at all.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect, Rule, WebsocketMismatch

from .._asgi import Scope
from ._response import redirect

__all__ = ["ROUTE_KEY", "Match", "Route", "Router", "check_async", "match_of", "path_within"]

ROUTE_KEY = "trio_session.route"

Handler = Callable[..., Any]

# What may stand in a query without being quoted, as in Werkzeug's own URLs.
_SAFE_IN_QUERY = "!$&'()*+,/:;=?@%"


# A variable in a path: its converter, and its name.
_VARIABLE = re.compile(r"<(?:([^<>]*):)?\w+>")


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One registered path.

    Attributes:
        autoload: the session is read before the handler runs.
        origins: for a WebSocket, whose pages may open it besides our own; None stands for everybody's.
    """

    handler: Handler
    autoload: bool = True
    origins: frozenset[str] | None = frozenset()


class _Rule(Rule):
    """A rule that knows its route: one handler may have several.

    Attributes:
        asked_for: the methods it was registered for; `methods` are those it answers, as HEAD comes with GET.
        shape: equal to that of every other rule that matches the same paths.
    """

    methods: set[str] | None

    def __init__(self, path: str, route: Route, *, methods: Iterable[str] | None, websocket: bool) -> None:
        asked_for = methods if methods is None or isinstance(methods, str) else [method.upper() for method in methods]
        # A browser follows no redirect in a WebSocket handshake, so a slash at the end must not matter there.
        super().__init__(
            path, endpoint=route.handler, methods=asked_for, websocket=websocket, strict_slashes=not websocket
        )
        self.route = route
        self.asked_for = frozenset(["WebSocket"] if asked_for is None else asked_for)
        shape = _VARIABLE.sub(lambda found: f"<{'' if found[1] == 'string' else found[1] or ''}>", path)
        self.shape = (shape.rstrip("/") if websocket else shape, websocket)


@final
class Match:
    """What routing found.

    Attributes:
        router: who found it.
        rule: None if there is nothing to run.
        values: the values in the path, converted.
        error: what to answer instead: an `HTTPException`, or the exception of a converter.
        allowed: the methods of the path, if `OPTIONS` asked for them.
    """

    __slots__ = ("allowed", "error", "router", "rule", "values")

    def __init__(
        self,
        router: Router,
        rule: _Rule | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        error: Exception | None = None,
        allowed: tuple[str, ...] = (),
    ) -> None:
        self.router = router
        self.rule = rule
        self.values = values or {}
        self.error = error
        self.allowed = allowed

    def __deepcopy__(self, memo: dict[int, Any]) -> Match:
        """Itself: middlewares copy scopes, and a route is not theirs to clone."""
        return self

    @property
    def route(self) -> Route | None:
        return None if self.rule is None else self.rule.route

    @property
    def autoload(self) -> bool:
        return self.rule is not None and self.rule.route.autoload


def match_of(scope: Mapping[str, Any]) -> Match:
    """The match that the App has put into the scope."""
    match: Match = scope[ROUTE_KEY]
    return match


@final
class Router:
    """Werkzeug's map, bound once: hosts do not matter here, so one adapter serves all requests."""

    def __init__(self) -> None:
        self.map = Map()
        self._adapter = self.map.bind("")
        self._named: dict[str, Handler | None] = {}  # None: two handlers share the name
        self._by_shape: defaultdict[object, list[_Rule]] = defaultdict(list)

    def add(self, path: str, route: Route, *, methods: Iterable[str] | None, websocket: bool = False) -> None:
        """Register a route.

        Raises:
            TypeError: the handler is not `async`, or does not take what the path gives.
            ValueError, LookupError: the path is malformed, or names an unknown converter, or has a handler already.
        """
        check_async(route.handler)
        rule = _Rule(path, route, methods=methods, websocket=websocket)
        trial = Rule(path)
        trial.bind(self.map)  # finds out what is wrong with the path, before the map has it
        _check_arguments(route.handler, path, trial.arguments)
        self._settle_methods(rule)
        self.map.add(rule)
        name = getattr(route.handler, "__name__", None)
        if isinstance(name, str):
            self._named[name] = route.handler if self._named.get(name, route.handler) == route.handler else None

    def _settle_methods(self, rule: _Rule) -> None:
        """See to it that each method of a path has one handler; one for HEAD takes it from the one for GET."""
        others = self._by_shape[rule.shape]
        for other in others:
            if taken := rule.asked_for & other.asked_for:
                names = " and ".join(sorted(taken))
                raise ValueError(f"{rule.rule!r} has a handler for {names} already: {other.route.handler!r}")
        others.append(rule)
        if any("HEAD" in each.asked_for for each in others):
            for each in others:
                if each.methods is not None and "HEAD" not in each.asked_for:
                    each.methods.discard("HEAD")

    def match(self, scope: Scope) -> Match:
        """Find the route of a request; whatever goes wrong is part of the answer."""
        websocket = scope["type"] == "websocket"
        method = scope.get("method", "GET")
        try:
            rule, values = self._adapter.match(path_within(scope), method, return_rule=True, websocket=websocket)
        except Exception as error:  # noqa: BLE001  # a user's converter may raise whatever it likes
            return self._mismatch(error, scope, method, websocket=websocket)
        assert isinstance(rule, _Rule)
        return Match(self, rule, values)

    def _mismatch(self, error: Exception, scope: Scope, method: str, *, websocket: bool) -> Match:
        if websocket and isinstance(error, RequestRedirect | MethodNotAllowed | WebsocketMismatch):
            return Match(self, error=NotFound())
        match error:
            case RequestRedirect():
                return Match(self, error=HTTPException(response=redirect(_same_site_target(error, scope), 308)))
            case MethodNotAllowed():
                allowed = tuple(sorted({"OPTIONS", *(error.valid_methods or ())}))
                if method == "OPTIONS":
                    return Match(self, allowed=allowed)
                return Match(self, error=MethodNotAllowed(allowed))
            case WebsocketMismatch():
                return Match(self, error=BadRequest("There is a WebSocket at this path, and nothing else."))
            case _:
                return Match(self, error=error)

    def url_for(self, endpoint: Handler | str, values: Mapping[str, object]) -> str:
        """The path of a handler, with its values filled in; values that it does not name become the query."""
        handler: Handler | None
        if isinstance(endpoint, str):
            if endpoint not in self._named:
                raise LookupError(f"there is no handler called {endpoint!r}")
            handler = self._named[endpoint]
            if handler is None:
                raise LookupError(f"several handlers are called {endpoint!r}: give the function itself")
        else:
            handler = endpoint
        # Werkzeug gives WebSockets a scheme; without a host, browsers resolve the path alone just as well.
        return self._adapter.build(handler, values).removeprefix("ws://")


def path_within(scope: Scope) -> str:
    """The path within the application: ASGI's includes `root_path` (or not, servers differ).

    Raises:
        BadRequest: it is not UTF-8.
    """
    path: str = scope["path"]
    if not path.isascii():
        _check_encoding(path, scope.get("raw_path"))
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        path = path[len(root) :]
    # Not more than one slash to begin with: `redirect(request.path)` must not lead to another host.
    return f"/{path.lstrip('/')}"


def _check_encoding(path: str, raw_path: bytes | None) -> None:
    try:
        path.encode()  # a surrogate stands for a byte that could not be decoded
        if "\N{REPLACEMENT CHARACTER}" in path and raw_path is not None:
            # Hypercorn puts this character where it could not decode; the client may also have sent it.
            unquote_to_bytes(raw_path.partition(b"?")[0]).decode()
    except UnicodeError:
        raise BadRequest("The path is not UTF-8.") from None


def _same_site_target(error: RequestRedirect, scope: Scope) -> str:
    """Where a redirect for the sake of slashes leads: always to a path of ours, never `//somewhere.else`."""
    root = quote(scope.get("root_path", "").strip("/"))
    target = "/" + f"{root}/{urlsplit(error.new_url).path.lstrip('/')}".lstrip("/")
    query = quote(scope.get("query_string", b""), safe=_SAFE_IN_QUERY)
    return f"{target}?{query}" if query else target


def check_async(function: Handler) -> None:
    """Refuse what nobody could await, at once and not when the first request comes.

    Raises:
        TypeError: it is a plain function.
    """
    if (
        inspect.isfunction(function)
        and not inspect.iscoroutinefunction(function)
        and not inspect.isasyncgenfunction(function)
        and not hasattr(function, "__wrapped__")  # a decorator may hand on the coroutine of what it decorates
    ):
        raise TypeError(f"an App awaits what it is given: write `async def {function.__name__}(…)`")


def _check_arguments(handler: Handler, path: str, names: Iterable[str]) -> None:
    try:
        inspect.signature(handler, follow_wrapped=False).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        raise TypeError(f"the handler of {path!r} cannot be called with what the path gives: {error}") from None
