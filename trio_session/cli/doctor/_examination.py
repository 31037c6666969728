"""Everything in its order: settings, connection, rights, health, stored sessions, and at last a session of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from ..._config import SessionConfig
from ..._errors import ConfigError, SessionError
from ..._ids import Ids
from ..._manager import open_session_manager
from ..._settings import replicas_in
from ...redis._address import Destination
from ...redis._connection import LINK_ERRORS
from ...redis._supervisor import describe
from ._findings import DeadEndError, Finding, Level, sort
from ._health import facts_of, look_at_clock, look_at_memory, look_at_replicas, look_at_writes, measure
from ._reaching import reach
from ._readability import look_at_codec, look_at_records
from ._rights import probe_key, try_rights
from ._servers import Place, find_servers

__all__ = ["examine", "settings_are_wrong"]

# An answer that takes longer is none. Looking at 10 000 keys takes a busy server some tenths of a second.
_PATIENCE: Final = 10.0  # seconds

_SEE_LOG: Final = "see the server's log; redis-cli SLOWLOG GET"


async def examine(config: SessionConfig, *, workers: int = 1) -> list[Finding]:
    """Look at everything.

    Args:
        config: what the application is configured with.
        workers: how many processes serve it.

    Returns:
        The findings, the worst first; never none.
    """
    if config.driver == "local":
        return [_look_at_local(workers)]
    findings = list(look_at_codec(config))
    try:
        destination = Destination.of(config.redis[config.connection])
    except ConfigError as error:
        return [settings_are_wrong(error)]
    setting = _setting_of(config.connection)
    places: list[Place] = []
    with _noting(findings, str(destination)):
        places = await find_servers(destination, setting, findings)
    for place in places:
        with _noting(findings, str(place.address)):
            await _look_at_server(place, setting, config, findings)
    findings = sort(findings)
    if findings[0].level not in {Level.WRONG, Level.PROBLEM}:
        findings = sort([await _try_a_session(config, places, setting), *findings])
    return findings


def settings_are_wrong(error: ValueError) -> Finding:
    """With such settings there is nothing to look at."""
    return Finding(Level.WRONG, "settings", f"the settings are wrong: {error}", "correct it, and try again")


def _look_at_local(workers: int) -> Finding:
    fix = "SESSION_DRIVER=redis REDIS_URL=redis://host:6379/0"
    if workers > 1:
        text = f"sessions live in one process (driver local), and {workers} workers serve: each has its own, so users "
        return Finding(Level.PROBLEM, "driver", f"{text}lose theirs from one request to the next", fix)
    text = "sessions live in this process and end with it (driver local): right for one worker, and for no more"
    return Finding(Level.OK, "driver", text)


@contextmanager
def _noting(findings: list[Finding], server: str) -> Iterator[None]:
    """Note what ends the way here, within reasonable time; there may be other ways."""
    try:
        with trio.fail_after(_PATIENCE):
            yield
    except DeadEndError as end:
        findings.append(end.finding)
    except trio.TooSlowError:
        text = f"{server}: it did not answer within {_PATIENCE:g} s"
        findings.append(Finding(Level.PROBLEM, "server", text, _SEE_LOG))
    except LINK_ERRORS as error:
        text = f"{server}: the connection was lost meanwhile: {describe(error)}"
        findings.append(Finding(Level.PROBLEM, "server", text, _SEE_LOG))


async def _look_at_server(place: Place, setting: str, config: SessionConfig, findings: list[Finding]) -> None:
    address = place.address
    server, user = str(address), address.username or "default"
    prefix = _prefix_of(config)
    connection, greeting = await reach(address, setting, place.announced)
    async with connection.stream:
        (info,) = await connection.ask(("INFO",))
        facts = {**greeting, **facts_of(info)}
        trip, ahead = await measure(connection)
        wanted, needed = place.announced is not None, replicas_in(config.durability)
        findings += look_at_replicas(server, facts, setting, wanted=wanted, needed=needed)
        findings += look_at_memory(server, facts)
        findings += look_at_clock(server, trip, ahead)
        try:
            findings += await look_at_records(connection, server=server, prefix=prefix, config=config)
        except LINK_ERRORS as error:
            text = f"{server}: whether stored sessions can be read was not tried: {describe(error)}"
            findings.append(Finding(Level.SKIPPED, "records", text, f"redis-cli ACL SETUSER {user} +scan"))
        key = probe_key(prefix, place.tag)
        missing, replies = await try_rights(
            connection, server=server, user=user, prefix=prefix, key=key, durable=bool(needed)
        )
        findings += missing
        findings += look_at_writes(server, replies["set"])


async def _try_a_session(config: SessionConfig, places: Sequence[Place], setting: str) -> Finding:
    """As the application does it: lock, change, commit, and remove it again."""
    try:
        with trio.fail_after(_PATIENCE):
            async with open_session_manager(config) as manager:
                session = manager.session()
                before = trio.current_time()
                await session.put("doctor", True)
                took = trio.current_time() - before
                key = Ids().key(session.id or "")
                await session.clear()
    except (SessionError, trio.TooSlowError, TypeError) as error:
        text = f"a session cannot be stored: {describe(error)}"
        return Finding(Level.PROBLEM, "session", text, _SEE_LOG)
    for place in places:
        with _noting([], str(place.address)):  # if it cannot be done now, the tombstone ends within a minute
            await _remove_traces(f"{_prefix_of(config)}:{{{key[:2]}}}{key[2:]}", place, setting)
    return Finding(Level.OK, "session", f"a session was locked, stored and removed; storing took {took * 1000:.1f} ms")


async def _remove_traces(record: str, place: Place, setting: str) -> None:
    """Who counts afterwards should not find our tombstone. Nodes of a cluster that do not have it do nothing."""
    connection, _ = await reach(place.address, setting, place.announced)
    async with connection.stream:
        await connection.ask(("DEL", record, f"{record}:c"))


def _prefix_of(config: SessionConfig) -> str:
    return config.resolved_cookie_name.removeprefix("__Host-")


def _setting_of(connection: str) -> str:
    """The variable that says where the server is."""
    slug = "" if connection == "default" else re.sub(r"[^A-Z0-9]+", "_", connection.upper()) + "_"
    return f"REDIS_{slug}URL"
