"""The pages that explain show what they claim: their blocks run, and print what stands under them."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from .pages import run_page
from .test_docs import ROOT, blocks_of

PAGES = sorted((ROOT / "docs" / "explanation").glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
async def test_the_blocks_say_what_the_page_shows(page: Path, autojump_clock: MockClock) -> None:
    """One after the other, with the names of those before."""
    await run_page(page, autojump_clock)
