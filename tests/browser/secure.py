"""A site with nothing but a session, for HTTPS."""

from __future__ import annotations

from trio_session import SessionConfig
from trio_session.web import App, Request

app = App(SessionConfig(secure=True))

# The browser asks for a picture by itself; without one it would complain.
PAGE = '<!doctype html><title>secure</title><link rel="icon" href="data:,">'


@app.get("/")
async def visit(request: Request) -> str:
    visits = await request.session.increment("visits")
    return f"{PAGE}<p id=visits>{visits}</p>"


@app.get("/leave")
async def leave(request: Request) -> str:
    await request.session.clear()
    return PAGE
