"""All libraries beside one another, over HTTP, in turns: a round has a turn of each, and each has the same turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import redis

from tests.redis_servers import RedisServer, binaries, redis_server

from ._clients import Clients, Turn
from ._figures import Contest, Figures, Record
from ._machine import facts, is_busy, versions
from ._peers import PEERS, Peer, packages
from ._served import Served, served

__all__ = ["FULL", "QUICK", "Plan", "measure_peers"]

CLIENTS = 64
CONTENDERS = 16
_WARM_UP = 0.2  # of a turn; a server that slept while others had theirs finds its caches cold
_ALONE = 100  # requests of a single client, to count round trips


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to look.

    Attributes:
        rounds: turns of each.
        seconds: length of a turn.
    """

    rounds: int
    seconds: float


FULL = Plan(rounds=8, seconds=0.8)
QUICK = Plan(rounds=2, seconds=0.5)


def measure_peers(plan: Plan, peers: Sequence[Peer] = PEERS) -> Record:
    """Measure them all. Who fails is out, with a sentence that says why."""
    record = Record(
        facts=[
            *facts(),
            f"Redis server: {next(iter(binaries()))} on the same machine, over TCP, nothing saved to disk",
        ],
        versions=versions(packages()),
        rounds=plan.rounds,
        seconds=plan.seconds,
        clients=CLIENTS,
        contenders=CONTENDERS,
        quick=plan.rounds < FULL.rounds,
        busy=is_busy(),
    )
    with redis_server() as server, server.client() as watcher, ExitStack() as stack:
        running: list[_Running] = []
        for peer in peers:
            print(f"starting {peer.key} …", file=sys.stderr)
            figures = Figures(name=peer.name, store=peer.store, server=peer.server, lock=peer.lock)
            record.figures.append(figures)
            with _noting(figures):
                running.append(_start(peer, figures, server, watcher, stack))
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds} …", file=sys.stderr)
            for one in running:
                if not one.figures.problems:
                    with _noting(one.figures):
                        one.take_turns(number, plan.seconds)
    return record


@contextmanager
def _noting(figures: Figures) -> Iterator[None]:
    """What fails becomes a line of the document."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the others shall be measured
        figures.problems.append(f"{type(error).__name__}: {error}")
        print(f"{figures.name}, {figures.store}: {figures.problems[-1]}", file=sys.stderr)


def _start(peer: Peer, figures: Figures, server: RedisServer, watcher: redis.Redis, stack: ExitStack) -> _Running:
    """Its two servers, with and without sessions, and a session for each client."""

    def serve(store: str) -> Served:
        return stack.enter_context(served(peer.arguments, {"BENCH_STORE": store, "BENCH_REDIS": server.url}))

    running = _Running(figures, serve("bare"), serve(peer.store), watcher)
    running.count_round_trips()
    return running


class _Running:
    """A library with its servers."""

    def __init__(self, figures: Figures, bare: Served, server: Served, watcher: redis.Redis) -> None:
        self.figures = figures
        self._bare = bare
        self._server = server
        self._watcher = watcher
        with _clients(server, "/change", [""] * CLIENTS) as clients:
            self._cookies = clients.cookies

    def count_round_trips(self) -> None:
        """With nobody else about, what Redis reads at once is a round trip."""
        if self.figures.store != "redis":
            return
        for cost, path in ((self.figures.read, "/read"), (self.figures.change, "/change")):
            with _clients(self._server, path, self._cookies[:1]) as client:
                self._watcher.config_resetstat()
                for _ in range(_ALONE):
                    client.round()
                reads = self._watcher.info("stats")["total_reads_processed"] - 1  # INFO itself
                cost.round_trips = round(reads / _ALONE, 1)
                calls = {
                    name.removeprefix("cmdstat_"): round(about["calls"] / _ALONE, 1)
                    for name, about in self._watcher.info("commandstats").items()
                }
                cost.commands = {name: number for name, number in sorted(calls.items()) if number >= 0.1}

    def take_turns(self, number: int, seconds: float) -> None:
        """One of each kind. Who goes first changes with the number of the round."""
        kinds = [
            (self.figures.bare, self._bare, "/bare"),
            (self.figures.read, self._server, "/read"),
            (self.figures.change, self._server, "/change"),
        ]
        first = number % len(kinds)
        turns = [(cost, self._turn(server, path, seconds)) for cost, server, path in kinds[first:] + kinds[:first]]
        contest = self._contest(2 * seconds, self._cookies[:1] * CONTENDERS)
        # All or nothing: numbers with the same index belong to the same round.
        for cost, (turn, cpu, redis_cpu) in turns:
            cost.cpu.append(cpu / turn.requests)
            cost.redis_cpu.append(redis_cpu / turn.requests)
            cost.rate.append(sum(turn.counts) / seconds)
        self.figures.contests.append(contest)

    def _turn(self, server: Served, path: str, seconds: float) -> tuple[Turn, float, float]:
        """What the clients got, the server's seconds of CPU, and those of Redis."""
        with _clients(server, path, self._cookies) as clients:
            clients.run(_WARM_UP * seconds)
            cpu, redis_cpu = server.cpu(), self._redis_cpu()
            turn = clients.run(seconds)
            cpu, redis_cpu = server.cpu() - cpu, self._redis_cpu() - redis_cpu
        self._check(turn, path)
        return turn, cpu, redis_cpu

    def _contest(self, seconds: float, cookies: list[str]) -> Contest:
        """All on one session. In memory nothing waits between reading and writing, so there they wait a little."""
        path = "/change" if self.figures.store == "redis" else "/slow"
        with _clients(self._server, path, cookies) as clients:
            before = self._visits(cookies[0])
            turn = clients.run(seconds)
            lost = turn.completed - (self._visits(cookies[0]) - before)
        self._check(turn, path)
        waits = sorted(turn.latencies)
        return Contest(
            rate=sum(turn.counts) / seconds,
            counts=turn.counts,
            p50=waits[len(waits) // 2],
            p99=waits[int(len(waits) * 0.99)],
            completed=turn.completed,
            lost=lost,
        )

    def _check(self, turn: Turn, path: str) -> None:
        for name, number in turn.failures.items():
            failure = f"{name} from {path}"
            self.figures.failures[failure] = self.figures.failures.get(failure, 0) + number
        if not turn.completed:
            raise RuntimeError(f"not one good answer from {path}")

    def _visits(self, cookie: str) -> int:
        """What the session has counted."""
        with _clients(self._server, "/read", [cookie]) as client:
            visits: int = json.loads(client.round()[0].partition(b"\r\n\r\n")[2])["visits"]
            return visits

    def _redis_cpu(self) -> float:
        if self.figures.store != "redis":
            return 0.0
        used = self._watcher.info("cpu")
        return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


@contextmanager
def _clients(server: Served, path: str, cookies: list[str]) -> Iterator[Clients]:
    clients = Clients(server.port, path, len(cookies), cookies)
    try:
        yield clients
    finally:
        clients.close()
