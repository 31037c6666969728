"""Which pages may open a WebSocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trio_session.web import App, WebSocket

from .web_peer import SocketPeer


@pytest.fixture
def app() -> App:
    return App(sessions=False)


SAME = "same"


def _handshakes() -> Iterator[tuple[object, str, list[str], str, bool]]:
    """(origins, Origin, headers Host, scheme, allowed)."""
    here = ["example.com"]
    yield SAME, "", here, "ws", True  # no browser
    yield SAME, "http://example.com", here, "ws", True
    yield SAME, "https://example.com", here, "ws", True  # TLS ends at a proxy
    yield SAME, "https://example.com", here, "wss", True
    yield SAME, "http://example.com", here, "wss", False  # somebody in the middle
    yield SAME, "HTTPS://Example.COM", here, "wss", True
    yield SAME, "https://example.com:443", here, "wss", True
    yield SAME, "https://example.com", ["example.com:443"], "wss", True
    yield SAME, "https://example.com:8443", here, "wss", False
    yield SAME, "https://example.com", ["example.com:8443"], "wss", False
    yield SAME, "http://localhost:8000", ["localhost:8000"], "ws", True
    yield SAME, "http://[::1]:8000", ["[::1]:8000"], "ws", True
    yield SAME, "https://evil.example", here, "wss", False
    yield SAME, "https://example.com.evil.example", here, "wss", False
    yield SAME, "https://evil.example.com", here, "wss", False
    yield SAME, "https://example.com@evil.example", here, "wss", False
    yield SAME, "https://user@example.com", here, "wss", False  # no browser sends that
    yield SAME, "null", here, "ws", False
    yield SAME, "ftp://example.com", here, "ws", False
    yield SAME, "https://example.com:port", here, "wss", False
    yield SAME, "https://", here, "wss", False
    yield SAME, "http://example.com", [], "ws", False
    yield SAME, "http://example.com", ["example.com:port"], "ws", False
    yield "*", "https://evil.example", here, "ws", True
    yield "https://Friend.example", "https://friend.example", here, "ws", True
    yield "https://friend.example", "https://example.com", here, "ws", True
    yield "https://friend.example", "https://evil.example", here, "ws", False
    yield ["https://a.example", "null"], "null", here, "ws", True
    yield ["https://a.example", "https://b.example"], "https://b.example", here, "wss", True


@pytest.mark.parametrize(("origins", "origin", "host", "scheme", "allowed"), list(_handshakes()))
async def test_pages_of_other_sites_are_refused(
    app: App, origins: str | list[str], origin: str, host: list[str], scheme: str, allowed: bool
) -> None:
    """Browsers send our cookies along for any page: only the same site, or who is named, may open a WebSocket."""

    @app.websocket("/ws", origins=origins)
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    peer = SocketPeer(app, headers=[("Origin", origin)] if origin else [], scheme=scheme, can_refuse=True)
    peer.scope["headers"] = [header for header in peer.scope["headers"] if header[0] != b"host"]
    peer.scope["headers"] += [(b"host", name.encode()) for name in host]
    await peer.run()
    if allowed:
        assert peer.types() == ["websocket.accept", "websocket.close"]
    else:
        assert peer.sent[0]["status"] == 403
        assert "other sites" in peer.sent[1]["body"].decode()


async def test_two_origins_are_none(app: App) -> None:
    """A request with several is forged or broken."""

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()

    peer = SocketPeer(app, headers=[("Origin", "http://localhost"), ("Origin", "http://localhost")])
    await peer.run()
    assert peer.types() == ["websocket.close"]


@pytest.mark.parametrize(
    "origins", ["example.com", "https://example.com/path", "ws://example.com", ["https://"], ["x"]]
)
def test_malformed_origins_are_refused_at_once(app: App, origins: str | list[str]) -> None:
    """One that can never match would look like protection against nobody."""
    with pytest.raises(ValueError, match="is no origin"):
        app.websocket("/ws", origins=origins)
