"""What a request and a WebSocket have in common: Werkzeug's view of an ASGI scope, decoded as late as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from werkzeug.datastructures import Headers, MultiDict
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.sansio.request import Request as SansIORequest
from werkzeug.utils import cached_property

from .._asgi import Receive, Scope
from .._errors import SessionStateError
from .._middleware import get_session
from .._session import Session
from ._forms import parse_query
from ._routing import match_of, path_within

__all__ = ["Connection"]


class Connection(SansIORequest):
    """The part of `Request` and `WebSocket` that never waits."""

    scope: Scope

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # Not super().__init__(): it wants the headers decoded, which is most of the cost, and often for nothing.
        self.scope = scope
        self._receive = receive
        self.method = scope.get("method", "GET").upper()
        self.scheme = scope.get("scheme", "http")
        self.query_string = scope.get("query_string", b"")
        self.root_path = scope.get("root_path", "").rstrip("/")
        try:
            self.path = path_within(scope)
        except BadRequest:  # answered by routing; what shows the path must not stumble over it again
            self.path = scope["path"].encode("utf-8", "replace").decode()
        server, client = scope.get("server"), scope.get("client")
        self.server = None if server is None else (server[0], server[1])
        self.remote_addr = None if client is None else client[0]

    @cached_property
    def headers(self) -> Headers:
        """The headers, decoded when somebody asks for them."""
        pairs = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self.scope["headers"]]
        try:
            return Headers(pairs)
        except ValueError:  # a line break, which few servers let through; it means a space (RFC 9110, 5.5)
            return Headers([(key, value.replace("\r", " ").replace("\n", " ")) for key, value in pairs])

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The query of the URL, parsed.

        Raises:
            BadRequest: it is not UTF-8. Unless you catch it, the client is told so.
        """
        return parse_query(self.query_string, what="The query")

    @cached_property
    def full_path(self) -> str:
        """The path with the query; with `?` in any case, as in Werkzeug."""
        return f"{self.path}?{quote(self.query_string, safe=_AS_IS)}"

    @property
    def http_version(self) -> str:
        """`"1.0"`, `"1.1"`, `"2"` or `"3"`."""
        version: str = self.scope.get("http_version", "1.1")
        return version

    @property
    def script_root(self) -> str:
        """Another name of `root_path`."""
        return self.root_path

    @property
    def url_root(self) -> str:
        """Another name of `root_url`."""
        return self.root_url

    @property
    def endpoint(self) -> Callable[..., Any] | None:
        """The handler; None if there is none. `url_for` takes it."""
        route = match_of(self.scope).route
        return None if route is None else route.handler

    @property
    def url_rule(self) -> Rule | None:
        """What the path was matched with, as in `request.url_rule.rule`: "/users/<int:id>"; None if nothing does."""
        return match_of(self.scope).rule

    @property
    def routing_exception(self) -> Exception | None:
        """Why there is no handler, if that is so: a `NotFound` or a `MethodNotAllowed`, mostly."""
        return match_of(self.scope).error

    @property
    def view_args(self) -> Mapping[str, Any]:
        """The values in the path, by name; the handler gets them as arguments."""
        return match_of(self.scope).values

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            SessionStateError: there is none; the text shows the fix.
        """
        if "trio_session" not in self.scope:
            raise SessionStateError(
                "this App has no sessions: make it without sessions=False, or wrap it: `app = SessionMiddleware(app)`"
            )
        return get_session(self.scope)

    def url_for(self, endpoint: Callable[..., Any] | str, /, **values: object) -> str:
        """As `App.url_for`, with the `root_path` that the server says we are mounted at."""
        return quote(self.root_path) + match_of(self.scope).router.url_for(endpoint, values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path!r}>"  # queries can be confidential


# Everything that can be in a query; bytes beyond ASCII are quoted.
_AS_IS = "".join(map(chr, range(0x21, 0x7F)))
