"""The tutorial, done from its first line to its last: as a reader does it, with a server and with Redis."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_session.testing import open_test_client

from .pages import follow, open_terminal
from .redis_servers import redis_server
from .test_docs import ROOT, blocks_of

PAGE = ROOT / "docs" / "tutorial.md"

# Starts of servers, which a busy machine takes its time for.
slow = pytest.mark.timeout(120)


@slow
def test_the_first_version_loses_clicks(tmp_path: Path) -> None:
    """As the page says: twenty at once, and the counter is not at 22."""
    with open_terminal(tmp_path) as terminal:
        said = follow(PAGE, terminal, end="Two lines")
    assert 3 <= json.loads(said[-1])["clicks"] < 22


@slow
def test_the_second_version_counts_right(tmp_path: Path) -> None:
    """In the window, and in the test that the page shows."""
    with open_terminal(tmp_path) as terminal:
        follow(PAGE, terminal, begin="Two lines", end="Two processes")


async def test_the_test_fails_for_the_first_version(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says, and with these words."""
    first, _, test = blocks_of(PAGE)
    app = ModuleType("app")
    exec(first.text, vars(app))
    monkeypatch.setitem(sys.modules, "app", app)
    names: dict[str, Any] = {}
    exec(test.text, names)
    with pytest.raises(AssertionError):
        await names["test_no_click_is_lost"](autojump_clock)
    async with open_test_client(app.app) as client:
        await client.post("/click")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.post, "/click")
        assert (await client.get("/clicks")).json() == {"clicks": 2}


@slow
def test_two_processes_count_right(tmp_path: Path) -> None:
    """The same program on Redis, also after a restart."""
    with redis_server() as redis, open_terminal(tmp_path, redis.url) as terminal:
        assert follow(PAGE, terminal, begin="Two processes")
