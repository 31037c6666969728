"""What a test client raises on its own account, and the header type that two of the errors carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, final

from werkzeug.datastructures import Headers

__all__ = [
    "LifespanFailedError",
    "ResponseStatusError",
    "WebSocketClosed",
    "WebSocketRejected",
    "decode",
    "encode",
    "to_headers",
]


def decode(value: bytes) -> str:
    """A header's bytes as text, from which `encode` makes the same bytes again, whatever they are."""
    return value.decode("utf-8", "surrogateescape")


def encode(value: str) -> bytes:
    """A header's text as bytes."""
    return value.encode("utf-8", "surrogateescape")


def to_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an ASGI message as the client shows them."""
    return Headers([(decode(name), decode(value)) for name, value in pairs])


@final
class LifespanFailedError(Exception):
    """The application says that it cannot start up or shut down, or says nothing for 60 s.

    Attributes:
        stage: `startup` or `shutdown`.
        message: the application's own words.
    """

    def __init__(self, stage: Literal["startup", "shutdown"], message: str) -> None:
        super().__init__(f"the application's {stage} failed: {message}")
        self.stage: Literal["startup", "shutdown"] = stage
        self.message = message


@final
class ResponseStatusError(Exception):
    """`raise_for_status()` has found a client or server error.

    Attributes:
        status_code: 400 and above.
    """

    def __init__(self, status_code: int, url: str) -> None:
        super().__init__(f"{url} was answered with status {status_code}")
        self.status_code = status_code


# These two are named for what happened, as in trio-websocket: often it is what the test wants to see.


@final
class WebSocketRejected(Exception):  # noqa: N818 - see above
    """The application did not accept the WebSocket.

    Attributes:
        status_code: 403 if it closed before it accepted, else what it answered.
        headers: of its answer.
        body: of its answer.
    """

    def __init__(self, status_code: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"the WebSocket was refused with status {status_code}")
        self.status_code = status_code
        self.headers = headers
        self.body = body


@final
class WebSocketClosed(Exception):  # noqa: N818 - see above
    """The application has closed the WebSocket; 1011 if it ended without closing it.

    Attributes:
        code: the close code (RFC 6455, 7.4).
        reason: the application's own words, or `""`.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the application closed the WebSocket: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason
