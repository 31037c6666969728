"""Real Redis servers that belong together: a primary with replicas and Sentinels, and a cluster."""

from __future__ import annotations

import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from .redis_servers import RedisServer, binaries, free_port

__all__ = ["Cluster", "Group", "Replicated", "redis_cluster", "replicated_redis"]

#: What the Sentinels call the primary.
SERVICE = "sessions"
#: A server that says nothing for so long is down.
DOWN_AFTER = 500  # ms
SLOTS = 16_384


class Sentinel(RedisServer):
    """A Sentinel process; it writes its file itself."""

    def arguments(self) -> list[str]:
        return [str(self.directory / "sentinel.conf"), "--sentinel"]


class Group(ABC):
    """Servers that belong together.

    Attributes:
        servers: with the data.
        directory: for all of their files.
    """

    def __init__(self, servers: Sequence[RedisServer], directory: Path) -> None:
        self.servers = servers
        self.directory = directory

    @property
    @abstractmethod
    def url(self) -> str:
        """With which programs find it."""

    @abstractmethod
    def client(self) -> Any:
        """A client of redis-py's for the group as it is now."""

    @abstractmethod
    def owner(self, key: str) -> RedisServer:
        """The primary that has a key."""

    @abstractmethod
    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Those that may take its place."""

    @abstractmethod
    def elected(self, heirs: Sequence[RedisServer]) -> list[RedisServer]:
        """Which of them programs can know to have taken the place of their primary."""

    @abstractmethod
    def revive(self, server: RedisServer) -> None:
        """Start one whose place another one has taken, and `settle()`."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until every primary has its replicas, and all agree on who is who."""


