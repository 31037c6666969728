"""Who is measured beside whom, and on which server: each on the one that its users run it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["OURS", "PEERS", "Peer", "packages"]

_UVICORN = "uvicorn --fd {fd} --no-access-log --log-level warning --timeout-keep-alive 75 {app}:app"
_HYPERCORN = "hypercorn --bind fd://{fd} --keep-alive 75 {app}:app"
_GUNICORN = (
    "gunicorn --worker-class gthread --threads 16 --bind fd://{fd} --keep-alive 75 --log-level warning {app}:app"
)

OURS = "trio_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A library with a store, and the server it runs on.

    Attributes:
        name: how it is called in tables.
        module: the application, in `peers`.
        server: how the server is called in tables.
        command: what starts it, as the arguments of `python -m`.
        store: "redis" or "memory".
        lock: what keeps two requests from changing one session at once.
        packages: whose versions tell what was measured.
    """

    name: str
    module: str
    server: str
    command: str
    lock: str
    packages: tuple[str, ...]
    store: str = "redis"

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.name}, {self.store}"

    def arguments(self, descriptor: int) -> Sequence[str]:
        """What follows `python`, to serve on a listening socket."""
        return ["-m", *self.command.format(fd=descriptor, app=f"{__package__}.peers.{self.module}").split()]


def _ours(store: str) -> Peer:
    return Peer(
        name=OURS,
        module="our_app",
        server="Hypercorn, trio",
        command=f"{_HYPERCORN} --worker-class trio",
        lock="fair, fenced",
        packages=("trio_session", "trio", "hypercorn", "werkzeug", "msgspec", "hiredis"),
        store=store,
    )


def _starsessions(store: str) -> Peer:
    return Peer(
        name="starsessions",
        module="starsessions_app",
        server="uvicorn",
        command=_UVICORN,
        lock="none",
        packages=("starsessions", "starlette", "uvicorn", "uvloop", "httptools", "redis", "hiredis"),
        store=store,
    )


def _litestar(store: str) -> Peer:
    return Peer(
        name="Litestar",
        module="litestar_app",
        server="uvicorn",
        command=_UVICORN,
        lock="none",
        packages=("litestar", "uvicorn", "uvloop", "httptools", "redis", "hiredis"),
        store=store,
    )


PEERS = (
    _ours("redis"),
    Peer(
        name=f"{OURS} in Starlette",
        module="our_starlette_app",
        server="Hypercorn, trio",
        command=f"{_HYPERCORN} --worker-class trio",
        lock="fair, fenced",
        packages=("trio_session", "starlette"),
    ),
    Peer(
        name="redis-py Lock",
        module="redis_lock_app",
        server="uvicorn",
        command=_UVICORN,
        lock="unfair, not fenced",
        packages=("redis", "hiredis", "starlette", "uvicorn", "uvloop", "httptools"),
    ),
    Peer(
        name="coredis Lock",
        module="coredis_lock_app",
        server="Hypercorn, trio",
        command=f"{_HYPERCORN} --worker-class trio",
        lock="unfair, not fenced",
        packages=("coredis", "starlette", "hypercorn", "trio"),
    ),
    _starsessions("redis"),
    _litestar("redis"),
    Peer(
        name="aiohttp-session",
        module="aiohttp_app",
        server="aiohttp",
        command="{app} {fd}",
        lock="none",
        packages=("aiohttp-session", "aiohttp", "redis", "hiredis"),
    ),
    Peer(
        name="Quart-Session",
        module="quart_app",
        server="Hypercorn, asyncio",
        command=_HYPERCORN,
        lock="none",
        packages=("Quart-Session", "quart", "hypercorn", "redis", "hiredis"),
    ),
    Peer(
        name="Flask-Session",
        module="flask_app",
        server="gunicorn, gthread",
        command=_GUNICORN,
        lock="none",
        packages=("Flask-Session", "flask", "gunicorn", "redis", "hiredis"),
    ),
    _ours("memory"),
    _starsessions("memory"),
    _litestar("memory"),
)


def packages() -> list[str]:
    """Of all that takes part."""
    return sorted({package for peer in PEERS for package in peer.packages}, key=str.lower)
