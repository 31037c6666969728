"""open_test_client: an application under test, served in this process without a socket.

What the application sees is what Hypercorn's trio worker shows it, down to the order of messages; so a test that is
green here tells something about production.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Unpack, final
from urllib.parse import SplitResult

import trio
from werkzeug.datastructures import Headers

from .._asgi import ASGIApp
from .._tasks import bare_exceptions
from ._cookie_jar import CookieJar
from ._errors import WebSocketRejected, to_headers
from ._http import HttpExchange
from ._lifespan import Lifespan
from ._request import ClientRequest, HeaderFields, StreamOptions, resolve, to_pairs
from ._response import ClientResponse, StreamedResponse
from ._server import Server
from ._websocket import ClientWebSocket
from ._websocket_stream import WebSocketExchange

__all__ = ["ASGIClient", "open_test_client"]

logger = logging.getLogger("trio_session.testing")

# What the Fetch standard allows.
_MAX_REDIRECTS = 20
_REDIRECTS = {301, 302, 303, 307, 308}

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


class RequestOptions(StreamOptions, total=False):
    """What `client.request` takes beyond method and path: what a stream takes, and one thing more.

    Attributes:
        follow_redirects: go where a redirect points, with the cookies set on the way. Default: False.
    """

    follow_redirects: bool


@asynccontextmanager
async def open_test_client(
    app: ASGIApp,
    *,
    base_url: str = "http://testserver",
    headers: HeaderFields | None = None,
    raise_app_exceptions: bool = True,
    root_path: str = "",
    graceful_timeout: float = 3.0,
) -> AsyncIterator[ASGIClient]:
    """Start an ASGI application up, talk to it with HTTP and WebSockets on one cookie jar, and shut it down.

        async with open_test_client(app) as client:
            response = await client.get("/visits")
            assert response.json() == {"visits": 1}
            assert "trio_session" in client.cookies

    The block ends when the application has answered `lifespan.shutdown`. An exception comes out of it as it is, never
    in a group. There are no sockets and no threads, so trio's MockClock works.

    Args:
        app: any ASGI 3 application; one that does not speak lifespan is served all the same.
        base_url: scheme and host of the paths. With `http` a browser drops cookies that are Secure, and so do we.
        headers: sent with every request.
        raise_app_exceptions: what the application raises comes out of the call that it answers (or of this block, from
            its lifespan). False: it is logged, and answered as Hypercorn does, with status 500 or code 1011.
        root_path: Hypercorn's setting of this name; paths include it.
        graceful_timeout: Hypercorn's setting of this name: how long the application may go on after a client has left,
            and when the block ends, in seconds. Then it is cancelled.

    Raises:
        LifespanFailedError: the application says that it cannot start up or shut down, or says nothing for 60 s.
            Said while it is serving, that stops everything at once, as it stops the server.

    Cancellation: the application is shut down as if the block had ended. Requests under way are cancelled after
    `graceful_timeout`, and `lifespan.shutdown` may take its 60 s.
    """
    base = resolve(base_url, base_url)
    if base.scheme not in _WEBSOCKET_SCHEMES or base.path.strip("/") or base.query:
        raise ValueError("base_url is http or https and a host; for applications below a path there is root_path")

    def stop() -> None:
        server.abort()
        nursery.cancel_scope.cancel()

    lifespan = Lifespan(app, stop, raise_app_exceptions=raise_app_exceptions)
    try:
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                server = Server(app, nursery, patience=graceful_timeout, raise_app_exceptions=raise_app_exceptions)
                nursery.start_soon(lifespan.run)
                try:
                    await lifespan.start_up()
                    # A failed startup has cancelled the nursery; it must not get as far as the block.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    yield ASGIClient(server, lifespan, base, headers or (), root_path)
                finally:
                    with trio.CancelScope(shield=True):
                        await server.aclose()
                        await lifespan.shut_down()
    except BaseException:
        error = lifespan.take_error()
        if error is not None:
            logger.exception("error in the application's lifespan", exc_info=error)
        raise
    error = lifespan.take_error()
    if error is not None:
        raise error


@final
class ASGIClient:
    """Talks to an application as a browser would; `open_test_client` makes one.

    Any number of tasks may use it at once. A call returns when the application has ended: nothing of a request is left
    behind. A path may also be a whole URL, to reach the same application under another host or scheme.

    Attributes:
        cookies: what the browser keeps; a mapping for the client's own host.
        headers: sent with every request; may be changed.

    Cancellation: a call that is cancelled is a client that hangs up. The application receives `http.disconnect` or
    `websocket.disconnect`, and is cancelled if it is not done `graceful_timeout` later; only then the call ends.
    """

    def __init__(
        self, server: Server, lifespan: Lifespan, base: SplitResult, headers: HeaderFields, root_path: str
    ) -> None:
        self._server = server
        self._lifespan = lifespan
        self._base = base
        self._root_path = root_path
        self.cookies = CookieJar(base.hostname or "")
        self.headers = Headers(to_pairs(headers))

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("GET", …)`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("POST", …)`."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PUT", …)`."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("PATCH", …)`."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("DELETE", …)`."""
        return await self.request("DELETE", path, **options)

    async def head(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("HEAD", …)`."""
        return await self.request("HEAD", path, **options)

    async def options(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """`request("OPTIONS", …)`."""
        return await self.request("OPTIONS", path, **options)

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a request, and wait for the whole response and the end of the application.

        Raises:
            Exception: the application's own, unless `raise_app_exceptions` is False.
            trio.BrokenResourceError: the application ended in the middle of its response.
            trio.TooSlowError: the application was still running `graceful_timeout` after its response was complete.
            trio.ClosedResourceError: the client is closed.
        """
        request = ClientRequest.build(method, self._base.geturl(), path, self.headers, options)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._exchange(request) as streamed:
                content = await streamed.read()
            response = ClientResponse(streamed.status_code, streamed.headers, streamed.url, streamed.cookies, content)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None or not options.get("follow_redirects"):
                return response
            request = request.redirected(response.status_code, location)
        raise RuntimeError(f"more than {_MAX_REDIRECTS} redirects, the last one to {request.url.geturl()}")

    def stream(
        self, method: str, path: str, **options: Unpack[StreamOptions]
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """Send a request; the block starts when the response does.

            async with client.stream("GET", "/events") as response:
                async for chunk in response.chunks():
                    break

        Leaving the block before the response is complete is a hang-up: the application receives `http.disconnect`, and
        is cancelled if it is not done `graceful_timeout` later. Both ends can wait. Raises as `request` does.
        """
        return self._exchange(ClientRequest.build(method, self._base.geturl(), path, self.headers, options))

    @asynccontextmanager
    async def _exchange(self, request: ClientRequest) -> AsyncIterator[StreamedResponse]:
        if request.url.scheme not in _WEBSOCKET_SCHEMES:
            raise ValueError("a request goes to http or https; for ws and wss there is client.websocket")
        scope = request.scope(
            "http",
            cookie=self.cookies.header(request.url, request.cookies),
            state=self._lifespan.state,
            root_path=self._root_path,
        )
        exchange = HttpExchange(scope, request.body, raise_app_exceptions=self._server.raise_app_exceptions)
        async with self._server.serve(exchange):
            status, pairs = await exchange.head()
            headers = to_headers(pairs)
            cookies = self._keep_cookies(request.url, headers)
            yield StreamedResponse(status, headers, request.url.geturl(), cookies, exchange)

    @asynccontextmanager
    async def websocket(
        self, path: str, *, subprotocols: Sequence[str] = (), headers: HeaderFields | None = None
    ) -> AsyncIterator[ClientWebSocket]:
        """Open a WebSocket; the block starts when the application has accepted it.

            async with client.websocket("/chat") as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"

        Leaving the block closes it, and waits until the application has ended; it is cancelled if it is not done
        `graceful_timeout` later. Both ends can wait.

        Raises:
            WebSocketRejected: the application did not accept.
            Exception: the application's own, unless `raise_app_exceptions` is False.
            trio.ClosedResourceError: the client is closed.
        """
        request = ClientRequest.build("GET", self._base.geturl(), path, self.headers, {"headers": headers})
        url = request.url._replace(scheme=_WEBSOCKET_SCHEMES.get(request.url.scheme, request.url.scheme))
        scope = replace(request, url=url).scope(
            "websocket",
            cookie=self.cookies.header(url),
            state=self._lifespan.state,
            root_path=self._root_path,
            extra_headers=_handshake(subprotocols),
        )
        scope["subprotocols"] = list(subprotocols)
        scope["extensions"]["websocket.http.response"] = {}
        exchange = WebSocketExchange(scope, raise_app_exceptions=self._server.raise_app_exceptions)
        async with self._server.serve(exchange):
            try:
                _, pairs = await exchange.handshake()
            except WebSocketRejected as rejection:
                self._keep_cookies(url, rejection.headers)
                raise
            accepted = to_headers(pairs)
            self._keep_cookies(url, accepted)
            yield ClientWebSocket(exchange, accepted)

    def _keep_cookies(self, url: SplitResult, headers: Headers) -> dict[str, str]:
        kept = [self.cookies.receive(url, value) for value in headers.getlist("set-cookie")]
        return {cookie.name: cookie.value for cookie in kept if cookie is not None}

    def __repr__(self) -> str:
        return f"<ASGIClient of {self._base.geturl()}>"


def _handshake(subprotocols: Sequence[str]) -> list[tuple[str, str]]:
    headers = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),  # the example of RFC 6455, 1.3
        ("sec-websocket-version", "13"),
    ]
    return [*headers, ("sec-websocket-protocol", ", ".join(subprotocols))] if subprotocols else headers
