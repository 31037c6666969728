"""Many requests for one session at once, whose clients may not wait for the answer."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_session import LocalStore, Session, SessionManager, SessionMiddleware, get_session
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.web import App, Request

from ._clients import connect, fetch, request_head
from ._serving import at_rest, count_tasks, eventually, respond, serving

REQUESTS = 200


class Visits:
    """A locked increment, with a chance for others to run in its middle, and how often it was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged = 0

    async def count(self, session: Session) -> int:
        async with session.locked() as data:
            visits: int = data.get("visits", 0)
            await trio.lowlevel.checkpoint()
            data["visits"] = visits + 1
        self.acknowledged += 1
        return visits + 1


Served = tuple[ASGIApp, Callable[[], SessionManager | None]]


def plain(visits: Visits) -> Served:
    """As an ASGI application under the middleware."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"%d" % await visits.count(get_session(scope)))

    middleware = SessionMiddleware(app)
    return middleware, lambda: middleware.manager


def with_app(visits: Visits) -> Served:
    """As an App."""
    app = App()

    @app.get("/")
    async def index(request: Request) -> str:
        return str(await visits.count(request.session))

    return app, lambda: app.sessions


both = pytest.mark.parametrize("make", [plain, with_app])


async def first_visit(url: str) -> str:
    """Get a session whose counter is at one; returns its id."""
    answer = await fetch(url)
    assert answer.body == b"1"
    assert answer.id is not None
    return answer.id


async def visits_of(manager: SessionManager, id: str) -> int:
    visits: int = (await manager.session(id).read())["visits"]
    return visits


@both
async def test_no_update_is_lost(make: Callable[[Visits], Served]) -> None:
    """200 requests at once that change one session are all counted, and each sees a count of its own."""
    visits = Visits()
    app, manager_of = make(visits)
    counts: list[int] = []
    async with serving(app) as url:
        manager = manager_of()
        assert manager is not None
        empty = count_tasks()
        id = await first_visit(url)

        async def visit() -> None:
            counts.append(int((await fetch(url, id=id)).body))

        async with trio.open_nursery() as nursery:
            for _ in range(REQUESTS):
                nursery.start_soon(visit)

        assert sorted(counts) == list(range(2, REQUESTS + 2))
        assert await visits_of(manager, id) == visits.acknowledged == REQUESTS + 1
        assert at_rest(manager)
        await eventually(lambda: count_tasks() == empty)


# -- clients that hang up --------------------------------------------------------------------------------------------


MOMENTS = ("in the request", "after the request", "while it waits", "in the response")


async def hang_up(url: str, id: str, rng: random.Random, moment: str) -> None:
    """Begin a request, and be gone at `moment`; with a FIN or with an RST."""
    request = request_head(id=id)
    async with await connect(url) as stream:
        if rng.random() < 0.5:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if moment == "in the request":
            await stream.send_all(request[: rng.randrange(len(request) - 1)])
            return
        await stream.send_all(request)
        if moment == "while it waits":
            await trio.sleep(rng.uniform(0, 0.2))  # not to wait for anything: any moment will do
        elif moment == "in the response":
            await stream.receive_some(rng.randint(1, 20))


@both
async def test_clients_that_hang_up_leave_nothing_behind(make: Callable[[Visits], Served]) -> None:
    """With every fifth client gone at some moment, what was acknowledged is what is stored, and all is freed."""
    rng = random.Random(1)
    visits = Visits()
    app, manager_of = make(visits)
    statuses: Counter[int] = Counter()
    async with serving(app, keep_alive=1) as url:
        manager = manager_of()
        assert manager is not None
        empty = count_tasks()
        id = await first_visit(url)

        async def visit() -> None:
            statuses[(await fetch(url, id=id)).status] += 1

        rude = REQUESTS // 5
        callers: list[Callable[[], Awaitable[None]]] = [visit] * (REQUESTS - rude)
        callers += [partial(hang_up, url, id, rng, MOMENTS[i % len(MOMENTS)]) for i in range(rude)]
        rng.shuffle(callers)
        async with trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(caller)

        await eventually(lambda: at_rest(manager) and count_tasks() == empty)
        assert statuses == {200: REQUESTS - rude}
        assert await visits_of(manager, id) == visits.acknowledged
        assert REQUESTS - rude < visits.acknowledged < 1 + REQUESTS  # some hung up in time, some did not


@both
async def test_a_client_that_hangs_up_in_the_midst_of_a_commit(
    make: Callable[[Visits], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that the store has begun is finished, and acknowledged: the handler ends later, if at all."""
    visits = Visits()
    app, manager_of = make(visits)
    began, may_end = trio.Event(), trio.Event()
    commit = LocalStore.commit

    async def slow_commit(*args: Any, **options: Any) -> object:
        began.set()
        await may_end.wait()
        return await commit(*args, **options)

    async with serving(app) as url:
        manager = manager_of()
        assert manager is not None
        empty = count_tasks()
        id = await first_visit(url)
        monkeypatch.setattr(LocalStore, "commit", slow_commit)
        async with await connect(url) as stream:
            await stream.send_all(request_head(id=id))
            await began.wait()
        await wait_all_tasks_blocked()  # the server knows, and so does the handler
        may_end.set()
        await eventually(lambda: at_rest(manager) and count_tasks() == empty)
        assert await visits_of(manager, id) == visits.acknowledged == 2
