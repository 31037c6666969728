"""Running what a page of the docs shows: its Python, its commands, and whether they say what the page says.

The conventions of the pages:

- Python blocks run in their order, with the names of those before; `await` may stand outside of functions.
- A block that begins with `# app.py` is a file of that name.
- A `text` block after Python is what it prints.
- `console` blocks have commands after `$`; what follows is what they print, with `…` for what differs.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
from trio.testing import MockClock

from .redis_servers import free_port
from .test_docs import ROOT, Block, blocks_of_page

__all__ = ["Terminal", "follow", "open_terminal", "run_page"]

PATIENCE = 30.0  # seconds


def same(said: str, shown: str) -> bool:
    """Whether a program said what a page shows."""
    pattern = ".*".join(map(re.escape, shown.strip().split("…")))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def file_name(block: Block) -> str | None:
    """The name of the file that a block is, if it is one."""
    found = re.match(r"# (\w+\.py)\n", block.text) if block.language == "python" else None
    return found and found[1]


async def run_page(page: Path, clock: MockClock, **names: object) -> dict[str, Any]:
    """Run the Python of a page, and compare what it prints with what the page shows; the names it defined.

    Tests that a block defines are run. All of it runs on the clock of the tests.
    """
    names["__name__"] = page.stem.replace("-", "_")
    printed: str | None = None
    for block in blocks_of_page(page):
        if block.language == "python":
            before = set(names)
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            with redirect_stdout(io.StringIO()) as output:
                result = eval(code, names)
                if inspect.isawaitable(result):
                    await result
                for name in [name for name in names if name.startswith("test_") and name not in before]:
                    test: Any = names[name]
                    await test(*[clock][: len(inspect.signature(test).parameters)])
            printed = output.getvalue()
        elif block.language == "text" and printed:
            assert same(printed, block.text), f"{page.name}:{block.line} shows\n{block.text}and not\n{printed}"
            printed = None
    return names


class Terminal:
    """A shell that knows the commands of our pages, in a directory of its own.

    Args:
        folder: the directory.
        redis_url: of the server that stands for the page's own.
    """

    def __init__(self, folder: Path, redis_url: str = "") -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": ""}
        self.jar = httpx.Cookies()
        self._redis_url = redis_url
        self._server: subprocess.Popen[str] | None = None
        self._port = 0

    def run(self, block: Block) -> list[str]:
        """Do what a block says, and compare; what each command really said."""
        said: list[str] = []
        for command, shown in _commands(block.text):
            words = shlex.split(command, comments=True)
            output = getattr(self, f"_do_{words[0].replace('-', '_')}")(words[1:])
            assert not shown or same(output, shown), f"line {block.line}: {command}\nsays\n{output}\nand not\n{shown}"
            said.append(output)
        return said

    def close(self) -> None:
        """Ctrl-C in the window with the server."""
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT)
        try:
            output = self._server.communicate(timeout=PATIENCE)[0]
        finally:
            self._server.kill()
        assert self._server.returncode == 0, output
        self._server = None

    # -- commands ------------------------------------------------------------------------------------------------------

    def _do_cd(self, words: list[str]) -> str:
        return ""

    def _do_mkdir(self, words: list[str]) -> str:
        return ""

    def _do_python3(self, words: list[str]) -> str:
        assert words == ["-m", "venv", ".venv"]
        return ""

    def _do_source(self, words: list[str]) -> str:
        assert words == [".venv/bin/activate"]
        return ""

    def _do_pip(self, words: list[str]) -> str:
        """What is to be installed is there already: a checkout, or a distribution."""
        assert words[0] == "install"
        for word in words[1:]:
            if word == "../trio_session":
                assert (ROOT / "pyproject.toml").exists()
            else:
                assert distribution(word).version
        return ""

    def _do_export(self, words: list[str]) -> str:
        for word in words:
            name, _, value = word.partition("=")
            self.environment[name] = self._redis_url if name == "REDIS_URL" else value
        return ""

    def _do_redis_server(self, words: list[str]) -> str:
        assert self._redis_url, "this page was not given a Redis server"
        return ""

    def _do_pytest(self, words: list[str]) -> str:
        plugins = ("pytest_trio.plugin", "trio_session.testing.plugin", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", *(word for name in plugins for word in ("-p", name)), *words]
        environment = {**self.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # of this project's own plugins
        done = subprocess.run(
            command, check=False, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _do_trio_session(self, words: list[str]) -> str:
        """Serve, in another window, at a free port."""
        assert words[0] == "serve"
        self.close()
        self._port = free_port()
        command = [sys.executable, "-m", "trio_session.cli", *words, "--bind", f"127.0.0.1:{self._port}"]
        self._server = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until = time.monotonic() + PATIENCE
        with httpx.Client(timeout=PATIENCE) as client:  # one: each reads all the certificates of this machine
            while True:
                try:
                    client.get(f"http://127.0.0.1:{self._port}/-")
                except httpx.ConnectError:
                    assert self._server.poll() is None, self._server.communicate()[0]
                    assert time.monotonic() < until, "the server did not start"
                    time.sleep(0.02)
                else:
                    return ""

    def _do_curl(self, words: list[str]) -> str:
        """The options of curl that our pages use."""
        options = _curl.parse_args(words)
        urls = list(_expand(options.url))
        assert options.parallel or len(urls) == 1
        cookies = self.jar if options.b == "jar" else None
        with httpx.Client(timeout=PATIENCE, cookies=cookies) as client:
            with ThreadPoolExecutor(len(urls)) as threads:
                answers = list(threads.map(lambda url: self._ask(client, options, url), urls))
            if options.c == "jar":
                self.jar = client.cookies
        return "".join(_shown(answer, head=options.i) for answer in answers)

    def _ask(self, client: httpx.Client, options: Namespace, url: str) -> httpx.Response:
        assert url.startswith("http://127.0.0.1:8000/")
        headers = dict(header.split(": ", 1) for header in options.H)
        if options.b and "=" in options.b:
            headers["Cookie"] = options.b
        method = options.X or ("GET" if options.d is None else "POST")
        return client.request(method, url.replace("8000", str(self._port), 1), content=options.d, headers=headers)


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what the page shows of its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


_curl = ArgumentParser(prog="curl", add_help=False, allow_abbrev=False)
_curl.add_argument("url")
for flag in ("-sS", "-s", "-i", "--parallel", "--no-progress-meter"):
    _curl.add_argument(flag, action="store_true")
for option in ("-b", "-c", "-d", "-X"):
    _curl.add_argument(option)
_curl.add_argument("-H", action="append", default=[])


def _expand(url: str) -> Iterator[str]:
    """`/click?[1-20]` is twenty URLs."""
    found = re.fullmatch(r"(.*)\[(\d+)-(\d+)\](.*)", url)
    if found is None:
        yield url
        return
    for number in range(int(found[2]), int(found[3]) + 1):
        yield f"{found[1]}{number}{found[4]}"


def _shown(answer: httpx.Response, *, head: bool) -> str:
    lines = [f"HTTP/1.1 {answer.status_code}", *(f"{name}: {value}" for name, value in answer.headers.items()), ""]
    return ("\n".join(lines) + "\n" if head else "") + answer.text


@contextmanager
def open_terminal(folder: Path, redis_url: str = "") -> Iterator[Terminal]:
    """A Terminal whose server is stopped at the end, as by Ctrl-C: that has to be a good end."""
    terminal = Terminal(folder, redis_url)
    try:
        yield terminal
    finally:
        terminal.close()


def follow(page: Path, terminal: Terminal, *, begin: str | None = None, end: str | None = None) -> list[str]:
    """Do what a page says between two headings; what the commands said. Files are as the page has left them by then."""
    lines = page.read_text("utf-8").splitlines()
    first = 0 if begin is None else lines.index(f"## {begin}")
    last = len(lines) if end is None else lines.index(f"## {end}")
    said: list[str] = []
    for block in blocks_of_page(page):
        if block.line > last:
            break
        name = "pytest.ini" if block.language == "ini" else file_name(block)
        if name is not None:
            (terminal.folder / name).write_text(block.text, "utf-8")
        elif block.language == "console" and block.line > first:
            said += terminal.run(block)
    return said
