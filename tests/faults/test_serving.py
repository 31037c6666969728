"""`trio-session serve` with two workers on Redis: stopped in the middle of its load, and among broken connections."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import h11
import pytest
import trio

from tests.integration._clients import connect, request_head
from tests.integration._servers import Server
from tests.integration.test_traps import after_the_last_frame, behind_a_handshake, into_an_answered_stream
from tests.redis_servers import RedisServer, free_port, redis_server
from tests.test_cli import Child, open_child

from ._harness import LIMIT, PREFIX, ROOT, amount, eventually, keys_left

CLIENTS = 64
# Starts of servers, which a busy machine takes its time for; the long form needs more than this.
slow = pytest.mark.timeout(amount(120, 900))

START = 60.0  # seconds for two processes, one after the other; a start is not what is looked at here
GRACEFUL = 10.0  # seconds; what is under way takes a fraction of it, but the machine may be busy


@asynccontextmanager
async def two_workers(server: RedisServer, log: Path) -> AsyncIterator[tuple[Child, str]]:
    """Serve `_app` on two processes; yields the supervising one, and the URL."""
    environment = {
        "SESSION_DRIVER": "redis",
        "REDIS_URL": server.url,
        "SESSION_COOKIE_NAME": PREFIX,
        "FAULTS_LOG": str(log),
    }
    options = ("-w", "2", "-b", f"127.0.0.1:{free_port()}", "--graceful-timeout", str(GRACEFUL), "--backlog", "512")
    command = ("-m", "trio_session.cli", "serve", *options, "tests.faults._app:app")
    async with open_child(*command, environment=environment, folder=str(ROOT)) as child:
        await eventually(lambda: "2 workers ready at " in child.errors(), within=START)
        yield child, f"http://127.0.0.1:{options[3].rpartition(':')[2]}"


class Client:
    """One browser: its cookie, its keep-alive connection, and the counts that it was told."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stream: trio.SocketStream | None = None
        self._cookie: list[tuple[bytes, bytes]] = []
        self.counts: list[int] = []

    @property
    def id(self) -> str:
        return self._cookie[0][1].decode().partition("=")[2]

    async def click(self) -> bool:
        """Count once; False if the server did not take the request. One that it took has to be answered whole."""
        try:
            if self._stream is None:
                self._stream = await connect(self._url)
            await self._stream.send_all(request_head(headers=self._cookie))
            data = await self._stream.receive_some()
        except (OSError, trio.BrokenResourceError):
            return False
        if not data:
            return False
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "test")]))
        parser.send(h11.EndOfMessage())
        body, closes = b"", False
        while True:
            parser.receive_data(bytes(data))
            while (event := parser.next_event()) is not h11.NEED_DATA and not isinstance(event, h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    assert event.status_code == 200, event
                    closes = (b"connection", b"close") in event.headers
                    cookies = [value for name, value in event.headers if name == b"set-cookie"]
                    if cookies:
                        self._cookie = [(b"cookie", cookies[0].partition(b";")[0])]
                elif isinstance(event, h11.Data):
                    body += event.data
            if isinstance(event, h11.EndOfMessage):
                break
            data = await self._stream.receive_some()
            assert data, "cut in the middle of an answer"
        self.counts.append(int(body.partition(b":")[2].rstrip(b"}")))
        if closes:
            await self.close()
        return True

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None


def commits(log: Path) -> dict[str, list[int]]:
    """What was committed, by session: the application has written it down before it answered."""
    counts: dict[str, list[int]] = defaultdict(list)
    for line in log.read_text().splitlines():
        id, count, _ = line.split()
        counts[id].append(int(count))
    return counts


@slow
async def test_sigterm_in_the_middle_of_the_load() -> None:
    """Every request that was taken is answered, every lock is given back, in time and with exit code 0."""
    with redis_server() as server:
        for round_ in range(amount(1, 20)):
            log = server.directory / f"commits{round_}"
            async with two_workers(server, log) as (child, url):
                clients = [Client(url) for _ in range(CLIENTS)]

                async def keep_clicking(client: Client) -> None:
                    while await client.click():
                        pass
                    await client.close()

                async with trio.open_nursery() as nursery:
                    for client in clients:
                        nursery.start_soon(keep_clicking, client)
                    await eventually(lambda clients=clients: all(len(c.counts) >= 3 for c in clients), within=LIMIT)  # type: ignore[misc]
                    stopped_at = trio.current_time()
                    child.send(signal.SIGTERM)
                    assert await child.end() == 0
                    took = trio.current_time() - stopped_at
                assert took < GRACEFUL
                assert commits(log) == {client.id: client.counts for client in clients}
                assert not keys_left(server)
                print(f"{sum(len(c.counts) for c in clients)} requests; the end took {took:.2f} s")  # noqa: T201


@slow
async def test_broken_connections_among_good_ones() -> None:
    """Not one good request fails, whatever others do on connections of their own.

    The good ones go on until there were enough of both: the machine is shared out as it likes.
    """
    rng = Random(1)
    good = amount(400, 10_000)
    with redis_server() as server:
        log = server.directory / "commits"
        async with two_workers(server, log) as (child, url):
            victim = Server()
            victim.url = url
            clients = [Client(url) for _ in range(CLIENTS // 2)]
            broken = 0

            async def click(client: Client) -> None:
                while len(client.counts) <= good // len(clients) or broken <= good / 100:
                    assert await client.click()
                await client.close()

            async def break_something() -> None:
                nonlocal broken
                while True:
                    match rng.randrange(5):
                        case 0:
                            await behind_a_handshake(victim, "/close", pause=trio.sleep)
                        case 1:
                            await into_an_answered_stream(victim, pause=trio.sleep)
                        case 2:
                            await after_the_last_frame(victim, pause=trio.sleep)
                        case 3:
                            async with await connect(url) as stream:
                                await stream.send_all(os.urandom(rng.randrange(1, 1000)))
                        case _:
                            async with await connect(url) as stream:
                                head = request_head(method="POST", headers=[(b"content-length", b"100000")])
                                await stream.send_all(head + b"x" * rng.randrange(99_999))
                    broken += 1

            async with trio.open_nursery() as attacks:
                for _ in range(4):
                    attacks.start_soon(break_something)
                async with trio.open_nursery() as nursery:
                    for client in clients:
                        nursery.start_soon(click, client)
                attacks.cancel_scope.cancel()
            assert await child.stop(signal.SIGTERM) == 0
        assert commits(log) == {client.id: client.counts for client in clients}
        assert not keys_left(server)
        print(f"{sum(len(c.counts) for c in clients)} good requests, {broken} broken connections")  # noqa: T201
