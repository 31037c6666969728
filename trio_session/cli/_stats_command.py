"""`trio-session stats`: what is on the sessions' server, counted without stopping it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from ._doctor_command import add_config_to, load_config

if TYPE_CHECKING:
    from ..redis._address import Address, Destination
    from ..redis._connection import Connection
    from ._survey import Survey

__all__ = ["add_to"]

_RIGHTS: Final = "+scan +strlen +getrange +llen +time"
_BAR: Final = 30  # characters


def add_to(commands: Any) -> None:
    """Describe the command to `argparse`."""
    stats: argparse.ArgumentParser = commands.add_parser(
        "stats",
        help="count sessions, locks and waiters on the sessions' server",
        description="Go through the server's keys with SCAN, which lets others have their turn, and count sessions by "
        "age, size and key of encryption; locks that are held, and who waits for them.",
        epilog="exit codes: 0 counted; 2 an option or a setting is wrong; 3 the server cannot be asked",
    )
    add_config_to(stats)
    stats.add_argument("--json", action="store_true", help="one JSON object instead of text")
    stats.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Here, because `--version` need not wait for redis to load.
    import trio

    from ..redis._address import Destination
    from ..redis._connection import LINK_ERRORS
    from ..redis._supervisor import describe
    from ._programs import complain

    try:
        config = load_config(options.config)
        if config.driver == "local":
            raise ValueError(
                "driver local, whose sessions live in their processes: app.sessions.statistics() counts them there. "
                "If yours are on Redis: export SESSION_DRIVER=redis REDIS_URL=…"
            )
        destination = Destination.of(config.redis[config.connection])
    except ValueError as error:
        complain(f"the settings are wrong: {error}")
        return 2
    try:
        surveys = trio.run(_survey_all, destination, config.resolved_cookie_name.removeprefix("__Host-"))
    except LINK_ERRORS as error:
        said = describe(error)
        more = f"the user needs {_RIGHTS}" if "NOPERM" in said else "trio-session doctor says more"
        complain(f"the server cannot be asked: {said}; {more}")
        return 3
    except KeyboardInterrupt:
        return 130
    print(_as_json(surveys) if options.json else _as_text(surveys))
    return 0


async def _survey_all(destination: Destination, prefix: str) -> list[Survey]:
    from ._survey import survey

    surveys: list[Survey] = []
    for address in await _locate(destination):
        connection = await address.connect(_take_as_it_is)
        async with connection.stream:
            surveys.append(await survey(connection, str(address), prefix, report=_progress))
    return surveys


async def _locate(destination: Destination) -> list[Address]:
    """The servers that have sessions."""
    from ..redis._cluster import locate_primaries
    from ..redis._sentinel import locate_primary

    if destination.kind == "sentinel":
        return [await locate_primary(destination)]
    if destination.kind == "server":
        connection = await destination.data.connect(_take_as_it_is)
        async with connection.stream:
            if not connection.is_cluster:
                return [destination.data]
    return await locate_primaries(destination)


async def _take_as_it_is(_: Connection) -> None:
    import trio

    await trio.lowlevel.checkpoint()


def _progress(found: Survey, part: float) -> None:
    """A bar, where somebody can see it."""
    if sys.stderr.isatty():
        bar = "#" * round(part * _BAR)
        line = f"\r[{bar:.<{_BAR}}] {part:4.0%}  {found.sessions} sessions"
        sys.stderr.write(f"\r{'':{len(line)}}\r" if part == 1 else line)
        sys.stderr.flush()


def _as_json(surveys: list[Survey]) -> str:
    from ._survey import Survey

    total = _as_dict(Survey.sum(surveys))
    del total["server"]
    return json.dumps({"servers": [_as_dict(each) for each in surveys], "total": total}, indent=2)


def _as_dict(found: Survey) -> dict[str, Any]:
    return {each.name: getattr(found, each.name) for each in fields(found)}


def _as_text(surveys: list[Survey]) -> str:
    from ._survey import Survey

    shown = surveys if len(surveys) == 1 else [*surveys, Survey.sum(surveys)]
    return "\n".join(line for each in shown for line in _lines(each))


def _lines(found: Survey) -> list[str]:
    from ._survey import AGES

    each = f", {found.size // found.sessions} each, the largest {found.largest}" if found.sessions else ""
    lines = [
        found.server,
        f"  sessions  {found.sessions}, {found.size} bytes{each}",
        f"  by age    {_counted({age: found.ages[age] for age in AGES})}",
        f"  by key    {_counted(dict(found.keys.most_common()))}",
        f"  ended     {found.ended} in the last minute",
        f"  locks     {found.locks} held; {found.waiting} tasks wait, for those of {found.awaited} sessions",
    ]
    if found.others:
        lines.append(f"  others    {found.others} keys that are none of ours, and begin like ours")
    return lines


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
