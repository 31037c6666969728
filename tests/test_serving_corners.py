"""Moments of a server that nobody can bring about from outside: each is a promise of one of its parts."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypercorn.config import Config
from hypercorn.events import Updated
from hypercorn.trio.worker_context import WorkerContext
from trio.testing import MockClock

from trio_session._asgi import Message
from trio_session.serving._application import _WebSocket
from trio_session.serving._connection import Connection
from trio_session.serving._processes import Orders, _Supervisor, _Worker
from trio_session.serving._protocols import _HTTP2
from trio_session.serving._run import Ending
from trio_session.serving._worker import _obey


@asynccontextmanager
async def worker_that_runs(program: str) -> AsyncIterator[tuple[_Worker, socket.socket]]:
    """A worker that is some other program, and the end of the channel that it should have."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process([sys.executable, "-c", program])
        worker = _Worker(process, ours)
        try:
            yield worker, theirs
        finally:
            await worker.aclose()


async def test_a_worker_that_was_told_to_end_before_it_could_listen() -> None:
    """That is an end in order, and no failure to start."""
    async with worker_that_runs("import os; os.kill(os.getpid(), 15)") as (worker, theirs):
        theirs.close()
        assert await worker.started() == []


async def test_a_worker_that_is_let_go_does_not_live_on() -> None:
    """Whatever it is doing, it is gone afterwards."""
    async with worker_that_runs("import time; time.sleep(60)") as (worker, _):
        pass
    assert worker._process.returncode == -signal.SIGKILL


async def test_the_parent_of_a_worker_dies_before_it_has_heard_of_it() -> None:
    """The word that it has started is lost; it ends gracefully all the same."""
    parent, channel = socket.socketpair()
    channel.send(b'{"urls": []}\n')
    parent.close()
    ending = Ending()
    ending.started = True
    await _obey(trio.SocketStream(trio.socket.from_stdlib_socket(channel)), ending)
    assert ending.asked.is_set()
    assert not ending.scope.cancel_called


async def test_a_renewal_comes_while_there_is_nothing_to_renew() -> None:
    """SIGHUP during the start, or the end, starts no worker."""
    supervisor = _Supervisor(Orders("app:app", Config(), 2, [], [], []))

    async def signals() -> AsyncIterator[int]:
        yield signal.SIGHUP
        yield signal.SIGTERM
        yield signal.SIGHUP

    await supervisor.heed(signals())
    assert supervisor._stopping.is_set()
    assert not supervisor._workers


async def test_a_websocket_that_closes_itself_as_the_server_stops() -> None:
    """It is closed once, with its own code."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    websocket = _WebSocket(trio.sleep_forever, send)
    await websocket.send({"type": "websocket.accept"})
    await websocket.send({"type": "websocket.close", "code": 1000})
    stopping = trio.Event()
    stopping.set()
    await websocket.close_when(stopping, patience=0.0)
    assert [message.get("code") for message in sent] == [None, 1000]


class FakeProtocol:
    """A protocol that hears how its connection ends."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def handle(self, event: object) -> None:
        self.heard.append(type(event).__name__)


def connection_on(stream: object) -> Connection:
    return Connection(cast("Any", None), Config(), WorkerContext(None), {}, cast("Any", stream))


async def test_the_server_stops_before_a_connection_has_said_a_word(mock_clock: MockClock) -> None:
    """There is no protocol yet that could say goodbye: nothing happens, and nothing breaks."""
    await connection_on(None).hurry()


@pytest.mark.parametrize("error", [OSError(errno.ENOTCONN, "not connected"), RuntimeError("a mistake of ours")])
async def test_a_connection_breaks_down(error: Exception) -> None:
    """It is closed, and nothing else happens. That its client has gone is not worth a line in the log; a mistake is."""
    logged: list[object] = []

    class Broken:
        socket: Any
        is_closed = False

        def __init__(self) -> None:
            self.socket = SimpleNamespace(family=socket.AF_INET, getpeername=self.complain)

        def complain(self) -> None:
            raise error

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()
            self.is_closed = True

    async def log_exception(message: str, *, exc_info: object) -> None:
        await trio.lowlevel.checkpoint()
        logged.append(exc_info)

    stream = Broken()
    connection = connection_on(stream)
    connection._config._log = cast("Any", SimpleNamespace(exception=log_exception))
    await connection.run()
    assert stream.is_closed
    assert logged == ([] if isinstance(error, OSError) else [error])


async def test_a_connection_that_closes_is_not_kept_open(mock_clock: MockClock) -> None:
    """Not even by what its protocol still does; a stream that cannot be closed by halves is heard out just the same."""
    connection = connection_on(object())  # as TLS is: no SocketStream
    protocol = FakeProtocol()
    connection._protocol = cast("Any", protocol)
    await connection._close()
    closes_at = connection._idle_until
    await connection._send(Updated(idle=False))
    assert connection._idle_until == closes_at
    assert protocol.heard == ["Closed"]


async def test_data_for_a_request_that_is_being_answered() -> None:
    """An HTTP/2 client goes on sending: the answer is not cut off for it, and the client may send to others."""
    told: list[tuple[str, int]] = []
    protocol = SimpleNamespace(
        streams={},
        stream_buffers={1: "its answer"},
        connection=SimpleNamespace(
            acknowledge_received_data=lambda size, id: told.append(("has", size)),
            reset_stream=lambda id, code: told.append(("reset", id)),
        ),
    )
    data = SimpleNamespace(data=b"abc", flow_controlled_length=3)
    _HTTP2._receive(cast("Any", protocol), 1, cast("Any", data))
    assert told == [("has", 3)]
    _HTTP2._receive(cast("Any", protocol), 3, cast("Any", data))
    assert told[1:] == [("has", 3), ("reset", 3)]
