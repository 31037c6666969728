"""The server behind the test client, for one request: streams, hang-ups, and what the application raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_session._asgi import ASGIApp, Message, Receive, Scope, Send
from trio_session.testing import StreamedResponse, open_test_client

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body"}


def part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


class Story:
    """An ASGI application made of one function for requests; it remembers what happened."""

    def __init__(self, handle: Callable[[Story, Receive, Send], Awaitable[None]]) -> None:
        self.events: list[str] = []
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await self._handle(self, receive, send)
        except trio.Cancelled:
            self.events.append("cancelled")
            raise
        else:
            self.events.append("returned")

    async def receive_all(self, receive: Receive, count: int) -> None:
        for _ in range(count):
            self.events.append((await receive())["type"])


@asynccontextmanager
async def streaming(app: ASGIApp, **options: Any) -> AsyncIterator[StreamedResponse]:
    """A client for `app` with a response of it."""
    async with open_test_client(app, **options) as client, client.stream("GET", "/") as response:
        yield response


# -- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_the_response_when_it_starts() -> None:
    """The head first, then chunk by chunk as the application sends them."""
    go_on = trio.Event()

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send({**START, "status": 201, "headers": [(b"Set-Cookie", b"a=1")]})
        await send(part(b"one"))
        await go_on.wait()
        await send(part(b""))
        await send(part(b"two"))
        await send({"type": "http.response.body", "body": b"three"})

    app = Story(handle)
    async with streaming(app) as response:
        assert response.status_code == 201
        assert response.cookies == {"a": "1"}
        assert repr(response) == "<StreamedResponse 201 http://testserver/>"
        chunks = response.chunks()
        assert await anext(chunks) == b"one"
        go_on.set()
        assert [chunk async for chunk in chunks] == [b"two", b"three"]
        assert await response.read() == b""
    assert app.events == ["returned"]


async def test_http_disconnect_comes_once_after_the_complete_response(autojump_clock: MockClock) -> None:
    """And then `receive()` has nothing more to say, for ever."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        await story.receive_all(receive, 2)
        with trio.move_on_after(3600):
            await receive()
        story.events.append("still waiting")

    app = Story(handle)
    async with open_test_client(app, graceful_timeout=7200) as client:
        await client.get("/")
    assert app.events == ["http.request", "http.disconnect", "still waiting", "returned"]


@pytest.mark.parametrize("reads", [0, 1])
async def test_leaving_early_is_a_hang_up(reads: int, autojump_clock: MockClock) -> None:
    """The application is told, what it sends goes nowhere, and the block waits for its end."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(b"one"))
        await story.receive_all(receive, 2)
        await send(part(b"x" * 100_000))
        await send(LAST)
        await trio.sleep(2)

    app = Story(handle)
    async with streaming(app) as response:
        async for _ in response.chunks():
            break
    assert app.events == ["http.request", "http.disconnect", "returned"]
    assert trio.current_time() == 2


async def test_an_application_that_ignores_a_hang_up_is_cancelled(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """After `graceful_timeout`; what it shields it may still finish."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        try:
            await send(START)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            story.events.append("cleaned up")

    app = Story(handle)
    async with streaming(app, graceful_timeout=5):
        pass
    assert app.events == ["cleaned up", "cancelled"]
    assert trio.current_time() == 6
    assert "did not end in time" in caplog.text


async def test_an_application_that_never_stops_sending_is_cancelled(autojump_clock: MockClock) -> None:
    """It lets no time pass on a test's clock, so its messages are counted instead."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await send(part(b"more"))

    app = Story(handle)
    async with streaming(app) as response:
        assert await anext(response.chunks()) == b"more"
    assert app.events == ["cancelled"]


async def test_a_client_that_does_not_read_slows_the_application_down() -> None:
    """After a socket's buffer is full, `send` waits."""
    sent = 0

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        for _ in range(10):
            await send(part(b"x" * 40_000))
            sent += 1
        await send(LAST)

    async with streaming(Story(handle)) as response:
        await wait_all_tasks_blocked()
        assert sent == 1
        assert len(await response.read()) == 400_000


async def test_an_application_that_does_not_read_the_body_hangs_as_on_hypercorn(autojump_clock: MockClock) -> None:
    """Its last `send` waits for room in the queue of ten; the response is complete, but the request never ends."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        story.events.append("not on hypercorn")

    app = Story(handle)
    async with open_test_client(app) as client:
        with pytest.raises(trio.TooSlowError, match="3 s after its response was complete"):
            await client.post("/", content=[b"x"] * 9)
        assert app.events == ["cancelled"]
        await client.post("/", content=[b"x"] * 8)
        assert app.events == ["cancelled", "not on hypercorn", "returned"]


async def test_reading_the_body_late_sets_the_last_send_free() -> None:
    """Another task of the application may read meanwhile."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            await send(START)
            nursery.start_soon(send, LAST)
            await wait_all_tasks_blocked()
            await story.receive_all(receive, 12)

    app = Story(handle)
    async with open_test_client(app) as client:
        await client.post("/", content=[b"x"] * 10)
    assert app.events == [*["http.request"] * 11, "http.disconnect", "returned"]


