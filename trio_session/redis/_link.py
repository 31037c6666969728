"""One connection that all tasks share: commands in, replies out, in order.

    caller -> `_queued` -> writer -> server -> reader -> `_sent` -> caller

A caller waits in its own task and may be cancelled at any time. Before its command was written, that is dropped;
afterwards its place among the replies stays, and the reply is thrown away. So a reply never reaches another caller.

When the connection is lost, commands without a reply are sent again on the next one. Hence the one rule of this link:
every command must be safe to run twice. All our scripts are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Final

import redis.exceptions
import trio
from trio.lowlevel import Abort, Task

from ._connection import LINK_ERRORS, Connection
from ._replication import History
from ._resp import NOTHING, Reply, next_reply, pack
from ._supervisor import Supervisor

__all__ = ["Command", "Link"]

# The writer sends so much at once. What it has not taken yet can still be withdrawn.
_CHUNK: Final = 65_536  # bytes
# So many commands are not kept back for company.
_EARLY: Final = 16
# With so many commands under way, callers wait until there is room.
_MOST_COMMANDS: Final = 10_000
# A command that has seen so many connections go may be what they die of.
_MOST_SENDS: Final = 5
# A server that owes a reply and says nothing at all for so long is taken for dead.
_SILENCE: Final = 2.0  # seconds


_ASKING: Final = pack(("ASKING",))


class Command:
    """A command on its way, and in the end its reply.

    Attributes:
        task: who waits for the reply, if anybody.
        on_done: called with the command when it has a reply or has failed, before whoever waits for it runs.
        patient: somebody else calls `go_on` once it is answered, instead of `wake`.
        insists: once written it may have run, so it is sent again for as long as its caller waits.
        withdrawn: its caller was cancelled.
        sends: how often it was written, at least in part. If more than once, it may have run before.
        sent_at: trio time at which it was written last.
        strayed: it was written to one server and then to another, which need not know what the first one has done.
        reply: the server's answer.
        history: what it is part of, if the link knows.
        failure: why there is none; if `sends` is 0 it has not run.
    """

    __slots__ = (
        "failure",
        "history",
        "insists",
        "on_done",
        "patient",
        "payload",
        "reply",
        "sends",
        "sent_at",
        "strayed",
        "task",
        "withdrawn",
    )

    def __init__(self, payload: bytes, task: Task | None, insists: bool = False) -> None:
        self.payload = payload
        self.task = task
        self.insists = insists
        self.on_done: Callable[[Command], None] | None = None
        self.patient = self.withdrawn = self.strayed = False
        self.sends = 0
        self.sent_at = 0.0
        self.reply: Reply = None
        self.history: History | None = None
        self.failure: Exception | None = None

    def withdraw(self, _: object) -> Abort:
        if self.patient:  # the reply is here
            self.go_on()
            return Abort.FAILED
        self.task = self.on_done = None
        self.withdrawn = True
        return Abort.SUCCEEDED

    def fail(self, reason: Exception) -> None:
        self.failure = reason
        self.wake()

    def wake(self) -> None:
        if self.on_done is not None:
            self.on_done(self)
        if self.task is not None and not self.patient:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)

    def go_on(self) -> None:
        """Whoever waits has been patient for long enough."""
        self.on_done, self.patient = None, False
        self.wake()


class AskingCommand(Command):
    """A command that is written together with an ASKING before it, so that nothing comes in between.

    Two replies come back, and the second one is the command's.
    """

    __slots__ = ("_asked", "_sent")

    def __init__(self, payload: bytes, task: Task | None, insists: bool, sent: deque[Command]) -> None:
        super().__init__(_ASKING + payload, task, insists)
        self._sent = sent
        self._asked = 0  # so often the first reply came

    def wake(self) -> None:
        if self.failure is None and self._asked < self.sends:
            self._asked = self.sends
            self._sent.appendleft(self)
        else:
            super().wake()


class Link:
    """The connection to one server, for all tasks of a store.

    Args:
        name: the server's, for messages.
        connect: opens a connection that is ready for commands.

    Attributes:
        end: why there will be no more connections, when `run` has been cancelled.
        history: what the server's writes are part of, as of when the present connection was made; `connect` sets it.
    """

    def __init__(self, name: str, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._name = name
        self._supervisor = Supervisor(name, connect=connect, serve=self._serve, on_down=self._fail)
        self._queued: deque[Command] = deque()
        self._sent: deque[Command] = deque()
        self._room = trio.lowlevel.ParkingLot()
        self._failure: Exception | None = None  # why callers need not wait for a connection
        self._idle_writer: Task | None = None
        self._rest = b""  # of a command that was written in part
        self._writing = False
        self._connection: Connection | None = None
        self._service: trio.CancelScope | None = None  # of the present connection
        self._lost: Exception | None = None  # why it is being given up
        self._connected_at = 0.0
        self._heard_at = 0.0
        self._alarm = trio.CancelScope()
        self.history: History | None = None
        self.end: Exception = redis.exceptions.ConnectionError("the store is closed")

    def __repr__(self) -> str:
        state = "up" if self._service is not None else "down"
        return f"<Link {self._name} {state}, {len(self._queued)} queued, {len(self._sent)} sent>"

    async def run(self) -> None:
        """Keep the connection up until cancelled; then nobody waits any longer."""
        try:
            await self._supervisor.run()
        finally:
            self._fail(self.end, for_good=True)

    @property
    def is_up(self) -> bool:
        """There is a connection."""
        return self._connection is not None

    async def opened(self) -> None:
        """Wait for the first connection; raises `StorageUnavailableError` if there is none."""
        await self._supervisor.opened()

    # -- for callers --------------------------------------------------------------------------------------------------

    async def call(
        self,
        payload: bytes,
        *,
        insists: bool = False,
        asking: bool = False,
        on_done: Callable[[Command], None] | None = None,
    ) -> Command:
        """Send a command and wait for its reply, which may be an error reply, or for its failure.

        Args:
            payload: the command.
            insists: see `Command`.
            asking: an ASKING comes right before it.
            on_done: see `Command`; not called if the caller is cancelled.

        Cancellation: the command may or may not run.
        """
        while len(self._queued) + len(self._sent) >= _MOST_COMMANDS and self._failure is None:
            await self._room.park()
        task = trio.lowlevel.current_task()
        command = AskingCommand(payload, task, insists, self._sent) if asking else Command(payload, task, insists)
        if self._failure is not None:
            command.failure = self._failure
            await trio.lowlevel.checkpoint()
            return command
        command.on_done = on_done
        self._enqueue(command)
        await trio.lowlevel.wait_task_rescheduled(command.withdraw)
        return command

    async def call_all(self, payloads: Iterable[bytes]) -> list[Command]:
        """Send commands in one go and wait until all of them have replies, or failures."""
        commands = [Command(payload, None) for payload in payloads]
        if self._failure is not None:
            for command in commands:
                command.failure = self._failure
            await trio.lowlevel.checkpoint()
            return commands
        commands[-1].task = trio.lowlevel.current_task()
        for command in commands:
            self._enqueue(command)

        def withdraw(_: object) -> Abort:
            for command in commands:
                command.withdraw(None)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(withdraw)  # replies come in order: the last one comes last
        return commands

    def post(self, payload: bytes, *, on_done: Callable[[Command], None] | None = None) -> None:
        """Send a command that nobody waits for; if the server is away it is dropped."""
        if self._failure is None:
            command = Command(payload, None)
            command.on_done = on_done
            self._enqueue(command)

    async def drain(self) -> None:
        """Wait until everything sent before has been answered, or cannot be."""
        while (await self.call(pack(("PING",)))).failure is None and (self._sent or self._queued):
            pass  # an answer has led to another command

    def restart(self, reason: Exception, *, unless_since: float) -> None:
        """Give up the present connection, unless it was made after the trio time `unless_since`."""
        if self._connected_at <= unless_since:
            self._give_up(reason)

    def moved(self) -> None:
        """The next connection is to another server than the last one."""
        for command in self._queued:
            command.strayed |= command.sends > 0

    def leave(self, reason: Exception) -> None:
        """The server is not, or is no longer, the right one: look for that at once."""
        self._give_up(reason)
        self._supervisor.hurry()

    def _enqueue(self, command: Command) -> None:
        self._queued.append(command)
        if self._connection is None:
            return  # the next one will take it along
        if not self._rest and not self._writing and (not self._sent or len(self._queued) >= _EARLY):
            # Without the detour over the writer. A lone command takes half the time then; and of many, the server can
            # work on the first while we are still at the last.
            data = self._take()
            self._rest = data[self._connection.write_at_once(data) :]
        if self._idle_writer is not None and (self._queued or self._rest):
            writer, self._idle_writer = self._idle_writer, None
            trio.lowlevel.reschedule(writer)

    def _take(self) -> bytes:
        """What is to be written next; from now on its commands may have run."""
        now = trio.current_time()
        if not self._sent:
            self._expect_reply(now)
        chunk, self._rest = [self._rest], b""
        size = 0
        while self._queued and size < _CHUNK:
            command = self._queued.popleft()
            if not command.withdrawn:
                command.sends += 1
                command.sent_at = now
                self._sent.append(command)
                chunk.append(command.payload)
                size += len(command.payload)
        return b"".join(chunk)

    # -- while there is no connection ---------------------------------------------------------------------------------

    def _fail(self, reason: Exception, *, for_good: bool = False) -> None:
        """Patience has ended: who waits is told, except for those who cannot do with less than an answer."""
        self._failure = reason
        for _ in range(len(self._queued)):
            command = self._queued.popleft()
            if command.insists and command.sends and not for_good:
                self._queued.append(command)
            else:
                command.fail(reason)
        self._room.unpark_all()

    # -- while there is one -------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> Exception:
        self._failure = self._lost = None
        self._connection, self._rest = connection, b""
        self._connected_at = self._heard_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                self._service = nursery.cancel_scope
                nursery.start_soon(self._until_lost, self._read, connection)
                nursery.start_soon(self._until_lost, self._write, connection)
                nursery.start_soon(self._watch)
        finally:
            self._service = self._connection = None
            self._requeue()
        assert self._lost is not None
        return self._lost

    def _requeue(self) -> None:
        """The connection is lost: what has no reply goes on the next one, before all else."""
        while self._sent:
            command = self._sent.pop()
            if command.sends >= _MOST_SENDS:
                command.fail(self._lost or self.end)
            elif not command.withdrawn:
                self._queued.appendleft(command)

    async def _until_lost(self, service: Callable[[Connection], Awaitable[None]], connection: Connection) -> None:
        try:
            await service(connection)
        except LINK_ERRORS as error:
            self._give_up(error)

    def _give_up(self, reason: Exception) -> None:
        if self._service is not None and self._lost is None:
            self._lost = reason
            self._service.cancel()

    async def _write(self, connection: Connection) -> None:
        while True:
            self._make_room()  # commands that were withdrawn have made some, without a reply
            if not self._queued and not self._rest:
                self._idle_writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
                continue
            data = self._take()
            data = data[connection.write_at_once(data) :]
            if data:
                self._writing = True
                try:
                    await connection.stream.send_all(data)
                finally:
                    self._writing = False

    def _stop_waiting(self, _: object) -> Abort:
        self._idle_writer = None
        return Abort.SUCCEEDED

    async def _read(self, connection: Connection) -> None:
        sent, reader, history = self._sent, connection.reader, self.history
        while True:
            await connection.feed()
            self._heard_at = trio.current_time()
            while (reply := next_reply(reader)) is not NOTHING:
                if not sent:
                    raise redis.exceptions.InvalidResponse("a reply that nobody has asked for")
                command = sent.popleft()
                command.reply = reply
                command.history = history
                command.wake()
            self._make_room()

    def _make_room(self) -> None:
        if self._room:
            self._room.unpark(count=max(0, _MOST_COMMANDS - len(self._sent) - len(self._queued)))

    # One alarm for all commands: a scope for each would more than double the cost of a call. It is set when it is first
    # needed, and looks for itself whether it still is, so an idle link has no timer.

    def _expect_reply(self, now: float) -> None:
        self._heard_at = now
        if self._alarm.deadline == inf:
            self._alarm.deadline = now + _SILENCE

    async def _watch(self) -> None:
        while True:
            self._alarm = trio.CancelScope(deadline=self._heard_at + _SILENCE if self._sent else inf)
            with self._alarm:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()  # if it was we who slept, its words are here, and the reader goes first
            if self._sent and self._heard_at + _SILENCE <= trio.current_time():
                self._give_up(redis.exceptions.TimeoutError(f"the server has not answered for {_SILENCE:g} s"))
