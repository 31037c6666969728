"""The application to be measured: `python -m tests.benchmarks._app none|sessions|redis [URL]` serves it.

All forms are the same application; only `App(sessions=False)` has no sessions. It prints its port and runs until it is
told to stop.
"""

from __future__ import annotations

import sys

from hypercorn.config import Config

from trio_session import RedisConnection, SessionConfig
from trio_session.serving import run
from trio_session.web import App, Request


def make_app(kind: str, url: str) -> App:
    """Three routes that answer alike, and use the session more and more."""
    match kind:
        case "redis":
            app = App(SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}, lock_timeout=60))
        case "sessions":
            app = App(SessionConfig())
        case _:
            app = App(sessions=False)

    @app.get("/bare")
    async def bare(request: Request) -> dict[str, int]:
        return {"visits": 1}

    @app.get("/read")
    async def read(request: Request) -> dict[str, int]:
        return {"visits": request.session.get("visits", 0)}

    @app.get("/locked")
    async def locked(request: Request) -> dict[str, int]:
        async with request.session.locked() as data:
            data["visits"] = data.get("visits", 0) + 1
        return {"visits": data["visits"]}

    return app


def main() -> None:
    """Serve on a free port, as `trio-session serve` does."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1_000_000_000
    config.keep_alive_timeout = 600.0  # seconds: while others have their turns, nobody is sent away
    run(make_app(*sys.argv[1:3]), config, announce=lambda urls: print(urls[0].rpartition(":")[2], flush=True))


if __name__ == "__main__":
    main()
