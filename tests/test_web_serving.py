"""The lifespan: what is kept open while serving, background tasks, and how an App dies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import SessionConfig, SessionStateError, open_session_manager
from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.web import App


class LifespanPeer:
    """A server that starts an App up and shuts it down."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.sent: list[Message] = []
        self._to_app, self._from_server = trio.open_memory_channel[Message](5)

    async def run(self) -> None:
        await self.app({"type": "lifespan"}, self._from_server.receive, self.send)

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        await trio.lowlevel.checkpoint()

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.run)
        self._to_app.send_nowait({"type": "lifespan.startup"})
        await wait_all_tasks_blocked()

    async def stop(self) -> None:
        self._to_app.send_nowait({"type": "lifespan.shutdown"})
        await wait_all_tasks_blocked()

    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]


@pytest.fixture
def app() -> App:
    return App(sessions=False)


@pytest.fixture
def peer(app: App) -> LifespanPeer:
    return LifespanPeer(app)


COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
BROKEN = ["lifespan.startup.complete", "lifespan.shutdown.failed"]


async def test_while_serving_runs_around_it(app: App, peer: LifespanPeer, nursery: trio.Nursery) -> None:
    """First things first, and the other way round at the end; the same App can be served again."""
    events: list[str] = []

    @app.while_serving
    async def database() -> AsyncIterator[None]:
        events.append("database up")
        yield
        events.append("database down")

    @app.while_serving
    async def mail() -> AsyncIterator[None]:
        events.append("mail up")
        yield
        events.append("mail down")

    for _ in range(2):
        await peer.start(nursery)
        assert events == ["database up", "mail up"]
        await peer.stop()
        assert events == ["database up", "mail up", "mail down", "database down"]
        events.clear()
    assert peer.types() == COMPLETE * 2


def test_while_serving_is_for_generators(app: App) -> None:
    """A coroutine function without a `yield` would never be stopped."""

    async def setup() -> None:
        pass

    with pytest.raises(TypeError, match="one `yield`"):
        app.while_serving(setup)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


async def test_a_failing_start_is_said_and_not_raised(
    app: App, peer: LifespanPeer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A server takes an exception for an App that does not care, and serves it; what was open is closed."""
    events: list[str] = []

    @app.while_serving
    async def first() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("first closed")

    @app.while_serving
    async def second() -> AsyncIterator[None]:
        raise ConnectionError("password=hunter2")
        yield

    await peer.start(nursery)
    (message,) = peer.sent
    assert message["type"] == "lifespan.startup.failed"
    assert "ConnectionError" in message["message"]
    assert "hunter2" not in message["message"]
    assert "hunter2" in caplog.text
    assert events == ["first closed"]


async def test_a_failing_end_is_said(app: App, peer: LifespanPeer, nursery: trio.Nursery) -> None:
    """So that the server can say that it ended badly."""

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        yield
        raise ValueError("end")

    await peer.start(nursery)
    await peer.stop()
    assert peer.types() == BROKEN


async def test_background_tasks(app: App, peer: LifespanPeer, nursery: trio.Nursery) -> None:
    """They live in `app.nursery`, and are cancelled before what they may depend on is closed."""
    events: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            events.append("task over")

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        app.nursery.start_soon(work)
        yield
        events.append("setup over")

    with pytest.raises(RuntimeError, match="not being served"):
        _ = app.nursery
    await peer.start(nursery)
    app.nursery.start_soon(work)
    await peer.stop()
    assert events == ["task over", "task over", "setup over"]
    assert peer.types() == COMPLETE
    with pytest.raises(RuntimeError, match="not being served"):
        _ = app.nursery


async def test_a_failing_background_task_stops_the_server(
    app: App, peer: LifespanPeer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """At once and loudly: it is logged, and the server is told that there is no point in going on."""
    events: list[str] = []

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("setup over")

    async def fail() -> None:
        raise ValueError("in the background")

    await peer.start(nursery)
    app.nursery.start_soon(fail)
    await wait_all_tasks_blocked()
    assert peer.types() == BROKEN
    assert events == ["setup over"]
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.exc_info
    assert isinstance(record.exc_info[1], ValueError)  # bare


async def test_a_background_task_that_fails_early_stops_the_start(
    app: App, peer: LifespanPeer, nursery: trio.Nursery
) -> None:
    """While something else is still starting up."""

    async def fail() -> None:
        raise ValueError("in the background")

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        app.nursery.start_soon(fail)
        await trio.sleep_forever()
        yield

    await peer.start(nursery)
    assert peer.types() == ["lifespan.startup.failed"]


async def test_a_background_task_that_fails_when_it_is_stopped(
    app: App, peer: LifespanPeer, nursery: trio.Nursery
) -> None:
    """Is a failed shutdown."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    await peer.start(nursery)
    app.nursery.start_soon(fail)
    await wait_all_tasks_blocked()
    await peer.stop()
    assert peer.types() == BROKEN


async def test_an_app_is_served_once_at_a_time(app: App, peer: LifespanPeer, nursery: trio.Nursery) -> None:
    """Two servers in one process would share a nursery and fall over each other's end."""
    await peer.start(nursery)
    second = LifespanPeer(app)
    await second.start(nursery)
    assert second.types() == ["lifespan.startup.failed"]
    await peer.stop()
    await second.start(nursery)
    await second.stop()
    assert second.types()[1:] == COMPLETE


async def test_middlewares_see_the_lifespan(app: App, peer: LifespanPeer, nursery: trio.Nursery) -> None:
    """They may keep something open as well."""
    seen: list[str] = []

    class Middleware:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["type"])
            await self.app(scope, receive, send)

    app.add_middleware(Middleware)
    await peer.start(nursery)
    await peer.stop()
    assert seen == ["lifespan"]


async def test_the_servers_end_is_not_held_up(app: App, peer: LifespanPeer, autojump_clock: MockClock) -> None:
    """A server that cancels the lifespan gets its cancellation back."""

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        yield

    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            await peer.start(nursery)
    assert scope.cancelled_caught
    assert peer.types() == ["lifespan.startup.complete"]


async def test_app_sessions_is_the_manager_while_serving(nursery: trio.Nursery) -> None:
    """Before and after, the error says what to do."""
    app = App(SessionConfig())
    peer = LifespanPeer(app)
    with pytest.raises(SessionStateError, match="not being served"):
        _ = app.sessions
    await peer.start(nursery)
    await app.sessions.session().put("x", 1)
    assert app.sessions.statistics().commits == 1
    await peer.stop()
    assert peer.types() == COMPLETE
    with pytest.raises(SessionStateError, match="not being served"):
        _ = app.sessions


async def test_app_sessions_with_a_manager_of_ones_own(nursery: trio.Nursery) -> None:
    """It is there at once, and stays open afterwards."""
    async with open_session_manager(SessionConfig()) as manager:
        app = App(manager=manager)
        assert app.sessions is manager
        peer = LifespanPeer(app)
        await peer.start(nursery)
        await peer.stop()
        assert peer.types() == COMPLETE
        await app.sessions.session().put("x", 1)


async def test_sessions_are_open_around_everything_else(nursery: trio.Nursery) -> None:
    """Background tasks and setups may use them until their very end."""
    app = App(SessionConfig())
    values: list[object] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                values.append(await app.sessions.session().increment("n"))

    @app.while_serving
    async def setup() -> AsyncIterator[None]:
        app.nursery.start_soon(work)
        yield
        values.append(await app.sessions.session().increment("n", 2))

    peer = LifespanPeer(app)
    await peer.start(nursery)
    await peer.stop()
    assert values == [1, 2]
    assert peer.types() == COMPLETE
