"""SessionMiddleware, message by message: cookies out, headers, what may still be done when, and nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import (
    LocalStore,
    LockLostError,
    Session,
    SessionConfig,
    SessionDataError,
    SessionEndedError,
    SessionFinishedError,
    SessionManager,
    SessionMiddleware,
    SessionStateError,
    StorageUnavailableError,
    get_session,
    open_session_manager,
)
from trio_session._asgi import Message, Receive, Scope, Send

Handler = Callable[[Session, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"done"}


class Answer:
    """What went out for one request."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        start = next((message for message in messages if message["type"].endswith((".start", ".accept"))), {})
        self.status = start.get("status")
        self.headers: list[tuple[bytes, bytes]] = list(start.get("headers", []))

    def header(self, name: bytes) -> list[str]:
        return [value.decode() for key, value in self.headers if key == name]

    @property
    def cookie(self) -> str | None:
        cookies = self.header(b"set-cookie")
        assert len(cookies) <= 1
        return cookies[0] if cookies else None

    @property
    def id(self) -> str | None:
        return None if self.cookie is None else self.cookie.partition(";")[0].partition("=")[2]


def scope_of(kind: str = "http", *, cookie: str | None = None, **more: Any) -> Scope:
    headers = [(b"host", b"localhost")]
    if cookie is not None:
        headers.append((b"cookie", cookie.encode()))
    scheme = "http" if kind == "http" else "ws"
    return {"type": kind, "http_version": "1.1", "scheme": scheme, "headers": headers, "path": "/", **more}


async def never() -> Message:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


def handled_by(handler: Handler, *, start: Headers = ()) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that lets `handler` use the session, and then answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handler(get_session(scope), send)
        await send({**START, "headers": list(start)})
        await send(BODY)

    return app


async def request(
    app: SessionMiddleware, *, id: str | None = None, scope: Scope | None = None, receive: Receive = never
) -> Answer:
    cookie = None if id is None else f"trio_session={id}"
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)
        await trio.lowlevel.checkpoint()

    await app(scope or scope_of(cookie=cookie), receive, send)
    return Answer(messages)


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig(**settings)) as manager:
        yield manager


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with opened() as manager:
        yield manager


async def stored(manager: SessionManager) -> str:
    session = manager.session()
    await session.put("n", 1)
    assert session.id is not None
    return session.id


async def nothing(session: Session, send: Send) -> None:
    pass


async def count(session: Session, send: Send) -> None:
    await session.increment("n")


# -- the Session in the scope ----------------------------------------------------------------------------------------


async def test_the_session_is_where_frameworks_look_for_it(manager: SessionManager) -> None:
    """At both keys, and wherever a request object has its scope."""
    seen: list[object] = []

    class Request:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope["trio_session"], scope.get("session"), get_session(scope), get_session(Request(scope))])

    await request(SessionMiddleware(app, manager=manager))
    assert len({id(session) for session in seen}) == 1
    seen.clear()
    await request(SessionMiddleware(app, manager=manager, scope_key=None))
    assert seen[1] is None
    with pytest.raises(SessionStateError, match="SessionMiddleware"):
        get_session({})


async def test_without_a_manager_both_fixes_are_named() -> None:
    """A request before the lifespan has opened a manager, on a server that does not speak it, say."""
    app = SessionMiddleware(handled_by(nothing), SessionConfig())
    assert app.manager is None
    with pytest.raises(SessionStateError, match=r"lifespan.*manager=manager"):
        await request(app)


