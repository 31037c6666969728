"""What docs/how-to/port-from-phenix.md promises to somebody who knows Phenix, where no other test proves it already."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_session import (
    LocalStore,
    Session,
    SessionConfig,
    SessionManager,
    SessionMiddleware,
    get_session,
    open_session_manager,
)
from trio_session._asgi import Receive, Scope, Send
from trio_session._cookies import SessionCookie
from trio_session.testing import SessionTrainer, open_test_client
from trio_session.web import App, Request

from .test_docs import ROOT, blocks_of

PAGE = ROOT / "docs" / "how-to" / "port-from-phenix.md"


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig()) as manager:
        yield manager


async def stored(manager: SessionManager, **data: object) -> str:
    """The id of a new session with `data`."""
    session = manager.session()
    async with session.locked() as working:
        working.update(data)
    assert session.id is not None
    return session.id


def run_block(marker: str, **names: object) -> dict[str, Any]:
    """Run the one Python block of the page that has `marker` in it; what it defines."""
    (block,) = (block for block in blocks_of(PAGE) if marker in block.text)
    module: dict[str, Any] = {"__name__": "ported", **names}
    exec(compile("\n" * (block.line - 1) + block.text, PAGE, "exec"), module)
    return module


# -- settings --------------------------------------------------------------------------------------------------------


def test_what_has_no_variable_is_replaced_in_code() -> None:
    """`path` and `http_only` are settings of the program; the rest still comes from the environment."""
    from_env = SessionConfig.from_env({"SESSION_LIFETIME": "30", "APP_NAME": "Shop"})
    config = dataclasses.replace(from_env, path="/shop", http_only=False)
    assert SessionCookie(config).issue("abc", https=False) == (
        b"shop_session=abc; Max-Age=1800; Path=/shop; SameSite=Lax"
    )


async def test_a_cookie_lives_a_whole_lifetime_however_long_the_server_runs(autojump_clock: MockClock) -> None:
    """Max-Age counts from the response, and the record lives as long: neither depends on when the server started."""
    config = SessionConfig(lifetime=60.0)
    async with open_session_manager(config) as manager:
        await trio.sleep(600)
        session = manager.session()
        await session.put("n", 1)
        assert session.id is not None
        assert b"Max-Age=60;" in SessionCookie(config).issue(session.id, https=False)
        await trio.sleep(59.9)
        assert (await manager.session(session.id).read())["n"] == 1
        await trio.sleep(60.1)
        assert (await manager.session(session.id).read()).is_empty


# -- reaching the session --------------------------------------------------------------------------------------------


async def test_request_session_can_be_called_as_in_phenix(manager: SessionManager) -> None:
    """It is the session; with a name it is a value, of whatever type, or the default. Nothing was registered."""
    app = App(manager=manager)
    seen: list[object] = []

    @app.post("/")
    async def show(request: Request) -> str:
        session = request.session()
        assert session is request.session
        seen.append(request.session("locale", "en"))
        await session.put("locale", "es")
        await session.put("rate", 0.5)
        await session.put("beta", True)
        seen.append([request.session(name, "no") for name in ("locale", "rate", "beta")])
        return "done"

    async with open_test_client(app) as client:
        assert (await client.post("/")).cookies.get("trio_session")
    assert seen == ["en", ["es", 0.5, True]]


async def test_the_session_does_not_ask_who_is_logged_in(manager: SessionManager) -> None:
    """What an authentication says, in a header or in the scope, neither chooses the session nor changes it."""
    users = iter(["Ada", "Eve", None, "Ada"])
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "this application does not speak lifespan"
        scope["user"] = next(users)
        seen.append(await get_session(scope).increment("n"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with open_test_client(SessionMiddleware(app, manager=manager)) as client:
        await client.get("/", headers={"Authorization": "Bearer 1"})
        await client.get("/", headers={"Authorization": "Bearer 2"})
        await client.get("/")
        client.cookies.clear()
        await client.get("/", headers={"Authorization": "Bearer 1"})
    assert seen == [1, 2, 3, 1]


# -- methods ---------------------------------------------------------------------------------------------------------


async def test_a_stored_none_is_a_value(manager: SessionManager) -> None:
    """The default is for names that are not there, and only for them."""
    session = await manager.session(await stored(manager, coupon=None)).read()
    assert session.get("coupon", "none so far") is None
    assert session("coupon", "none so far") is None
    assert session.has("coupon")


async def test_read_hears_of_other_requests(manager: SessionManager) -> None:
    """What was read stays as it was until the next read; the others' commits are seen then."""
    session = await manager.session(await stored(manager, n=1)).read()
    await manager.session(session.id).put("n", 2)
    assert session["n"] == 1
    assert (await session.read())["n"] == 2


