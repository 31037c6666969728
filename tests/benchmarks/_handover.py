"""A process that contends for one session: `python -m tests.benchmarks._handover URL ID TASKS SECONDS`.

It prints, for each change, when its lock was had and when its commit was asked for: nanoseconds of the machine's
monotonic clock, which all processes share.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import trio

from trio_session import RedisConnection, SessionConfig, open_session_manager


async def main(url: str, id: str, tasks: int, seconds: float) -> None:
    """Change the session for so long."""
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}, lock_timeout=60)
    lines: list[str] = []
    async with open_session_manager(config) as manager:
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        until = time.monotonic() + seconds

        async def change() -> None:
            session = manager.session(id)
            while time.monotonic() < until:
                async with session.locked() as data:
                    had = time.monotonic_ns()
                    data["n"] = data.get("n", 0) + 1
                    asked = time.monotonic_ns()
                lines.append(f"{had} {asked}")

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(change)
    print("\n".join(lines))


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
