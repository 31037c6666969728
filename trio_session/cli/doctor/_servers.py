"""Which servers have the sessions: one; the primary that Sentinels name; or all primaries of a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import trio

from ...redis._address import Address, Destination
from ...redis._resp import Reply, ServerError
from ...redis._slots import SLOTS, Endpoint, SlotTable, slot_of
from ._findings import DeadEndError, Finding, Level
from ._health import Facts
from ._reaching import reach

__all__ = ["Place", "find_servers"]

# Of these are session ids, and so the first two characters of keys, which choose the slot (_ids.py).
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_SENTINEL_RIGHTS: Final = "'+sentinel|get-master-addr-by-name' '+sentinel|master' +subscribe allchannels"
_CLUSTER_RIGHTS: Final = "+cluster|slots +cluster|info +asking"


@dataclass(frozen=True, slots=True)
class Place:
    """A server that has sessions.

    Attributes:
        address: where.
        announced: what the user has to change if that is wrong, as others have told us where; None: his own setting.
            Others stand ready to replace such a server.
        tag: keys of sessions that begin with this are there.
    """

    address: Address
    announced: str | None = None
    tag: str = "do"


async def find_servers(destination: Destination, setting: str, findings: list[Finding]) -> list[Place]:
    """Find them, and note what is wrong with those who know.

    Raises:
        DeadEndError: there is none.
    """
    if destination.kind == "sentinel":
        return [await _ask_sentinels(destination, setting, findings)]
    if destination.kind == "cluster":
        return await _ask_nodes(destination, setting, findings)
    connection, facts = await reach(destination.data, setting)
    await trio.aclose_forcefully(connection.stream)
    if facts["mode"] == "cluster":
        return await _ask_nodes(replace(destination, kind="cluster"), setting, findings)
    return [Place(destination.data)]


async def _ask_each(
    addresses: Iterable[Address], setting: str, findings: list[Finding], *commands: tuple[str, ...]
) -> list[tuple[Address, Facts, list[Reply]]]:
    """What those say that can be reached; the others are a warning, unless they are all.

    Raises:
        DeadEndError: nobody can be reached.
    """
    answers: list[tuple[Address, Facts, list[Reply]]] = []
    failures: list[Finding] = []
    for address in addresses:
        try:
            connection, facts = await reach(address, setting)
        except DeadEndError as end:
            failures.append(end.finding)
            continue
        async with connection.stream:
            answers.append((address, facts, await connection.ask(*commands)))
    if not answers:
        raise DeadEndError(failures[0])
    findings += [replace(failure, level=Level.WARNING) for failure in failures]
    return answers


# -- Sentinels --------------------------------------------------------------------------------------------------------


async def _ask_sentinels(destination: Destination, setting: str, findings: list[Finding]) -> Place:
    service = destination.service
    answers = await _ask_each(
        destination.addresses,
        f"{setting} (sentinel_username, sentinel_password)",
        findings,
        ("SENTINEL", "MASTER", service),
        ("SENTINEL", "CKQUORUM", service),
        ("SENTINEL", "MASTERS"),
    )
    answered: list[dict[bytes, bytes]] = []
    for sentinel, _, (about, quorum, _) in answers:
        if not isinstance(about, list):
            continue
        answered.append(_pairs(about))
        if isinstance(quorum, ServerError):
            text = f"{sentinel}: if the primary dies, the Sentinels cannot choose another one: {quorum}"
            fix = f"start the Sentinels that are missing; redis-cli -p <port> SENTINEL SENTINELS {service}"
            findings.append(Finding(Level.WARNING, "sentinel", text, fix))
    if not answered:
        raise DeadEndError(_unknown_service(destination, setting, answers[0][2]))
    known = max(answered, key=lambda facts: int(facts[b"config-epoch"]))  # after the last election
    host, port = known[b"ip"].decode(), int(known[b"port"])
    if b"_down" in known[b"flags"]:
        text = f"{destination}: the Sentinels say that the primary, {host}:{port}, is down"
        findings.append(Finding(Level.WARNING, "sentinel", text, f"redis-cli -p <port> SENTINEL MASTER {service}"))
    else:
        text = f"{destination}: {len(answers)} Sentinels say that the primary is {host}:{port}"
        findings.append(Finding(Level.OK, "sentinel", text))
    return Place(destination.data.at(host, port), announced="replica-announce-ip and -port (redis.conf)")


def _pairs(flat: list[Reply]) -> dict[bytes, bytes]:
    pairs = zip(flat[::2], flat[1::2], strict=False)
    return {key: value for key, value in pairs if isinstance(key, bytes) and isinstance(value, bytes)}


def _unknown_service(destination: Destination, setting: str, answer: list[Reply]) -> Finding:
    about, _, others = answer
    others = others if isinstance(others, list) else []
    if isinstance(about, ServerError) and str(about).startswith("NOPERM"):
        user = destination.addresses[0].username or "default"
        text = f"{destination}: the user {user} may not ask the Sentinels: {about}"
        return Finding(Level.PROBLEM, "rights", text, f"redis-cli -p <port> ACL SETUSER {user} {_SENTINEL_RIGHTS}")
    names = [_pairs(each)[b"name"].decode() for each in others if isinstance(each, list)]
    text = f"{destination}: the Sentinels know no primary called {destination.service}"
    fix = f"write one of theirs into {setting}: {', '.join(names) or 'they have none'}"
    return Finding(Level.PROBLEM, "sentinel", text, fix)


# -- a cluster --------------------------------------------------------------------------------------------------------


async def _ask_nodes(destination: Destination, setting: str, findings: list[Finding]) -> list[Place]:
    answers = await _ask_each(
        destination.addresses, setting, findings, ("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"), ("ASKING",)
    )
    tables: list[SlotTable] = []
    for node, facts, (slots, info, asking) in answers:
        if facts["mode"] != "cluster":
            text = f"{node}: it is not part of a cluster"
            raise DeadEndError(
                Finding(Level.PROBLEM, "cluster", text, f"write redis:// instead of redis+cluster:// in {setting}")
            )
        refusals = [reply for reply in (slots, info, asking) if isinstance(reply, ServerError)]
        if refusals:
            user = node.username or "default"
            text = f"{node}: the user {user} may not ask about the cluster: {refusals[0]}"
            fix = f"redis-cli ACL SETUSER {user} {_CLUSTER_RIGHTS}   # on each node"
            raise DeadEndError(Finding(Level.PROBLEM, "rights", text, fix))
        assert isinstance(slots, list)
        tables.append(SlotTable.of(slots, info, host=node.host))
    table = max(tables, key=lambda table: table.epoch)
    owners = sorted({owner for owner in table.owners if owner is not None})
    uncovered = table.owners.count(None)
    seed = answers[0][0]
    if uncovered:
        text = f"{destination}: {uncovered} of {SLOTS} slots have no server, and neither have their sessions"
        fix = f"redis-cli --cluster fix {seed.host}:{seed.port}"
        findings.append(Finding(Level.PROBLEM, "cluster", text, fix))
    else:
        text = f"{destination}: {len(owners)} primaries have all slots"
        findings.append(Finding(Level.OK, "cluster", text))
    announced = "cluster-announce-ip and -port (redis.conf)"
    return [Place(destination.data.at(*owner), announced, _tag_at(owner, table)) for owner in owners]


def _tag_at(owner: Endpoint, table: SlotTable) -> str:
    """Two characters with which keys can begin that are on this node; any, if it has too few slots for that."""
    tags = ("".join(pair) for pair in product(_LETTERS, repeat=2))
    return next((tag for tag in tags if table.owners[slot_of(tag)] == owner), "do")
