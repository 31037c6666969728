"""The name of an application: what leads to one, and the one sentence about what does not."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypercorn.app_wrappers import ASGIWrapper, WSGIWrapper
from hypercorn.config import Config

from trio_session.cli import main
from trio_session.serving import StartupError
from trio_session.serving._loading import load_by_name

SHOP = """
from functools import partial
from trio_session.web import App
from trio_session.web import Request as _Request

shop = App(sessions=False)
number = 5


def old(environ, start_response):
    return []


def make(fail=False):
    if fail:
        raise NameError("name 'till' is not defined", name="till")
    return shop


def indirect(scope, receive, send):
    return shop(scope, receive, send)


async def page(request):
    return "hello"


class Endpoint:
    def __init__(self, scope, receive, send):
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with modules, which is the current one; they are forgotten afterwards."""
    (tmp_path / "shop_app.py").write_text(SHOP)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "shop_inner.py").write_text(SHOP)
    (tmp_path / "shop_package").mkdir()
    (tmp_path / "shop_package" / "__init__.py").touch()
    (tmp_path / "shop_package" / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "shop_app:shop",
        "shop_app.py:shop",
        "inner/shop_inner.py:shop",
        "inner/shop_inner:shop",
        "shop_package.shop:shop",
        "asgi:shop_app:shop",
        "shop_app:make()",
        "shop_app:Endpoint",
        "shop_app:indirect",
    ],
)
def test_what_leads_to_an_application(name: str) -> None:
    """A module, a file or a package; a name or a call."""
    assert isinstance(load_by_name(name, Config()), ASGIWrapper)


@pytest.mark.parametrize("name", ["shop_app:old", "wsgi:shop_app:old", "wsgi:shop_app:make", "shop_app:min"])
def test_applications_of_wsgi(name: str) -> None:
    """They are Hypercorn's affair; whoever writes so is believed, and so is what does not tell how to call it."""
    assert isinstance(load_by_name(name, Config()), WSGIWrapper)


def test_a_module_of_which_nothing_is_said(folder: Path) -> None:
    """The application is called app, then."""
    (folder / "app.py").write_text("async def app(scope, receive, send): pass")
    assert isinstance(load_by_name("app", Config()), ASGIWrapper)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (":app", "':app' does not say where the application is: write MODULE:APP, like app:app"),
        ("till:app", "there is no module 'till' in {}, nor where else Python looks"),
        ("shop_ap:app", "there is no module 'shop_ap' in {}, nor where else Python looks; did you mean 'shop_app'?"),
        ("nowhere.shop:app", "there is no module 'nowhere' in {}, nor where else Python looks"),
        ("shop_package.till:app", "there is no module 'shop_package.till' in {}, nor where else Python looks"),
        ("inner/till:app", "there is no module 'till' in {}/inner, nor where else Python looks"),
        ("shopapp.py:app", "there is no file {}/shopapp.py; did you mean 'shop_app.py'?"),
        ("shop_app", "there is no 'app' in {}/shop_app.py; did you mean 'shop'?"),
        ("shop_app:application", "there is no 'application' in {}/shop_app.py; did you mean 'shop'?"),
        ("shop_app:mak()", "there is no 'mak' in {}/shop_app.py; did you mean 'make'?"),
        ("sys:app", "there is no 'app' in sys"),
        ("shop_app:my shop", "'my shop' names no application: write MODULE:APP, like app:app"),
        ("shop_app:number", "'number' in {}/shop_app.py is no application: it is of type int"),
        ("shop_app:App", "'App' in {}/shop_app.py is no application: it is a class; name an instance of it"),
        (
            "shop_app:make",
            "'make' in {}/shop_app.py is no application: it takes no arguments; if it makes one, write shop_app:make()",
        ),
        (
            "shop_app:page",
            "'page' in {}/shop_app.py is no application: it cannot be called with scope, receive, send",
        ),
    ],
)
def test_what_leads_to_none(name: str, reason: str, folder: Path) -> None:
    """The part that is wrong is named, with what it could have meant; no traceback tells more."""
    with pytest.raises(StartupError) as caught:
        load_by_name(name, Config())
    assert str(caught.value) == reason.format(folder)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "text", "reason", "lines"),
    [
        ("broken:app", "raise ValueError('oh no')", "ValueError: oh no", ["raise ValueError('oh no')"]),
        ("broken:app", "import no_such", "ModuleNotFoundError: No module named 'no_such'", ["import no_such"]),
        ("broken:app", "import broken.part", "ModuleNotFoundError: ", ["import broken.part"]),
        ("broken:app", "app = (", r"SyntaxError: '\(' was never closed", ["app = ("]),
        ("shop_app:make(fail=True)", "", "NameError: name 'till' is not defined", ["raise NameError("]),
        ("shop_app:shop.till", "", "AttributeError: 'App' object has no attribute 'till'", []),
        ("shop_app:make(1, 2)", "", r"TypeError: make\(\) takes", []),
    ],
)
def test_code_that_fails(name: str, text: str, reason: str, lines: list[str], folder: Path) -> None:
    """Its error is the cause, and of the traceback there is only what is the application's."""
    (folder / "broken.py").write_text(text)
    with pytest.raises(StartupError, match=f"^{reason}") as caught:
        load_by_name(name, Config())
    cause = caught.value.__cause__
    assert cause is not None
    shown = "".join(traceback.format_exception(cause))
    assert all(line in shown for line in lines)
    assert {Path(file).name for file in re.findall(r'File "(.*?)"', shown)} <= {"broken.py", "shop_app.py"}


def test_one_process_says_it_like_several(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of the module, then one line, and an exit code that is not 0."""
    (folder / "broken.py").write_text("import no_such")
    assert main(["serve", "-b", "127.0.0.1:0", "broken:app"]) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.count("Traceback") == 1
    assert shown.endswith(
        "\ntrio-session: the application could not start: ModuleNotFoundError: No module named 'no_such'\n"
    )


@pytest.mark.parametrize("name", ["lazy:ap", "lazy:request", "lazy:xyz"])
def test_a_module_with_something_that_cannot_be_looked_at(name: str, folder: Path) -> None:
    """As Flask's and Quart's `request` outside of a request: whatever one asks it, it raises."""
    (folder / "lazy.py").write_text(
        "from contextvars import ContextVar\n"
        "from werkzeug.local import LocalProxy\n"
        "request = LocalProxy(ContextVar('request'), unbound_message='outside of a request')\n"
        "async def app(scope, receive, send): ...\n"
    )
    try:
        with pytest.raises(StartupError):
            load_by_name(name, Config())
    finally:
        sys.modules.pop("lazy", None)
