"""The server behind the test client as a whole: many requests at once, its lifespan and its end."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.testing import ASGIClient, LifespanFailedError, open_test_client

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body"}
WHERE = contextvars.ContextVar("WHERE", default="nowhere")


# -- many at once, and the end ---------------------------------------------------------------------------------------


async def test_many_tasks_may_ask_at_once(autojump_clock: MockClock) -> None:
    """Each gets its own answer; none waits for another."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await trio.sleep(10)
        await send(START)
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    answers: dict[int, str] = {}
    async with open_test_client(app) as client:

        async def ask(number: int) -> None:
            answers[number] = (await client.get(f"/{number}")).text

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
    assert answers == {number: f"/{number}" for number in range(50)}
    assert trio.current_time() == 10


async def test_the_callers_context_is_not_the_applications() -> None:
    """Between a browser and a server there are no context variables; the server has those it was opened with."""
    seen: list[tuple[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], WHERE.get()))

    WHERE.set("server")
    async with open_test_client(app) as client:
        WHERE.set("caller")
        await client.get("/")
    assert seen == [("lifespan", "server"), ("http", "server")]


async def test_requests_under_way_may_finish_when_the_block_ends(autojump_clock: MockClock) -> None:
    """For `graceful_timeout`; what is still running then is cancelled, and its client's connection breaks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await trio.sleep(float(scope["path"][1:]))
        await send(START)
        await send(LAST)

    outcomes: list[str] = []

    async def ask(client: ASGIClient, seconds: int) -> None:
        try:
            await client.get(f"/{seconds}")
            outcomes.append(f"{seconds} answered")
        except trio.BrokenResourceError:
            outcomes.append(f"{seconds} broken")

    async with trio.open_nursery() as nursery:
        async with open_test_client(app) as client:
            nursery.start_soon(ask, client, 2)
            nursery.start_soon(ask, client, 4)
            await wait_all_tasks_blocked()
        assert trio.current_time() == 3
    assert outcomes == ["2 answered", "4 broken"]
    with pytest.raises(trio.ClosedResourceError):
        await client.get("/0")


# -- lifespan --------------------------------------------------------------------------------------------------------


class Lifespan:
    """An application that speaks lifespan; requests are answered with what `state` says."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"spec_version": "2.0", "version": "3.0"}
            await self.lifespan(scope, receive, send)
        else:
            scope["state"]["name"] += "!"
            scope["state"]["list"].append(1)
            await send(START)
            await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.events.append((await receive())["type"])
        scope["state"].update(name="state", list=[])
        await trio.sleep(1)
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await trio.sleep(1)
        self.events.append("bye")
        await send({"type": "lifespan.shutdown.complete"})
        await trio.lowlevel.checkpoint()
        self.events.append("not on hypercorn")


def lived(body: Callable[[Receive, Send], Awaitable[None]]) -> ASGIApp:
    """An application whose lifespan is `body`, and whose requests are answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await body(receive, send)
        else:
            await send(START)
            await send(LAST)

    return app


async def test_the_application_is_started_up_and_shut_down(autojump_clock: MockClock) -> None:
    """The block begins and ends when it is done; after its last word it is not run any further."""
    app = Lifespan()
    async with open_test_client(app):
        assert app.events == ["lifespan.startup"]
        assert trio.current_time() == 1
    assert app.events == ["lifespan.startup", "lifespan.shutdown", "bye"]
    assert trio.current_time() == 2


async def test_requests_have_a_shallow_copy_of_the_state(autojump_clock: MockClock) -> None:
    """What a request changes at the top is its own, what is below is everybody's."""
    async with open_test_client(Lifespan()) as client:
        assert (await client.get("/")).text == "{'name': 'state!', 'list': [1]}"
        assert (await client.get("/")).text == "{'name': 'state!', 'list': [1, 1]}"


async def test_an_exception_of_the_block_comes_out_bare_after_the_shutdown(autojump_clock: MockClock) -> None:
    """No group, the very same exception."""
    app = Lifespan()
    error = KeyError("of the block")
    with pytest.raises(KeyError) as caught:
        async with open_test_client(app):
            raise error
    assert caught.value is error
    assert caught.value.__context__ is None
    assert app.events[-1] == "bye"


async def test_a_cancelled_block_shuts_the_application_down(autojump_clock: MockClock) -> None:
    """As if it had ended."""
    app = Lifespan()
    with trio.move_on_after(5) as scope:
        async with open_test_client(app):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert app.events[-1] == "bye"


async def test_a_startup_that_is_cancelled_is_over(autojump_clock: MockClock) -> None:
    """There is nothing to shut down yet."""
    app = Lifespan()
    with trio.move_on_after(0.5) as scope:
        async with open_test_client(app):
            pytest.fail("the block must not run")
    assert scope.cancelled_caught
    assert app.events == ["lifespan.startup"]


