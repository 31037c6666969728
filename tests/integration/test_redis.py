"""The README's program with its sessions in Redis, on Hypercorn with two workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.redis_servers import RedisServer, free_port, redis_server

LIMIT = 25.0  # seconds

# The README's first block, with a short lease for the one who waits for the lock of the dead; and who answers, how to
# be slow, and a word at the end.
MODULE = """
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import trio

from trio_session import SessionConfig
from trio_session.web import App, Request

app = App(replace(SessionConfig.from_env(), lock_lease=2.0))


@app.get("/visits")
async def visits(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        data["visits"] = data.get("visits", 0) + 1
    return {"visits": data["visits"], "worker": os.getpid()}


@app.get("/slow")
async def slow(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        print("slow began", flush=True)
        await trio.sleep(0.5)
        data["slow"] = data.get("slow", 0) + 1
    return {"slow": data["slow"]}


@app.get("/shown", autoload=True)
async def shown(request: Request) -> dict[str, object]:
    return dict(request.session)


@app.while_serving
async def say_hello_and_goodbye() -> AsyncIterator[None]:
    print(f"worker {os.getpid()} serves", flush=True)
    yield
    print(f"worker {os.getpid()} says goodbye", flush=True)
"""


class Served:
    """Hypercorn with two workers, as users start it."""

    def __init__(self, process: trio.Process, url: str) -> None:
        self.url = url
        self.process = process
        self._text = ""

    async def said(self, pattern: str, *, times: int = 1) -> list[str]:
        """Read its output until `pattern` is in it so many times."""
        assert self.process.stdout is not None
        while len(found := re.findall(pattern, self._text)) < times:
            data = await self.process.stdout.receive_some()
            assert data, f"the server ended, having said: {self._text}"
            self._text += data.decode()
        return found

    async def stop(self) -> str:
        """SIGTERM; returns all that it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self._text += data.decode()
        assert await self.process.wait() == 0
        return self._text


@asynccontextmanager
async def served(folder: Path, server: RedisServer, *, workers: int = 2) -> AsyncIterator[Served]:
    (folder / "module.py").write_text(MODULE)
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", str(workers)]
    command += ["-b", f"127.0.0.1:{port}", "module:app"]
    environ = {**os.environ, "SESSION_DRIVER": "redis", "REDIS_URL": server.url}
    process = await trio.lowlevel.open_process(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        program = Served(process, f"http://127.0.0.1:{port}")
        await program.said(r"worker \d+ serves", times=workers)
        await program.said(r"Running on", times=workers)
        yield program
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # it has a process group of its own: the workers are in it
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.mark.timeout(60)
async def test_two_workers_share_their_sessions(tmp_path: Path) -> None:
    """50 clicks of one visitor at once count 50, whichever worker gets them; SIGTERM leaves nothing behind."""
    with redis_server() as server, server.client() as client:
        with trio.fail_after(LIMIT):
            async with served(tmp_path, server) as program:
                workers: set[int] = set()
                each = httpx.Limits(max_keepalive_connections=0)  # a connection for each click
                async with (
                    httpx.AsyncClient(base_url=program.url, timeout=LIMIT) as browser,
                    httpx.AsyncClient(base_url=program.url, timeout=LIMIT, limits=each) as tabs,
                ):
                    assert (await browser.get("/visits")).json()["visits"] == 1
                    tabs.cookies = browser.cookies
                    counts: list[int] = []

                    async def click() -> None:
                        answer = (await tabs.get("/visits")).json()
                        counts.append(answer["visits"])
                        workers.add(answer["worker"])

                    for _ in range(5):
                        counts.clear()
                        async with trio.open_nursery() as nursery:
                            for _ in range(50):
                                nursery.start_soon(click)
                        start = min(counts)
                        assert sorted(counts) == list(range(start, start + 50))
                        if len(workers) == 2:  # as the kernel likes, but with so many clicks it likes both
                            break
                    assert len(workers) == 2
                    assert (await browser.get("/shown")).json() == {"visits": max(counts)}
                # As soon as one worker has ended Hypercorn ends the others, if need be without a goodbye.
                assert "Traceback" not in await program.stop()
        (record,) = [name for name in client.scan_iter() if not name.endswith(b":c")]
        assert client.getrange(record, 0, 3) == b"ts1="
        assert client.pubsub_channels() == []


@pytest.mark.timeout(60)
async def test_stopping_is_graceful(tmp_path: Path) -> None:
    """At SIGTERM a request under way is finished, its change stored, its lock given back, and the store closed."""
    with redis_server() as server, server.client() as client, trio.fail_after(LIMIT):
        async with served(tmp_path, server, workers=1) as program:
            async with httpx.AsyncClient(base_url=program.url, timeout=LIMIT) as browser:
                async with trio.open_nursery() as nursery:
                    answers: list[httpx.Response] = []

                    async def click_slowly() -> None:
                        answers.append(await browser.get("/slow"))

                    nursery.start_soon(click_slowly)
                    await program.said("slow began")
                    text = await program.stop()
                assert answers[0].json() == {"slow": 1}
            assert len(re.findall(r"worker \d+ says goodbye", text)) == 1
            assert "Traceback" not in text
        (record,) = client.keys()
        assert client.getrange(record, 0, 3) == b"ts1="


@pytest.mark.timeout(60)
async def test_a_worker_dies_with_a_lock(tmp_path: Path) -> None:
    """A worker that is killed in mid-request keeps others waiting for its lease, no longer; nothing of it is kept."""
    with redis_server() as server:
        with trio.fail_after(LIMIT):
            async with served(tmp_path, server, workers=1) as program:
                async with httpx.AsyncClient(base_url=program.url, timeout=LIMIT) as browser:
                    assert (await browser.get("/visits")).json()["visits"] == 1
                    cookies = dict(browser.cookies)

                async def click_in_vain() -> None:
                    async with httpx.AsyncClient(base_url=program.url, timeout=LIMIT, cookies=cookies) as tab:
                        with pytest.raises(httpx.TransportError):
                            await tab.get("/slow")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(click_in_vain)
                    await program.said("slow began")
                    os.killpg(program.process.pid, signal.SIGKILL)
                await program.process.wait()
            async with (
                served(tmp_path, server, workers=1) as program,
                httpx.AsyncClient(base_url=program.url, timeout=LIMIT, cookies=cookies) as browser,
            ):
                assert (await browser.get("/visits")).json()["visits"] == 2
                assert (await browser.get("/shown")).json() == {"visits": 2}
