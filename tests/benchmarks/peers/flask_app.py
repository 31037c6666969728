"""Flask-Session on Flask."""

from __future__ import annotations

from flask import Flask, session
from flask_session import Session
from redis import Redis

from ._setting import NOTE, REDIS, STORE, TTL

app = Flask(__name__)
if STORE == "redis":
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(REDIS), PERMANENT_SESSION_LIFETIME=TTL)
    Session(app)


@app.get("/bare")
def bare() -> dict[str, int]:
    return {"visits": 1}


@app.get("/read")
def read() -> dict[str, int]:
    return {"visits": session.get("visits", 0)}


@app.get("/change")
def change() -> dict[str, int]:
    session["visits"] = session.get("visits", 0) + 1
    session["note"] = NOTE
    return {"visits": session["visits"]}
