"""trio_session's middleware around Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trio_session import RedisConnection, SessionConfig, SessionMiddleware, get_session

from ._setting import NOTE, REDIS, STORE, TTL


async def bare(request: Request) -> JSONResponse:
    return JSONResponse({"visits": 1})


async def read(request: Request) -> JSONResponse:
    return JSONResponse({"visits": get_session(request).get("visits", 0)})


async def change(request: Request) -> JSONResponse:
    async with get_session(request).locked() as data:
        data["visits"] = data.get("visits", 0) + 1
        data["note"] = NOTE
    return JSONResponse({"visits": data["visits"]})


def _middleware() -> list[Middleware]:
    if STORE == "bare":
        return []
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=REDIS)}, lifetime=TTL)
    return [Middleware(SessionMiddleware, config=config)]


app = Starlette(routes=[Route("/bare", bare), Route("/read", read), Route("/change", change)], middleware=_middleware())
