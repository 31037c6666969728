"""What holds for every test: Hypothesis profiles, quiet neighbours, and an environment without surprises."""

from __future__ import annotations

import logging
import os

from hypothesis import settings

# `deadline=None`: a busy machine is no failure. "ci" tries more and always the same examples, so that a red
# run can be repeated; "dev" looks for new ones each time.
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile("dev", deadline=None, max_examples=50, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# The log level of the tests is DEBUG (pyproject.toml), for our own loggers' sake.
for chatty in ("hpack", "httpcore", "httpx", "hypercorn", "trio-websocket"):
    logging.getLogger(chatty).setLevel(logging.WARNING)

# `SessionConfig.from_env` reads these: what the developer's shell says must not change a test.
for name in list(os.environ):
    if name == "APP_NAME" or name.startswith(("SESSION_", "REDIS_")):
        del os.environ[name]
