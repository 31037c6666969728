"""Sessions on Redis over Hypercorn's trio worker, beside the same application without sessions."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from tests.redis_servers import redis_server

from ._clients import Clients
from ._harness import Comparison, Operation
from .bench_hypercorn import cpu_time_of_servers, served

CLIENTS = 64
CONTENDERS = 16


@asynccontextmanager
async def _open_candidates() -> AsyncIterator[dict[str, Operation]]:
    with ExitStack() as stack:
        url = stack.enter_context(redis_server()).url
        without, port = stack.enter_context(served("none")), stack.enter_context(served("redis", url))
        locked = Clients(port, "/locked", CLIENTS)
        candidates = {
            "App(sessions=False)": Clients(without, "/bare", CLIENTS, locked.cookies),
            "session read": Clients(port, "/read", CLIENTS, locked.cookies),
            "session changed under its lock": locked,
        }
        for clients in candidates.values():
            stack.callback(clients.close)
        yield {name: clients.round for name, clients in candidates.items()}


async def report_contention(rounds: int, seconds: float) -> str:
    """16 clients with a session each, and 16 with the same one; in turns."""
    apart: list[int] = []
    together: list[list[int]] = []
    waits: list[float] = []
    with ExitStack() as stack:
        url = stack.enter_context(redis_server()).url
        port = stack.enter_context(served("redis", url))
        free = Clients(port, "/locked", CONTENDERS)
        tied = Clients(port, "/locked", CONTENDERS, free.cookies[:1] * CONTENDERS)
        for clients in (free, tied):
            stack.callback(clients.close)
            clients.run(seconds)
        for _ in range(rounds):
            apart.append(sum(free.run(seconds).counts))
            turn = tied.run(seconds)
            together.append(turn.counts)
            waits += turn.latencies
    waits.sort()
    shares = [sum(client) for client in zip(*together, strict=True)]
    ratio = statistics.median(sum(counts) / max(alone, 1) for counts, alone in zip(together, apart, strict=True))
    return (
        "| Hypercorn, Redis, 16 clients | requests/s | of the uncontended | per client | p50 ms | p99 ms |\n"
        "|---|--:|--:|--:|--:|--:|\n"
        f"| a session each | {statistics.median(apart) / seconds:,.0f} | | | | |\n"
        f"| one session | {statistics.median(map(sum, together)) / seconds:,.0f} | {ratio:.0%} "
        f"| {min(shares)} … {max(shares)} "
        f"| {waits[len(waits) // 2] * 1000:.1f} | {waits[int(len(waits) * 0.99)] * 1000:.1f} |"
    )


COMPARISONS = (
    Comparison(
        name=f"Redis: {CLIENTS} requests over Hypercorn at once",
        open=_open_candidates,
        clock=cpu_time_of_servers,
        starts=5,
    ),
)
REPORTS = {"Redis: one session over Hypercorn": report_contention}
