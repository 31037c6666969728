"""The local store, small and large: an operation must not cost more because there are more sessions.

A million sessions take about a gigabyte while this is measured.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trio_session import LocalStore
from trio_session.abc import Lifetime

from ._harness import Comparison, Operation

SMALL, LARGE = 10_000, 1_000_000
BLOB_SIZE = 300  # bytes
LIFE = Lifetime(idle=7200.0, touch_interval=60.0)


def _resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _filled(count: int) -> tuple[LocalStore, list[str]]:
    store = LocalStore()
    keys = [f"{number % 4096:02x}:{number:022d}" for number in range(count)]
    for number, key in enumerate(keys):
        await _change(store, key, b"%d" % number)
    return store, keys


async def _change(store: LocalStore, key: str, text: bytes) -> None:
    loaded = await store.acquire(key, "token", lease=5.0, life=LIFE)
    await store.commit(key, "token", version=loaded.version, blob=text.ljust(BLOB_SIZE), life=LIFE)


def _operations(store: LocalStore, keys: list[str]) -> Operation:
    choose = random.Random(1).choice

    async def operate() -> None:
        await store.load(choose(keys), life=LIFE)
        await _change(store, choose(keys), b"again")

    return operate


@asynccontextmanager
async def _open_candidates() -> AsyncIterator[dict[str, Operation]]:
    small = await _filled(SMALL)
    before = _resident()
    large = await _filled(LARGE)
    per_session = (_resident() - before) / LARGE
    yield {
        f"{SMALL:,} sessions": _operations(*small),
        f"{LARGE:,} sessions ({per_session:,.0f} bytes each, {BLOB_SIZE} of them data)": _operations(*large),
    }


COMPARISONS = (Comparison(name="local store: one read and one locked change", open=_open_candidates),)