async def test_a_failed_startup_is_an_error_with_the_message(caplog: pytest.LogCaptureFixture) -> None:
    """The block does not run; sending the failure raises in the application, as it does on Hypercorn."""
    events: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        await receive()
        try:
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        finally:
            events.append("left")
        events.append("not on hypercorn")

    with pytest.raises(LifespanFailedError, match="startup failed: no database") as caught:
        async with open_test_client(lived(body)):
            pytest.fail("the block must not run")
    assert (caught.value.stage, caught.value.message) == ("startup", "no database")
    assert events == ["left"]
    assert caplog.text == ""


async def test_a_failed_startup_is_an_error_even_if_the_application_swallows_it() -> None:
    """It said what it said; and it is not asked to shut down."""
    events: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        await receive()
        try:
            await send({"type": "lifespan.startup.failed"})
        except LifespanFailedError as error:
            events.append(str(error))
        events.append((await receive())["type"])

    with pytest.raises(LifespanFailedError, match="startup failed"):
        async with open_test_client(lived(body)):
            pytest.fail("the block must not run")
    assert events == ["the application's startup failed: "]


async def _raises(receive: Receive, send: Send) -> None:
    raise AssertionError("this application speaks only http")


async def _returns(receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize("body", [_raises, _returns])
async def test_an_application_without_a_lifespan_is_served_all_the_same(
    body: Callable[[Receive, Send], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it raises at once or returns; the first is noted in the log."""
    async with open_test_client(lived(body)) as client:
        assert (await client.get("/")).status_code == 200
    assert ("does not speak lifespan" in caplog.text) == (body is _raises)


async def test_a_lifespan_that_says_nothing_fails_after_a_minute(autojump_clock: MockClock) -> None:
    """Hypercorn's patience, both ways."""

    async def silent(receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async def stays(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with pytest.raises(LifespanFailedError, match="startup failed: no answer within 60 s"):
        async with open_test_client(lived(silent)):
            pytest.fail("the block must not run")
    assert trio.current_time() == 60
    with pytest.raises(LifespanFailedError, match="shutdown failed: no answer within 60 s"):
        async with open_test_client(lived(stays)):
            pass
    assert trio.current_time() == 120


async def test_a_failed_shutdown_is_an_error() -> None:
    """It comes out when the block ends; if that raised, its own exception comes first."""

    async def body(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})

    with pytest.raises(LifespanFailedError, match="shutdown failed: disk full"):
        async with open_test_client(lived(body)):
            pass
    with pytest.raises(ValueError, match="of the block"):
        async with open_test_client(lived(body)):
            raise ValueError("of the block")


async def test_a_failure_while_serving_stops_everything_at_once(autojump_clock: MockClock) -> None:
    """As it stops the server: requests under way are cancelled, the block too, and the failure comes out."""
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await trio.sleep(5)
            await send({"type": "lifespan.shutdown.failed", "message": "a background task died"})
        else:
            try:
                await trio.sleep_forever()
            finally:
                events.append("request cancelled")

    with pytest.raises(LifespanFailedError, match="a background task died"):
        async with open_test_client(app) as client:
            await client.get("/")
    assert events == ["request cancelled"]
    assert trio.current_time() == 5


@pytest.mark.parametrize("raise_app_exceptions", [True, False])
async def test_a_lifespan_that_breaks_down_while_serving(
    raise_app_exceptions: bool, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Hypercorn serves on and nobody notices; a test should."""

    async def body(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise KeyError("of the sweeper")

    async def serve() -> None:
        async with open_test_client(lived(body), raise_app_exceptions=raise_app_exceptions) as client:
            await trio.sleep(1)
            assert (await client.get("/")).status_code == 200

    if raise_app_exceptions:
        with pytest.raises(KeyError, match="of the sweeper"):
            await serve()
    else:
        await serve()
        assert "KeyError: 'of the sweeper'" in caplog.text


async def test_a_lifespan_says_only_what_belongs_there(caplog: pytest.LogCaptureFixture) -> None:
    """Anything else is an error in the application."""

    async def body(receive: Receive, send: Send) -> None:
        await send(START)

    caplog.set_level(logging.WARNING)
    async with open_test_client(lived(body)):
        pass
    assert "Unexpected message type, http.response.start" in caplog.text


async def test_what_is_no_mere_exception_comes_out_of_a_lifespan(autojump_clock: MockClock) -> None:
    """`pytest.fail()` must fail the test there too."""

    async def body(receive: Receive, send: Send) -> None:
        pytest.fail("in the lifespan")

    with pytest.raises(pytest.fail.Exception, match="in the lifespan"):
        async with open_test_client(lived(body)):
            await trio.sleep_forever()
