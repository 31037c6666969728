"""What runs in a worker process."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress

import trio
from hypercorn.config import Sockets
from hypercorn.typing import AppWrapper

from ._lifespan import ServingError, StartupError
from ._processes import AT_ONCE, Orders
from ._run import Ending, load, serve_until_told
from ._tasks import open_bare_nursery

__all__ = ["main"]

# Exit codes. Whoever supervises us knows more; these are for `ps` and the like.
_FAILED = 1


def main(descriptor: int) -> None:
    """Serve what the process at the other end of this socket orders."""
    with socket.socket(fileno=descriptor) as channel:
        size = int.from_bytes(channel.recv(8, socket.MSG_WAITALL), "big")
        text = channel.recv(size, socket.MSG_WAITALL)
        if not size or len(text) < size:
            return  # whoever started us is gone already
        orders: Orders = pickle.loads(text)  # noqa: S301 - it comes from our own parent process
        lists = (orders.secure, orders.insecure, orders.quic)
        sockets = Sockets(*([socket.socket(fileno=each) for each in some] for some in lists))
        try:
            app = load(orders.app, orders.config)
        except StartupError as error:
            if error.__cause__ is not None:  # it is not sent along
                traceback.print_exception(error.__cause__)
            _tell(channel, failure=str(error))
            sys.exit(_FAILED)
        try:
            trio.run(_serve, channel.dup(), sockets, app, orders)
        except ServingError as error:
            _tell(channel, failure=str(error))
            sys.exit(_FAILED)


def _tell(channel: socket.socket, **what: object) -> None:
    with suppress(OSError):  # nobody is left to hear it
        channel.sendall(json.dumps(what).encode() + b"\n")


async def _serve(channel: socket.socket, sockets: Sockets, app: AppWrapper, orders: Orders) -> None:
    ending = Ending()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(_heed, signals, ending)
            nursery.start_soon(_obey, trio.SocketStream(trio.socket.from_stdlib_socket(channel)), ending)
            await serve_until_told(
                sockets,
                app,
                orders.config,
                ending,
                lambda urls: _tell(channel, urls=urls),
                workers=orders.workers,
            )
            if not ending.started:
                _tell(channel, urls=[])
            nursery.cancel_scope.cancel()


async def _heed(signals: AsyncIterator[int], ending: Ending) -> None:
    # More than one may come: systemd sends one to each process of a service, and so may our own parent.
    async for _ in signals:
        ending.gracefully()


async def _obey(channel: trio.SocketStream, ending: Ending) -> None:
    """Do as we are told. At the end nobody is left to tell us anything."""
    async with channel:
        with suppress(trio.BrokenResourceError):  # our parent has died before it had read that we started
            while word := await channel.receive_some():
                ending.gracefully()
                if AT_ONCE in word:
                    ending.at_once()
    ending.gracefully()
