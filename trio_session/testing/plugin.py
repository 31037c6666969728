"""A plugin for pytest and pytest-trio: the fixtures `session_client` and `session_trainer`.

pytest loads it in every project that has the library installed, used or not. So it imports nothing itself: whoever
asks for a fixture pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .._asgi import ASGIApp
    from ._client import ASGIClient
    from ._trainer import SessionTrainer


@pytest.fixture
def session_app() -> ASGIApp:
    """The application that `session_client` talks to: a fixture of your own, which replaces this one."""
    pytest.fail(
        "session_client needs the application under test; give it one in your conftest.py:\n\n"
        "    @pytest.fixture\n"
        "    def session_app():\n"
        "        return app\n",
        pytrace=False,
    )


@pytest.fixture
async def session_client(session_app: ASGIApp) -> AsyncIterator[ASGIClient]:
    """An open test client for the application that the fixture `session_app` gives."""
    from ._client import open_test_client

    async with open_test_client(session_app) as client:
        yield client


@pytest.fixture
async def session_trainer() -> AsyncIterator[SessionTrainer]:
    """An open SessionTrainer; give its manager to the application: `App(manager=session_trainer.manager)`."""
    from ._trainer import SessionTrainer

    async with SessionTrainer() as trainer:
        yield trainer
