"""The tables of the reference are the code's."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import trio_session
from trio_session import ConfigError, SessionConfig, SessionError, SessionStateError
from trio_session.web._failures import http_error_of

from .test_docs import ROOT

FOLDER = ROOT / "docs" / "reference"

# What the errors need that say more than one thing.
MADE = {
    "LockTimeoutError": (1.0,),
    "SessionBusyError": (1,),
    "SessionEndedError": ("destroyed",),
    "SessionTooLargeError": (2, 1),
}


def rows(page: Path) -> list[list[str]]:
    """The cells of a page's first table, without its head."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_settings() -> None:
    """Each field in its order, with its default, and the variable that `from_env` reads it from."""
    shown = {words(name)[0]: words(default)[0] for name, default, _ in rows(FOLDER / "configuration.md")}
    defaults = {f.name: {} if f.default is MISSING else f.default for f in fields(SessionConfig)}
    assert list(shown.items()) == [(name, repr(default)) for name, default in defaults.items()]
    doc = SessionConfig.from_env.__doc__ or ""
    read = {variable for variable in re.findall(r"`((?:SESSION|APP)_\w+)`", doc) if "=" not in variable}
    named = {word for *_, cell in rows(FOLDER / "configuration.md") for word in words(cell) if "_" in word}
    assert {name for name in named if name.startswith(("SESSION_", "APP_"))} == read


def test_the_statuses_of_errors() -> None:
    """Every error there is, its bases, and what `App` answers."""
    shown = rows(FOLDER / "errors.md")
    for name, bases, status, retry_after, _ in shown:
        kind = getattr(trio_session, words(name)[0], TypeError)
        names = [base.__name__ for base in kind.__mro__[1:]]
        assert set(words(bases)) <= set(names), name
        error = http_error_of(kind(*MADE.get(kind.__name__, ())))
        assert error.code == int(status), name
        assert str(getattr(error, "retry_after", None) or "") == retry_after, name
    families = (SessionError, SessionStateError, ConfigError)
    errors = [getattr(trio_session, name) for name in trio_session.__all__ if name.endswith("Error")]
    leaves = {kind.__name__ for kind in errors if issubclass(kind, families)} - {"SessionError", "SessionStateError"}
    assert {words(name)[0] for name, *_ in shown} == leaves | {"TypeError"}
