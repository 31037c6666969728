"""Somebody who holds a session's lock until told otherwise, in a task or in a process of their own.

A process can be killed, and then nobody is left to give the lock back: what ends is its lease.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

import trio

from ..._config import SessionConfig
from ..._errors import SessionError
from ..._manager import open_session_manager
from ..._session import Session
from ._timeline import Timeline, line, what_for

__all__ = ["config_of_demo", "hold", "hold_in_a_process", "main"]


class _CrashError(Exception):
    """What goes wrong in the holder's block."""


def config_of_demo() -> SessionConfig:
    """The environment's, but for leases that end while one looks on.

    Raises:
        ConfigError: the environment is wrong.
    """
    return replace(SessionConfig.from_env(), lock_lease=3.0, lock_hold_limit=9.0, lock_timeout=20.0)


async def hold(session: Session, orders: AsyncIterator[str]) -> None:
    """Hold the lock until told otherwise.

    Args:
        session: whose.
        orders: `finish` to commit, `crash` or the end of them to fail; others are for somebody else.
    """
    what_for.set("hold")
    with suppress(_CrashError, SessionError):  # a picture of what happened is drawn already
        async with session.locked() as data:
            if await _next(orders, "finish", "crash") != "finish":
                raise _CrashError
            data["holds"] = data.get("holds", 0) + 1


async def hold_in_a_process(id: str, orders: AsyncIterator[str], tell: Callable[[str], None]) -> None:
    """The same in a process of its own; `kill` kills it as `kill -9` does.

    Args:
        id: the session's.
        orders: see `hold`.
        tell: is called with each line of the process's timeline.
    """
    run = partial(
        trio.run_process,
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        check=False,
    )
    process: trio.Process | None = None
    try:
        async with trio.open_nursery() as nursery:
            started: trio.Process = await nursery.start(run)
            process = started
            assert started.stdout is not None
            nursery.start_soon(_command, started, id, orders)
            async with aclosing(_lines_of(started.stdout)) as lines:
                async for told in lines:
                    tell(told)
            await started.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process is not None and (process.returncode or 0) < 0:  # by a signal; trio's own, if the page has gone
            tell(line("killed", killed=process.pid))


async def _command(process: trio.Process, id: str, orders: AsyncIterator[str]) -> None:
    assert process.stdin is not None
    with suppress(trio.BrokenResourceError):  # it has ended by itself
        await process.stdin.send_all(f"{id}\n".encode())  # not as an argument: everybody can read those
        order = await _next(orders, "finish", "crash", "kill")  # and not one more: it may be for the next holder
        if order == "kill":
            process.kill()
        else:
            await process.stdin.send_all(f"{order}\n".encode())


async def _next(orders: AsyncIterator[str], *known: str) -> str | None:
    """The next order that is known; None if there will be none."""
    async for order in orders:
        if order in known:
            return order
    return None


async def _lines_of(stream: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for text in lines:
            yield text.decode()


async def _run() -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin, aclosing(_lines_of(stdin)) as lines:
        id = await anext(lines)
        timeline = Timeline("holder", partial(print, flush=True))
        async with open_session_manager(config_of_demo(), instruments=[timeline]) as manager:
            await hold(manager.session(id), lines)


def main() -> None:
    """Be the process: an id and orders come in, the timeline goes out. It ends with the one who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    trio.run(_run)
