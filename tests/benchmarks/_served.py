"""A server in a process of its own, and what it costs: its CPU time, and that of all its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

__all__ = ["Served", "served"]

_TO_START = 60.0  # seconds; far more than any needs on a busy machine
_TO_END = 10.0  # seconds between asking and killing


class Served:
    """A server that runs.

    Attributes:
        port: where.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.port = port

    def cpu(self) -> float:
        """Seconds that it has used; what a process has used is a clock of its own on Linux (clock_getcpuclockid)."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in _family(self._process.pid))

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            yield from _family(int(child))


@contextmanager
def served(command: Callable[[int], Sequence[str]], environment: Mapping[str, str]) -> Iterator[Served]:
    """Run a server until the block ends.

    Args:
        command: what follows `python`, for a server on the listening socket with this number.
        environment: what it has besides ours.

    Raises:
        RuntimeError: it ended, or did not answer for a minute; with the last line of what it said.
    """
    with TemporaryFile() as log, _listening() as listener:
        process = subprocess.Popen(
            [sys.executable, *command(listener.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        try:
            server = Served(process, listener.getsockname()[1])
            listener.close()  # or the clients of a server that died would wait for it
            try:
                _wait_for(server)
            except OSError as error:
                raise RuntimeError(f"it did not start: {_last_line(log)}") from error
            yield server
        finally:
            _end(process)


def _listening() -> socket.socket:
    """On a free port, with the options that all servers shall have."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    return listener


def _last_line(log: IO[bytes]) -> str:
    """What it said at last; with no path of this machine."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word").replace(sys.executable, "python")


def _wait_for(server: Served) -> None:
    """Ask until there is an answer."""
    until = time.monotonic() + _TO_START
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(0.2)
        client.sendall(b"GET /bare HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while True:
            try:
                if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                    raise ConnectionError("its first answer was not good")
            except TimeoutError:
                if not server.is_alive() or time.monotonic() > until:
                    raise
            else:
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, then make it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TO_END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it may have left behind
    process.wait()
