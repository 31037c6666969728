"""Sentinels: they watch a primary and its replicas, and know which of these is the primary right now."""

from __future__ import annotations

from functools import partial
from typing import Final, NoReturn

import redis.exceptions

from .._tasks import StartService
from ._address import Address, Destination
from ._asking import ask_all, ask_once
from ._connection import Connection, RefusedError
from ._node import NewNode
from ._resp import Reply, ServerError, to_exception
from ._supervisor import Supervisor
from ._topology import OneServer

__all__ = ["Sentinels", "locate_primary"]

# A replica has been made the primary; and, a little later, all other servers follow it.
_NEWS: Final = ("+promoted-slave", "+switch-master")


class Sentinels(OneServer):
    """One server that has all keys, the primary; which one that is the Sentinels know.

    They are asked whenever the link has to be made, and tell by themselves when they have chosen another one.
    """

    def __init__(self, destination: Destination, new_node: NewNode) -> None:
        self._destination = destination
        self._node = new_node(str(destination), partial(locate_primary, destination))
        super().__init__(self._node)

    async def open(self, start: StartService) -> None:
        for sentinel in self._destination.addresses:
            connect = partial(sentinel.connect, self._subscribe)
            name = f"{self._destination}: the Sentinel {sentinel}"
            start(Supervisor(name, connect=connect, serve=self._listen, quiet=True).run)
        await super().open(start)

    async def _subscribe(self, connection: Connection) -> None:
        for reply in await connection.ask(*(("SUBSCRIBE", channel) for channel in _NEWS)):
            if isinstance(reply, ServerError):
                raise RefusedError(str(reply)) from to_exception(reply)

    async def _listen(self, connection: Connection) -> NoReturn:
        while True:
            self._heed(await connection.receive())

    def _heed(self, news: Reply) -> None:
        said = news[2] if isinstance(news, list) and len(news) == 3 else None
        words = said.decode("utf-8", "replace").split() if isinstance(said, bytes) else []
        match words:
            case [service, _, _, host, port]:  # of the old primary, then of the new one
                pass
            case ["slave", _, host, port, "@", service, _, _]:  # of the new primary, then of the old one
                pass
            case _:
                raise redis.exceptions.InvalidResponse("a Sentinel says something else than what was asked for")
        primary = self._destination.data.at(host, _number(port))
        if service == self._destination.service and primary != self._node.address:
            self._node.link.leave(redis.exceptions.ConnectionError(f"the primary is {primary} now"))


async def locate_primary(destination: Destination) -> Address:
    """Ask all Sentinels; the answer after the last election counts.

    Raises:
        redis.exceptions.ConnectionError: none of them knows right now.
        RefusedError: one of them will not tell, and the others do not know.
    """
    _, host, port = max(await ask_all(destination.addresses, partial(_ask, destination.service)))
    return destination.data.at(host, port)


async def _ask(service: str, sentinel: Address) -> tuple[int, str, int]:
    """Number of the last election, host and port of the primary."""
    answer = await ask_once(sentinel, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service), ("SENTINEL", "MASTER", service))
    match answer:
        case [[bytes(host), bytes(port)], about]:
            # Not everybody may ask for it.
            pairs = zip(about[::2], about[1::2], strict=False) if isinstance(about, list) else ()
            epoch = next((value for name, value in pairs if name == b"config-epoch"), 0)
            return _number(epoch), host.decode("utf-8", "replace"), _number(port)
        case [ServerError() as error, _]:
            raise RefusedError(str(error)) from to_exception(error)
        case _:
            raise RefusedError(f"it knows no primary called {service}")


def _number(text: Reply | str) -> int:
    try:
        return int(text)  # type: ignore[arg-type]  # that is what is tried
    except (TypeError, ValueError):
        raise redis.exceptions.InvalidResponse("a Sentinel says something else than a number") from None
