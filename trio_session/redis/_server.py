"""A server that runs our scripts: asked until it has answered, within reason."""

from __future__ import annotations

import logging
from random import uniform
from typing import Final

import trio

from .._errors import CommitUnknownError, StorageUnavailableError
from ._connection import Address, Connection
from ._link import Command, Link
from ._resp import Reply, ServerError, Verdict, in_script, to_exception, verdict_on
from ._scripts import SCRIPTS, Argument, Script
from ._supervisor import PATIENCE, describe

__all__ = ["Server"]

logger = logging.getLogger("trio_session.redis")

# A server that is busy, or short of something, is asked again at these intervals.
_RETRY: Final = (0.05, 0.15)  # seconds


class Server:
    """One Redis server.

    Attributes:
        address: where it is.
        link: the connection that all tasks share.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.link = Link(str(address), self._connect)
        self._looked_at_memory = False

    async def run(self, script: Script, *arguments: Argument, insists: bool = False) -> Command:
        """Run a script, and see to it that it really ran.

        Args:
            script: it can be run twice.
            arguments: its keys and arguments.
            insists: keep asking for the outcome once it may have run.

        Raises:
            StorageUnavailableError: it did not run; if it does not insist, it may have.
            CommitUnknownError: it insists, may have run, and the server no longer tells.
        """
        command = await self.link.call(script.call(*arguments), insists=insists)
        if isinstance(command.reply, ServerError) or command.failure is not None:
            return await self.persist(script, arguments, command)
        return command

    def post(self, script: Script, *arguments: Argument) -> None:
        """Have a script run whose answer interests nobody."""

        def teach(reply: Reply) -> None:
            if isinstance(reply, ServerError) and verdict_on(reply) is Verdict.LOAD_SCRIPT:
                self.link.post(script.teach_and_call(*arguments))

        self.link.post(script.call(*arguments), on_reply=teach)

    async def persist(self, script: Script, arguments: tuple[Argument, ...], command: Command) -> Command:
        """See to it that a script runs that did not the first time; otherwise as `run`."""
        gives_up_at = trio.current_time() + PATIENCE
        payload = command.payload
        while True:
            if command.failure is not None:
                raise self._failed(command, command.failure)
            error = command.reply
            if not isinstance(error, ServerError):
                return command
            verdict = verdict_on(error)
            if verdict is Verdict.LOAD_SCRIPT:
                payload = script.teach_and_call(*arguments)
            else:
                if verdict is Verdict.RECONNECT:
                    self.link.restart(to_exception(error), unless_since=command.sent_at)
                if verdict is Verdict.GIVE_UP or trio.current_time() >= gives_up_at:
                    if not in_script(error):
                        command.sends -= 1  # this time it certainly did not run
                    raise self._failed(command, to_exception(error))
                await trio.sleep(uniform(*_RETRY))
            earlier = command.sends - 1  # it may have run in one of these
            command = await self.link.call(payload, insists=command.insists)
            command.sends += earlier

    def _failed(self, command: Command, reason: Exception) -> Exception:
        if command.insists and command.sends:
            failure: Exception = CommitUnknownError()
        else:
            failure = StorageUnavailableError(f"{self.address}: {describe(reason)}")
        failure.__cause__ = reason
        return failure

    async def _connect(self) -> Connection:
        return await self.address.connect(self._prepare)

    async def _prepare(self, connection: Connection) -> None:
        *_, memory = await connection.ask(*(("SCRIPT", "LOAD", script.text) for script in SCRIPTS), ("INFO", "memory"))
        if not self._looked_at_memory:
            self._looked_at_memory = True
            self._check_memory(memory)

    def _check_memory(self, info: Reply) -> None:
        """Warn of a server that throws away sessions, or locks, when it is short of memory."""
        text = str(info, "utf-8", "replace") if isinstance(info, bytes) else ""  # not everybody may ask
        facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
            logger.warning(
                "%s: its maxmemory-policy is %s: when memory is short it drops sessions of users who are logged in; "
                "with noeviction it refuses new ones instead",
                self.address,
                policy,
            )
