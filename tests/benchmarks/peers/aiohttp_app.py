"""aiohttp-session on aiohttp, which is its own server: `python -m` this module, with a listening socket's number."""

from __future__ import annotations

import socket
import sys

from aiohttp import web
from aiohttp_session import get_session, setup
from aiohttp_session.redis_storage import RedisStorage
from redis.asyncio import Redis

from ._setting import NOTE, REDIS, STORE, TTL


async def bare(request: web.Request) -> web.Response:
    return web.json_response({"visits": 1})


async def read(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response({"visits": session.get("visits", 0)})


async def change(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    session["note"] = NOTE
    return web.json_response({"visits": session["visits"]})


async def make_app() -> web.Application:
    app = web.Application()
    if STORE == "redis":
        setup(app, RedisStorage(Redis.from_url(REDIS), max_age=TTL))
    app.router.add_get("/bare", bare)
    app.router.add_get("/read", read)
    app.router.add_get("/change", change)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), sock=socket.socket(fileno=int(sys.argv[1])), access_log=None, print=None)
