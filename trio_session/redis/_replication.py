"""The connection over which we ask whether replicas have what the primary has; one question for all who want to know.

WAIT blocks its connection, so this one is not the one that all tasks share; and it waits for the last write of its own
connection, so we make one, behind all that is asked about. While a question is under way, those who come gather for the
next one: a thousand commits per second are some dozens of questions.

That replicas have our mark says something about a commit only if both are part of one history: of a server that has
been the primary all the time. A replica that becomes the primary begins a new one, and gives it a new name
(`master_replid`); so does a server that has lost its data. The name is read when the link connects, before all commits
over that connection, and again after WAIT has answered: if it is the same, nobody else was the primary in between.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import redis.exceptions
import trio

from .._errors import CommittedNotReplicatedError, DoubtReason
from ._connection import LINK_ERRORS, Connection, RefusedError
from ._resp import Reply, ServerError, to_exception
from ._supervisor import Supervisor

__all__ = ["NAMES_HISTORY", "History", "Replication", "check_rights", "history_in"]

logger = logging.getLogger("trio_session.redis")

#: What is asked on a new link: may we ask at all, and which history is this?
NAMES_HISTORY: Final = (("WAIT", 0, 1), ("INFO", "replication"))

# A question is open until replicas have answered it; what is asked anew begins to wait anew, so this has to be longer
# than a replica is behind that is worth waiting for. Whoever comes meanwhile loses nothing: what answers an older
# question late, could not have answered theirs earlier.
_TURN: Final = 10.0  # seconds
# And a server that still says nothing so long afterwards is taken for dead. The link will have noticed long before.
_SILENCE: Final = 2.0  # seconds
# Nobody reads the mark.
_MARK_LIFE: Final = 10_000  # ms

_find_name = re.compile(rb"^master_replid:([0-9a-f]{40})\r?$", re.MULTILINE).search


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What a server has written while nobody else was the primary.

    Attributes:
        name: the server's for it.
        replication: asks about it.
    """

    name: bytes
    replication: Replication

    async def confirm(self, key: str) -> None:
        """Wait until replicas have all that has been written in it so far.

        Args:
            key: what was written belongs to it.

        Raises:
            CommittedNotReplicatedError: nobody will be able to say so.
        """
        await self.replication.confirm(self.name, key)


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who has written something."""

    history: bytes
    key: str
    doubt: DoubtReason | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class Replication:
    """Asks one server about its replicas; the connection is made when it is first needed.

    Args:
        name: the server's, for messages.
        connect: opens a connection to it, the same one that the link is connected to.
        replicas: so many have to have what was written.
        mark: the name of a key for our marks that lives where this key of a session does.
        on_history: called with the present history's name, and the trio time at which it was that at the earliest.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Connection]],
        *,
        replicas: int,
        mark: Callable[[str], str],
        on_history: Callable[[bytes, float], None],
    ) -> None:
        self._name = name
        self._replicas = replicas
        self._mark = mark
        self._on_history = on_history
        self._supervisor = Supervisor(f"{name}, for its replicas", connect=connect, serve=self._serve, quiet=True)
        self._serving = trio.CancelScope()
        self._waiters: dict[_Waiter, None] = {}
        self._called = trio.Event()  # somebody waits
        self._present = b""  # the name of the history that the link is connected to
        self._over = False
        self._complained = False  # the log knows that replicas are missing

    async def run(self) -> None:
        """Answer until cancelled; then nobody waits any longer."""
        try:
            await self._called.wait()
            await self._supervisor.run()
        finally:
            self._over = True
            self._answer(list(self._waiters), "primary_lost")

    def begin(self, name: bytes) -> History:
        """The link has a new connection, perhaps to another server: ask over a new one as well.

        Args:
            name: of the history there. Nothing can be known any more about others.
        """
        self._present = name
        self._answer([waiter for waiter in self._waiters if waiter.history != name], "primary_lost")
        self._serving.cancel()
        self._supervisor.hurry()
        return History(name, self)

    async def confirm(self, history: bytes, key: str) -> None:
        """See `History.confirm`."""
        waiter = _Waiter(history, key)
        if self._over or history != self._present:
            self._answer([waiter], "primary_lost")
        else:
            self._waiters[waiter] = None
            self._called.set()
        try:
            await waiter.answered.wait()
        finally:
            self._waiters.pop(waiter, None)
        if waiter.doubt is not None:
            raise CommittedNotReplicatedError(waiter.doubt)

    # -- while there is a connection ----------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> Exception:
        was_fine = False
        try:
            with trio.CancelScope() as self._serving:
                while True:
                    await self._called.wait()
                    if self._waiters:
                        await self._ask(connection)
                        was_fine = True
                    else:
                        self._called = trio.Event()
        except LINK_ERRORS:
            if was_fine:  # some servers hang up on those who have not asked for a while
                self._supervisor.hurry()
            raise
        return redis.exceptions.ConnectionError("the link has a new connection")

    async def _ask(self, connection: Connection) -> None:
        """Put one question for all who wait, and answer those for whom it is settled."""
        waiters = list(self._waiters)
        began = trio.current_time()
        marked, count, info = await self._question(connection, self._mark(waiters[-1].key))
        if isinstance(marked, ServerError) and str(marked).startswith(("MOVED ", "ASK ")):
            tag = waiters[-1].key[:2]
            self._answer([waiter for waiter in waiters if waiter.key[:2] == tag], "primary_lost")
            return  # the others have their turn next
        for reply in (marked, count, info):
            if isinstance(reply, ServerError):
                raise to_exception(reply)
        present = history_in(info)
        self._on_history(present, began)
        self._answer([waiter for waiter in waiters if waiter.history != present], "primary_lost")
        is_enough = isinstance(count, int) and count >= self._replicas
        self._note(count, is_enough=is_enough)
        if is_enough:
            self._answer([waiter for waiter in waiters if waiter.history == present])

    async def _question(self, connection: Connection, mark: str) -> list[Reply]:
        with trio.move_on_after(_TURN + _SILENCE):
            return await connection.ask(
                ("SET", mark, "", "PX", _MARK_LIFE),
                ("WAIT", self._replicas, round(_TURN * 1000)),
                ("INFO", "replication"),
            )
        raise redis.exceptions.TimeoutError(f"the server has not answered for {_TURN + _SILENCE:g} s")

    def _answer(self, waiters: Iterable[_Waiter], doubt: DoubtReason | None = None) -> None:
        for waiter in waiters:
            waiter.doubt = doubt
            waiter.answered.set()
            self._waiters.pop(waiter, None)  # it may have left

    def _note(self, count: Reply, *, is_enough: bool) -> None:
        if self._complained is is_enough:
            self._complained = not is_enough
            if is_enough:
                logger.warning("%s: replicas confirm commits again", self._name)
            else:
                logger.warning(
                    "%s: %s of the %d replicas that durability asks for confirm commits: whoever commits is told so",
                    self._name,
                    count,
                    self._replicas,
                )


def history_in(info: Reply) -> bytes:
    """The name of the present history, in what `INFO replication` says; empty if it is not there."""
    found = _find_name(info) if isinstance(info, bytes) else None
    return found[1] if found else b""


def check_rights(replies: Iterable[Reply]) -> None:
    """Raise `RefusedError` if what is asked for in `NAMES_HISTORY` is forbidden, or unknown to the server."""
    for reply in replies:
        if isinstance(reply, ServerError) and str(reply).startswith(("NOPERM", "ERR unknown command")):
            raise RefusedError(f"durability needs WAIT and INFO, and it says: {reply}") from to_exception(reply)
