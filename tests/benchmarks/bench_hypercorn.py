"""What a session adds over a real server: Hypercorn's trio worker, 16 keep-alive clients with a session each.

Servers run in processes of their own. One operation is a round of requests, one per client, all in flight at once. The
servers' CPU time counts: they are what limits the throughput, so the ratio says how many requests fewer there are.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from ._clients import Clients
from ._harness import Comparison, Operation

CLIENTS = 16

_servers: list[int] = []  # process ids


def cpu_time_of_servers() -> float:
    """Seconds; what a process has used is a clock of its own on Linux (clock_getcpuclockid)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in _servers)


@contextmanager
def served(kind: str, url: str = "") -> Iterator[int]:
    """The application in a process of its own; gives the port. Its CPU time counts from now on."""
    command = [sys.executable, "-m", "tests.benchmarks._app", kind, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        _servers.append(server.pid)
        try:
            yield int(server.stdout.readline())
        finally:
            _servers.remove(server.pid)
            server.terminate()


@asynccontextmanager
async def _open_candidates() -> AsyncIterator[dict[str, Operation]]:
    with ExitStack() as stack:
        without, port = stack.enter_context(served("none")), stack.enter_context(served("sessions"))
        locked = Clients(port, "/locked", CLIENTS)
        # All of them send the same cookies, so that all servers have the same to parse.
        candidates = {
            "App(sessions=False)": Clients(without, "/bare", CLIENTS, locked.cookies),
            "session in use elsewhere": Clients(port, "/bare", CLIENTS, locked.cookies),
            "session read": Clients(port, "/read", CLIENTS, locked.cookies),
            "session changed under its lock": locked,
        }
        for clients in candidates.values():
            stack.callback(clients.close)
        yield {name: clients.round for name, clients in candidates.items()}


COMPARISONS = (
    Comparison(
        name=f"{CLIENTS} requests over Hypercorn at once",
        open=_open_candidates,
        clock=cpu_time_of_servers,
        starts=5,
    ),
)