async def test_other_scope_types_pass_through(manager: SessionManager) -> None:
    """Whatever comes to ASGI next is none of our business."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await request(SessionMiddleware(app, manager=manager), scope={"type": "webtransport"})
    assert seen == [{"type": "webtransport"}]


# -- autoload --------------------------------------------------------------------------------------------------------


async def test_autoload_reads_if_there_is_a_cookie(manager: SessionManager) -> None:
    """Handlers find the data read; without a cookie it is known to be empty, without asking the store."""
    asked: list[str] = []
    load = manager._engine.store.load

    async def counting_load(key: str, **rest: Any) -> Any:
        asked.append(key)
        return await load(key, **rest)

    manager._engine.store.load = counting_load  # type: ignore[method-assign]
    seen: list[object] = []

    async def look(session: Session, send: Send) -> None:
        seen.append(session.get("n"))

    id = await stored(manager)
    app = SessionMiddleware(handled_by(look), manager=manager)
    await request(app, id=id)
    await request(app)
    await request(app, id="nonsense")
    assert seen == [1, None, None]
    assert len(asked) == 1


async def test_autoload_can_be_turned_off(manager: SessionManager) -> None:
    """For all requests, or for those that a predicate on the scope names; the session can still be read."""
    seen: list[object] = []

    async def look(session: Session, send: Send) -> None:
        seen.append(session.is_read)
        seen.append((await session.read())["n"])

    id = await stored(manager)
    for autoload in (False, lambda scope: scope["path"] == "/with", True):
        app = SessionMiddleware(handled_by(look), manager=manager, autoload=autoload)
        await request(app, id=id)
        await request(app, scope=scope_of(cookie=f"trio_session={id}", path="/with"))
    assert seen == [False, 1, False, 1, False, 1, True, 1, True, 1, True, 1]


async def test_a_store_that_is_down_is_a_503(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """While a session is loaded, for HTTP and for WebSockets; requests without the cookie are served."""

    async def fail(*args: object, **rest: object) -> Any:
        raise StorageUnavailableError("the line is cut")

    id = await stored(manager)
    manager._engine.store.load = fail  # type: ignore[method-assign]
    app = SessionMiddleware(handled_by(nothing), manager=manager)
    answer = await request(app, id=id)
    assert answer.status == 503
    assert answer.header(b"retry-after") == ["1"]
    assert answer.cookie is None
    assert "the line is cut" in caplog.text
    assert (await request(app)).status == 200
    cookie = f"trio_session={id}"
    denied = await request(app, scope=scope_of("websocket", cookie=cookie, extensions={"websocket.http.response": {}}))
    assert denied.status == 503
    assert [message["type"] for message in denied.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    refused = await request(app, scope=scope_of("websocket", cookie=cookie))
    assert refused.messages == [{"type": "websocket.close"}]


async def test_a_record_that_cannot_be_decoded_can_still_be_cleared() -> None:
    """Autoload does not fail on it, reading does; clear() works, and so does the setting `discard`."""

    async def spoil(manager: SessionManager, id: str) -> None:
        store = manager._engine.store
        assert isinstance(store, LocalStore)
        store._records[manager._engine.ids.key(id)].blob = b"\xff foreign"

    async def look_and_clear(session: Session, send: Send) -> None:
        for look in (lambda: session.get("n"), lambda: len(session)):
            with pytest.raises(SessionDataError):
                look()
        with pytest.raises(SessionDataError):
            await session.read()
        with pytest.raises(SessionDataError):
            await session.increment("n")
        assert not session.is_locked
        await session.clear()

    async with opened() as manager:
        id = await stored(manager)
        await spoil(manager, id)
        answer = await request(SessionMiddleware(handled_by(look_and_clear), manager=manager), id=id)
        assert answer.cookie is not None
        assert "Max-Age=0" in answer.cookie
    async with opened(undecodable="discard") as manager:
        id = await stored(manager)
        await spoil(manager, id)
        await request(SessionMiddleware(handled_by(count), manager=manager), id=id)
        assert dict(await manager.session(id).read()) == {"n": 1}


# -- cookies ---------------------------------------------------------------------------------------------------------


async def test_a_cookie_comes_with_the_first_data(manager: SessionManager) -> None:
    """A visitor without data gets none; the first commit's response sets it, with all its attributes."""
    assert (await request(SessionMiddleware(handled_by(nothing), manager=manager))).cookie is None
    answer = await request(SessionMiddleware(handled_by(count), manager=manager))
    assert answer.cookie == f"trio_session={answer.id}; Max-Age=7200; Path=/; HttpOnly; SameSite=Lax"
    assert (await manager.session(answer.id).read())["n"] == 1


