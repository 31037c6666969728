"""HTTP clients that cost little: sockets, one poll for all of them, and no parser to speak of."""

from __future__ import annotations

import select
import socket
import time

__all__ = ["Clients"]


class Clients:
    """Closed-loop clients: each sends its next request when it has its answer.

    They begin by asking once, and keep the cookies they get.
    """

    def __init__(self, port: int, path: str, count: int) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
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
        answers = [b""] * len(self._sockets)
        missing = len(answers)
        while missing:
            for descriptor, _ in self._poll.poll():
                number = self._numbers[descriptor]
                answers[number] += self._sockets[number].recv(65536)
                missing -= _is_complete(answers[number])
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers[0]
        return answers

    def as_sent_by(self, other: Clients) -> None:
        """From now on send the cookies of other clients."""
        old, new = other._path.encode(), self._path.encode()
        self._requests = [request.replace(old, new, 1) for request in other._requests]

    def share_one_cookie(self) -> None:
        """From now on all of them are one browser."""
        self._requests = self._requests[:1] * len(self._requests)

    def run(self, seconds: float) -> tuple[list[int], list[float]]:
        """Ask and ask; how many answers each client got within that time, and how long each took."""
        counts = [0] * len(self._sockets)
        latencies: list[float] = []
        sent = [0.0] * len(counts)
        answers = [b""] * len(counts)
        until = time.perf_counter() + seconds
        under_way = 0
        for number in range(len(counts)):
            sent[number] = self._send(number)
            under_way += 1
        while under_way:
            for descriptor, _ in self._poll.poll():
                number = self._numbers[descriptor]
                answers[number] += self._sockets[number].recv(65536)
                if not _is_complete(answers[number]):
                    continue
                assert answers[number].startswith(b"HTTP/1.1 200"), answers[number]
                answers[number] = b""
                now = time.perf_counter()
                under_way -= 1
                if now < until:
                    counts[number] += 1
                    latencies.append(now - sent[number])
                    sent[number] = self._send(number)
                    under_way += 1
        return counts, latencies

    def _send(self, number: int) -> float:
        self._sockets[number].sendall(self._requests[number])
        return time.perf_counter()

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
