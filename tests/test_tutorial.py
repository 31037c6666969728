"""The tutorial, done from its first line to its last: as a reader does it, with a server and with Redis."""

from __future__ import annotations

import json
from pathlib import Path

from .pages import follow, open_terminal
from .redis_servers import redis_server
from .test_docs import ROOT

PAGE = ROOT / "docs" / "tutorial.md"


def test_the_tutorial(tmp_path: Path) -> None:
    """Every command says what the page shows; and the first version does lose clicks, as the page claims."""
    with redis_server() as redis, open_terminal(tmp_path, redis.url) as terminal:
        said = follow(PAGE, terminal)
    counts = [json.loads(answer)["clicks"] for answer in said if answer.startswith("{") and answer.count("{") == 1]
    assert counts[:4] == [2, 0, counts[2], 1]
    assert 3 <= counts[2] < 22