async def test_a_cookie_is_sent_again_when_the_expiry_slides(autojump_clock: MockClock) -> None:
    """By a commit, or by a read that slides it; not by every read."""
    async with opened(lifetime=100.0, touch_interval=10.0) as manager:
        id = await stored(manager)
        look = SessionMiddleware(handled_by(nothing), manager=manager)
        assert (await request(look, id=id)).cookie is None
        await trio.sleep(10)
        assert (await request(look, id=id)).id == id
        assert (await request(look, id=id)).cookie is None
        assert (await request(SessionMiddleware(handled_by(count), manager=manager), id=id)).id == id


async def test_a_new_id_reaches_the_browser(manager: SessionManager) -> None:
    """refresh() sends the new cookie, and the old id is dead."""

    async def login(session: Session, send: Send) -> None:
        await session.refresh()

    id = await stored(manager)
    answer = await request(SessionMiddleware(handled_by(login), manager=manager), id=id)
    assert answer.id not in (None, id)
    assert (await manager.session(answer.id).read())["n"] == 1
    assert (await manager.session(id).read()).is_empty


async def test_clear_removes_the_cookie(manager: SessionManager) -> None:
    """With the attributes it was set with; a browser that sent none is not bothered."""

    async def logout(session: Session, send: Send) -> None:
        await session.clear()

    app = SessionMiddleware(handled_by(logout), manager=manager)
    answer = await request(app, id=await stored(manager))
    assert answer.cookie is not None
    assert answer.cookie.startswith("trio_session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; HttpOnly")
    assert (await request(app)).cookie is None
    assert (await request(app, id="nonsense")).cookie is not None

    async def logout_and_begin_anew(session: Session, send: Send) -> None:
        await session.clear()
        await session.put("flash", "Goodbye")

    app = SessionMiddleware(handled_by(logout_and_begin_anew), manager=manager)
    id = await stored(manager)
    answer = await request(app, id=id)
    assert answer.id not in (None, "", id)


@pytest.mark.parametrize("end", [Session.clear, Session.refresh])
async def test_a_slow_request_of_an_ended_session_sets_no_cookie(
    manager: SessionManager, end: Callable[[Session], Awaitable[None]]
) -> None:
    """Or it would overwrite the cookie of the login that has come since; and it cannot commit."""
    id = await stored(manager)

    async def slow(session: Session, send: Send) -> None:
        assert session["n"] == 1
        await end(manager.session(id))
        with pytest.raises(SessionEndedError):
            await session.increment("n")

    assert (await request(SessionMiddleware(handled_by(slow), manager=manager), id=id)).cookie is None
    assert (await request(SessionMiddleware(handled_by(nothing), manager=manager), id=id)).cookie is None


@pytest.mark.parametrize(
    ("settings", "scheme", "secure"),
    [
        ({}, "http", False),
        ({}, "https", True),
        ({"secure": True}, "http", True),
        ({"secure": False}, "https", False),
    ],
)
async def test_secure_by_scheme(settings: dict[str, Any], scheme: str, secure: bool) -> None:
    """`auto` goes by the scheme of the scope, True and False by nothing."""
    async with opened(cookie_name="sid", **settings) as manager:
        app = SessionMiddleware(handled_by(count), manager=manager)
        answer = await request(app, scope=scope_of(scheme=scheme))
        assert answer.cookie is not None
        assert ("; Secure" in answer.cookie) is secure


async def test_odd_cookie_headers_are_no_errors(manager: SessionManager) -> None:
    """Whatever the network sends, our cookie is found or absent."""
    id = await stored(manager)
    app = SessionMiddleware(handled_by(count), manager=manager)
    for header in (
        f'{{"j":1}}; trio_session={id}',
        f"flag; trio_session={id}",
        f"expires=x; path=/; trio_session={id}; =; ;;",
        f'a=1; bad[x]=2; trio_session="{id}"',
        f"trio_session=; trio_session={id}",
        f"trio_session=\xff\xfe; trio_session={id}",
    ):
        answer = await request(app, scope=scope_of(cookie=header))
        assert answer.id == id
    scope = scope_of()
    scope["headers"] += [(b"cookie", b"other=1"), (b"cookie", f"trio_session={id}".encode())]
    assert (await request(app, scope=scope)).id == id
    assert (await manager.session(id).read())["n"] == 8


