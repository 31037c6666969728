"""On what was measured: a number without it says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PACKAGES = ("trio_session", "trio", "msgspec", "hypercorn", "werkzeug", "redis", "hiredis")


def describe() -> str:
    """Machine, Python, versions and date, as a line of Markdown each."""
    named = ", ".join(f"{package} {version}" for package, version in versions(_PACKAGES).items())
    return "\n".join(f"- {line}" for line in [*facts(), f"versions: {named}"])


def facts() -> list[str]:
    """Machine, Python and date, a line each."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"machine: {_processor()}, {os.cpu_count()} CPUs, load {load}",
        f"system: {platform.system()} {platform.release()} {platform.machine()}",
        f"Python: {platform.python_implementation()} {platform.python_version()}",
    ]


def is_busy() -> bool:
    """Whether more runs here than half of the processors can do, on the average of the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown processor"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
