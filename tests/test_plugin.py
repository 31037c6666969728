"""The pytest plugin, in projects of its own: a pytest inside this one, with this plugin and pytest-trio only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trio_session import testing

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent

CONFTEST = """
import pytest
from trio_session import SessionMiddleware, get_session

async def visits(scope, receive, send):
    assert scope["type"] == "http"
    session = get_session(scope)
    async with session.locked() as data:
        data["visits"] = data.get("visits", 0) + 1
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(data["visits"]).encode()})
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that has the library and pytest-trio, and nothing else that would be loaded by itself."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    plugins = ("pytest_trio.plugin", "trio_session.testing.plugin", "no:cacheprovider")
    return project.runpytest_inprocess(*(f"-p{name}" for name in plugins), *arguments)


def test_the_fixtures_serve_the_projects_application(project: pytest.Pytester) -> None:
    """`session_client` talks to `session_app`, which may use `session_trainer`; every test starts anew."""
    project.makeconftest(
        CONFTEST
        + """
@pytest.fixture
def session_app(session_trainer):
    return SessionMiddleware(visits, manager=session_trainer.manager)
"""
    )
    project.makepyfile(
        """
        import pytest, trio

        async def test_one(session_client):
            assert (await session_client.get("/")).text == "1"
            assert (await session_client.get("/")).text == "2"
            assert "trio_session" in session_client.cookies

        async def test_two(session_client, session_trainer, autojump_clock):
            await session_trainer.given_session("a", {"visits": 41})
            session_client.cookies["trio_session"] = "a"
            assert (await session_client.get("/")).text == "42"
            assert session_trainer.write_count("a") == 1
            await trio.sleep(7201)
            assert (await session_client.get("/")).text == "1"

        async def test_three(session_client):
            with pytest.raises(KeyError):
                await session_client.get("/")
                raise KeyError
        """
    )
    run(project).assert_outcomes(passed=3)


def test_an_application_of_its_own_lifespan_is_started_up(project: pytest.Pytester) -> None:
    """Also without `session_trainer`, with an async fixture, and in a test that fails."""
    project.makeconftest(
        CONFTEST
        + """
@pytest.fixture
async def session_app():
    yield SessionMiddleware(visits)
"""
    )
    project.makepyfile(
        """
        async def test_one(session_client):
            assert (await session_client.get("/")).text == "1"

        async def test_two(session_client):
            assert (await session_client.get("/")).text == "another"
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: assert '1' == 'another'"])


def test_without_an_application_the_error_shows_the_fix(project: pytest.Pytester) -> None:
    """A few lines to copy, and no traceback into the library."""
    project.makepyfile("async def test_one(session_client): pass")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*session_client needs the application under test*", "*def session_app():"])
    result.stdout.no_fnmatch_line("*plugin.py:*")


def test_the_fixtures_are_described(project: pytest.Pytester) -> None:
    """`pytest --fixtures` shows what they are for."""
    result = run(project, "--fixtures")
    result.stdout.fnmatch_lines(["session_client*", "*An open test client for the application*"])
    result.stdout.fnmatch_lines(["session_trainer*", "*An open SessionTrainer*"])


def test_the_plugin_costs_nothing_where_it_is_not_used() -> None:
    """It loads neither the test client nor what that stands on, nor pytest-trio."""
    script = "import sys, trio_session.testing.plugin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "trio_session.testing.plugin" in loaded
    assert [name for name in loaded if name.startswith("trio_session.testing._")] == []
    assert {"h11", "hypercorn", "pytest_trio", "werkzeug"}.isdisjoint(loaded)


def test_the_door_is_opened_by_name() -> None:
    """What it shows is loaded when asked for; what is not there is an AttributeError, as with any module."""
    assert dir(testing) == testing.__all__
    with pytest.raises(AttributeError, match="no attribute 'TestClient'"):
        testing.TestClient  # noqa: B018 - the access is the test