async def test_refresh_gives_the_lock_back(manager: SessionManager) -> None:
    """Other requests need not wait for the end of the one that logged in."""
    session = manager.session(await stored(manager, n=1))
    await session.refresh()
    assert not session.is_locked
    assert manager.statistics().locks_held == 0
    with trio.fail_after(1):
        assert await manager.session(session.id).increment("n") == 2


async def test_the_longhand_of_the_page(manager: SessionManager) -> None:
    """lock, set and commit, ported line by line, save as `locked()` does, and leave no lock behind if they fail."""
    add_to_cart = run_block("async def add_to_cart")["add_to_cart"]
    session = manager.session()
    await add_to_cart(session, "tea")
    with pytest.raises(TypeError, match="cart"):
        await add_to_cart(session, object())
    assert not session.is_locked
    assert manager.statistics().locks_held == 0
    await add_to_cart(session, "milk")
    assert dict(await manager.session(session.id).read()) == {"cart": ["tea", "milk"]}


async def test_the_trainer_counts_as_in_amp() -> None:
    """A session is prepared, used and looked at from outside, by the id the test gave it."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("ada", {"cart": ["tea"], "n": 1})
        session = await trainer.manager.session("ada").read()
        async with session.locked() as data:
            assert trainer.is_locked("ada")
            data["user"] = "Ada"
            del data["cart"]
        assert (trainer.added_keys("ada"), trainer.removed_keys("ada")) == ({"user"}, {"cart"})
        assert (trainer.read_count("ada"), trainer.write_count("ada"), trainer.lock_count("ada")) == (2, 1, 1)
        assert not trainer.is_locked("ada")


# -- on purpose ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Session.commit, Session.rollback, Session.unlock_all])
async def test_a_lock_alone_sets_no_cookie(manager: SessionManager, end: Callable[[Session], Awaitable[None]]) -> None:
    """A visitor for whom nothing was stored hears nothing of sessions, however the lock was ended."""
    app = App(manager=manager)

    @app.get("/")
    async def look(request: Request) -> str:
        await request.session.lock()
        await end(request.session)
        await request.session.refresh()
        return "done"

    async with open_test_client(app) as client:
        assert "set-cookie" not in (await client.get("/")).headers


async def test_two_servers_on_one_store_exclude_each_other(autojump_clock: MockClock) -> None:
    """The lock is the store's: managers that know nothing of each other lose no update."""
    store, config = LocalStore(), SessionConfig()

    async def count(manager: SessionManager, id: str) -> None:
        async with manager.session(id).locked() as data:
            before = data["n"]
            await trio.sleep(0.1)
            data["n"] = before + 1

    async with open_session_manager(config, store=store) as one, open_session_manager(config, store=store) as two:
        id = await stored(one, n=0)
        async with trio.open_nursery() as nursery:
            for manager in (one, two) * 5:
                nursery.start_soon(count, manager, id)
        assert (await two.session(id).read())["n"] == 10


# -- the page's own code ---------------------------------------------------------------------------------------------


async def test_the_middleware_of_the_page() -> None:
    """It runs inside the session, before the handler, and saves."""
    app = App(SessionConfig())

    @app.get("/")
    async def show(request: Request) -> str:
        return str(request.session("visits"))

    run_block("class TrackVisits", app=app)
    async with open_test_client(app) as client:
        assert [(await client.get("/")).text for _ in range(3)] == ["1", "2", "3"]


async def test_the_controller_of_the_page() -> None:
    """The port keeps a cart through a login, with a new id, and forgets all at the logout."""
    app = run_block("async def login")["app"]
    async with open_test_client(app) as client:
        assert (await client.get("/cart")).json() == {"cart": []}
        assert not client.cookies
        assert (await client.post("/cart", json={"item": "tea"})).json() == {"cart": ["tea"]}
        assert (await client.post("/cart", json={"item": "milk"})).json() == {"cart": ["tea", "milk"]}
        planted = client.cookies["trio_session"]
        assert (await client.post("/login", json={"user": "Ada"})).status_code == 200
        assert client.cookies["trio_session"] != planted
        assert (await client.get("/cart")).json() == {"cart": ["tea", "milk"]}
        mine, client.cookies["trio_session"] = client.cookies["trio_session"], planted
        assert (await client.get("/cart")).json() == {"cart": []}
        client.cookies["trio_session"] = mine
        assert (await client.post("/logout")).status_code == 204
        assert not client.cookies
        assert (await client.get("/cart")).json() == {"cart": []}


async def test_the_settings_of_the_page() -> None:
    """Its configuration in code is one that can be served."""
    app = run_block("dataclasses.replace")["app"]
    async with open_test_client(app):
        config = app.sessions.config
        assert (config.path, config.lifetime) == ("/shop", 7200.0)
