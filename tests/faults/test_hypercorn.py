"""Fault 1, with everything in between: Hypercorn with several worker processes, and browsers with several tabs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from tests.redis_servers import RedisServer, free_port, redis_server

from ._harness import LIMIT, PREFIX, ROOT, amount, eventually, keys_left, manager_on

COOKIES = 64
TABS = 2


@contextmanager
def hypercorn(server: RedisServer, log: Path, *, workers: int) -> Iterator[int]:
    """Serve `_app` on so many processes; yields the port."""
    port = free_port()
    environ = os.environ | {"SESSION_DRIVER": "redis", "REDIS_URL": server.url, "SESSION_COOKIE_NAME": PREFIX}
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", str(workers), "-b", f"127.0.0.1:{port}"]
    master = subprocess.Popen(
        [*command, "--log-level", "WARNING", "tests.faults._app:app"],
        cwd=ROOT,
        env=environ | {"FAULTS_LOG": str(log)},
        start_new_session=True,  # a group of its own, for the clean-up
    )
    try:
        yield port
        master.terminate()
        master.wait(LIMIT)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
        master.wait()


class Tab:
    """A keep-alive connection that asks again and again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None

    async def get(self, cookie: str, *, path: str = "/") -> tuple[str, str]:
        """The headers and the body of the answer."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        line = f"Cookie: {PREFIX}={cookie}\r\n" if cookie else ""
        await self._stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self._receive()
        head, _, body = answer.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200"), head
        length = next(int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:"))
        while len(body) < length:
            body += (await self._receive()).decode()
        return head, body

    async def _receive(self) -> bytes:
        assert self._stream is not None
        data = bytes(await self._stream.receive_some(65_536))
        assert data, "the server has hung up"
        return data

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()


async def test_browsers_on_several_processes() -> None:
    """Whichever process answers a click, each counts once."""
    with redis_server() as server:
        log = server.directory / "commits"
        with hypercorn(server, log, workers=2) as port:
            await serving(port)
            ids: list[str] = []
            async with trio.open_nursery() as nursery:
                for _ in range(COOKIES):
                    nursery.start_soon(browse, port, amount(1.0, 60.0), ids)
        counts: dict[str, list[int]] = defaultdict(list)
        shares: Counter[str] = Counter()
        for line in log.read_text().splitlines():
            id, count, process = line.split()
            counts[id].append(int(count))
            shares[process] += 1
        assert len(ids) == COOKIES
        assert counts.keys() == set(ids)
        print(f"{sum(map(len, counts.values()))} commits, by process {dict(shares)}")  # noqa: T201
        async with manager_on(server) as manager:
            for id in ids:
                assert (await manager.session(id).read())["count"] == len(counts[id])
                assert sorted(counts[id]) == list(range(1, len(counts[id]) + 1))
        assert len(shares) == 2
        await eventually(lambda: not keys_left(server))


async def browse(port: int, seconds: float, ids: list[str]) -> None:
    """One visitor: gets a cookie, and then clicks in all tabs at once."""
    tabs = [Tab(port) for _ in range(TABS)]
    until = trio.current_time() + seconds
    head, _ = await tabs[0].get("")
    id = next(line for line in head.split("\r\n") if line.lower().startswith("set-cookie:"))
    id = id.partition("=")[2].partition(";")[0]
    ids.append(id)

    async def click(tab: Tab) -> None:
        while trio.current_time() < until:
            await tab.get(id)
        await tab.close()

    async with trio.open_nursery() as nursery:
        for tab in tabs:
            nursery.start_soon(click, tab)


async def serving(port: int) -> None:
    """Wait until it answers."""
    with trio.fail_after(LIMIT):
        while True:
            tab = Tab(port)
            with suppress(OSError):
                await tab.get("", path="/up")
                await tab.close()
                return
            await trio.sleep(0.02)
