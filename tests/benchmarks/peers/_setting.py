"""What the environment says about an application here, and what they all have in common."""

from __future__ import annotations

import os

__all__ = ["NOTE", "PAUSE", "REDIS", "STORE", "TTL"]

STORE = os.environ.get("BENCH_STORE", "bare")  # "bare", "memory" or "redis"
REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/0")

NOTE = "x" * 300  # what a session holds besides the number: as much as a login and a small cart
TTL = 7200  # seconds
PAUSE = 0.001  # seconds
