"""starsessions on Starlette: a session is loaded by the handler that wants it, and stored with every response."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import InMemoryStore, SessionMiddleware, load_session
from starsessions.stores.redis import RedisStore

from ._setting import NOTE, PAUSE, REDIS, STORE, TTL


async def bare(request: Request) -> JSONResponse:
    return JSONResponse({"visits": 1})


async def read(request: Request) -> JSONResponse:
    await load_session(request)
    return JSONResponse({"visits": request.session.get("visits", 0)})


async def _change(request: Request, pause: float) -> JSONResponse:
    await load_session(request)
    visits = request.session.get("visits", 0) + 1
    if pause:
        await asyncio.sleep(pause)
    request.session.update(visits=visits, note=NOTE)
    return JSONResponse({"visits": visits})


async def change(request: Request) -> JSONResponse:
    return await _change(request, 0)


async def slow(request: Request) -> JSONResponse:
    return await _change(request, PAUSE)


def _middleware() -> list[Middleware]:
    if STORE == "bare":
        return []
    store = RedisStore(connection=Redis.from_url(REDIS)) if STORE == "redis" else InMemoryStore()
    return [Middleware(SessionMiddleware, store=store, lifetime=TTL, rolling=True, cookie_https_only=False)]


app = Starlette(
    routes=[Route("/bare", bare), Route("/read", read), Route("/change", change), Route("/slow", slow)],
    middleware=_middleware(),
)
