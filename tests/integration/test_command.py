"""The way users start it: `python -m hypercorn -k trio module:app`, in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import trio

# The README's first block, and a word at the end of the lifespan: Hypercorn's exit code says nothing.
MODULE = """
from collections.abc import AsyncIterator

from trio_session.web import App, Request

app = App()


@app.get("/visits")
async def visits(request: Request) -> dict[str, int]:
    async with request.session.locked() as data:
        data["visits"] = data.get("visits", 0) + 1
    return {"visits": data["visits"]}


@app.while_serving
async def say_goodbye() -> AsyncIterator[None]:
    yield
    print("goodbye", flush=True)
"""


class Output:
    """What a process writes, as it comes."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self.text = ""

    async def until(self, pattern: str) -> str:
        """Read until `pattern` is there; returns its first group."""
        while (match := re.search(pattern, self.text)) is None:
            data = await self._stream.receive_some()
            assert data, f"the server ended, having said: {self.text}"
            self.text += data.decode()
        return match[1]

    async def rest(self) -> str:
        async for data in self._stream:
            self.text += data.decode()
        return self.text


async def test_hypercorn_from_the_command_line(tmp_path: Path) -> None:
    """It serves, knows its visitors again, and SIGINT ends it in good order."""
    (tmp_path / "module.py").write_text(MODULE)
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", "127.0.0.1:0", "module:app"]
    with trio.fail_after(25):
        process = await trio.lowlevel.open_process(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            assert process.stdout is not None
            output = Output(process.stdout)
            url = await output.until(r"Running on (http://\S+)")
            async with httpx.AsyncClient(base_url=url) as client:
                assert [(await client.get("/visits")).json()["visits"] for _ in range(3)] == [1, 2, 3]
            process.send_signal(signal.SIGINT)
            assert "goodbye" in await output.rest()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