async def test_caches_are_told(manager: SessionManager) -> None:
    """Private if a cookie is set, Vary if the session was used; other directives stay."""
    id = await stored(manager)
    answer = await request(
        SessionMiddleware(
            handled_by(count, start=[(b"cache-control", b"public, max-age=60"), (b"vary", b"accept")]), manager=manager
        ),
        id=id,
    )
    assert answer.header(b"cache-control") == ["max-age=60, private"]
    assert answer.header(b"vary") == ["accept, Cookie"]

    async def look(session: Session, send: Send) -> None:
        session.get("n")

    answer = await request(SessionMiddleware(handled_by(look), manager=manager), id=id)
    assert (answer.header(b"cache-control"), answer.header(b"vary")) == ([], ["Cookie"])
    answer = await request(SessionMiddleware(handled_by(nothing), manager=manager), id=id)
    assert answer.headers == []


async def test_a_response_without_headers_is_given_some(manager: SessionManager) -> None:
    """ASGI lets an application leave them out."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await get_session(scope).increment("n")
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    assert (await request(SessionMiddleware(app, manager=manager))).cookie is not None


# -- after the start of the response ---------------------------------------------------------------------------------


async def test_commits_after_the_start(manager: SessionManager) -> None:
    """An existing id can be written; what needs a new cookie is refused and rolled back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        await send(START)
        if session.id is not None:
            await session.increment("n")
            needs_a_cookie = session.refresh()
        else:
            needs_a_cookie = session.put("flash", "Hello")
        with pytest.raises(SessionFinishedError, match="before the response"):
            await needs_a_cookie
        assert not session.is_locked
        await send(BODY)

    middleware = SessionMiddleware(app, manager=manager)
    id = await stored(manager)
    assert (await request(middleware, id=id)).cookie is None
    assert dict(await manager.session(id).read()) == {"n": 2}
    await request(middleware)
    assert manager.statistics().locks_held == 0


async def test_clear_after_the_start(manager: SessionManager) -> None:
    """It works at once; the dead cookie goes with the next response that is asked for with it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await get_session(scope).clear()
        with pytest.raises(SessionFinishedError):
            await get_session(scope).put("n", 1)
        await send(BODY)

    id = await stored(manager)
    assert (await request(SessionMiddleware(app, manager=manager), id=id)).cookie is None
    assert (await manager.session(id).read()).is_empty
    answer = await request(SessionMiddleware(handled_by(nothing), manager=manager), id=id)
    assert answer.cookie is not None
    assert "Max-Age=0" in answer.cookie


async def test_the_start_waits_for_a_commit_under_way(autojump_clock: MockClock) -> None:
    """A first id that is being stored by another task of the request goes out with the response."""
    async with opened() as manager:
        commit = manager._engine.store.commit

        async def slow_commit(*args: Any, **rest: Any) -> Any:
            await trio.sleep(1)
            return await commit(*args, **rest)

        manager._engine.store.commit = slow_commit  # type: ignore[method-assign]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get_session(scope).increment, "n")
                await wait_all_tasks_blocked()
                await send(START)
                await send(BODY)

        answer = await request(SessionMiddleware(app, manager=manager))
        assert (await manager.session(answer.id).read())["n"] == 1


# -- nothing left behind ---------------------------------------------------------------------------------------------


async def test_an_explicit_lock_left_behind(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """It is rolled back before the last message goes out, with a warning; its changes are gone."""
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        await session.lock()
        session["n"] = 100
        await send(START)
        await send({**BODY, "more_body": True})
        held.append(manager.statistics().locks_held)
        await send(BODY)
        held.append(manager.statistics().locks_held)

    id = await stored(manager)
    await request(SessionMiddleware(app, manager=manager), id=id)
    assert held == [1, 0]
    assert (await manager.session(id).read())["n"] == 1
    assert "left behind" in caplog.text
    assert id not in caplog.text


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
async def test_whatever_happens_no_lock_survives_the_application(
    manager: SessionManager, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it never answers; its exception comes out bare."""
    error = ValueError("mine")
    around = trio.CancelScope()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        await session.lock()
        session["n"] = 100
        if how == "raises":
            raise error
        if how == "is cancelled":
            around.cancel()
            await trio.sleep_forever()

    id = await stored(manager)
    middleware = SessionMiddleware(app, manager=manager)
    if how == "raises":
        with pytest.raises(ValueError, match="mine") as caught:
            await request(middleware, id=id)
        assert caught.value is error
    else:
        with around:
            await request(middleware, id=id)
    assert manager.statistics().locks_held == 0
    assert (await manager.session(id).read())["n"] == 1
    assert "outlived its request" in caplog.text


async def test_a_task_that_outlives_its_request(manager: SessionManager) -> None:
    """Its block is cancelled and told why; afterwards the session refuses, and the message shows what to use."""
    outcome: list[object] = []
    sessions: list[Session] = []

    async def hold(session: Session) -> None:
        try:
            async with session.locked() as data:
                data["n"] = 100
                await trio.sleep_forever()
        except LockLostError as error:
            outcome.append(error.reason)

    async with trio.open_nursery() as nursery:

        async def spawn(session: Session, send: Send) -> None:
            sessions.append(session)
            nursery.start_soon(hold, session)
            await wait_all_tasks_blocked()

        id = await stored(manager)
        await request(SessionMiddleware(handled_by(spawn), manager=manager), id=id)
        assert manager.statistics().locks_held == 0
    assert outcome == ["request_ended"]
    assert manager.statistics().locks_lost == 0
    assert sessions[0]["n"] == 1
    with pytest.raises(SessionFinishedError, match=r"manager\.session\(id\)"):
        await sessions[0].increment("n")


async def test_a_block_around_the_last_message_commits(manager: SessionManager) -> None:
    """A block is never left behind: it ends by itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with get_session(scope).locked() as data:
            data["n"] = 2
            await send(START)
            await send(BODY)

    id = await stored(manager)
    await request(SessionMiddleware(app, manager=manager), id=id)
    assert (await manager.session(id).read())["n"] == 2


async def test_a_commit_in_flight_lands_after_the_request(autojump_clock: MockClock) -> None:
    """A task of the request that is committing when the request ends is left alone."""
    async with opened() as manager:
        id = await stored(manager)
        commit = manager._engine.store.commit

        async def slow_commit(*args: Any, **rest: Any) -> Any:
            await trio.sleep(1)
            return await commit(*args, **rest)

        manager._engine.store.commit = slow_commit  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await send(START)
                nursery.start_soon(get_session(scope).increment, "n")
                await wait_all_tasks_blocked()
                await send(BODY)

            await request(SessionMiddleware(app, manager=manager), id=id)
        assert (await manager.session(id).read())["n"] == 2


# -- the rest of the request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("http_version", ["1.1", "2"])
@pytest.mark.parametrize("read", [0, 3, 20])
async def test_an_unread_body_is_read_before_the_last_message(
    manager: SessionManager, http_version: str, read: int, autojump_clock: MockClock
) -> None:
    """The whole body, so that the server can go on with the connection."""
    chunks = [{"type": "http.request", "body": b"%d" % number, "more_body": number < 19} for number in range(20)]
    log: list[object] = []

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        log.append("read")
        return chunks.pop(0)

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        log.append(message["type"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(read):
            await receive()
        await send(START)
        await send(BODY)

    scope = scope_of(http_version=http_version)
    scope["headers"].append((b"transfer-encoding", b"chunked") if read else (b"content-length", b"30"))
    await SessionMiddleware(app, manager=manager)(scope, receive, send)
    reads = ["read"] * 20
    assert log == [*reads[:read], "http.response.start", *reads[read:], "http.response.body"]


async def test_a_slow_upload_does_not_keep_the_answer_back(manager: SessionManager, autojump_clock: MockClock) -> None:
    """After a second, or a quarter of a megabyte, the last message goes out all the same; reading goes on meanwhile.

    A server whose `send` waits until the body has been taken off its hands gets rid of it.
    """
    for size, pause, waits in ((1, 0.3, 1.0), (100_000, 0.0, 0.0)):
        to_app, chunks = trio.open_memory_channel[Message](5)
        sent: list[float] = []
        started = trio.current_time()

        async def upload(to_app: Any = to_app, size: int = size, pause: float = pause) -> None:
            for _ in range(100):
                await trio.sleep(pause)
                await to_app.send({"type": "http.request", "body": b"x" * size, "more_body": True})

        async def send(message: Message, to_app: Any = to_app, sent: list[float] = sent) -> None:
            if message["type"] == "http.response.body":
                sent.append(trio.current_time())
                for _ in range(20):  # as Hypercorn: it queues one more message, but that queue is full
                    await to_app.send({"type": "http.request", "body": b"", "more_body": True})

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upload)
                app = SessionMiddleware(handled_by(nothing), manager=manager)
                await app(scope_of(http_version="2"), chunks.receive, send)
                nursery.cancel_scope.cancel()
        assert sent == [pytest.approx(started + waits)]


async def test_an_application_that_fails_over_an_unread_body(
    manager: SessionManager, autojump_clock: MockClock
) -> None:
    """The body is read then, too: the server will answer in its own words."""
    chunks = [{"type": "http.request", "body": b"x", "more_body": number < 19} for number in range(20)]

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        return chunks.pop(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await request(SessionMiddleware(app, manager=manager), scope=scope_of(http_version="2"), receive=receive)
    assert chunks == []


async def test_the_rest_of_a_request_is_not_read_without_need(manager: SessionManager) -> None:
    """A request without a body, and one whose client is gone, is not asked for more."""
    app = SessionMiddleware(handled_by(nothing), manager=manager)
    for headers in ([], [(b"content-length", b"0")]):
        scope = scope_of()
        scope["headers"] += headers
        with trio.fail_after(1):
            await request(app, scope=scope)  # `receive` would wait for ever, and that would be no harm; but for:

    async def refuse() -> Message:
        raise AssertionError("it was asked")

    await request(app, receive=refuse)

    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await send(START)
        await send(BODY)

    answers = iter([{"type": "http.disconnect"}])

    async def once() -> Message:
        return next(answers)

    await request(SessionMiddleware(gone, manager=manager), scope=scope_of(http_version="2"), receive=once)


async def test_errors_of_send_come_out_bare(manager: SessionManager, autojump_clock: MockClock) -> None:
    """Also while the rest of a body is being read."""

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    app = SessionMiddleware(handled_by(nothing), manager=manager)
    with pytest.raises(OSError, match="gone"):
        await app(scope_of(http_version="2"), never, send)


# -- WebSockets ------------------------------------------------------------------------------------------------------


async def test_a_websocket_gets_its_cookie_with_the_acceptance(manager: SessionManager) -> None:
    """What is stored before `accept` sets the cookie there; afterwards an existing session can be changed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = get_session(scope)
        await session.increment("n")
        await send({"type": "websocket.accept"})
        await session.increment("n")
        with pytest.raises(SessionFinishedError):
            await session.refresh()
        await send({"type": "websocket.send", "text": "hi"})

    answer = await request(SessionMiddleware(app, manager=manager), scope=scope_of("websocket", scheme="wss"))
    assert answer.cookie is not None
    assert "; Secure" in answer.cookie
    assert (await manager.session(answer.id).read())["n"] == 2


