"""SessionMiddleware: the cookie in, a Session in the scope, the cookie out, and no lock left behind.

Nothing here depends on `send` ever coming back: cookies are decided when the response starts, locks are given back
before its last message is forwarded, and again when the application returns, raises or is cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol, final

import trio

from ._asgi import WORKERS, ASGIApp, Message, Receive, RequestBody, Scope, Send
from ._config import SessionConfig
from ._cookies import SessionCookie, candidate_ids, with_cookie, with_vary
from ._errors import ConfigError, SessionError, SessionStateError, StorageUnavailableError
from ._known import CookieAction
from ._lifespan import InnerLifespan
from ._manager import SessionManager, open_session_manager
from ._session import Session
from ._tasks import bare_exceptions
from .abc import SessionInstrument

__all__ = ["SessionMiddleware", "get_session"]

logger = logging.getLogger("trio_session")

SCOPE_KEY = "trio_session"

NOT_TRIO = "trio_session runs on trio only: serve the application with `trio-session serve`, or `hypercorn -k trio`"

# What a client that is turned away because the store is down is told to wait.
_RETRY_AFTER = b"1"  # second

# What servers make of a WebSocket that is closed before it was accepted; but theirs has no cookies.
_FORBIDDEN: Message = {
    "type": "websocket.http.response.start",
    "status": 403,
    "headers": [(b"content-length", b"0")],
}

_LAST_MESSAGES = {"http.response.pathsend"}


class _HasScope(Protocol):
    @property
    def scope(self) -> Mapping[str, Any]: ...


def get_session(scope_or_request: Mapping[str, Any] | _HasScope) -> Session:
    """The Session of an ASGI scope, or of any request object that has a `scope`.

    Raises:
        SessionStateError: there is none; the text shows the fix.
    """
    scope = scope_or_request if isinstance(scope_or_request, Mapping) else scope_or_request.scope
    session = scope.get(SCOPE_KEY)
    if not isinstance(session, Session):
        raise SessionStateError("this request has no session; wrap the application: `app = SessionMiddleware(app)`")
    return session


@final
class SessionMiddleware:
    """Gives every request and WebSocket of an ASGI application its Session.

        app = SessionMiddleware(app)

    The Session is at `scope["trio_session"]` and at `scope["session"]`, where Starlette, FastAPI and Litestar look for
    it; `get_session(request)` finds it anywhere.

    Args:
        app: any ASGI 3 application; it need not speak lifespan.
        config: None for `SessionConfig.from_env()`, read now.
        manager: an open manager of your own, which is used and never closed. Without one, a manager lives as long as
            the lifespan: a store that cannot be reached then stops the server from starting.
        autoload: read the session before the application runs, if the request carries our cookie; a predicate on the
            scope decides for each request. Without the cookie there is never any I/O.
        scope_key: the second key in the scope; None for none.
        instruments: are told what the sessions do; see `SessionInstrument`. A `manager` of your own has those it was
            opened with.

    While the store is down, requests whose session should be read are answered 503 with `Retry-After`.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: SessionConfig | None = None,
        *,
        manager: SessionManager | None = None,
        autoload: bool | Callable[[Scope], bool] = True,
        scope_key: str | None = "session",
        instruments: Iterable[SessionInstrument] = (),
    ) -> None:
        self.app = app
        self._given = manager is not None
        self._config = manager.config if manager is not None else config or SessionConfig.from_env()
        self._cookie = SessionCookie(self._config)
        self._manager = manager
        self._autoload = autoload
        self._scope_key = scope_key
        self._instruments = tuple(instruments)
        self._drains_bodies = True  # web.App does it itself

    @property
    def manager(self) -> SessionManager | None:
        """The manager: the given one, or its own while it is serving."""
        return self._manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._serve_http(scope, receive, send)
            case "websocket":
                await self._serve_websocket(scope, receive, send)
            case "lifespan":
                await self._serve_lifespan(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._attach(scope)
        body = RequestBody(scope, receive, drains=self._drains_bodies)

        async def send_with_session(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                await send(await self._with_headers(message, session, scope))
            elif (kind == "http.response.body" and not message.get("more_body", False)) or kind in _LAST_MESSAGES:
                session._roll_back_left_behind()
                await (send(message) if body.ended else body.send_last(send, message))
            else:
                await send(message)

        try:
            try:
                if await self._load(scope, session):
                    await self.app(scope, body.receive, send_with_session)
                else:
                    await _refuse(send_with_session, "http.response")
            finally:
                session._finish()
        except Exception:
            await body.drain()  # the server has the last word now, and that can block as well
            raise

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._attach(scope)
        can_refuse = "websocket.http.response" in (scope.get("extensions") or {})
        answered = False

        async def receive_noting() -> Message:
            session._note_receiving()
            return await receive()

        async def send_with_session(message: Message) -> None:
            nonlocal answered
            kind = message["type"]
            if kind in {"websocket.accept", "websocket.http.response.start"}:
                answered = True
                message = await self._with_headers(message, session, scope)
            elif kind == "websocket.close" or (
                kind == "websocket.http.response.body" and not message.get("more_body", False)
            ):
                session._roll_back_left_behind()
                if not answered:
                    answered = True
                    refusal = await self._with_headers(_FORBIDDEN, session, scope)
                    if can_refuse and any(name == b"set-cookie" for name, _ in refusal["headers"]):
                        await send(refusal)
                        message = {"type": "websocket.http.response.body", "body": b""}
            await send(message)

        try:
            if await self._load(scope, session):
                await self.app(scope, receive_noting, send_with_session)
            elif can_refuse:
                await _refuse(send_with_session, "websocket.http.response")
            else:
                await send({"type": "websocket.close"})  # the server makes a 403 of it
        finally:
            session._finish()

    def _attach(self, scope: Scope) -> Session:
        if not trio.lowlevel.in_trio_run():
            raise SessionStateError(NOT_TRIO)
        if self._manager is None:
            raise SessionStateError(
                "the session manager is not open: run the application on a server that speaks lifespan, "
                "or give the middleware an open one: `SessionMiddleware(app, manager=manager)`"
            )
        session = self._manager.session(None, *candidate_ids(scope["headers"], self._cookie.name))
        scope[SCOPE_KEY] = session
        if self._scope_key is not None:
            scope[self._scope_key] = session
        return session

    async def _load(self, scope: Scope, session: Session) -> bool:
        """Autoload; False if the store is down."""
        if self._autoload(scope) if callable(self._autoload) else self._autoload:
            try:
                await session._autoload()
            except StorageUnavailableError as error:
                # A store that goes away warns of that once; thousands of requests need not repeat it.
                logger.info("a request was turned away, its session could not be read: %s", error)
                return False
        return True

    async def _with_headers(self, message: Message, session: Session, scope: Scope) -> Message:
        """The start of a response, with what the session has to say. The last moment for that."""
        action = await session._seal()
        headers = message.get("headers", ())
        if session._used:
            headers = with_vary(headers)
        if action is not CookieAction.NOTHING:
            https = scope.get("scheme") in {"https", "wss"}
            id = session._known.id
            value = self._cookie.remove(https=https) if id is None else self._cookie.issue(id, https=https)
            headers = with_cookie(headers, value)
        return {**message, "headers": headers}

    # -- lifespan ----------------------------------------------------------------------------------------------------

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        if not trio.lowlevel.in_trio_run():
            await send({"type": "lifespan.startup.failed", "message": NOT_TRIO})
            return
        async with AsyncExitStack() as stack:
            if not self._given:
                try:
                    self._manager = await stack.enter_async_context(
                        open_session_manager(self._config, instruments=self._instruments)
                    )
                except (SessionError, ConfigError) as error:
                    # Sent, not raised: a server takes an exception here for "does not speak lifespan" and serves.
                    logger.critical("the session manager cannot be opened: %s", error)
                    await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                    return
                stack.callback(self._close)
            assert self._manager is not None
            confinement = self._manager._engine.store.confinement
            if confinement is not None and scope.get(WORKERS, 1) > 1:
                remedy = "serve it with one (`-w 1`), or set SESSION_DRIVER=redis"
                reason = f"{scope[WORKERS]} workers, but {confinement.partition(':')[0]}: {remedy}"
                await send({"type": "lifespan.startup.failed", "message": reason})
                return
            with bare_exceptions():
                async with trio.open_nursery() as nursery:
                    inner = InnerLifespan(self.app, scope, send)
                    nursery.start_soon(inner.run)
                    failure = await inner.start()
                    if failure is None:
                        await send({"type": "lifespan.startup.complete"})
                        await receive()  # lifespan.shutdown
                        await inner.stop()
                    nursery.cancel_scope.cancel()
        # After this the server stops us, so it comes last, with everything closed.
        await send({"type": "lifespan.shutdown.complete"} if failure is None else failure)

    def _close(self) -> None:
        self._manager = None


async def _refuse(send: Send, prefix: str) -> None:
    body = b"The session store is not available. Please try again.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", _RETRY_AFTER),
    ]
    await send({"type": f"{prefix}.start", "status": 503, "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})
