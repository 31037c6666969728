"""What holds for every test: Hypothesis profiles, quiet neighbours, an environment without surprises, Redis servers."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from .redis_servers import RedisServer, binaries, redis_server

# `deadline=None`: a busy machine is no failure. "ci" tries more and always the same examples, so that a red
# run can be repeated; "dev" looks for new ones each time.
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile("dev", deadline=None, max_examples=25, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# The log level of the tests is DEBUG (pyproject.toml), for our own loggers' sake.
for chatty in ("hpack", "httpcore", "httpx", "hypercorn", "trio-websocket"):
    logging.getLogger(chatty).setLevel(logging.WARNING)

# These need a browser, and Playwright, which is not in the extra `test`: `make browser` names them.
collect_ignore = ["browser"]

# `SessionConfig.from_env` reads these: what the developer's shell says must not change a test.
for name in list(os.environ):
    if name == "APP_NAME" or name.startswith(("SESSION_", "REDIS_")):
        del os.environ[name]


def pytest_collection_finish() -> None:
    """What is there before the first test stays: a full collection, 0.2 s, need not look through it time and again."""
    gc.freeze()


@pytest.fixture(scope="module", params=binaries())
def running(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Each Redis server of this machine in turn."""
    with redis_server(binaries()[request.param]) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """An empty one."""
    with running.client() as client:
        client.flushall()
    return running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    """For a look at what is stored."""
    with server.client() as client:
        yield client
