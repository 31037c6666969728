"""An App and its sessions: cookies, locks, autoload, and what streams and WebSockets make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio
from hypercorn.middleware import ProxyFixMiddleware
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    LockLostError,
    Session,
    SessionConfig,
    SessionMiddleware,
    SessionNotReadError,
    SessionStateError,
    get_session,
)
from trio_session._asgi import Message
from trio_session.testing import SessionTrainer, open_test_client
from trio_session.web import App, Request, WebSocket

from .web_peer import Peer


@pytest.fixture
def app() -> App:
    """An App that counts visits."""
    app = App(SessionConfig(cookie_name="sid"))

    @app.get("/visits")
    async def visits(request: Request) -> dict[str, int]:
        async with request.session.locked() as data:
            data["visits"] = data.get("visits", 0) + 1
        return {"visits": data["visits"]}

    @app.get("/shown")
    async def shown(request: Request) -> dict[str, object]:
        return dict(request.session)

    @app.get("/clear")
    async def clear(request: Request) -> str:
        await request.session.clear()
        return "bye"

    return app


async def test_visits_are_counted(app: App) -> None:
    """The first answer brings the cookie, later ones the count; clearing takes both away."""
    async with open_test_client(app) as client:
        response = await client.get("/visits")
        assert response.json() == {"visits": 1}
        assert "sid" in response.cookies
        assert response.headers["cache-control"] == "private"
        assert (await client.get("/visits")).json() == {"visits": 2}
        assert (await client.get("/shown")).json() == {"visits": 2}
        await client.get("/clear")
        assert "sid" not in client.cookies
        assert (await client.get("/visits")).json() == {"visits": 1}


async def test_no_visit_is_lost(app: App) -> None:
    """However many requests of one visitor come at once."""
    async with open_test_client(app) as client:
        await client.get("/visits")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.get, "/visits")
        assert (await client.get("/shown")).json() == {"visits": 21}


async def test_autoload_asks_the_route_first() -> None:
    """No route, or a route that does not want its session: no round trip to the store."""
    config = SessionConfig(cookie_name="sid")
    async with SessionTrainer(config) as trainer:
        app = App(manager=trainer.manager)
        await trainer.given_session("a", {"name": "Ann"})

        @app.get("/loaded")
        async def loaded(request: Request) -> str:
            return str(request.session["name"])

        @app.get("/not-loaded", autoload=False)
        async def not_loaded(request: Request) -> str:
            with pytest.raises(SessionNotReadError):
                _ = request.session["name"]
            return "not loaded"

        @app.get("/by-hand", autoload=False)
        async def by_hand(request: Request) -> str:
            return str((await request.session.read())["name"])

        async with open_test_client(app, headers={"Cookie": "sid=a"}) as client:
            reads = trainer.read_count("a")
            for path, text in [("/not-loaded", "not loaded"), ("/nowhere", None), ("/loaded/", None)]:
                response = await client.get(path)
                assert text is None or response.text == text
                assert trainer.read_count("a") == reads
            for path in ("/loaded", "/by-hand"):
                assert (await client.get(path)).text == "Ann"
            assert trainer.read_count("a") == reads + 2


async def test_everybody_finds_the_same_session(app: App) -> None:
    """`request.session`, `get_session(request)` and the scope are one, also behind a middleware that copies scopes."""
    app.add_middleware(ProxyFixMiddleware)

    @app.get("/same")
    async def same(request: Request) -> list[object]:
        session = request.session
        assert isinstance(session, Session)
        assert get_session(request) is session
        assert request.scope["session"] is session
        return [request.remote_addr, request.scheme, request.host]

    async with open_test_client(app) as client:
        forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "public.example"}
        assert (await client.get("/same", headers=forwarded)).json() == ["192.0.2.7", "https", "public.example"]
        assert (await client.get("/visits", headers=forwarded)).json() == {"visits": 1}
        assert (await client.get("/visits")).json() == {"visits": 2}


async def test_proxy_fix_outside(app: App) -> None:
    """The other way round it works as well."""
    fixed: Any = ProxyFixMiddleware(cast("Any", app))  # its types know only Hypercorn's own scopes
    async with open_test_client(fixed) as client:
        for visits in (1, 2):
            assert (await client.get("/visits")).json() == {"visits": visits}


async def test_an_app_without_sessions_in_the_middleware() -> None:
    """Whoever wraps it himself finds the session at the same place."""
    app = App(sessions=False)

    @app.get("/")
    async def handler(request: Request) -> dict[str, int]:
        return {"n": await request.session.increment("n")}

    async with open_test_client(SessionMiddleware(app, SessionConfig())) as client:
        await client.get("/")
        assert (await client.get("/")).json() == {"n": 2}


async def test_a_handler_that_fails_changes_nothing(app: App) -> None:
    """The page is a 500, and the session as it was before."""

    @app.get("/fail")
    async def fail(request: Request) -> str:
        async with request.session.locked() as data:
            data["visits"] = 100
            raise ValueError

    async with open_test_client(app) as client:
        await client.get("/visits")
        assert (await client.get("/fail")).status_code == 500
        assert (await client.get("/visits")).json() == {"visits": 2}


async def test_hanging_up_rolls_back_and_frees_the_lock(app: App, nursery: trio.Nursery) -> None:
    """A client that goes while its handler holds the lock holds up nobody."""
    entered = trio.Event()

    @app.get("/slow")
    async def slow(request: Request) -> str:
        async with request.session.locked() as data:
            data["visits"] = 100
            entered.set()
            await trio.sleep_forever()
        return "never"

    async with open_test_client(app) as client:
        await client.get("/visits")
        cookie = f"sid={client.cookies['sid']}"
        peer = Peer(app, "/slow", headers=[("Cookie", cookie)])
        nursery.start_soon(peer.run)
        await entered.wait()
        assert app.sessions.statistics().locks_held == 1
        peer.hang_up()
        await peer.returned.wait()
        assert app.sessions.statistics().locks_held == 0
        assert (await client.get("/visits")).json() == {"visits": 2}


async def test_a_busy_session_is_a_503(app: App, autojump_clock: MockClock) -> None:
    """With Retry-After: somebody else has the lock for longer than anybody waits."""
    entered = trio.Event()
    leave = trio.Event()

    @app.get("/holder")
    async def holder(request: Request) -> str:
        async with request.session.locked():
            entered.set()
            await leave.wait()
        return "held"

    async with open_test_client(app) as client:
        await client.get("/visits")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/holder")
            await entered.wait()
            response = await client.get("/visits")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            leave.set()


# -- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_may_hold_the_lock(app: App) -> None:
    """Around its yields; the commit is part of the stream."""

    @app.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            async with request.session.locked() as data:
                yield "one "
                data["visits"] += 10
                yield "two"

        return chunks()

    async with open_test_client(app) as client:
        await client.get("/visits")
        assert (await client.get("/stream")).text == "one two"
        assert (await client.get("/visits")).json() == {"visits": 12}


async def test_a_stream_that_loses_its_lock_learns_of_it(app: App, autojump_clock: MockClock) -> None:
    """The loss cancels the sending of a chunk; the generator sees it at its yield, and nothing is left behind."""
    seen: list[str] = []

    class SlowPeer(Peer):
        async def send(self, message: Message) -> None:
            if message.get("body") == b"one":
                await trio.sleep(1000)
            await super().send(message)

    @app.get("/<how>")
    async def stream(request: Request, how: str) -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            try:
                async with request.session.locked() as data:
                    data["visits"] = 100
                    yield "one"
                    seen.append("never")
            except LockLostError as error:
                seen.append(error.reason)
                if how == "raise":
                    raise
            yield "apology"

        return chunks()

    async with open_test_client(app) as client:
        await client.get("/visits")
        cookie = f"sid={client.cookies['sid']}"
        peer = SlowPeer(app, "/go-on", headers=[("Cookie", cookie)])
        await peer.run()
        assert peer.text == "apology"
        peer = SlowPeer(app, "/raise", headers=[("Cookie", cookie)])
        with pytest.raises(LockLostError):
            await peer.run()
        assert seen == ["hold_limit", "hold_limit"]
        assert app.sessions.statistics().locks_held == 0
        assert (await client.get("/visits")).json() == {"visits": 2}


async def test_a_stream_cannot_begin_a_session(app: App) -> None:
    """Its headers are gone when it begins, so the cookie cannot come: nothing is written, the connection is cut."""

    @app.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            await request.session.put("x", 1)
            yield "begun before"

        return chunks()

    async with open_test_client(app, raise_app_exceptions=False) as client:
        with pytest.raises(trio.BrokenResourceError):
            await client.get("/stream")
        assert app.sessions.statistics().commits == 0
        await client.get("/visits")
        assert (await client.get("/stream")).text == "begun before"


async def test_leaving_a_stream_frees_its_lock(app: App) -> None:
    """The client goes in the middle; the generator is cancelled where it stands."""

    @app.get("/stream")
    async def stream(request: Request) -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            async with request.session.locked() as data:
                data["visits"] = 100
                yield "one"
                await trio.sleep_forever()

        return chunks()

    async with open_test_client(app) as client:
        await client.get("/visits")
        async with client.stream("GET", "/stream") as response:
            assert await anext(response.chunks()) == b"one"
        assert app.sessions.statistics().locks_held == 0
        assert (await client.get("/visits")).json() == {"visits": 2}


# -- websockets ------------------------------------------------------------------------------------------------------


async def test_a_websocket_shares_the_session(app: App) -> None:
    """The cookie comes with the acceptance, and the session goes on from there."""

    @app.websocket("/ws")
    async def talk(ws: WebSocket) -> None:
        await ws.session.put("opened", True)
        await ws.accept()
        async for message in ws:
            await ws.send_json(await ws.session.increment("n", int(message)))

    async with open_test_client(app) as client:
        async with client.websocket("/ws") as ws:
            assert "sid" in client.cookies
            await ws.send("3")
            assert await ws.receive() == "3"
            await ws.send("4")
            assert await ws.receive() == "7"
        assert (await client.get("/shown")).json() == {"opened": True, "n": 7}


async def test_a_websocket_that_goes_frees_its_lock(app: App) -> None:
    """The handler that sleeps in a block is cancelled."""

    @app.websocket("/ws")
    async def talk(ws: WebSocket) -> None:
        async with ws.session.locked() as data:
            data["visits"] = 100
            await ws.send("locked")
            await trio.sleep_forever()

    async with open_test_client(app) as client:
        await client.get("/visits")
        async with client.websocket("/ws") as ws:
            assert await ws.receive() == "locked"
            assert app.sessions.statistics().locks_held == 1
        assert app.sessions.statistics().locks_held == 0
        assert (await client.get("/visits")).json() == {"visits": 2}


async def test_a_websockets_autoload(app: App) -> None:
    """As for HTTP: read before the handler runs, unless it says otherwise."""

    @app.websocket("/<how>", autoload=True)
    async def loaded(ws: WebSocket, how: str) -> None:
        await ws.send_json(dict(ws.session))

    @app.websocket("/ws/not", autoload=False)
    async def not_loaded(ws: WebSocket) -> None:
        await ws.send_json(ws.session.is_read)

    async with open_test_client(app) as client:
        await client.get("/visits")
        async with client.websocket("/loaded") as ws:
            assert await ws.receive_json() == {"visits": 1}
        async with client.websocket("/ws/not") as ws:
            assert await ws.receive_json() is False


async def test_a_request_outside_of_the_lifespan(app: App) -> None:
    """Without a server that speaks lifespan there is no manager: the error says so, bare."""
    with pytest.raises(SessionStateError, match="lifespan"):
        await Peer(app, "/visits").run()


async def test_the_whole_thing_is_quiet(app: App) -> None:
    """An App that is idle sets no timers: virtual time does not run away."""
    async with open_test_client(app) as client:
        await client.get("/visits")
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1000
