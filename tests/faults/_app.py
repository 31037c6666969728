"""The application that is served on several processes here: `/` counts, and writes each commit to a file."""

from __future__ import annotations

import os

from trio_session.web import App, Request, WebSocket

__all__ = ["app"]

app = App()
_log = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.get("/")
async def count(request: Request) -> dict[str, int]:
    """One more visit. It is written down here, where it was acknowledged; a client may never hear of it."""
    async with request.session.locked() as data:
        data["count"] = data.get("count", 0) + 1
    os.write(_log, f"{request.session.id} {data['count']} {os.getpid()}\n".encode())
    return {"count": data["count"]}


@app.get("/up", autoload=False)
async def up(request: Request) -> str:
    """Nothing; but whoever gets this answer knows that there is one."""
    return "up"


@app.websocket("/close")
async def close(websocket: WebSocket) -> None:
    """Accepted, and closed at once."""
    await websocket.accept()
