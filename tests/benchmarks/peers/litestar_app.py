"""Litestar's own server-side sessions."""

from __future__ import annotations

import asyncio

from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.base import Store
from litestar.stores.memory import MemoryStore
from litestar.stores.redis import RedisStore

from ._setting import NOTE, PAUSE, REDIS, STORE, TTL


@get("/bare")
async def bare() -> dict[str, int]:
    return {"visits": 1}


@get("/read")
async def read(request: Request) -> dict[str, int]:
    return {"visits": request.session.get("visits", 0)}


async def _change(request: Request, pause: float) -> dict[str, int]:
    visits = request.session.get("visits", 0) + 1
    if pause:
        await asyncio.sleep(pause)
    request.session.update(visits=visits, note=NOTE)
    return {"visits": visits}


@get("/change")
async def change(request: Request) -> dict[str, int]:
    return await _change(request, 0)


@get("/slow")
async def slow(request: Request) -> dict[str, int]:
    return await _change(request, PAUSE)


def _app() -> Litestar:
    if STORE == "bare":
        return Litestar([bare], openapi_config=None)
    store: Store = RedisStore.with_client(url=REDIS) if STORE == "redis" else MemoryStore()
    return Litestar(
        [bare, read, change, slow],
        middleware=[ServerSideSessionConfig(max_age=TTL).middleware],
        stores={"sessions": store},
        openapi_config=None,
    )


app = _app()
