"""The README runs: its first block as it stands, the transcript of it, and the failure it shows."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.test_docs import ROOT, blocks_of
from trio_session.testing import open_test_client
from trio_session.web import App

README = ROOT / "README.md"


def program(*numbers: int) -> dict[str, Any]:
    """The names that the README's blocks define, run one after the other."""
    names: dict[str, Any] = {"__name__": "app"}
    for number in numbers:
        exec(blocks_of(README)[number].text, names)
    return names


async def test_the_first_block_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """And answers as the transcript under it says, header by header."""
    for variable in ("APP_NAME", "SESSION_DRIVER", "SESSION_LIFETIME", "SESSION_COOKIE_NAME"):
        monkeypatch.delenv(variable, raising=False)
    transcript = blocks_of(README, "console")[0].text
    shown = [line.partition(": ") for line in transcript.splitlines() if re.match(r"[a-z-]+: ", line)]
    app = program(0)["app"]
    assert isinstance(app, App)
    async with open_test_client(app) as client:
        first = await client.get("/visits")
        assert first.text in transcript
        for name, _, value in shown:
            pattern = re.escape(value).replace("Zu3S…Qe0", "[A-Za-z0-9_-]{48}")
            assert re.fullmatch(pattern, first.headers[name]), name
        assert {name for name, _, _ in shown} == set(first.headers.keys()) - {"date", "server"}
        second = await client.get("/visits")
        assert second.text == '{"visits":2}'
        assert second.text in transcript


async def test_the_failure_is_the_one_that_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A change without the lock ends in the very sentence of the README, in the log, and a 500."""
    shown = blocks_of(README, "text")[0].text.strip()
    async with open_test_client(program(0, 1)["app"], raise_app_exceptions=False) as client:
        assert (await client.post("/rename")).status_code == 500
    assert shown in caplog.text


async def test_the_test_that_is_shown_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the application of the first block."""
    module = ModuleType("app")
    vars(module).update(program(0))
    monkeypatch.setitem(sys.modules, "app", module)
    names: dict[str, Any] = {}
    exec(blocks_of(README)[3].text, names)
    await names["test_visits_are_counted"]()


async def test_the_verbs_do_what_their_comments_say() -> None:
    """The handler with all the verbs runs, and the session is gone after it."""
    app = App()
    names = program(0)
    exec(blocks_of(README)[2].text, names)
    app.get("/")(names["handler"])
    async with open_test_client(app) as client:
        assert (await client.get("/")).json() == {"hello": "stranger"}
        assert len(client.cookies) == 0