async def test_a_websocket_that_is_denied_keeps_its_cookies(manager: SessionManager) -> None:
    """A denial with a response of its own can set one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await get_session(scope).increment("tries")
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    answer = await request(SessionMiddleware(app, manager=manager), scope=scope_of("websocket"))
    assert answer.status == 401
    assert answer.id is not None


# -- lifespan --------------------------------------------------------------------------------------------------------


class Server:
    """The server's side of a lifespan."""

    def __init__(self, app: SessionMiddleware) -> None:
        self.app = app
        self.sent: list[str] = []
        self.messages: list[Message] = []
        self._to_app, self._receive = trio.open_memory_channel[Message](1)

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"].removeprefix("lifespan."))
        self.messages.append(message)
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        await self.app({"type": "lifespan", "state": {}}, self._receive.receive, self.send)

    async def say(self, kind: str) -> None:
        await self._to_app.send({"type": f"lifespan.{kind}"})
        await wait_all_tasks_blocked()


async def speaks_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            await send({"type": f"lifespan.{kind}.complete"})
    else:
        await handled_by(count)(scope, receive, send)


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "this application does not speak lifespan"
    await handled_by(count)(scope, receive, send)


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await handled_by(count)(scope, receive, send)


async def breaks_down_later(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("a bug in a background task")
    await handled_by(count)(scope, receive, send)


@pytest.mark.parametrize("inner", [speaks_lifespan, raises_at_once, returns_at_once, breaks_down_later])
async def test_the_manager_lives_as_long_as_the_lifespan(
    inner: Callable[[Scope, Receive, Send], Awaitable[None]],
) -> None:
    """Whatever the inner application does with lifespan, ours is answered and requests are served."""
    app = SessionMiddleware(inner, SessionConfig())
    server = Server(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.say("startup")
        assert server.sent == ["startup.complete"]
        assert (await request(app)).cookie is not None
        manager = app.manager
        assert manager is not None
        await server.say("shutdown")
    assert server.sent == ["startup.complete", "shutdown.complete"]
    assert app.manager is None
    assert "closed" in repr(manager)


async def test_a_given_manager_is_used_and_never_closed(manager: SessionManager) -> None:
    """With or without a lifespan."""
    app = SessionMiddleware(speaks_lifespan, manager=manager)
    assert app.manager is manager
    server = Server(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.say("startup")
        await server.say("shutdown")
    assert server.sent == ["startup.complete", "shutdown.complete"]
    assert app.manager is manager
    assert "open" in repr(manager)


async def test_a_failed_start_is_sent_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server takes an exception here for an application without lifespan, and serves it."""

    def fail(*args: object, **rest: object) -> object:
        raise StorageUnavailableError("the line is cut")

    monkeypatch.setattr("trio_session._manager._open_store", fail)
    server = Server(SessionMiddleware(speaks_lifespan, SessionConfig()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.say("startup")
    assert server.sent == ["startup.failed"]
    assert server.messages[0]["message"] == "StorageUnavailableError: the line is cut"


async def test_the_inner_application_s_failed_start_is_passed_on() -> None:
    """The server hears of it, and the manager is closed."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    app = SessionMiddleware(inner, SessionConfig())
    server = Server(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.say("startup")
    assert server.messages == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert app.manager is None


async def test_the_inner_application_can_stop_the_server_loudly() -> None:
    """`shutdown.failed` goes to the server at once, at any time."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.failed", "message": "a service died"})
        await trio.sleep_forever()

    class Loud(Exception):
        pass

    class LoudServer(Server):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "lifespan.shutdown.failed":
                raise Loud

    server = LoudServer(SessionMiddleware(inner, SessionConfig()))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await server.say("startup")
    assert isinstance(caught.value.exceptions[0], Loud)
    assert "shutdown.failed" in server.sent


async def test_another_event_loop_is_told_what_is_missing() -> None:
    """Hypercorn's default worker is asyncio: the start fails with the command to use, and so does a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    def run_without_trio(scope: Scope) -> None:
        with pytest.raises(StopIteration):
            SessionMiddleware(speaks_lifespan, SessionConfig())(scope, receive, send).send(None)

    await trio.to_thread.run_sync(run_without_trio, {"type": "lifespan"})
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "hypercorn -k trio" in sent[0]["message"]
    with pytest.raises(SessionStateError, match="hypercorn -k trio"):
        await trio.to_thread.run_sync(run_without_trio, scope_of())
