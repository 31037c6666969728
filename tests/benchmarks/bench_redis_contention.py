"""One session that everybody wants: throughput, fairness and waits; and what one change costs whom."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from tests.redis_servers import RedisServer, redis_server
from trio_session import RedisConnection, SessionConfig, open_session_manager

from ._harness import Comparison
from ._redis_peers import TASKS, Ours, Tally, open_ours, opened_theirs

COMPARISONS: tuple[Comparison, ...] = ()

OURS = "locked()"
CROWDS = (1, 10)  # tasks in each of two processes
# In less, a lock that polls every tenth of a second may not even begin.
SHORTEST_TURN = 0.5  # seconds
PEERS = {"redis-py asyncio Lock, sleep=0.1 (its default)": 0.1, "redis-py asyncio Lock, sleep=0.002": 0.002}


async def report_contention(rounds: int, seconds: float) -> str:
    """50 tasks of one process on one session; the candidates take turns."""
    seconds = max(seconds, SHORTEST_TURN)
    tallies: dict[str, list[Tally]] = {name: [] for name in (OURS, *PEERS)}
    with redis_server() as server:
        async with open_ours(server.url) as ours:
            for _ in range(rounds):
                tallies[OURS].append(await ours.contend(seconds))
                for name, sleep in PEERS.items():
                    with opened_theirs(server.url, sleep) as theirs:
                        tallies[name].append(theirs.contend(seconds))
    lines = [
        f"| {TASKS} tasks, one session | changes/s | locked() is faster by | per task | wait p50 ms | p99 | longest |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, turns in tallies.items():
        # A turn may pass without a single change: of a polling lock whose tasks all sleep, on a busy machine.
        pairs = zip(tallies[OURS], turns, strict=True)
        faster = statistics.median(mine.rate / turn.rate if turn.rate else math.inf for mine, turn in pairs)
        shares = [sum(task) for task in zip(*(turn.done for turn in turns), strict=True)]
        waits = sorted(wait for turn in turns for wait in turn.waits)
        lines.append(
            f"| {name} | {statistics.median(turn.rate for turn in turns):,.0f} | {faster:.1f} "
            f"| {min(shares)} … {max(shares)} | {_show_waits(waits)} |"
        )
    return "\n".join(lines)


def _show_waits(waits: list[float]) -> str:
    marks = (waits[len(waits) // 2], waits[int(len(waits) * 0.99)], waits[-1])
    return " | ".join(f"{mark * 1000:.2f}" for mark in marks)


async def report_commands(rounds: int, seconds: float) -> str:
    """How many scripts the server runs for what, and its CPU and ours for a change."""
    with redis_server() as server:
        async with open_ours(server.url) as ours:
            changes = await _count(server, ours, reads=False)
            reads = await _count(server, ours, reads=True)
    return (
        f"| uncontended | scripts | CPU of the client, µs | of the server, µs |\n|---|--:|--:|--:|\n{changes}\n{reads}"
    )


async def _count(server: RedisServer, ours: Ours, *, reads: bool) -> str:
    times = 20
    operations = times * TASKS
    with server.client() as client:
        await (ours.read_all(2) if reads else ours.change_all(2))
        client.config_resetstat()
        cpu, used = time.process_time(), _server_cpu(server)
        await (ours.read_all(times) if reads else ours.change_all(times))
        cpu, used = time.process_time() - cpu, _server_cpu(server) - used
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return (
        f"| a {'read' if reads else 'change'} | {calls / operations:.2f} "
        f"| {cpu / operations * 1e6:.1f} | {used / operations * 1e6:.1f} |"
    )


def _server_cpu(server: RedisServer) -> float:
    with server.client() as client:
        info = client.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


async def report_handover(rounds: int, seconds: float) -> str:
    """Two processes contend for one session: from the end of one body to the beginning of the other's."""
    lines = [
        "| two processes, one session | hand-overs | median ms | p99 ms | changes/s | acquires per commit |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for tasks in CROWDS:
        async with _handover_server() as (server, id):
            lines.append(_hand_over(server, id, tasks, max(0.2, rounds * seconds)))
    return "\n".join(lines)


@asynccontextmanager
async def _handover_server() -> AsyncIterator[tuple[RedisServer, str]]:
    with redis_server() as server:
        config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=server.url)})
        async with open_session_manager(config) as manager:
            session = manager.session()
            await session.put("n", 0)
            assert session.id is not None
            yield server, session.id


def _hand_over(server: RedisServer, id: str, tasks: int, seconds: float) -> str:
    command = [sys.executable, "-m", "tests.benchmarks._handover", server.url, id, str(tasks), str(seconds)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    ]
    turns: list[tuple[int, int, int]] = []
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    with server.client() as client:
        client.config_resetstat()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
        for number, process in enumerate(processes):
            for line in process.communicate()[0].splitlines():
                had, asked = map(int, line.split())
                turns.append((had, asked, number))
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    turns.sort()
    gaps = sorted(after[0] - before[1] for before, after in pairwise(turns) if before[2] != after[2])
    acquires = (calls - len(turns)) / len(turns)
    return (
        f"| {tasks} tasks each | {len(gaps)} | {gaps[len(gaps) // 2] / 1e6:.2f} "
        f"| {gaps[int(len(gaps) * 0.99)] / 1e6:.2f} | {len(turns) / seconds:,.0f} | {acquires:.2f} |"
    )


REPORTS = {
    "Redis: one session, many tasks": report_contention,
    "Redis: scripts and CPU": report_commands,
    "Redis: hand-over between processes": report_handover,
}
