"""The command `trio-session`: real processes in real time, with a bound on every wait, and rarer ends in this one.

The demo's application is tested like anybody's.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, final

import httpx
import pytest
import trio
from hypercorn.config import Config

import trio_session
from trio_session._asgi import Message, Receive, Scope, Send
from trio_session.cli import main
from trio_session.cli._programs import serve_until_stopped

__all__ = ["PATIENCE", "Child", "open_child"]

PATIENCE = 20.0  # seconds; a process starts within one, unless the machine is very busy

DEMO = ("-m", "trio_session.cli", "demo", "--port", "0")


# -- processes -------------------------------------------------------------------------------------------------------


@final
class Child:
    """A Python process of ours: what it prints, line by line, and what can be done to it."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._printed = b""

    async def line(self) -> str:
        """The next line of its output; empty at the end."""
        assert self._process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._printed:
                more = await self._process.stdout.receive_some()
                if not more:
                    return ""
                self._printed += more
        line, _, self._printed = self._printed.partition(b"\n")
        return line.decode()

    async def url(self) -> str:
        """The URL in the next line."""
        line = await self.line()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"no URL in {line!r}; its errors: {self.errors()}"
        return found.group()

    async def type(self, text: str) -> None:
        """Give it some input."""
        assert self._process.stdin is not None
        with trio.fail_after(PATIENCE):
            await self._process.stdin.send_all(text.encode())

    async def end_input(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for its end. Returns its exit code."""
        with trio.fail_after(PATIENCE):
            return await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as Ctrl-C does. Returns its exit code."""
        self.send(number)
        return await self.end()

    def errors(self) -> str:
        """What it has written to its standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode()


@asynccontextmanager
async def open_child(
    *arguments: str, environment: dict[str, str] | None = None, folder: str | None = None, joined: bool = False
) -> AsyncIterator[Child]:
    """Run `python …`; it is gone after the block, whatever happens. `joined`: errors are lines among the others."""
    inherited = {name: value for name, value in os.environ.items() if name != "PORT"}
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if joined else errors,
            env={**inherited, **(environment or {})},
            cwd=folder,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Child(process, errors)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()


# -- the command as a process ----------------------------------------------------------------------------------------


async def test_the_demo_says_where_it_is_and_ends_when_it_is_told_to() -> None:
    """The URL that is printed works, every visitor has visits of their own, and SIGTERM is a good and silent end."""
    async with open_child(*DEMO) as demo:
        url = await demo.url()
        assert "Ctrl-C" in await demo.line()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as ada, httpx.AsyncClient(base_url=url) as bob:
            page = await ada.get("/")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "Fifty clicks" in page.text
            assert [(await ada.get("/visits")).json() for _ in range(3)] == [{"visits": n} for n in (1, 2, 3)]
            assert (await bob.get("/visits")).json() == {"visits": 1}
            assert list(ada.cookies) == ["trio_session"]
        assert await demo.stop(signal.SIGTERM) == 0
        assert (await demo.line(), demo.errors()) == ("", "")


async def test_fifty_clicks_over_the_network() -> None:
    """Sent at once, naive clicks lose updates that were answered as done, and locked ones count to exactly 50."""
    async with open_child(*DEMO) as demo:
        url = await demo.url()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as browser:
            await browser.post("/race")
            answers: Counter[str] = Counter()

            async def click(way: str) -> None:
                answer = await browser.post(f"/race/{way}")
                answers[way] += answer.is_success  # not before the await: a test can lose updates, too

            for way in ("naive", "locked"):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(click, way)
            result = (await browser.get("/race")).json()
        assert answers == {"naive": 50, "locked": 50}
        assert result["locked"] == 50
        assert 0 < result["naive"] < 50
        assert await demo.stop() == 0  # Ctrl-C is a good end, and a silent one
        assert demo.errors() == ""


async def test_a_port_in_use_is_one_line() -> None:
    """Whoever starts the demo twice is told so, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with open_child("-m", "trio_session.cli", "demo", "--port", str(port)) as demo:
            assert await demo.end() == 1
            assert await demo.line() == ""
            assert demo.errors().count("\n") == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in demo.errors()


async def test_a_store_that_cannot_be_reached_is_said_so() -> None:
    """The demo does not start without its store, and never says that it is somewhere."""
    with socket.socket() as nobody:  # bound, so that nobody else listens there
        nobody.bind(("127.0.0.1", 0))
        environment = {"SESSION_DRIVER": "redis", "REDIS_URL": f"redis://127.0.0.1:{nobody.getsockname()[1]}"}
        async with open_child(*DEMO, environment=environment) as demo:
            assert await demo.end() == 3
            assert await demo.line() == ""
            assert "\ntrio-session: the application could not start: " in demo.errors()
            assert "Traceback" not in demo.errors()


# -- the command in this process -------------------------------------------------------------------------------------


def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The variable that is wrong is named."""
    monkeypatch.setenv("SESSION_LIFETIME", "soon")
    assert main(["demo", "--port", "0"]) == 2
    printed = capsys.readouterr()
    assert "SESSION_LIFETIME" in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` says what to quote in a report."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trio_session {trio_session.__version__}\n"


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Who does not know the commands is shown them."""
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["http", "-1", "65536", "²"])
def test_a_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no port is refused with what would be one."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", f"--port={port}"])
    assert ended.value.code == 2
    assert f"'{port}' is no port: use a number from 0 to 65535" in capsys.readouterr().err


class Stubborn:
    """An application that takes its time, and during it gets another signal."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message: Message = await receive()
            self.seen.append(message["type"])
            if message["type"] == self.phase:
                signal.raise_signal(signal.SIGINT)
                await trio.sleep(PATIENCE)
                raise AssertionError("it was not cancelled")
            await send({"type": f"{message['type']}.complete"})


def anywhere() -> Config:
    """Settings of a server on some port, which does not log."""
    return Config.from_mapping(bind="127.0.0.1:0", errorlog=None)


def test_ctrl_c_ends_a_start_that_hangs() -> None:
    """Nobody has to wait for a store that does not answer."""
    app, urls = Stubborn("lifespan.startup"), list[str]()
    assert serve_until_stopped(app, anywhere(), announce=urls.extend) == 0
    assert (app.seen, urls) == (["lifespan.startup"], [])


def test_the_second_ctrl_c_does_not_wait() -> None:
    """The first one ends gracefully; who presses it again means it."""
    app = Stubborn("lifespan.shutdown")

    def announce(urls: Sequence[str]) -> None:
        assert urls[0].startswith("http://127.0.0.1:")
        signal.raise_signal(signal.SIGINT)

    assert serve_until_stopped(app, anywhere(), announce=announce) == 0
    assert app.seen == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("address", ["[2001:db8::1]:0", "127.0.0.1:65536", "nowhere.invalid:0"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An address that is not ours, or none at all, is not listened on, and that is one line."""
    assert serve_until_stopped(Stubborn("never"), Config.from_mapping(bind=address)) == 1
    printed = capsys.readouterr().err
    assert f"cannot listen on {address}: " in printed
    assert printed.count("\n") == 1


def test_failures_while_serving_are_not_blamed_on_the_address() -> None:
    """What fails after the start is a failure like any other, with its traceback."""

    def announce(_: object) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        serve_until_stopped(Stubborn("never"), anywhere(), announce=announce)
