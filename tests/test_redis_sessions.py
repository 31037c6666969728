"""Sessions on a real server, as programs see them: through managers, the middleware and an App."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_session import (
    RedisConnection,
    SessionConfig,
    SessionManager,
    SessionMiddleware,
    StorageUnavailableError,
    get_session,
    open_session_manager,
)
from trio_session._asgi import Receive, Scope, Send
from trio_session.testing import LifespanFailedError, open_test_client
from trio_session.web import App, Request

from .integration._serving import respond
from .redis_servers import RedisServer, free_port, redis_server

LIMIT = 15.0  # seconds
# A server that is back is noticed within two seconds; the machine may be busy.
NOTICED = 4.0  # seconds


def config(server: RedisServer, **settings: Any) -> SessionConfig:
    return SessionConfig(driver="redis", redis={"default": RedisConnection(url=server.url)}, **settings)


class Counter:
    """How many scripts a server has run since the last look."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client()
        self._seen = 0
        self.since()

    def close(self) -> None:
        self._client.close()

    def since(self) -> int:
        seen = int(self._client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])
        new, self._seen = seen - self._seen, seen
        return new


@pytest.fixture
def counter(server: RedisServer) -> Iterator[Counter]:
    counter = Counter(server)
    yield counter
    counter.close()


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[SessionManager]:
    async with open_session_manager(config(server)) as manager:
        yield manager


def count_visits(app: App) -> App:
    @app.get("/visits")
    async def visits(request: Request) -> dict[str, int]:
        async with request.session.locked() as data:
            data["visits"] = data.get("visits", 0) + 1
        return {"visits": data["visits"]}

    return app


# -- what it costs ----------------------------------------------------------------------------------------------------


async def test_round_trips(server: RedisServer, counter: Counter) -> None:
    """Two make a change, one a read; a change that changes nothing, a logout or a new id cost no more."""
    async with opened(server) as manager:
        session = manager.session()
        await session.put("visits", 0)
        assert counter.since() == 2
        await manager.session(session.id).increment("visits")
        assert counter.since() == 2
        assert (await manager.session(session.id).read())["visits"] == 1
        assert counter.since() == 1
        await session.refresh()
        assert counter.since() == 2
        await session.put("visits", 1)
        await manager.session(None).read()
        await manager.session("no id of ours").read()
        await session.read()
        assert counter.since() == 3
        await session.clear()
        assert counter.since() == 2


async def test_round_trips_of_a_crowd(server: RedisServer, counter: Counter) -> None:
    """Tasks of one process hand the lock on among themselves: each further change costs one."""
    async with opened(server) as manager:
        session = manager.session()
        await session.put("visits", 0)
        counter.since()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(manager.session(session.id).increment, "visits")
        assert counter.since() == 51
        assert (await session.read())["visits"] == 50


async def test_round_trips_of_requests(server: RedisServer, counter: Counter) -> None:
    """A visitor without our cookie costs nothing, a look at the session one, a change two and the look before it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        if scope["path"] == "/change":
            await session.increment("visits")
        await respond(send, b"%d" % session.get("visits", 0))

    async with open_test_client(SessionMiddleware(app, config(server))) as client:
        counter.since()
        await client.get("/", headers={"Cookie": "other=1; and=more"})
        await client.get("/", headers={"Cookie": "trio_session=nonsense"})
        assert counter.since() == 0
        assert (await client.get("/change")).text == "1"
        assert counter.since() == 2
        assert (await client.get("/")).text == "1"
        assert counter.since() == 1
        assert (await client.get("/change")).text == "2"
        assert counter.since() == 3


# -- several managers, several connections ----------------------------------------------------------------------------


async def test_two_managers(server: RedisServer) -> None:
    """What one process stores, the other one reads; and no change is lost when both change."""
    async with opened(server) as one, opened(server) as two:
        session = one.session()
        await session.put("visits", 0)

        async def visit(manager: SessionManager) -> None:
            for _ in range(25):
                await manager.session(session.id).increment("visits")

        async with trio.open_nursery() as nursery:
            for manager in (one, two, one, two):
                nursery.start_soon(visit, manager)
        assert (await two.session(session.id).read())["visits"] == 100
        for manager in (one, two):
            now = manager.statistics()
            assert (now.locks_held, now.tasks_waiting, now.locks_lost) == (0, 0, 0)


async def test_logging_out_everywhere(server: RedisServer) -> None:
    """A session that one process has ended is over in the other one at once."""
    async with opened(server) as one, opened(server) as two:
        session = one.session()
        await session.put("name", "Ann")
        theirs = two.session(session.id)
        assert (await theirs.read())["name"] == "Ann"
        await session.clear()
        assert (await theirs.read()).is_empty


async def test_a_connection_by_name(server: RedisServer) -> None:
    """Of the servers in the environment, SESSION_CONNECTION picks the one for sessions."""
    environ = {
        "SESSION_DRIVER": "redis",
        "SESSION_CONNECTION": "cache",
        "APP_NAME": "My Shop",
        "REDIS_URL": "redis://elsewhere.example",
        "REDIS_CACHE_URL": server.url,
    }
    async with open_session_manager(SessionConfig.from_env(environ)) as manager:
        await manager.session().put("name", "Ann")
    with server.client() as client:
        (name,) = client.scan_iter()
    assert name.startswith(b"my_shop_session:{")


async def test_nothing_is_confined(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The log does not say that sessions stay in one process, for they do not."""
    async with opened(server):
        pass
    assert "process" not in caplog.text


