"""Several servers that may know something are asked at the same time: Sentinels, and nodes of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import redis.exceptions
import trio

from ._address import Address
from ._connection import LINK_ERRORS, Connection, RefusedError
from ._resp import Reply
from ._supervisor import describe

__all__ = ["ask_all", "ask_once"]

T = TypeVar("T")

# Once one has answered, the others have so long. One of them may have heard of something newer.
_COMPANY: Final = 0.1  # seconds


async def ask_all(addresses: Sequence[Address], ask: Callable[[Address], Awaitable[T]]) -> list[T]:
    """What they say; those that take longer than others are left out.

    Raises:
        redis.exceptions.ConnectionError: none of them can be asked right now.
        RefusedError: one of them will not tell, and the others cannot be asked.
    """
    answers: list[T] = []
    failures: list[Exception] = []

    async def ask_one(address: Address) -> None:
        try:
            answers.append(await ask(address))
        except LINK_ERRORS as error:
            failures.append(error)
        else:
            nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, trio.current_time() + _COMPANY)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(ask_one, address)
    if answers:
        return answers
    refusals = [error for error in failures if isinstance(error, RefusedError)]
    kind = RefusedError if refusals else redis.exceptions.ConnectionError
    reason = (refusals or failures)[0]
    raise kind(f"none of {len(addresses)} says where to go: {describe(reason)}") from reason


async def ask_once(address: Address, *commands: tuple[str, ...]) -> list[Reply]:
    """The replies of a server, over a connection of their own."""
    replies: list[Reply] = []

    async def ask(connection: Connection) -> None:
        replies.extend(await connection.ask(*commands))

    connection = await address.connect(ask)
    await trio.aclose_forcefully(connection.stream)
    return replies
