"""HTTP clients that cost little: sockets, one poll for all of them, and no parser to speak of."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Clients", "Turn"]

_PATIENCE = 30.0  # seconds without any answer until a server counts as dead


@dataclass
class Turn:
    """What clients got within a time.

    Attributes:
        seconds: how long they asked.
        counts: good answers within that time, client by client.
        late: good answers to requests that were under way at the end; they were waited for.
        latencies: seconds that each good answer took, the late ones too: they are the longest.
        failures: what came instead of good answers, and how often.
    """

    seconds: float
    counts: list[int]
    late: int = 0
    latencies: list[float] = field(default_factory=list[float])
    failures: Counter[str] = field(default_factory=Counter[str])

    @property
    def completed(self) -> int:
        """All good answers: each says that its request was carried out."""
        return sum(self.counts) + self.late

    @property
    def requests(self) -> int:
        """All answers."""
        return self.completed + self.failures.total()


class Clients:
    """Closed-loop clients: each sends its next request when it has its answer.

    They begin by asking once, and keep the cookies they get.

    Args:
        port: of the server, on this machine.
        path: what they ask for.
        count: how many they are.
        cookies: what they send, client by client; all the same if they are to be one browser.
    """

    def __init__(self, port: int, path: str, count: int, cookies: Sequence[str] = ()) -> None:
        self._port = port
        self._path = path
        self.cookies = list(cookies or [""] * count)
        self._poll = select.epoll()
        self._sockets = [self._connect() for _ in range(count)]
        self._numbers = {client.fileno(): number for number, client in enumerate(self._sockets)}
        try:
            self._keep_cookies(self.round())
        except BaseException:
            self.close()
            raise

    def _connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(client, select.EPOLLIN)
        return client

    def _reconnect(self, number: int) -> None:
        self._poll.unregister(self._sockets[number])
        del self._numbers[self._sockets[number].fileno()]
        self._sockets[number].close()
        self._sockets[number] = self._connect()
        self._numbers[self._sockets[number].fileno()] = number

    def _make_requests(self) -> list[bytes]:
        head = f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n"
        lines = [f"Cookie: {cookie}\r\n" if cookie else "" for cookie in self.cookies]
        return [f"{head}{line}\r\n".encode() for line in lines]

    def _keep_cookies(self, answers: list[bytes]) -> None:
        for number, answer in enumerate(answers):
            for header in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
                if header.lower().startswith(b"set-cookie:"):
                    self.cookies[number] = header.partition(b":")[2].partition(b";")[0].strip().decode()

    def round(self) -> list[bytes]:
        """One request for each client."""
        for client, request in zip(self._sockets, self._make_requests(), strict=True):
            client.sendall(request)
        answers = [b""] * len(self._sockets)
        missing = len(answers)
        while missing:
            for number in self._ready():
                some = self._sockets[number].recv(65536)
                assert some, f"connection closed after {answers[number]!r}"
                answers[number] += some
                missing -= _is_complete(answers[number])
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers[0]
        return answers

    def _ready(self) -> list[int]:
        events = self._poll.poll(_PATIENCE)
        if not events:
            raise TimeoutError(f"no answer from {self._path} within {_PATIENCE:.0f} s")
        return [self._numbers[descriptor] for descriptor, _ in events]

    def run(self, seconds: float) -> Turn:
        """Ask and ask, then wait for what is still under way."""
        turn = Turn(seconds, [0] * len(self._sockets))
        requests = self._make_requests()
        sent = [0.0] * len(requests)
        answers = [b""] * len(requests)
        until = time.perf_counter() + seconds
        for number, request in enumerate(requests):
            sent[number] = time.perf_counter()
            self._sockets[number].sendall(request)
        under_way = len(requests)
        while under_way:
            for number in self._ready():
                some = self._receive(number)
                answers[number] += some
                if some and not _is_complete(answers[number]):
                    continue
                now = time.perf_counter()
                if not some or not answers[number].startswith(b"HTTP/1.1 200"):
                    turn.failures[_failure(answers[number])] += 1
                else:
                    turn.latencies.append(now - sent[number])
                    turn.counts[number] += now < until
                    turn.late += now >= until
                if not some or _is_last(answers[number]):
                    self._reconnect(number)
                answers[number] = b""
                if now < until:
                    sent[number] = time.perf_counter()
                    self._sockets[number].sendall(requests[number])
                else:
                    under_way -= 1
        return turn

    def _receive(self, number: int) -> bytes:
        try:
            return self._sockets[number].recv(65536)
        except ConnectionError:
            return b""

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


def _is_last(answer: bytes) -> bool:
    return b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower()


def _failure(answer: bytes) -> str:
    """What came instead of a good answer: "HTTP 500"."""
    status = answer.partition(b"\r\n")[0].split()[1:2]
    return f"HTTP {status[0].decode('ascii', 'replace')}" if status else "connection closed"