# -- without a server -------------------------------------------------------------------------------------------------


async def test_a_program_that_cannot_start() -> None:
    """Without a server at the start the program does not start, and says which server it was, not the password."""
    port = free_port()
    url = f"redis://user:secret@127.0.0.1:{port}"
    app = App(SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}))
    with trio.fail_after(LIMIT), pytest.raises((LifespanFailedError, StorageUnavailableError)) as caught:
        async with open_test_client(app):
            pass
    assert f"redis://127.0.0.1:{port}/0" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_the_server_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """Meanwhile requests are answered with 503, and when to try again; afterwards all is well without a restart."""
    with redis_server() as server:
        app = count_visits(App(config(server)))

        @app.get("/untouched", autoload=False)
        async def untouched(request: Request) -> str:
            return "fine"

        async with open_test_client(app) as client:
            assert (await client.get("/visits")).json() == {"visits": 1}
            server.kill()
            for _ in range(2):
                with trio.fail_after(LIMIT):
                    response = await client.get("/visits")
                assert response.status_code == 503
                assert int(response.headers["retry-after"]) >= 1
                assert "trio_session" in client.cookies
            assert (await client.get("/untouched")).text == "fine"
            server.start()
            back_at = trio.current_time()
            with trio.fail_after(NOTICED):
                while (response := await client.get("/visits")).status_code == 503:
                    await trio.sleep(0.05)
            assert response.json() == {"visits": 1}  # this server keeps nothing
            assert (await client.get("/visits")).json() == {"visits": 2}
            assert trio.current_time() - back_at < NOTICED
    lines = [record.getMessage() for record in caplog.records if record.name == "trio_session.redis"]
    assert any("no connection" in line for line in lines)
    assert any("back after" in line for line in lines)


async def test_a_redis_that_restarts_with_its_data() -> None:
    """With a server that keeps its data on disk a restart costs nobody his session, nor a request that waits for it."""
    with redis_server(appendonly="yes", appendfsync="always") as server:
        app = count_visits(App(config(server)))
        async with open_test_client(app) as client:
            await client.get("/visits")
            await trio.to_thread.run_sync(server.restart)
            with trio.fail_after(LIMIT):
                assert (await client.get("/visits")).json() == {"visits": 2}


async def test_errors_name_the_server() -> None:
    """Who catches the error learns which server is away and why, but no password."""
    with redis_server() as server, server.client() as client:
        client.config_set("requirepass", "p@ss")
        url = f"redis://:p%40ss@127.0.0.1:{server.port}/0"
        settings = SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)})
        async with open_session_manager(settings) as manager:
            session = manager.session()
            await session.put("name", "Ann")
            server.kill()
            for call in (session.read, session.clear):
                with trio.fail_after(LIMIT), pytest.raises(StorageUnavailableError) as caught:
                    await call()
                assert str(caught.value).startswith(f"redis://127.0.0.1:{server.port}/0: ")
                assert caught.value.__cause__ is not None
                assert "p@ss" not in str(caught.value) + repr(caught.value.__cause__)
