"""Which pages may open a WebSocket.

Browsers let any page open a WebSocket to anywhere and send the cookies along; only `Origin` tells whose page it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

__all__ = ["allowed_origins", "is_allowed"]

_PORTS = {"http": 80, "https": 443}


def allowed_origins(origins: str | Iterable[str]) -> frozenset[str] | None:
    """Read the argument of `@app.websocket`: `"same"`, `"*"` (None here), or the origins allowed besides our own.

    Raises:
        ValueError: one of them is no origin.
    """
    if origins == "same":
        return frozenset()
    if origins == "*":
        return None
    given = [origins] if isinstance(origins, str) else list(origins)
    for origin in given:
        parts = _split(origin)
        if origin != "null" and (parts is None or parts.path or parts.query or parts.fragment):
            raise ValueError(
                f"{origin!r} is no origin: write 'https://example.com', 'same' for none but ours, '*' for all"
            )
    return frozenset(origin.lower() for origin in given)


def is_allowed(origin: list[str], allowed: frozenset[str] | None, *, secure: bool, host: str | None) -> bool:
    """Whether the values of the `Origin` header permit a WebSocket.

    Who sends none is no browser, and carries no stranger's cookies. Only the host is compared if we are reached
    without TLS: then a proxy in front of us may well have it. With TLS, a page without it is somebody else's.
    """
    if allowed is None or not origin:
        return True
    if len(origin) > 1:
        return False
    if origin[0].lower() in allowed:
        return True
    page = _split(origin[0])
    if page is None or host is None or (secure and page.scheme != "https"):
        return False
    ours = _split(f"{page.scheme}://{host}")
    return ours is not None and _address(page) == _address(ours)


def _split(origin: str) -> SplitResult | None:
    """The parts of an origin; None if it is none."""
    try:
        parts = urlsplit(origin)
        parts.port  # noqa: B018  # raises for what is no port
    except ValueError:
        return None
    return parts if parts.scheme in _PORTS and parts.hostname and parts.username is None else None


def _address(parts: SplitResult) -> tuple[str | None, int]:
    return parts.hostname, parts.port or _PORTS[parts.scheme]
