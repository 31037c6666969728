"""On what was measured: a number without it says nothing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PACKAGES = ("trio_session", "trio", "msgspec", "hypercorn", "werkzeug", "redis", "hiredis")


def describe() -> str:
    """Machine, Python, versions and date, as a line of Markdown each."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"machine: {_processor()}, {os.cpu_count()} CPUs, load {load}",
        f"system: {platform.system()} {platform.release()} {platform.machine()}",
        f"Python: {platform.python_implementation()} {platform.python_version()}",
        f"versions: {', '.join(_versions())}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown processor"


def _versions() -> list[str]:
    found: list[str] = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found
