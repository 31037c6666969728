"""The how-to pages work: their blocks run, and what they build does what the page says of it."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from trio_session import SessionConfig, open_redis_store, open_session_manager, web
from trio_session.testing import ASGIClient, WebSocketRejected, open_fake_redis, open_test_client

from .pages import follow, open_terminal, run_page
from .test_docs import ROOT

FOLDER = ROOT / "docs" / "how-to"


@pytest.mark.parametrize("name", ["configure", "websockets", "write-a-codec", "write-a-store"])
async def test_the_blocks_say_what_the_page_shows(name: str, autojump_clock: MockClock) -> None:
    """One after the other, with the names of those before; tests among them pass."""
    await run_page(FOLDER / f"{name}.md", autojump_clock)


async def test_logging_in_and_out(autojump_clock: MockClock) -> None:
    """A login changes the id and keeps the cart, a logout ends the session for whoever has a copy of the cookie."""
    app = (await run_page(FOLDER / "log-in-and-out.md", autojump_clock))["app"]
    async with open_test_client(app) as client:
        assert (await client.get("/account")).status_code == 303
        assert (await client.post("/login", data={"user": "Ada", "password": "guess"})).status_code == 403
        await log_in(client, "/login", password="open sesame")
        mine = client.cookies["trio_session"]
        assert (await client.get("/account")).text == "This is Ada's."
        await client.post("/logout")
        assert not client.cookies
        client.cookies["trio_session"] = mine
        assert (await client.get("/")).text == "Hello, stranger."


async def test_a_planted_id_is_worth_nothing(autojump_clock: MockClock) -> None:
    """The id from before the login does not lead to it."""
    app = (await run_page(FOLDER / "log-in-and-out.md", autojump_clock))["app"]
    async with open_test_client(app) as client:
        await log_in(client, "/login", password="open sesame")
        planted = client.cookies["trio_session"]
        await log_in(client, "/login", password="open sesame")
        assert client.cookies["trio_session"] != planted
        client.cookies["trio_session"] = planted
        assert (await client.get("/")).text == "Hello, stranger."


async def test_logging_out_everywhere(autojump_clock: MockClock) -> None:
    """One number more, and all sessions of that user end with their next request."""
    app = (await run_page(FOLDER / "log-in-and-out.md", autojump_clock))["app"]
    async with open_test_client(app) as client:
        devices: list[str] = []
        for _ in range(3):
            client.cookies.clear()
            await log_in(client, "/login-2")
            devices.append(client.cookies["trio_session"])
        client.cookies["trio_session"] = devices[0]
        await client.post("/log-out-everywhere")
        for device in devices:
            client.cookies["trio_session"] = device
            assert (await client.get("/")).text == "Hello, stranger."


async def log_in(client: ASGIClient, path: str, **fields: str) -> None:
    response = await client.post(path, data={"user": "Ada", **fields}, follow_redirects=True)
    assert response.text == "Hello, Ada."


async def test_what_is_said_of_websockets(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Foreign pages are refused, a logout elsewhere is noticed, and a lock across receive() is warned of."""
    app = (await run_page(FOLDER / "websockets.md", autojump_clock))["app"]
    async with open_test_client(app) as client:
        await client.post("/login")
        with pytest.raises(WebSocketRejected) as refused:
            async with client.websocket("/chat", headers={"Origin": "https://evil.example"}):
                pass
        assert refused.value.status_code == 403
        async with client.websocket("/news", headers={"Origin": "https://www.example.com"}) as ws:
            assert await ws.receive() == "nothing new"
        with caplog.at_level(logging.WARNING):
            async with client.websocket("/wrong") as ws:
                await ws.send("a")
                await ws.send("b")
        assert caplog.text.count("is held while a WebSocket waits in receive()") == 1
        assert "websockets.md" in caplog.text
        async with client.websocket("/account") as ws:
            await ws.send("1")
            assert await ws.receive() == "for Ada: 1"
            await app.sessions.session(client.cookies["trio_session"]).clear()
            await ws.send("2")
            with pytest.raises(Exception, match="1008 logged out"):
                await ws.receive()


async def test_the_health_check_asks_the_store(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    """A store that is away makes the program not ready; it is alive all the same."""
    async with (
        open_fake_redis() as server,
        open_redis_store("redis://fake", open_stream=server.open_stream) as store,
        open_session_manager(SessionConfig(), store=store) as manager,
    ):
        monkeypatch.setattr(web, "App", partial(web.App, manager=manager))
        app = (await run_page(FOLDER / "serve.md", autojump_clock))["app"]
        async with open_test_client(app) as client:
            assert (await client.get("/ready")).text == "yes"
            server.refuse()
            await server.restart()
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/alive")).text == "yes"


async def test_starlette_and_app_do_the_same(autojump_clock: MockClock) -> None:
    """Both ports of the page keep a cart."""
    names: dict[str, Any] = await run_page(FOLDER / "port-from-starlette-and-flask.md", autojump_clock)
    async with open_test_client(names["app"]) as client:
        await client.post("/cart", json={"item": "tea"})
        await client.post("/cart", json={"item": "milk"})
        assert (await client.get("/cart")).json() == ["tea", "milk"]
    async with open_test_client(names["shop"]) as client:
        await client.post("/cart", data={"item": "tea"})
        await client.post("/cart", data={"item": "milk"})
        assert (await client.get("/cart")).json() == ["tea", "milk"]


def test_the_tests_of_the_page_about_tests_pass(tmp_path: Path) -> None:
    """In a pytest of their own, as a reader runs them; as many as the page says."""
    with open_terminal(tmp_path) as terminal:
        follow(FOLDER / "write-tests.md", terminal)
