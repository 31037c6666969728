"""What a session adds over a real server: Hypercorn's trio worker, 16 keep-alive clients with a session each.

Servers run in processes of their own. One operation is a round of requests, one per client, all in flight at once. The
servers' CPU time counts: they are what limits the throughput, so the ratio says how many requests fewer there are.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from ._harness import Comparison, Operation

CLIENTS = 16

_servers: list[int] = []  # process ids


def _cpu_time_of_servers() -> float:
    """Seconds; what a process has used is a clock of its own on Linux (clock_getcpuclockid)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in _servers)


class Clients:
    """Closed-loop clients: each sends its next request when it has its answer."""

    def __init__(self, port: int, path: str) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
        self._path = path
        self._requests = [self._request("") for _ in self._sockets]
        self._poll = select.epoll()
        self._numbers = {client.fileno(): number for number, client in enumerate(self._sockets)}
        for client in self._sockets:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(client, select.EPOLLIN)
        self._keep_cookies(self.round())

    def _request(self, cookie: str) -> bytes:
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        return f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode()

    def _keep_cookies(self, answers: list[bytes]) -> None:
        for number, answer in enumerate(answers):
            for header in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
                if header.lower().startswith(b"set-cookie:"):
                    cookie = header.partition(b":")[2].partition(b";")[0].strip().decode()
                    self._requests[number] = self._request(cookie)

    def round(self) -> list[bytes]:
        """One request for each client."""
        for client, request in zip(self._sockets, self._requests, strict=True):
            client.sendall(request)
        answers = [b""] * CLIENTS
        missing = CLIENTS
        while missing:
            for descriptor, _ in self._poll.poll():
                number = self._numbers[descriptor]
                answers[number] += self._sockets[number].recv(65536)
                missing -= _is_complete(answers[number])
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers[0]
        return answers

    def close(self) -> None:
        """Hang up."""
        self._poll.close()
        for client in self._sockets:
            client.close()


def _is_complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    if length:
        return len(body) >= int(length)
    return body.endswith(b"0\r\n\r\n")


@contextmanager
def _served(kind: str) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.benchmarks._app", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        _servers.append(server.pid)
        yield int(server.stdout.readline())
        _servers.remove(server.pid)
        server.stdin.close()


@asynccontextmanager
async def _open_candidates() -> AsyncIterator[dict[str, Operation]]:
    with ExitStack() as stack:
        without, served = stack.enter_context(_served("none")), stack.enter_context(_served("sessions"))
        locked = Clients(served, "/locked")
        candidates = {
            "App(sessions=False)": Clients(without, "/bare"),
            "session in use elsewhere": Clients(served, "/bare"),
            "session read": Clients(served, "/read"),
            "session changed under its lock": locked,
        }
        for clients in candidates.values():
            stack.callback(clients.close)
        # All of them send the same cookies, so that all servers have the same to parse.
        for clients in candidates.values():
            clients._requests = [request.replace(b"/locked", clients._path.encode()) for request in locked._requests]
        yield {name: clients.round for name, clients in candidates.items()}


COMPARISONS = (
    Comparison(name=f"{CLIENTS} requests over Hypercorn at once", open=_open_candidates, clock=_cpu_time_of_servers),
)
