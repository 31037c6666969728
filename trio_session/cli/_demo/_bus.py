"""From whatever happens, in whichever process, to every page that is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, final

import redis
import redis.exceptions
import trio

from ..._config import SessionConfig
from ..._redis_connection import RedisConnection

__all__ = ["Bus", "make_bus"]

# So many lines a page, or Redis, may be behind before it misses some.
_BACKLOG = 10_000

_CHANNEL = "trio_session:demo"

# How often the thread that listens looks whether it is still wanted.
_LOOK = 0.5  # seconds

_TIMEOUT = 2.0  # seconds, for an answer of the server


class Bus:
    """For one process: its own pages hear what happens in it."""

    def __init__(self) -> None:
        self._pages: set[trio.MemorySendChannel[str]] = set()

    def tell(self, line: str) -> None:
        """Tell all pages. Never waits: it is called by whoever holds a lock."""
        for page in self._pages:
            with suppress(trio.WouldBlock):
                page.send_nowait(line)

    @contextmanager
    def listening(self) -> Iterator[trio.MemoryReceiveChannel[str]]:
        """For one page."""
        page, lines = trio.open_memory_channel[str](_BACKLOG)
        self._pages.add(page)
        try:
            with page, lines:
                yield lines
        finally:
            self._pages.remove(page)

    async def run(self) -> None:
        """Carry lines until cancelled."""


@final
class RedisBus(Bus):
    """For several processes: they meet in a channel of their Redis server.

    While the server is away, lines are lost: a demo's picture is no reason to fail.
    """

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__()
        self._client = _client_of(connection)
        self._send, self._lines = trio.open_memory_channel[str](_BACKLOG)

    def tell(self, line: str) -> None:
        with suppress(trio.WouldBlock):
            self._send.send_nowait(line)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            nursery.start_soon(self._listen)

    async def _publish(self) -> None:
        async for line in self._lines:
            lines = [line]
            with suppress(trio.WouldBlock):
                while True:
                    lines.append(self._lines.receive_nowait())
            with suppress(redis.exceptions.RedisError):
                await trio.to_thread.run_sync(self._client.publish, _CHANNEL, "\n".join(lines))

    async def _listen(self) -> None:
        while True:
            with suppress(redis.exceptions.RedisError), self._client.pubsub() as channel:  # type: ignore[no-untyped-call]
                channel.subscribe(_CHANNEL)
                while True:
                    message = await trio.to_thread.run_sync(channel.get_message, True, _LOOK)
                    if message is not None:
                        for line in str(message["data"]).splitlines():
                            super().tell(line)
            await trio.sleep(_LOOK)  # it will be back


def make_bus(config: SessionConfig) -> Bus:
    """The one that reaches all processes which have these sessions."""
    return Bus() if config.driver == "local" else RedisBus(config.redis[config.connection])


def _client_of(connection: RedisConnection) -> redis.Redis:
    # Bounded, as the end of the demo waits for the threads that use it.
    options: dict[str, Any] = {"decode_responses": True, "socket_timeout": _TIMEOUT}
    if connection.url is not None:
        return redis.Redis.from_url(connection.url, **options)
    if connection.scheme == "unix":
        return redis.Redis(unix_socket_path=connection.host, **options)
    return redis.Redis(
        connection.host,
        connection.port or 6379,
        username=connection.username,
        password=connection.password,
        ssl=connection.scheme == "rediss",
        **options,
    )
