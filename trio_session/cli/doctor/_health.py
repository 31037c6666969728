"""How a server is: whether it takes writes, its memory, its replicas, its clock, and how far away it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Final

import trio

from ...redis._connection import Connection
from ...redis._resp import Reply, ServerError
from ._findings import Finding, Level

__all__ = ["Facts", "facts_of", "look_at_clock", "look_at_memory", "look_at_replicas", "look_at_writes", "measure"]

# A change waits for the server twice. 10 ms: within a data centre a round trip takes below 1 ms, between the zones of
# one region 2; farther away is a mistake, or a network in trouble.
_FAR: Final = 0.010  # seconds
_ROUND_TRIPS: Final = 20

# Expiries are absolute times: after a failover sessions and locks end so much earlier or later. A clock that NTP
# keeps is within milliseconds.
_SKEW: Final = 1.0  # seconds

# Redis tells a replica's lag in whole seconds, and hears from it every second.
_LAG: Final = 3  # seconds
_BACKLOG: Final = 1 << 20  # bytes; what a replica that keeps up never has outstanding

_NEARLY_FULL: Final = 0.9

Facts = Mapping[str, str]


def facts_of(info: Reply) -> Facts:
    """What `INFO` says, line by line; nothing if we may not ask."""
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


# -- writes -----------------------------------------------------------------------------------------------------------

_REFUSALS: Final = {
    "OOM": (
        "memory",
        "it is full and refuses changes (maxmemory)",
        "redis-cli CONFIG SET maxmemory <more>\ntrio-session stats   # what the sessions take of it",
    ),
    "MISCONF": (
        "persistence",
        "it refuses changes because it could not save its data to disk",
        "make room on its disk, then: redis-cli BGSAVE",
    ),
    "NOREPLICAS": (
        "replicas",
        "it refuses changes because too few replicas are connected (min-replicas-to-write)",
        "start the replicas; which are there: redis-cli INFO replication",
    ),
}


def look_at_writes(server: str, reply: Reply) -> Iterator[Finding]:
    """What a server said to a `SET`."""
    if isinstance(reply, ServerError):
        said = str(reply)
        for word, (topic, text, fix) in _REFUSALS.items():
            if said.startswith(word):
                yield Finding(Level.PROBLEM, topic, f"{server}: {text}", fix)


# -- memory -----------------------------------------------------------------------------------------------------------


def look_at_memory(server: str, facts: Facts) -> Iterator[Finding]:
    """Is there enough, and what happens when there is not?"""
    if "maxmemory" not in facts:
        return
    limit, used = int(facts["maxmemory"]), int(facts["used_memory"])
    policy = facts.get("maxmemory_policy", "noeviction")
    if not limit:
        text = f"{server}: {_size(used)} in use, no limit (maxmemory)"
    else:
        text = f"{server}: {_size(used)} of {_size(limit)} in use (maxmemory)"
    if limit and policy != "noeviction":
        yield Finding(
            Level.WARNING,
            "eviction",
            f"{server}: when memory is short it throws away sessions and locks (maxmemory-policy is {policy}; "
            f"{facts.get('evicted_keys', '0')} keys so far): users are logged out",
            "redis-cli CONFIG SET maxmemory-policy noeviction   # and the same in redis.conf",
        )
    if limit and used > limit * _NEARLY_FULL:
        yield Finding(Level.WARNING, "memory", f"{text}: it will soon be full", _REFUSALS["OOM"][2])
    else:
        yield Finding(Level.OK, "memory", text)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


# -- replicas ---------------------------------------------------------------------------------------------------------


def look_at_replicas(server: str, facts: Facts, setting: str, *, wanted: bool, needed: int) -> Iterator[Finding]:
    """Is it the primary, and do its replicas keep up? `needed` of them have to confirm commits."""
    if facts.get("role", "master") != "master":
        known = "master_host" in facts
        primary = f"{facts['master_host']}:{facts['master_port']}" if known else "another server"
        yield Finding(
            Level.PROBLEM,
            "replica",
            f"{server}: it is a replica of {primary}, and cannot be written to",
            f"write the primary{f', {primary},' if known else ''} into {setting}",
        )
        return
    offset = int(facts.get("master_repl_offset", 0))
    behind = False
    count = int(facts.get("connected_slaves", 0))
    for number in range(count):
        replica = dict(part.split("=", 1) for part in facts.get(f"slave{number}", "").split(",") if "=" in part)
        missing = offset - int(replica.get("offset", 0))
        if replica.get("state") == "online" and int(replica.get("lag", 0)) <= _LAG and missing <= _BACKLOG:
            continue
        behind = True
        state = "" if replica.get("state") == "online" else f", it is in state {replica.get('state')}"
        host, port = replica.get("ip"), replica.get("port")
        yield Finding(
            Level.WARNING,
            "replicas",
            f"{server}: its replica {host}:{port} is behind: {missing} bytes, last heard of {replica.get('lag')} s "
            f"ago{state}; should it take over now, these changes are lost",
            f"redis-cli -h {host} -p {port} INFO replication   # and see its log",
        )
    if needed and "connected_slaves" in facts:
        yield from _look_at_durability(server, facts, count, needed)
    if count and not behind:
        which = "its replica keeps up" if count == 1 else f"its {count} replicas keep up"
        yield Finding(Level.OK, "replicas", f"{server}: {which}")
    elif wanted and "connected_slaves" in facts and not count:
        text = f"{server}: it has no replica: should it die, its sessions are away until it is back"
        yield Finding(Level.WARNING, "replicas", text, "start one; redis-cli INFO replication shows if it has come")


def _look_at_durability(server: str, facts: Facts, count: int, needed: int) -> Iterator[Finding]:
    """Are there as many replicas as have to confirm commits, and what if there are fewer one day?"""
    if count < needed:
        connected = f"{count} {'is' if count == 1 else 'are'} connected: changes are stored, and answered with an error"
        yield Finding(
            Level.PROBLEM,
            "durability",
            f"{server}: durability is replicas:{needed}, and {connected} after commit_timeout",
            "start the replicas; which are there: redis-cli INFO replication\n"
            + (f"or ask for fewer: SESSION_DURABILITY=replicas:{count}" if count else "or unset SESSION_DURABILITY"),
        )
    elif "min_slaves_good_slaves" not in facts:  # it is told if min-replicas-to-write is set
        yield Finding(
            Level.WARNING,
            "durability",
            f"{server}: when fewer than {needed} replicas are connected it goes on taking changes that none of them "
            "will confirm: they are stored, and answered with an error (min-replicas-to-write is not set)",
            f"redis-cli CONFIG SET min-replicas-to-write {needed}   # and the same in redis.conf",
        )


# -- time -------------------------------------------------------------------------------------------------------------


async def measure(connection: Connection) -> tuple[float, float]:
    """The median of some round trips, and how far the server's clock is ahead of ours; both in seconds."""
    trips: list[float] = []
    ahead: list[float] = []
    for _ in range(_ROUND_TRIPS):
        began, clock = trio.current_time(), time.time()
        (reply,) = await connection.ask(("TIME",))
        trips.append(trio.current_time() - began)
        if isinstance(reply, list):
            seconds, microseconds = (int(part) for part in reply if isinstance(part, bytes))
            ahead.append(seconds + microseconds / 1e6 - clock - trips[-1] / 2)
    return median(trips), median(ahead) if ahead else 0.0


def look_at_clock(server: str, trip: float, ahead: float) -> Iterator[Finding]:
    """Is it near, and do we agree about the time?"""
    text = f"{server}: a round trip takes {trip * 1000:.1f} ms (median of {_ROUND_TRIPS})"
    if trip > _FAR:
        text += "; each change of a session waits for two"
        yield Finding(Level.WARNING, "latency", text, "bring both into one data centre; redis-cli --latency shows more")
    else:
        yield Finding(Level.OK, "latency", text)
    if abs(ahead) > _SKEW + trip:
        yield Finding(
            Level.WARNING,
            "clock",
            f"{server}: its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's; "
            "should another server take over, sessions and locks end so much too early or too late",
            "timedatectl set-ntp true, on both",
        )
    else:
        yield Finding(Level.OK, "clock", f"{server}: its clock and this machine's agree")
