"""Keeps one connection up: connects, serves it until it is lost, waits a little, connects again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, NoReturn

import redis.backoff
import redis.exceptions
import trio

from .._errors import StorageUnavailableError
from ._connection import LINK_ERRORS, Connection, RefusedError

__all__ = ["PATIENCE", "Supervisor", "describe"]

logger = logging.getLogger("trio_session.redis")

# After so long without a connection callers fail, instead of waiting for the next one.
PATIENCE: Final = 2.0  # seconds

# Half to the whole of 0.2 s, 0.4 s, … 1.8 s lie between two attempts: nine in the first ten seconds on average, and
# never two seconds until a server that is back has been noticed.
_BACKOFF: Final = redis.backoff.EqualJitterBackoff(cap=1.8, base=0.2)


# Counted no further: the back-off has long reached its end, and computes 2 to this power.
_MOST_FAILURES: Final = 10
# A connection that lasted so long was a good one.
_GOOD_WHILE: Final = PATIENCE


class Supervisor:
    """One connection that ought to be there all the time.

    Args:
        name: for the log.
        connect: opens a connection.
        serve: uses it until it is lost, and returns or raises why. It does not close it.
        on_down: called when the connection has been away for `PATIENCE`, and with the news after each further attempt.
        quiet: it can be done without, so its loss is not worth a warning.
    """

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], Awaitable[Connection]],
        serve: Callable[[Connection], Awaitable[Exception]],
        on_down: Callable[[Exception], None] = lambda _: None,
        quiet: bool = False,
    ) -> None:
        self._name = name
        self._quiet = quiet
        self._connect = connect
        self._serve = serve
        self._on_down = on_down
        self._decided = trio.Event()  # the first connection stands, or was given up
        self._refusal: Exception | None = None
        self._reason: Exception = redis.exceptions.TimeoutError(f"no connection within {PATIENCE:g} s")
        self._complaint = ""  # what the log was told last
        self._failures = 0  # in a row
        self._waiting = trio.CancelScope()  # for a connection, or before the next attempt
        self._hurried = False
        self._down_since = 0.0
        self._patience_ends = inf  # then it has ended, or there is a connection
        self._patience = trio.CancelScope()

    async def opened(self) -> None:
        """Wait for the first connection.

        Raises:
            StorageUnavailableError: there is none; the server is away or refuses us.
        """
        await self._decided.wait()
        if self._refusal is not None:
            raise StorageUnavailableError(f"{self._name}: {describe(self._refusal)}") from self._refusal

    def hurry(self) -> None:
        """There are news: if there is no connection, give up the present attempt, and try again without a pause."""
        self._hurried = True
        self._waiting.cancel()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        self._down_since = trio.current_time()
        self._wait_until(self._down_since + PATIENCE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lose_patience)
            while True:
                self._reason = await self._connect_and_serve()
                self._complain()
                if self._patience_ends == inf or (
                    isinstance(self._reason, RefusedError) and not self._decided.is_set()
                ):
                    self._give_notice()
                if not self._hurried:
                    with trio.CancelScope() as self._waiting:
                        await trio.sleep(_BACKOFF.compute(self._failures))
                self._failures = min(self._failures + 1, _MOST_FAILURES)

    async def _connect_and_serve(self) -> Exception:
        """Until there is no connection, for the reason that is returned."""
        self._hurried = False
        try:
            connection = await self._attempt()
            connected_at = trio.current_time()
            if self._complaint:
                gone = connected_at - self._down_since
                logger.log(logging.INFO if self._quiet else logging.WARNING, "%s: back after %.1f s", self._name, gone)
                self._complaint = ""
            self._decided.set()
            self._wait_until(inf)
            try:
                return await self._serve(connection)
            finally:
                self._down_since = trio.current_time()
                self._wait_until(self._down_since + PATIENCE)
                if self._down_since - connected_at > _GOOD_WHILE:
                    self._failures = 0
                await trio.aclose_forcefully(connection.stream)
        except LINK_ERRORS as error:
            return error

    async def _attempt(self) -> Connection:
        with trio.CancelScope() as self._waiting:
            connection = await self._connect()
            if not self._hurried:
                return connection
            await trio.aclose_forcefully(connection.stream)
        raise redis.exceptions.ConnectionError("there are news of where it is")

    def _complain(self) -> None:
        if self._decided.is_set() and describe(self._reason) != self._complaint:
            # One line says that it is gone. Why it still is matters only if somebody has to act on it.
            is_news = isinstance(self._reason, RefusedError) or not (self._complaint or self._quiet)
            self._complaint = describe(self._reason)
            logger.log(
                logging.WARNING if is_news else logging.INFO, "%s: no connection: %s", self._name, self._complaint
            )

    # Patience ends when it ends, also in the middle of an attempt: one may take as long as patience lasts.

    def _wait_until(self, time: float) -> None:
        self._patience_ends = self._patience.deadline = time

    async def _lose_patience(self) -> NoReturn:
        while True:
            while self._patience_ends > trio.current_time():  # a connection may have come in the last moment
                with trio.CancelScope(deadline=self._patience_ends) as self._patience:
                    await trio.sleep_forever()
            self._patience_ends = inf
            self._give_notice()

    def _give_notice(self) -> None:
        if not self._decided.is_set():
            self._refusal = self._reason
            self._decided.set()
        self._on_down(self._reason)


def describe(reason: BaseException) -> str:
    """Why, for people, on one line. Some errors say nothing themselves, but what caused them does."""
    text = str(reason) or (describe(reason.__cause__) if reason.__cause__ else type(reason).__name__)
    # A server's words are logged: none of them may begin another line, nor speak to a terminal.
    return text if text.isprintable() else text.encode("unicode_escape").decode()
