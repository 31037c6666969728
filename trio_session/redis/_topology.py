"""Which server has which keys; and scripts that are asked for until they have run, within reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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

__all__ = ["OneServer", "Routes", "Topology"]

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


class Topology(ABC):
    """Servers, and who of them has which keys. What differs between its kinds is in the methods below `_find`.

    Attributes:
        name: for messages.
        nodes: the servers we are connected to.
        routes: by the first two characters of a key, which of them has it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.routes = Routes(self._find)

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
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(node.link.drain)

    def post(self, key: str, script: Script, payload: bytes) -> None:
        """Have a script run whose answer interests nobody; `payload` is the command that does."""
        node = self.routes[key[:2]]

        def look(command: Command) -> None:
            if isinstance(command.reply, ServerError) and verdict_on(command.reply) is Verdict.LOAD_SCRIPT:
                node.link.post(script.taught(payload))
            elif isinstance(command.reply, ServerError) or command.failure is not None:
                self._see_to_it(key, node, script, payload, command)

        node.link.post(payload, on_done=look)

    async def persist(self, key: str, node: Node, script: Script, payload: bytes, command: Command) -> Command:
        """See to it that a script really runs, if at first it did not.

        Args:
            key: whose it is.
            node: the server that was asked.
            script: it can be run twice.
            payload: the command that runs it.
            command: what came of it so far. If it insists, the outcome is asked for once it may have run.

        Raises:
            StorageUnavailableError: it did not run; if it does not insist, it may have.
            CommitUnknownError: it insists, may have run, and the server no longer tells.
        """
        gives_up_at = trio.current_time() + PATIENCE
        attempt = payload
        hops = 0
        while True:
            asking = False
            error = command.reply
            if command.failure is not None:
                other = self._elsewhere(key, command.failure)
                if other is None:
                    raise _failed(node, command, command.failure)
                node = other
                command.strayed |= command.sends > 0
            elif not isinstance(error, ServerError):
                return command
            else:
                if not in_script(error):
                    command.sends -= 1  # this time it certainly did not run
                verdict = verdict_on(error)
                if verdict is Verdict.LOAD_SCRIPT:
                    attempt = script.taught(payload)
                else:
                    if verdict is Verdict.RECONNECT:
                        node.link.restart(to_exception(error), unless_since=command.sent_at)
                    redirected = self._redirect(node, error)
                    if redirected is not None or verdict is Verdict.RECONNECT:
                        command.strayed |= command.sends > 0
                    if (verdict is Verdict.GIVE_UP and redirected is None) or trio.current_time() >= gives_up_at:
                        raise _failed(node, command, to_exception(error))
                    if redirected is not None:
                        node, asking = redirected
                        hops += 1
                    if redirected is None or hops > 1:  # nodes that disagree will agree in a moment
                        await trio.sleep(uniform(*_RETRY))
            earlier = command  # it may have run in one of its sends
            command = await node.link.call(attempt, insists=command.insists, asking=asking)
            command.sends += earlier.sends
            command.strayed |= earlier.strayed

    async def run_all(self, script: Script, calls: Sequence[tuple[str, bytes]], *, within: float) -> list[Reply]:
        """Run a script for many keys, node by node: one that is slow does not keep the others.

        Args:
            script: it can be run twice, and never returns None.
            calls: keys, and the commands that run it for them.
            within: so long may it take, in seconds.

        Returns:
            The replies; None for those whose node does not answer.

        Raises:
            StorageUnavailableError: no node does.
        """
        by_node: dict[Node, list[int]] = {}
        for number, (key, _) in enumerate(calls):
            by_node.setdefault(self.routes[key[:2]], []).append(number)
        replies: list[Reply] = [None] * len(calls)
        failures: list[StorageUnavailableError] = []

        async def run_on(node: Node, numbers: list[int]) -> None:
            try:
                with trio.fail_after(within):
                    commands = await node.link.call_all([calls[number][1] for number in numbers])
                    for number, command in zip(numbers, commands, strict=True):
                        key, payload = calls[number]
                        replies[number] = (await self.persist(key, node, script, payload, command)).reply
            except StorageUnavailableError as error:
                failures.append(error)
            except trio.TooSlowError as error:
                failures.append(StorageUnavailableError(f"{node.name}: it takes too long"))
                failures[-1].__cause__ = error

        async with trio.open_nursery() as nursery:
            for node, numbers in by_node.items():
                nursery.start_soon(run_on, node, numbers)
        if failures and not any(reply is not None for reply in replies):
            raise failures[0]
        return replies

    # -- what differs -------------------------------------------------------------------------------------------------

    @abstractmethod
    def _find(self, tag: str) -> Node:
        """Who has the keys with this tag."""

    def _redirect(self, node: Node, error: ServerError) -> tuple[Node, bool] | None:
        """Another node to ask instead, and whether with ASKING; if that is what the error means."""
        return None

    def _elsewhere(self, key: str, failure: Exception) -> Node | None:
        """Another node to ask, after a link has failed; if there is one."""
        return None

    def _see_to_it(  # noqa: B027 - on one server its end is near, or it is away
        self, key: str, node: Node, script: Script, payload: bytes, command: Command
    ) -> None:
        """A script that nobody waits for did not run."""


class OneServer(Topology):
    """One server that has all keys.

    Args:
        node: its node.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.nodes = [node]

    def _find(self, tag: str) -> Node:
        return self.nodes[0]


def _failed(node: Node, command: Command, reason: Exception) -> Exception:
    if command.insists and command.sends:
        failure: Exception = CommitUnknownError()
    else:
        failure = StorageUnavailableError(f"{node.name}: {describe(reason)}")
    failure.__cause__ = reason
    return failure
