"""The application that `bench_hypercorn` measures: `python -m tests.benchmarks._app sessions|none` serves it.

Both forms are the same application; only `App(sessions=False)` has none. It prints its port and runs until its standard
input ends.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework

from trio_session import SessionConfig
from trio_session.web import App, Request


def make_app(*, sessions: bool) -> App:
    """Three routes that answer alike, and use the session more and more."""
    app = App(SessionConfig()) if sessions else App(sessions=False)

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
    app = make_app(sessions=sys.argv[1] == "sessions")
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
