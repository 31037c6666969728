"""Who has which slots of a cluster, and where a node sends us. Pure: replies in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from re import compile as regex
from typing import Final, TypeAlias

import redis.exceptions
from redis.crc import key_slot

from ._resp import Reply, ServerError

__all__ = ["SLOTS", "Endpoint", "Redirection", "SlotTable", "slot_of"]

_find_redirection = regex(r"(MOVED|ASK) ([0-9]{1,5}) (\S*):([0-9]{1,5})").fullmatch
_find_epoch = regex(rb"cluster_current_epoch:([0-9]{1,18})\b").search

#: How many slots every cluster has.
SLOTS: Final = 16_384

#: Host and port of a node.
Endpoint: TypeAlias = tuple[str, int]


def slot_of(tag: str) -> int:
    """The slot of all keys with this hash tag."""
    return key_slot(tag.encode())


@dataclass(frozen=True, slots=True)
class SlotTable:
    """What a node knows of its cluster.

    Attributes:
        epoch: grows with every change: of two tables, the one with the greater is the newer.
        owners: by slot, the primary that has it; None if nobody has.
        nodes: all primaries and replicas that have slots.
    """

    epoch: int
    owners: list[Endpoint | None]
    nodes: frozenset[Endpoint]

    @classmethod
    def of(cls, slots: list[Reply], info: Reply, *, host: str) -> SlotTable:
        """Read a node's answers.

        Args:
            slots: to CLUSTER SLOTS.
            info: to CLUSTER INFO; an error, if we may not ask for it.
            host: the node's, for those that do not tell their own.
        """
        owners: list[Endpoint | None] = [None] * SLOTS
        nodes: set[Endpoint] = set()
        for entry in slots:
            match entry:
                case [int(first), int(last), _, *_] if 0 <= first <= last < SLOTS:
                    servers = entry[2:]
                    endpoints = [_endpoint(server, host) for server in servers]
                    owners[first : last + 1] = [endpoints[0]] * (last + 1 - first)
                    nodes.update(endpoints)
                case _:
                    pass
        epoch = _find_epoch(info) if isinstance(info, bytes) else None
        return cls(int(epoch[1]) if epoch else 0, owners, frozenset(nodes))


def _endpoint(server: Reply, host: str) -> Endpoint:
    match server:
        case [bytes(name), int(port), *_] if name not in {b"", b"?"}:
            return name.decode("utf-8", "replace"), port
        case [_, int(port), *_]:
            return host, port
        case _:
            raise redis.exceptions.InvalidResponse("a node of the cluster without a port")


@dataclass(frozen=True, slots=True)
class Redirection:
    """Another node than the one that was asked is to be asked.

    Attributes:
        asking: this once only, and the command has to come right after ASKING: the slot is on the move, and its keys
            are there already. Otherwise the slot has moved.
        slot: which one.
        endpoint: of the other node.
    """

    asking: bool
    slot: int
    endpoint: Endpoint

    @classmethod
    def of(cls, error: ServerError, *, host: str) -> Redirection | None:
        """Read an error reply; None if it is about something else.

        Args:
            error: the reply.
            host: of the node that was asked: it is meant if it names a port alone.
        """
        found = _find_redirection(str(error))
        if found is None or int(found[2]) >= SLOTS:
            return None
        return cls(found[1] == "ASK", int(found[2]), (found[3] if found[3] not in {"", "?"} else host, int(found[4])))
