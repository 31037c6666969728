"""What holds for every kind of input."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from ._log import Log


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    """Takes what is logged away from pytest, which would keep it all. No line of it is a failure or a forgery."""
    ours, log = logging.getLogger("trio_session"), Log()
    ours.addHandler(log)
    ours.propagate = False
    yield log
    ours.propagate = True
    ours.removeHandler(log)
    assert log.forged == []
    assert log.last.keys().isdisjoint({"ERROR", "CRITICAL"}), log.last
