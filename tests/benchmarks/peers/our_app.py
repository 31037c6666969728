"""trio_session, with its own `App`."""

from __future__ import annotations

import trio

from trio_session import RedisConnection, SessionConfig
from trio_session.web import App, Request

from ._setting import NOTE, PAUSE, REDIS, STORE, TTL


def _config() -> SessionConfig:
    if STORE == "redis":
        return SessionConfig(driver="redis", redis={"default": RedisConnection(url=REDIS)}, lifetime=TTL)
    return SessionConfig(lifetime=TTL)


app = App(_config(), sessions=STORE != "bare")


@app.get("/bare")
async def bare(request: Request) -> dict[str, int]:
    return {"visits": 1}


@app.get("/read")
async def read(request: Request) -> dict[str, int]:
    return {"visits": request.session.get("visits", 0)}


async def _change(request: Request, pause: float) -> dict[str, int]:
    async with request.session.locked() as data:
        visits = data.get("visits", 0) + 1
        if pause:
            await trio.sleep(pause)
        data["visits"] = visits
        data["note"] = NOTE
    return {"visits": visits}


@app.get("/change")
async def change(request: Request) -> dict[str, int]:
    return await _change(request, 0)


@app.get("/slow")
async def slow(request: Request) -> dict[str, int]:
    return await _change(request, PAUSE)
