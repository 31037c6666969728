"""The demo's application: what the page asks for, and the WebSocket over which it hears what happens."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, final

import trio

from ..._config import SessionConfig
from ..._session import Session
from ...web import App, Request, Response, WebSocket, abort
from ._bus import make_bus
from ._holder import config_of_demo, hold, hold_in_a_process
from ._timeline import Timeline, what_for

__all__ = ["make_app"]

# How long a click of the race thinks between reading and writing: as long as a quick query of a database.
_MOMENT = 0.02  # seconds
# And one that one wants to look at.
_LONG_MOMENT = 0.6  # seconds

_LONGEST_NOTE = 100  # characters

# So many orders a page may give before they are heeded; a person gives one.
_ORDERS = 8

_HEADERS = {
    "Cache-Control": "no-store",
    # Nothing runs and nothing is loaded but what this server has.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_FILES = {"": "index.html", "style.css": "style.css", "demo.js": "demo.js", "timeline.js": "timeline.js"}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def make_app(config: SessionConfig | None = None) -> App:
    """Make the demo's application.

    Args:
        config: None for the environment's, with a short lease.

    Raises:
        ConfigError: the environment is wrong.
    """
    return _Demo(config or config_of_demo()).app


@final
class _Demo:
    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._bus = make_bus(config)
        self.app = app = App(config, instruments=[Timeline("worker", self._bus.tell)])
        app.before_request(_refuse_strangers)
        app.before_request(_say_what_for)
        app.after_request(_protect)
        app.while_serving(self._carry_lines)
        for path in _FILES:
            app.get(f"/{path}", autoload=False)(_page)
        app.websocket("/timeline")(self._show_timeline)
        app.get("/visits")(_visits)
        app.get("/state")(_state)
        app.put("/note")(_write_note)
        app.delete("/note")(_forget_note)
        app.post("/new-id")(_new_id)
        app.post("/log-out")(_log_out)
        app.get("/race")(_race)
        app.post("/race")(_start_race)
        app.post("/race/naive")(_count_naively)
        app.post("/race/locked")(_count_locked)
        app.post("/click")(_click)

    async def _carry_lines(self) -> AsyncIterator[None]:
        self.app.nursery.start_soon(self._bus.run)
        yield

    async def _show_timeline(self, ws: WebSocket) -> None:
        """Tell a page what happens; and it tells of a holder what it is to do, who ends with the page."""
        await ws.accept()
        id = ws.session.id
        hello = {"what": "hello", "at": time.time(), "pid": os.getpid(), "driver": self._config.driver}
        send, orders = trio.open_memory_channel[str](_ORDERS)
        with self._bus.listening() as lines:
            async with trio.open_nursery() as nursery:
                await ws.send_json(hello)
                nursery.start_soon(_pass_on, lines, ws)
                if id is not None:
                    nursery.start_soon(self._hold, id, orders)
                async for order in ws:
                    with suppress(trio.WouldBlock):
                        send.send_nowait(str(order))
                nursery.cancel_scope.cancel()

    async def _hold(self, id: str, orders: trio.MemoryReceiveChannel[str]) -> None:
        """Hold the lock whenever there is an order to."""
        async for order in orders:
            if order != "hold":
                continue  # nobody holds it
            if self._config.driver == "redis":
                await hold_in_a_process(id, orders, self._bus.tell)
            else:
                await hold(self.app.sessions.session(id), orders)


async def _pass_on(lines: trio.MemoryReceiveChannel[str], ws: WebSocket) -> None:
    async for line in lines:
        await ws.send(line)


# -- the page --------------------------------------------------------------------------------------------------------


async def _page(request: Request) -> Response:
    name = _FILES[request.path.removeprefix("/")]
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(_read(name), content_type=f"{kind}; charset=utf-8")


@cache
def _read(name: str) -> str:
    return (resources.files("trio_session.cli._demo") / "page" / name).read_text(encoding="utf-8")


async def _refuse_strangers(request: Request) -> None:
    """Other sites can make a visitor's browser ask for things here; it says so then."""
    if request.method != "GET" and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        abort(403)


async def _say_what_for(request: Request) -> None:
    what_for.set(request.path.removeprefix("/").replace("-", " "))


async def _protect(_: Request, response: Response) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


# -- a session, and what one can do with it --------------------------------------------------------------------------


async def _visits(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        data["visits"] = data.get("visits", 0) + 1
    return {"visits": data["visits"]}


async def _state(request: Request) -> dict[str, Any]:
    return _describe(request.session)


async def _write_note(request: Request) -> dict[str, Any]:
    match await request.get_json():
        case {"note": str(note)} if 0 < len(note) <= _LONGEST_NOTE:
            await request.session.put("note", note)
        case _:
            abort(400, f"A note has from 1 to {_LONGEST_NOTE} characters.")
    return _describe(request.session)


async def _forget_note(request: Request) -> dict[str, Any]:
    await request.session.delete("note")
    return _describe(request.session)


async def _new_id(request: Request) -> dict[str, Any]:
    await request.session.refresh()
    return _describe(request.session)


async def _log_out(request: Request) -> dict[str, Any]:
    await request.session.clear()
    return _describe(request.session)


def _describe(session: Session) -> dict[str, Any]:
    """What the page shows. An id is a credential: of that, only what tells it from another one."""
    id = session.id
    tag = None if id is None else sha256(b"trio_session demo: " + id.encode()).hexdigest()[:6]
    return {"visits": session.get("visits", 0), "note": session.get("note"), "tag": tag}


# -- counting, in two ways -------------------------------------------------------------------------------------------


async def _race(request: Request) -> dict[str, int]:
    return {"naive": request.session.get("naive", 0), "locked": request.session.get("locked", 0)}


async def _start_race(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        data.update(naive=0, locked=0)
    return {"naive": 0, "locked": 0}


async def _count_naively(request: Request) -> dict[str, float]:
    count: int = request.session.get("naive", 0)
    begun = time.time()
    await trio.sleep(_MOMENT)  # whoever reads now, reads what we have read
    await request.session.put("naive", count + 1)
    return {"count": count + 1, "pid": os.getpid(), "begun": begun, "at": time.time()}


async def _count_locked(request: Request) -> dict[str, float]:
    async with request.session.locked() as data:
        count: int = data.get("locked", 0)
        await trio.sleep(_MOMENT)  # whoever wants to read now, waits
        data["locked"] = count + 1
        now = time.time()  # and not after the commit: others are at it by then
    return {"count": count + 1, "pid": os.getpid(), "at": now}


async def _click(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        count: int = data.get("clicks", 0)
        await trio.sleep(_LONG_MOMENT)
        data["clicks"] = count + 1
    return {"clicks": count + 1}
