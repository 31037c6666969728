"""Quart-Session on Quart, with asyncio."""

from __future__ import annotations

from quart import Quart, session
from quart_session import Session

from ._setting import NOTE, REDIS, STORE, TTL

app = Quart(__name__)
if STORE == "redis":
    app.config.update(SESSION_TYPE="redis", SESSION_URI=REDIS, PERMANENT_SESSION_LIFETIME=TTL)
    Session(app)


@app.get("/bare")
async def bare() -> dict[str, int]:
    return {"visits": 1}


@app.get("/read")
async def read() -> dict[str, int]:
    return {"visits": session.get("visits", 0)}


@app.get("/change")
async def change() -> dict[str, int]:
    session["visits"] = session.get("visits", 0) + 1
    session["note"] = NOTE
    return {"visits": session["visits"]}
