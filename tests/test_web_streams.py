"""Streams: sent as they come, closed in the task that runs them, and told what happens to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session._asgi import Message
from trio_session.web import App, Request, Response, abort
from trio_session.web._response import ResponseValue

from .web_peer import Peer, ask


def app_streaming(make: Callable[[], AsyncIterator[str | bytes]]) -> App:
    """An App whose only handler streams."""
    app = App(sessions=False)

    @app.get("/")
    async def handler(request: Request) -> AsyncIterator[str | bytes]:
        return make()

    return app


class FailingSend(Peer):
    """A server whose `send` fails at the n-th chunk."""

    def __init__(self, app: App, *, at: int) -> None:
        super().__init__(app)
        self.at = at

    async def send(self, message: Message) -> None:
        if message.get("body") and len(self.sent) == self.at:
            self.at = -1
            raise OSError("cannot send")
        await super().send(message)


async def test_chunks_are_sent_as_they_come() -> None:
    """Text is UTF-8, empty chunks are left out, and the last message is empty."""

    async def chunks() -> AsyncIterator[str | bytes]:
        yield "caf\N{LATIN SMALL LETTER E WITH ACUTE} "
        yield ""
        yield b"bytes"

    answer = await ask(app_streaming(chunks))
    assert [message.get("body") for message in answer.sent[1:]] == [b"caf\xc3\xa9 ", b"bytes", b""]
    assert [message.get("more_body") for message in answer.sent[1:]] == [True, True, False]
    assert answer.headers == {"content-type": "text/html; charset=utf-8"}


async def test_a_stream_begins_before_its_first_chunk() -> None:
    """The client learns at once that it is connected, as with server-sent events."""
    peers: list[Peer] = []

    async def chunks() -> AsyncIterator[str]:
        assert peers[0].types() == ["http.response.start"]
        yield "x"

    peers.append(Peer(app_streaming(chunks)))
    await peers[0].run()
    assert peers[0].text == "x"


async def test_server_sent_events(nursery: trio.Nursery) -> None:
    """Each event is sent when there is one; the stream goes on until the client has had enough."""
    app = App(sessions=False)
    to_browser, events = trio.open_memory_channel[str](0)

    @app.get("/events")
    async def stream(request: Request) -> ResponseValue:
        if "text/event-stream" not in request.accept_mimetypes:  # type: ignore[comparison-overlap]  # as Quart shows it
            abort(406)

        async def encoded() -> AsyncIterator[str]:
            async with events:
                async for event in events:
                    yield f"data: {event}\n\n"

        return encoded(), 200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}

    assert (await ask(app, "/events", headers=[("Accept", "text/html")])).status == 406
    browser = Peer(app, "/events", headers=[("Accept", "text/event-stream")])
    nursery.start_soon(browser.run)
    for event in ("one", "two"):
        await to_browser.send(event)
        await wait_all_tasks_blocked()
        assert browser.sent[-1]["body"] == f"data: {event}\n\n".encode()
    assert browser.headers["content-type"] == "text/event-stream"
    browser.hang_up()
    await browser.returned.wait()
    with pytest.raises(trio.BrokenResourceError):
        await to_browser.send("to nobody")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_streams_that_are_not_sent_are_closed_all_the_same(method: str) -> None:
    """HEAD has no body, and neither has 304."""
    app = App(sessions=False)
    closed: list[bool] = []

    class Stream:
        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> str:
            raise AssertionError("asked for a chunk")

        async def aclose(self) -> None:
            closed.append(True)

    @app.get("/")
    async def handler(request: Request) -> Response:
        return Response(Stream(), 200 if request.method == "HEAD" else 304)

    answer = await ask(app, method=method)
    assert (answer.body, closed) == (b"", [True])


async def test_any_async_iterator_will_do() -> None:
    """A memory channel, for example; it is closed at the end."""
    send_channel, receive_channel = trio.open_memory_channel[str](5)
    for word in ("a", "b"):
        send_channel.send_nowait(word)
    send_channel.close()
    assert (await ask(app_streaming(lambda: receive_channel))).text == "ab"
    with pytest.raises(trio.ClosedResourceError):
        receive_channel.receive_nowait()


async def test_iterators_that_cannot_be_closed() -> None:
    """Are not; and without `athrow` what goes wrong in sending simply comes out."""

    class Plain:
        def __init__(self) -> None:
            self.words = ["a", "b"]

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> str:
            if not self.words:
                raise StopAsyncIteration
            return self.words.pop(0)

    assert (await ask(app_streaming(Plain))).text == "ab"
    with pytest.raises(OSError, match="cannot send"):
        await FailingSend(app_streaming(Plain), at=2).run()


async def test_a_stream_of_something_else_is_told_so() -> None:
    """The TypeError is raised at the `yield` that caused it."""
    seen: list[str] = []

    async def chunks() -> AsyncIterator[str]:
        try:
            yield 7  # type: ignore[misc]  # that is the point  # pyright: ignore[reportReturnType]
        except TypeError as error:
            seen.append(str(error))
        yield "went on"

    assert (await ask(app_streaming(chunks))).text == "went on"
    assert seen == ["a stream yields str or bytes, not int"]


async def test_what_goes_wrong_in_sending_is_raised_at_the_yield() -> None:
    """The generator may clean up, go on, stop, or raise something else; the context is as Python makes it."""

    async def passing() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def going_on() -> AsyncIterator[str]:
        yield "a"
        try:
            yield "b"
        except OSError:
            yield "c"
        yield "d"

    async def stopping() -> AsyncIterator[str]:
        yield "a"
        try:
            yield "b"
        except OSError:
            return

    async def translating() -> AsyncIterator[str]:
        yield "a"
        try:
            yield "b"
        except OSError as error:
            raise LookupError("translated") from error

    with pytest.raises(OSError, match="cannot send") as caught:
        await FailingSend(app_streaming(passing), at=2).run()
    assert caught.value.__context__ is None
    for make, text in [(going_on, "acd"), (stopping, "a")]:
        peer = FailingSend(app_streaming(make), at=2)
        await peer.run()
        assert peer.text == text
    with pytest.raises(LookupError, match="translated") as translated:
        await FailingSend(app_streaming(translating), at=2).run()
    assert isinstance(translated.value.__cause__, OSError)


class SlowPeer(Peer):
    """A client that takes a while for each chunk."""

    async def send(self, message: Message) -> None:
        if message.get("body"):
            await trio.sleep(10)
        await super().send(message)


async def test_a_generators_own_timeout_is_its_own(autojump_clock: MockClock) -> None:
    """A cancel scope around a `yield` covers the sending; when it fires, the generator goes on behind it."""
    late: list[bool] = []

    async def chunks() -> AsyncIterator[str]:
        with trio.move_on_after(5) as scope:
            yield "too slow"
            yield "never"
        late.append(scope.cancelled_caught)
        with trio.move_on_after(15):
            yield "in time"

    peer = SlowPeer(app_streaming(chunks))
    await peer.run()
    assert (peer.text, late) == ("in time", [True])
    assert trio.current_time() == 15


async def test_a_nursery_may_be_around_a_yield(autojump_clock: MockClock) -> None:
    """It is all one task; a failing child cancels the sending and comes out of the generator."""

    async def fail() -> None:
        await trio.sleep(3)
        raise ValueError("child")

    async def chunks() -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield "one"

    with pytest.raises(ExceptionGroup) as caught:
        await SlowPeer(app_streaming(chunks)).run()
    assert [str(error) for error in caught.value.exceptions] == ["child"]
    assert trio.current_time() == 3


async def test_hanging_up_is_a_cancellation_at_the_yield(nursery: trio.Nursery) -> None:
    """The generator cleans up at once, in the task that ran it, whether it waits or is being sent."""
    cleaned: list[object] = []
    tasks: list[object] = []

    async def chunks() -> AsyncIterator[str]:
        tasks.append(trio.lowlevel.current_task())
        try:
            yield "first"
            await trio.sleep_forever()
        except trio.Cancelled:
            cleaned.append(trio.lowlevel.current_task())
            raise

    class Stuck(Peer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message.get("body"):
                await trio.sleep_forever()

    for kind in (Peer, Stuck):
        peer = kind(app_streaming(chunks))
        nursery.start_soon(peer.run)
        await wait_all_tasks_blocked()
        assert peer.text == "first"
        peer.hang_up()
        await peer.returned.wait()
        assert cleaned == tasks
    assert len(cleaned) == 2


@pytest.mark.parametrize("chunk", ["x", ""])
async def test_a_generator_that_never_waits_is_cancelled(nursery: trio.Nursery, chunk: str) -> None:
    """Servers let everything pass, without ever waiting, once the client has gone; others must run all the same."""

    class Indifferent(Peer):
        async def send(self, message: Message) -> None:
            pass

    async def chunks() -> AsyncIterator[str]:
        while True:
            yield chunk

    peer = Indifferent(app_streaming(chunks))
    nursery.start_soon(peer.run)
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    peer.hang_up()
    await peer.returned.wait()


async def test_a_generator_that_swallows_everything_can_still_be_cancelled() -> None:
    """A loop around a broken `send` must not hang the server: others go on, and it ends when it is cancelled."""

    class Broken(Peer):
        async def send(self, message: Message) -> None:
            if message.get("body"):
                raise OSError
            await super().send(message)

    async def stubborn() -> AsyncIterator[str]:
        while True:
            with suppress(OSError):
                yield "x"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Broken(app_streaming(stubborn)).run)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_stream_is_closed_if_the_start_cannot_be_sent() -> None:
    """It has never begun, so there is nothing to throw into; it is closed in any case."""
    closed: list[str] = []

    class Stream:
        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> str:
            raise AssertionError

        async def aclose(self) -> None:
            closed.append("closed")

    class NoStart(Peer):
        async def send(self, message: Message) -> None:
            raise OSError("no start")

    with pytest.raises(OSError, match="no start"):
        await NoStart(app_streaming(Stream)).run()
    assert closed == ["closed"]


async def test_the_traceback_leads_to_the_yield() -> None:
    """Whoever debugs a stream sees which chunk could not be sent."""

    async def chunks() -> AsyncGenerator[str, None]:
        yield "a"

    with pytest.raises(OSError, match="cannot send") as caught:
        await FailingSend(app_streaming(chunks), at=1).run()
    names: list[str] = []
    step: TracebackType | None = caught.tb
    while step is not None:
        names.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert "chunks" in names
