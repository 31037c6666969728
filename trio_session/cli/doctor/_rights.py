"""What our user may do on a server: each command, key and channel is really tried, on keys of our own."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from ...redis._connection import Connection
from ...redis._resp import Reply, ServerError
from ._findings import Finding, Level

__all__ = ["NICE_TO_HAVE", "VITAL", "probe_key", "try_rights"]

Command = tuple[str | bytes | int, ...]

# What a script of ours has to be for EVALSHA; nobody has one like that, and NOSCRIPT is leave enough.
_NO_SCRIPT: Final = "0" * 40
_PROBE_LIFE: Final = 10_000  # ms; should we be stopped before they are removed

#: What scripts are sent with, and what they do. docs/how-to/redis.md has the same list.
VITAL: Final = (
    *("evalsha", "eval", "get", "set", "getrange", "del", "pttl", "pexpire", "persist"),
    *("lpop", "rpush", "lpos", "lrem", "llen", "hget", "hset", "time"),
)
#: What is vital, too, if replicas have to confirm commits.
FOR_DURABILITY: Final = ("wait", "info")
#: What is gone without it.
NICE_TO_HAVE: Final = {
    "subscribe": "who waits for a lock has to ask for it all the time, which is slower and not fair",
    "publish": "who waits for a lock is not told when it is free, and has to ask",
    "script|load": "scripts travel along with the first calls",
    "ping": "an idle connection that is dead is found later",
    "info": "nobody can see whether memory is short, or replicas are behind",
}


def probe_key(prefix: str, tag: str = "do") -> str:
    """A key like those of sessions, which no session can have."""
    return f"{prefix}:{{{tag}}}:doctor-{secrets.token_hex(8)}"


def _commands(key: str, channel: str, *, durable: bool) -> dict[str, Command]:
    """One harmless call of each; a complaint about its type or its script shows that it is allowed."""
    queue = f"{key}:q"
    return {
        "set": ("SET", key, "doctor", "PX", _PROBE_LIFE),
        "get": ("GET", key),
        "getrange": ("GETRANGE", key, 0, 32),
        "pttl": ("PTTL", key),
        "pexpire": ("PEXPIRE", key, _PROBE_LIFE),
        "persist": ("PERSIST", queue),
        "rpush": ("RPUSH", queue, "doctor"),
        "lpos": ("LPOS", queue, "doctor"),
        "llen": ("LLEN", queue),
        "lrem": ("LREM", queue, 0, "doctor"),
        "lpop": ("LPOP", queue),
        "hset": ("HSET", f"{key}:c", "doctor", 1),
        "hget": ("HGET", f"{key}:c", "doctor"),
        "del": ("DEL", key, queue, f"{key}:c"),
        "time": ("TIME",),
        "evalsha": ("EVALSHA", _NO_SCRIPT, 1, key),
        "eval": ("EVAL", "return 1", 1, key),
        "script|load": ("SCRIPT", "LOAD", "return 1"),
        "ping": ("PING",),
        "info": ("INFO", "server"),
        **({"wait": ("WAIT", 0, 1)} if durable else {}),
        "publish": ("PUBLISH", channel, "doctor"),
        "subscribe": ("SUBSCRIBE", channel),  # last: a connection that listens takes no other commands
    }


async def try_rights(
    connection: Connection, *, server: str, user: str, prefix: str, key: str, durable: bool
) -> tuple[list[Finding], dict[str, Reply]]:
    """Try everything. The connection can only listen afterwards.

    Args:
        connection: just logged in.
        server: for messages.
        user: as the server knows us.
        prefix: of our keys and channels.
        key: where to try.
        durable: replicas have to confirm commits.

    Returns:
        What is missing, if anything; and the replies, by right.
    """
    commands = _commands(key, f"{prefix}:p:doctor", durable=durable)
    replies = dict(zip(commands, await connection.ask(*commands.values()), strict=True))
    missing = [right for right, reply in replies.items() if isinstance(reply, ServerError) and _is_refusal(reply)]
    needed = VITAL + (FOR_DURABILITY if durable else ())
    return _findings(missing, replies, server=server, user=user, prefix=prefix, needed=needed), replies


def _findings(
    missing: Sequence[str],
    replies: dict[str, Reply],
    *,
    server: str,
    user: str,
    prefix: str,
    needed: Sequence[str],
) -> list[Finding]:
    forbidden = {right for right in missing if not _is_about(replies[right], "key", "channel")}
    vital = [right for right in needed if right in forbidden]
    setuser = f"redis-cli ACL SETUSER {user}"
    findings: list[Finding] = []
    if any(_is_about(replies[right], "key") for right in missing):
        text = f"{server}: the user {user} may not use keys that begin with {prefix}:"
        findings.append(Finding(Level.PROBLEM, "rights", text, f"{setuser} '~{prefix}:*'"))
    if vital:
        text = f"{server}: the user {user} may not run {', '.join(vital)}"
        findings.append(Finding(Level.PROBLEM, "rights", text, f"{setuser} {' '.join(f'+{right}' for right in vital)}"))
    if any(_is_about(replies[right], "channel") for right in missing):
        text = f"{server}: the user {user} may not use channels that begin with {prefix}: ({NICE_TO_HAVE['subscribe']})"
        findings.append(Finding(Level.WARNING, "rights", text, f"{setuser} '&{prefix}:*'"))
    for right, loss in NICE_TO_HAVE.items():
        if right in forbidden and right not in vital:
            text = f"{server}: the user {user} may not run {right.replace('|', ' ')}: {loss}"
            findings.append(Finding(Level.WARNING, "rights", text, f"{setuser} '+{right}'"))
    if not missing:
        findings.append(Finding(Level.OK, "rights", f"{server}: the user {user} may do what is needed"))
    return findings


def _is_refusal(error: ServerError) -> bool:
    return str(error).startswith("NOPERM")


def _is_about(reply: Reply, *things: str) -> bool:
    """Not the command is forbidden, but a thing it was called with."""
    return isinstance(reply, ServerError) and any(f" {thing}" in str(reply).partition("access")[2] for thing in things)
