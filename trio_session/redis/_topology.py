"""Which server has which keys; and scripts that are asked for until they have run, within reason."""

from __future__ import annotations

from collections.abc import Callable
from random import uniform
from typing import Final

import trio

from .._errors import CommitUnknownError, StorageUnavailableError
from .._tasks import StartService
from ._link import Command
from ._node import Node
from ._resp import Reply, ServerError, Verdict, in_script, to_exception, verdict_on
from ._scripts import Script
from ._supervisor import PATIENCE, describe

__all__ = ["Topology"]

# A server that is busy, or short of something, is asked again at these intervals.
_RETRY: Final = (0.05, 0.15)  # seconds


class Routes(dict[str, Node]):
    """By the first two characters of a session's key, which decide on it: the node that has it, found when needed."""

    def __init__(self, find: Callable[[str], Node]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, tag: str) -> Node:
        node = self[tag] = self._find(tag)
        return node


class Topology:
    """One server that has all keys.

    Attributes:
        nodes: the servers we are connected to.
        routes: by the first two characters of a key, which of them has it.
    """

    def __init__(self, node: Node) -> None:
        self.nodes = [node]
        self.routes = Routes(lambda _: node)

    def __str__(self) -> str:
        return ", ".join(node.name for node in self.nodes)

    async def open(self, start: StartService) -> None:
        """Connect, for as long as `start` keeps its tasks.

        Raises:
            StorageUnavailableError: there is no connection.
        """
        for node in self.nodes:
            start(node.run)
            await node.opened()

    async def drain(self) -> None:
        """Wait until everything sent before has been answered, or cannot be."""
        for node in self.nodes:
            await node.link.drain()

    def post(self, key: str, script: Script, arguments: bytes) -> None:
        """Have a script run whose answer interests nobody."""
        link = self.routes[key[:2]].link

        def teach(reply: Reply) -> None:
            if isinstance(reply, ServerError) and verdict_on(reply) is Verdict.LOAD_SCRIPT:
                link.post(script.teach_and_call(arguments))

        link.post(script.call(arguments), on_reply=teach)

    async def persist(self, node: Node, script: Script, arguments: bytes, command: Command) -> Command:
        """See to it that a script really runs, if at first it did not.

        Args:
            node: the server that was asked.
            script: it can be run twice.
            arguments: its keys and values, each a `bulk`.
            command: what came of it so far. If it insists, the outcome is asked for once it may have run.

        Raises:
            StorageUnavailableError: it did not run; if it does not insist, it may have.
            CommitUnknownError: it insists, may have run, and the server no longer tells.
        """
        gives_up_at = trio.current_time() + PATIENCE
        payload = command.payload
        while True:
            if command.failure is not None:
                raise _failed(node, command, command.failure)
            error = command.reply
            if not isinstance(error, ServerError):
                return command
            verdict = verdict_on(error)
            if verdict is Verdict.LOAD_SCRIPT:
                payload = script.teach_and_call(arguments)
            else:
                if verdict is Verdict.RECONNECT:
                    node.link.restart(to_exception(error), unless_since=command.sent_at)
                if verdict is Verdict.GIVE_UP or trio.current_time() >= gives_up_at:
                    if not in_script(error):
                        command.sends -= 1  # this time it certainly did not run
                    raise _failed(node, command, to_exception(error))
                await trio.sleep(uniform(*_RETRY))
            earlier = command.sends - 1  # it may have run in one of these
            command = await node.link.call(payload, insists=command.insists)
            command.sends += earlier


def _failed(node: Node, command: Command, reason: Exception) -> Exception:
    if command.insists and command.sends:
        failure: Exception = CommitUnknownError()
    else:
        failure = StorageUnavailableError(f"{node.name}: {describe(reason)}")
    failure.__cause__ = reason
    return failure
