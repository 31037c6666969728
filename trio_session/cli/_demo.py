"""The demo: one page on which a visitor sees a session work, and sees updates get lost without its lock."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

import trio

from .._config import SessionConfig
from .._session import Session
from ..web import App, Request, Response, abort

__all__ = ["make_app"]

# How long a click on the page thinks between reading and writing: as long as a quick query of a database.
_MOMENT = 0.02  # seconds

_LONGEST_NOTE = 100  # characters

_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


def make_app(config: SessionConfig | None = None) -> App:
    """Make the demo's application.

    Args:
        config: None for `SessionConfig.from_env()`.

    Raises:
        ConfigError: the environment is wrong.
    """
    app = App(config)
    app.get("/", autoload=False)(_index)
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
    app.after_request(_protect)
    return app


async def _index(_: Request) -> Response:
    page = _read_page()
    return Response(page, headers={"Content-Security-Policy": _content_security_policy(page)})


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


async def _race(request: Request) -> dict[str, int]:
    return {"naive": request.session.get("naive", 0), "locked": request.session.get("locked", 0)}


async def _start_race(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        data.update(naive=0, locked=0)
    return {"naive": 0, "locked": 0}


async def _count_naively(request: Request) -> dict[str, int]:
    count: int = request.session.get("naive", 0)
    await trio.sleep(_MOMENT)  # whoever reads now, reads what we have read
    await request.session.put("naive", count + 1)
    return {"count": count + 1}


async def _count_locked(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        count: int = data.get("locked", 0)
        await trio.sleep(_MOMENT)  # whoever wants to read now, waits
        data["locked"] = count + 1
    return {"count": count + 1}


async def _protect(_: Request, response: Response) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


def _describe(session: Session) -> dict[str, Any]:
    """What the page shows. An id is a credential: of that, only what tells it from another one."""
    id = session.id
    tag = None if id is None else sha256(b"trio_session demo: " + id.encode()).hexdigest()[:6]
    return {"visits": session.get("visits", 0), "note": session.get("note"), "tag": tag}


@cache
def _read_page() -> str:
    return (resources.files("trio_session.cli") / "demo.html").read_text(encoding="utf-8")


@cache
def _content_security_policy(page: str) -> str:
    """A policy under which nothing runs and nothing is loaded but what is in the page, known by its hash."""

    def hash_of(element: str) -> str:
        inside = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in inside)

    return (
        f"default-src 'none'; script-src {hash_of('script')}; style-src {hash_of('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
