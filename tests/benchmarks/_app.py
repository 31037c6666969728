"""The application to be measured: `python -m tests.benchmarks._app none|sessions|redis [URL]` serves it.

All forms are the same application; only `App(sessions=False)` has no sessions. It prints its port and runs until its
standard input ends.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework

from trio_session import RedisConnection, SessionConfig
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


async def main() -> None:
    """Serve on a free port."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1_000_000_000
    config.keep_alive_timeout = 600.0  # seconds: while others have their turns, nobody is sent away
    app = make_app(*sys.argv[1:3])
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        # Hypercorn types scopes and messages by closed lists of its own.
        framework = cast("Framework", app)
        binds: list[str] = await nursery.start(partial(serve, framework, config, shutdown_trigger=stop.wait))
        print(binds[0].rpartition(":")[2], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        stop.set()


if __name__ == "__main__":
    trio.run(main)