class Replicated(Group):
    """One primary, two replicas, three Sentinels.

    Attributes:
        sentinels: all of them.
        ports: at which each server is known to all others, if not at its own.
    """

    def __init__(self, servers: Sequence[RedisServer], sentinels: Sequence[Sentinel], directory: Path) -> None:
        super().__init__(servers, directory)
        self.sentinels = sentinels
        self.ports = [server.port for server in servers]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def primary(self) -> RedisServer:
        """The one that all Sentinels that are there say it is."""
        said: set[int] = set()
        while len(said) != 1:  # not all of them have heard of the last election
            asked = [each for each in self.sentinels if each.process is not None]
            said = {int(ask(each, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) for each in asked}
        return self.servers[self.ports.index(said.pop())]

    def owner(self, key: str) -> RedisServer:
        return self.primary()

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        return [server for server in self.servers if server is not primary]

    def elected(self, heirs: Sequence[RedisServer]) -> list[RedisServer]:
        named = {int(ask(each, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) for each in self.sentinels}
        return [heir for heir in heirs if self.ports[self.servers.index(heir)] in named]

    def elections(self) -> int:
        """How often a replica was made the primary, so far."""
        return sum((each.directory / "log").read_text().count("+promoted-slave") for each in self.sentinels)

    def revive(self, server: RedisServer) -> None:
        wait(lambda: self.primary() is not server)
        server.options["replicaof"] = f"127.0.0.1 {self.ports[self.servers.index(self.primary())]}"
        server.start()
        self.settle()

    def client(self) -> redis.Redis:
        return self.primary().client()

    def link(self, ports: Sequence[int] | None = None) -> None:
        """Make the first one the primary, tell the Sentinels, and wait until all know each other.

        Args:
            ports: at which the servers are known, if not at their own.
        """
        known = self.ports = list(ports or self.ports)
        for server, port in zip(self.servers, known, strict=True):
            with server.client() as client:
                client.config_set("replica-announce-ip", "127.0.0.1")
                client.config_set("replica-announce-port", port)
                if server is not self.servers[0]:
                    client.replicaof("127.0.0.1", known[0])
        wait(lambda: _followers(self.servers[0]) == 2)
        for sentinel in self.sentinels:
            lines = [
                f"sentinel monitor {SERVICE} 127.0.0.1 {known[0]} 2",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
                f"sentinel failover-timeout {SERVICE} 2000",
                f"sentinel parallel-syncs {SERVICE} 2",
            ]
            (sentinel.directory / "sentinel.conf").write_text("\n".join(lines))
            sentinel.start()
        self.settle()

    def settle(self) -> None:
        def settled() -> bool:
            with suppress(ValueError, redis.exceptions.RedisError):
                primary = self.primary()
                roles = sorted(role(server)[0] for server in self.servers)
                return (
                    roles == ["master", "slave", "slave"]
                    and _followers(primary) == 2
                    and all(_knows(sentinel) for sentinel in self.sentinels)
                )
            return False

        wait(settled)


def ask(server: RedisServer, *command: str | int) -> Any:
    """What a server says to a command, as it says it."""
    with server.client(socket_timeout=2.0) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


def role(server: RedisServer) -> list[Any]:
    """What it says it is."""
    if server.process is None:
        return ["dead"]
    try:
        said = ask(server, "ROLE")
    except redis.exceptions.RedisError:
        return ["dead"]
    return [said[0].decode(), *said[1:]]


def _followers(server: RedisServer) -> int:
    """How many replicas are connected to it."""
    said = role(server)
    return len(said[2]) if said[0] == "master" else 0


def _knows(sentinel: Sentinel) -> bool:
    said = ask(sentinel, "SENTINEL", "MASTER", SERVICE)
    facts = dict(zip(said[::2], said[1::2], strict=True))
    return bool(facts[b"num-slaves"] == facts[b"num-other-sentinels"] == b"2" and facts[b"flags"] == b"master")


class Cluster(Group):
    """Three primaries with a replica each; of the six servers the first three are the primaries at the beginning."""

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers[:3])}"

    def client(self) -> Any:
        live = [server.port for server in self.servers if server.process is not None]
        nodes = [ClusterNode("127.0.0.1", port) for port in live]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, protocol=2)

    def link(self) -> None:
        """Have them meet, distribute the slots, and wait until all agree."""
        for number, server in enumerate(self.servers):
            ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                ask(server, "CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
            if number:
                ask(server, "CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        wait(lambda: all(ask(server, "CLUSTER", "NODES").count(b"\n") == 6 for server in self.servers))
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            ask(replica, "CLUSTER", "REPLICATE", id_of(primary))
        self.settle()

    def settle(self) -> None:
        wait(self._settled)

    def _settled(self) -> bool:
        roles = [role(server)[0] for server in self.servers]
        followed = [_followers(server) for server in self.servers]
        return (
            sorted(roles) == ["master"] * 3 + ["slave"] * 3
            and sorted(followed) == [0, 0, 0, 1, 1, 1]
            and all(b"cluster_state:ok" in ask(server, "CLUSTER", "INFO") for server in self.servers)
            and len({tuple(owners(server)) for server in self.servers}) == 1
        )

    def owner(self, key: str) -> RedisServer:
        slot = key_slot(key.encode())
        answers = [owners(server) for server in self.servers if server.process is not None]
        port = next(port for first, last, port in answers[0] if first <= slot <= last)
        return next(server for server in self.servers if server.port == port)

    def primaries(self) -> list[RedisServer]:
        return [server for server in self.servers if role(server)[0] == "master"]

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        return [server for server in self.servers if role(server)[:3] == ["slave", b"127.0.0.1", primary.port]]

    def elected(self, heirs: Sequence[RedisServer]) -> list[RedisServer]:
        return [heir for heir in heirs if role(heir)[0] == "master"]

    def revive(self, server: RedisServer) -> None:
        server.start()
        self.settle()

    def promote(self, replica: RedisServer) -> None:
        """Have it take over from its primary, in order."""
        for _ in range(5):  # on a busy machine the election comes too late, and has to be asked for again
            ask(replica, "CLUSTER", "FAILOVER")
            with suppress(TimeoutError):
                wait(lambda: role(replica)[0] == "master", within=5.0)
                break
        self.settle()

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot with its keys, as `redis-cli --cluster reshard` does."""
        self.begin_move(slot, source, target)
        while self.move_one(slot, source, target):
            pass
        self.end_move(slot, source, target)

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))

    def move_one(self, slot: int, source: RedisServer, target: RedisServer) -> bool:
        """Move one key; False if there is none."""
        keys = ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1)
        if keys:
            ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return bool(keys)

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        for server in (target, source):
            ask(server, "CLUSTER", "SETSLOT", slot, "NODE", id_of(target))


def id_of(server: RedisServer) -> str:
    return str(ask(server, "CLUSTER", "MYID").decode())


def owners(server: RedisServer) -> list[tuple[int, int, int]]:
    """Which primary has which slots: the first, the last, the port."""
    return sorted((first, last, primary[1]) for first, last, primary, *_ in ask(server, "CLUSTER", "SLOTS"))


def wait(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Wait until something is true."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the servers do not come together")
        time.sleep(0.02)


@contextmanager
def _running(
    number: int, kind: type[RedisServer], directory: Path, *, start: bool = True, binary: Path | None, **options: Any
) -> Iterator[list[RedisServer]]:
    servers: list[RedisServer] = []
    try:
        for name in range(number):
            place = directory / f"{kind.__name__}{name}"
            place.mkdir()
            server = kind(binary or next(iter(binaries().values())), _port(), place, **options)
            servers.append(server)
            if start:
                server.start()
        yield servers
    finally:
        for server in servers:
            if server.process is not None:
                server.kill()


def _port() -> int:
    """One that has room for the port of the cluster's own connections, 10 000 above."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 10_000))
            return port


@contextmanager
def replicated_redis(binary: Path | None = None, *, link: bool = True, **options: Any) -> Iterator[Replicated]:
    """A primary, two replicas and three Sentinels for the length of a block; not linked yet if so wanted."""
    options = {"repl_diskless_sync_delay": 0, "repl_diskless_sync": "yes", **options}
    with tempfile.TemporaryDirectory(prefix="ts-redis-") as name, ExitStack() as stack:
        directory = Path(name)
        servers = stack.enter_context(_running(3, RedisServer, directory, binary=binary, **options))
        sentinels = stack.enter_context(_running(3, Sentinel, directory, start=False, binary=binary))
        for sentinel in sentinels:
            sentinel.options = {}
        site = Replicated(servers, sentinels, directory)  # type: ignore[arg-type]
        if link:
            site.link()
        yield site


@contextmanager
def redis_cluster(binary: Path | None = None, **options: Any) -> Iterator[Cluster]:
    """A cluster for the length of a block."""
    options = {
        "cluster_enabled": "yes",
        "cluster_node_timeout": 1000,
        "cluster_require_full_coverage": "no",
        "repl_diskless_sync_delay": 0,
        "repl_diskless_sync": "yes",
        **options,
    }
    with tempfile.TemporaryDirectory(prefix="ts-redis-") as name:
        directory = Path(name)
        with _running(6, RedisServer, directory, binary=binary, **options) as servers:
            cluster = Cluster(servers, directory)
            cluster.link()
            yield cluster
