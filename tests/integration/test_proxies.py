"""Behind a proxy: Hypercorn's ProxyFix copies the whole scope, and decides whether the visitor came by https."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypercorn.middleware import ProxyFixMiddleware
from hypercorn.typing import ASGIFramework

from trio_session import Session, SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import fetch
from ._serving import respond, serving


@dataclass
class Seen:
    """The sessions that passed between SessionMiddleware and what is inside of it, and those in the application."""

    outside: list[Session] = field(default_factory=list)
    inside: list[Session] = field(default_factory=list)
    schemes: list[str] = field(default_factory=list)

    async def visit(self, session: Session, scheme: str) -> bytes:
        self.inside.append(session)
        self.schemes.append(scheme)
        return b"%d" % await session.increment("visits")


class Watching:
    def __init__(self, app: ASGIApp, *, seen: Seen) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._seen.outside.append(get_session(scope))
        await self._app(scope, receive, send)


def proxy_fix(app: ASGIApp) -> ASGIApp:
    return cast("ASGIApp", ProxyFixMiddleware(cast("ASGIFramework", app)))


def plain(seen: Seen, where: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        assert scope["session"] is scope["trio_session"]
        await respond(send, await seen.visit(get_session(scope), scope["scheme"]))

    inside = proxy_fix(app) if where == "inside" else app
    return SessionMiddleware(Watching(inside, seen=seen))


def with_app(seen: Seen, where: str) -> ASGIApp:
    app = App()

    @app.get("/")
    async def index(request: Request) -> bytes:
        return await seen.visit(request.session, request.scheme)

    if where == "inside":
        app.add_middleware(proxy_fix)
    app.add_middleware(Watching, seen=seen)
    return app


@pytest.mark.parametrize("make", [plain, with_app])
@pytest.mark.parametrize("forwarded", ["http", "https"])
@pytest.mark.parametrize("where", ["outside", "inside", "nowhere"])
async def test_the_session_behind_a_proxy(make: Callable[[Seen, str], ASGIApp], forwarded: str, where: str) -> None:
    """One session per request, whoever copies the scope; Secure only if ProxyFix around us says https."""
    seen = Seen()
    app = make(seen, where)
    headers = [(b"x-forwarded-proto", forwarded.encode()), (b"x-forwarded-for", b"192.0.2.1")]
    async with serving(proxy_fix(app) if where == "outside" else app) as url:
        first = await fetch(url, headers=headers)
        assert first.body == b"1"
        assert first.cookie is not None
        assert bool(first.cookie["secure"]) == (where == "outside" and forwarded == "https")
        assert seen.inside[0].id == first.cookie.value
        second = await fetch(url, headers=headers, id=first.id)
        assert second.body == b"2"
        assert all(one is other for one, other in zip(seen.inside, seen.outside, strict=True))
        assert seen.schemes == [forwarded if where != "nowhere" else "http"] * 2