async def test_work_after_the_response_is_awaited(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """For as long as `graceful_timeout`: more is a mistake, or has to be allowed."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        await trio.sleep(60)

    app = Story(handle)
    async with open_test_client(app, graceful_timeout=61) as client:
        await client.get("/")
    assert app.events == ["returned"]
    async with open_test_client(app, raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == 200
    assert app.events == ["returned", "cancelled"]
    assert "did not end in time" in caplog.text


# -- cancellation ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_is_a_hang_up(autojump_clock: MockClock) -> None:
    """The application is told and may take its time; then the caller goes on."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await story.receive_all(receive, 2)
        await trio.sleep(2)
        await send(START)
        await send(LAST)

    app = Story(handle)
    async with open_test_client(app) as client:
        with trio.move_on_after(1) as scope:
            await client.get("/")
        assert scope.cancelled_caught
        assert app.events == ["http.request", "http.disconnect", "returned"]
        assert trio.current_time() == 3


async def test_a_cancelled_call_ends_even_if_the_application_does_not(autojump_clock: MockClock) -> None:
    """It is cancelled when it had its chance."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    app = Story(handle)
    async with open_test_client(app) as client:
        with trio.move_on_after(1):
            await client.get("/")
    assert app.events == ["cancelled"]
    assert trio.current_time() == 4


async def test_the_applications_error_does_not_hide_the_cancellation(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """What it raises after the hang-up is logged."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await story.receive_all(receive, 2)
        raise KeyError("late")

    async with open_test_client(Story(handle)) as client:
        with trio.move_on_after(1) as scope:
            await client.get("/")
    assert scope.cancelled_caught
    assert "KeyError: 'late'" in caplog.text


async def test_every_call_is_a_checkpoint() -> None:
    """Of the client and of the application."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        with assert_checkpoints():
            await receive()
        with assert_checkpoints():
            await send(START)
        await send({"type": "http.response.body", "body": b"x"})

    async with open_test_client(Story(handle)) as client:
        with assert_checkpoints():
            await client.get("/")
        assert not client._server._running  # and nothing of it is kept
        async with client.stream("GET", "/") as response:
            await wait_all_tasks_blocked()
            with assert_checkpoints():
                await anext(response.chunks())


# -- what the application raises -------------------------------------------------------------------------------------


async def test_what_the_application_raises_comes_out_of_the_call() -> None:
    """Bare, and the very same exception, before the response, in the middle of it and after it."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        if len(story.events) > 0:
            await send(START)
            await send(part(b"x"))
        if len(story.events) > 1:
            await send(LAST)
        story.events.append("raises")
        raise error

    error = KeyError("of the application")
    async with open_test_client(Story(handle)) as client:
        for _ in range(3):
            with pytest.raises(KeyError) as caught:
                await client.get("/")
            assert caught.value is error


@pytest.mark.parametrize("error", [pytest.fail.Exception("failed"), BaseExceptionGroup("two", [KeyboardInterrupt()])])
async def test_what_is_no_mere_exception_comes_out_always(error: BaseException) -> None:
    """`pytest.fail()` in an application must fail the test."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise error

    async with open_test_client(app, raise_app_exceptions=False) as client:
        with pytest.raises(type(error)) as caught:
            await client.get("/")
        assert caught.value is error


async def test_or_it_is_answered_as_hypercorn_does(caplog: pytest.LogCaptureFixture) -> None:
    """An empty 500 before the start, a broken connection after it; and the log says why."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        if story.events:
            await send(START)
        story.events.append("raises")
        raise KeyError("of the application")

    async with open_test_client(Story(handle), raise_app_exceptions=False) as client:
        response = await client.get("/")
        assert response.status_code == 500
        assert response.headers["content-length"] == "0"
        assert "KeyError: 'of the application'" in caplog.text
        with pytest.raises(trio.BrokenResourceError, match="in the middle of its response"):
            await client.get("/")


@pytest.mark.parametrize("raise_app_exceptions", [True, False])
async def test_an_application_that_answers_nothing_is_answered_for(raise_app_exceptions: bool) -> None:
    """Returning without a response is a 500; without its end it is a broken connection."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        if story.events:
            await send(START)
            await send(part(b"x"))

    app = Story(handle)
    async with open_test_client(app, raise_app_exceptions=raise_app_exceptions) as client:
        assert (await client.get("/")).status_code == 500
        async with client.stream("GET", "/") as response:
            chunks = response.chunks()
            assert await anext(chunks) == b"x"
            with pytest.raises(trio.BrokenResourceError):
                await anext(chunks)


async def test_the_blocks_own_exception_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    """It is a hang-up; and what the application makes of it is logged."""

    async def handle(story: Story, receive: Receive, send: Send) -> None:
        await send(START)
        await story.receive_all(receive, 2)
        raise KeyError("of the application")

    app = Story(handle)
    with pytest.raises(ValueError, match="of the block"):
        async with streaming(app):
            raise ValueError("of the block")
    assert app.events == ["http.request", "http.disconnect"]
    assert "KeyError: 'of the application'" in caplog.text


async def test_a_bodyless_response_has_no_body() -> None:
    """Neither for HEAD nor with 204 and 304, whatever the application sends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({**START, "status": int(scope["path"][1:]), "headers": [(b"x", b"1")]})
        await send({"type": "http.response.body", "body": b"body"})

    async with open_test_client(app) as client:
        assert (await client.get("/200")).content == b"body"
        assert (await client.head("/200")).content == b""
        assert (await client.get("/204")).content == b""
        assert (await client.get("/304")).content == b""
