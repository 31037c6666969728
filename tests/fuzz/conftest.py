"""What holds for every kind of input."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import pytest

from ._log import Log

ours = logging.getLogger("trio_session")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Takes what is logged away from pytest, which would keep it all. A fixture is too early for that."""
    ours.propagate = False
    try:
        return (yield)
    finally:
        ours.propagate = True


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    """Looks at what is logged: no line of it is a failure or a forgery."""
    log = Log()
    ours.addHandler(log)
    yield log
    ours.removeHandler(log)
    assert log.forged == []
    assert log.last.keys().isdisjoint({"ERROR", "CRITICAL"}), log.last
