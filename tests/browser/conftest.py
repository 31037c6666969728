"""A Chromium, and programs of ours to look at with it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.test_redis_tls import make_party

# The first two keep it going as root and without a screen card; the rest keeps it from calling home.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # ms; a busy machine is no failure
NAMES = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=PATIENCE)

OpenPage = Callable[..., Page]


def pytest_sessionstart() -> None:
    """Without a browser there is nothing to test, and that is no success."""
    if _find() is None:
        pytest.exit(f"make browser: no Chromium on PATH ({', '.join(NAMES)}); on Debian: apt-get install chromium", 1)


def _find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser, for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_find(), args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor: windows that share their cookies."""
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext) -> Iterator[OpenPage]:
    """Opens windows; whatever one of them complains of to its console is a failure of the test."""
    complaints: list[str] = []

    def open_page(url: str, *, width: int = 1280) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    assert complaints == []


@contextmanager
def running(*command: str) -> Iterator[str]:
    """A program of ours; yields its URL. Its end has to be a good one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_session.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # `serve` says there where it is
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"https?://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found.group()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def demo() -> Iterator[str]:
    """The demo on Redis and two workers; its URL."""
    with running("demo", "--port", "0", "--driver", "redis") as url:
        yield url


@pytest.fixture(scope="session")
def secure_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An application of its own, over TLS; its URL."""
    certificate = str(make_party("server", hosts=("127.0.0.1",)).save(tmp_path_factory.mktemp("tls") / "server.pem"))
    program = f"{Path(__file__).with_name('secure.py')}:app"
    with running("serve", program, "--bind", "127.0.0.1:0", "--certfile", certificate, "--keyfile", certificate) as url:
        yield url
