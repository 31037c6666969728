"""The examples do what their first lines say: each as a process, in real time, with a bound on every wait.

The chat has many tests: those to which the process does not matter serve it in this one.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from .integration._servers import Serve, Server, ours, plain, start
from .test_cli import PATIENCE, Child, open_child

EXAMPLES = Path(__file__).parent.parent / "examples"


@asynccontextmanager
async def open_example(name: str, *arguments: str) -> AsyncIterator[tuple[Child, str]]:
    """Run an example that serves, and stop it as Ctrl-C does: that has to be a good end, and a silent one."""
    async with open_child(str(EXAMPLES / name), *arguments, "--port", "0") as child:
        yield child, await child.url()
        assert await child.stop() == 0, child.errors()
        assert child.errors() == ""


@asynccontextmanager
async def open_here(name: str, serve: Serve = ours) -> AsyncIterator[Server]:
    """Serve the application of an example in this process, with a state of its own."""
    async with start(serve, runpy.run_path(str(EXAMPLES / name))["app"]) as server:
        yield server
    assert server.error is None


def open_browser(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, follow_redirects=True)


async def test_counter() -> None:
    """It counts each visitor's visits, also those at the same moment, under one id."""
    async with open_example("counter.py") as (_, url), open_browser(url) as ada, open_browser(url) as bob:
        first = await ada.get("/visits")
        assert first.json() == {"visits": 1}
        id = first.cookies["trio_session"]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ada.get, "/visits")
        last = await ada.get("/visits")
        assert last.json() == {"visits": 22}
        assert ada.cookies["trio_session"] == id
        assert (await bob.get("/visits")).json() == {"visits": 1}


async def test_metrics() -> None:
    """Waits, holds and ends are there for Prometheus, in its format, and add up."""
    async with open_example("metrics.py") as (_, url), open_browser(url) as ada:
        await ada.get("/visits")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ada.get, "/visits")
        answer = await ada.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert numbers["session_lock_wait_seconds_count"] == numbers["session_lock_hold_seconds_count"] == "4"
    assert numbers['session_lock_hold_seconds_bucket{le="0.005"}'] == "0"
    assert numbers['session_lock_hold_seconds_bucket{le="+Inf"}'] == "4"
    assert float(numbers["session_lock_hold_seconds_sum"]) > 0.04
    assert float(numbers["session_lock_wait_seconds_sum"]) > 0
    assert numbers['session_locks_total{what="committed"}'] == "4"
    assert numbers['sessions_total{what="created"}'] == "1"
    assert all(line.split(" ", 2)[1] in {"HELP", "TYPE"} for line in lines if line.startswith("#"))


async def test_login() -> None:
    """Logging in renews the id and keeps the cart; the old id is worth nothing; logging out leaves nothing."""
    async with open_example("login.py") as (_, url), open_browser(url) as ada, open_browser(url) as thief:
        page = await ada.post("/cart", data={"item": "<b>tea</b>"})
        assert "Hello, stranger" in page.text
        assert "cart: &lt;b&gt;tea&lt;/b&gt;" in page.text
        planted = ada.cookies["trio_session"]

        refused = await ada.post("/login", data={"user": "Ada", "password": "guess"})
        assert refused.status_code == 403
        assert ada.cookies["trio_session"] == planted
        page = await ada.post("/login", data={"user": "Ada", "password": "open sesame"})
        assert "Hello, Ada" in page.text
        assert "cart: &lt;b&gt;tea" in page.text
        assert ada.cookies["trio_session"] != planted

        thief.cookies.set("trio_session", planted)
        page = await thief.get("/")
        assert "Hello, stranger" in page.text
        assert "cart: nothing" in page.text

        page = await ada.post("/logout")
        assert "Hello, stranger" in page.text
        assert "cart: nothing" in page.text
        assert "trio_session" not in ada.cookies


async def test_plain_asgi() -> None:
    """An application without a framework has sessions as well."""
    async with open_example("plain_asgi.py") as (_, url), open_browser(url) as browser:
        assert (await browser.get("/a")).text == "Page 1 of your visit. The last ones: /a\n"
        await browser.get("/b")
        await browser.get("/c")
        assert (await browser.get("/d")).text == "Page 4 of your visit. The last ones: /d /c /b\n"


class Tab:
    """A tab of the chat's page: what the room has told it, and what it says."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws

    @property
    def cookie(self) -> str | None:
        """The session's cookie, if the handshake has set it."""
        cookies = [value for name, value in self.ws.handshake_headers if name == b"set-cookie"]
        return cookies[0].decode().partition(";")[0] if cookies else None

    async def hears(self, kind: str) -> Any:
        """The next news of one kind; others are skipped."""
        while True:
            with trio.fail_after(PATIENCE):
                news = json.loads(await self.ws.get_message())
            if kind in news:
                return news[kind]

    async def line(self) -> tuple[str, int, str]:
        """The next thing that somebody says: who, the how manieth of theirs, what."""
        while not (lines := await self.hears("lines")):
            pass
        return lines[-1]["by"], lines[-1]["number"], lines[-1]["text"]

    async def sees(self, tabs: dict[str, int]) -> dict[str, float]:
        """Wait until everybody has so many tabs open. Returns when they were seen last."""
        while True:
            people = await self.hears("people")
            if {person["name"]: person["tabs"] for person in people} == tabs:
                return {person["name"]: person["seen"] for person in people}

    async def says(self, **message: str) -> None:
        await self.ws.send_message(json.dumps(message))


@asynccontextmanager
async def open_tab(url: str, cookie: str | None = None) -> AsyncIterator[Tab]:
    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    address = urlsplit(url)
    # Not open_websocket_url(): it leaves its socket open if the server cuts the connection.
    stream = await trio.open_tcp_stream(str(address.hostname), address.port or 80)
    async with stream, trio.open_nursery() as nursery:
        ws = await wrap_client_stream(nursery, stream, address.netloc, "/room", extra_headers=headers)
        yield Tab(ws)
        await ws.aclose()


async def test_chat() -> None:
    """What one says, all hear, with who it was; and all see who is there."""
    async with open_example("chat_websocket.py") as (_, url), open_tab(url) as ada, open_tab(url) as bob:
        await ada.says(name="Ada")
        await bob.says(name="Böb & Co")
        await ada.sees({"Ada": 1, "Böb & Co": 1})
        await ada.says(say="hello")
        await bob.says(say="<i>hi</i>")
        for tab in (ada, bob):
            lines = [await tab.line(), await tab.line()]
            assert sorted(lines) == [("Ada", 1, "hello"), ("Böb & Co", 1, "<i>hi</i>")]
        async with open_tab(url) as carl:  # comes late, and sees what was said
            assert len(await carl.hears("lines")) == 2


async def test_chat_two_tabs_are_one_person() -> None:
    """Whatever either of them does; and while one is open, they are here."""
    async with open_here("chat_websocket.py") as room, open_tab(room.url) as bob, open_tab(room.url) as ada:
        await bob.says(name="Bob")
        await ada.says(name="Ada")
        await bob.sees({"Bob": 1, "Ada": 1})
        async with open_tab(room.url, ada.cookie) as second:
            assert await second.hears("you") == "Ada"
            await bob.sees({"Bob": 1, "Ada": 2})
            await second.says(name="Ada L.")
            await ada.sees({"Bob": 1, "Ada L.": 2})
            await ada.says(say="one")
            assert await bob.line() == ("Ada L.", 1, "one")
            await second.says(say="two")
            assert await bob.line() == ("Ada L.", 2, "two")
        await bob.sees({"Bob": 1, "Ada L.": 1})


async def test_chat_knows_who_comes_back() -> None:
    """After a reload they have their name and their count, and hear when they were seen last; so do the others."""
    async with open_here("chat_websocket.py") as room, open_tab(room.url) as bob:
        await bob.says(name="Bob")
        async with open_tab(room.url) as ada:
            assert await ada.hears("lastSeen") is None
            await ada.says(name="Ada")
            await bob.sees({"Bob": 1, "Ada": 1})
            await ada.says(say="one")
            await bob.line()
        seen = await bob.sees({"Bob": 1, "Ada": 0})
        async with open_tab(room.url, ada.cookie) as ada:
            assert await ada.hears("lastSeen") == seen["Ada"]
            await bob.sees({"Bob": 1, "Ada": 1})
            await ada.says(say="two")
            assert await bob.line() == ("Ada", 2, "two")


async def test_chat_bears_nonsense() -> None:
    """What is not JSON closes a tab, and what our page would not say does nothing; nobody else notices."""
    async with open_here("chat_websocket.py") as room, open_tab(room.url) as ada, open_tab(room.url) as vandal:
        for nonsense in ("[]", "1", '{"say": 5}', '{"name": " "}', '{"say": "", "name": []}', "{"):
            await vandal.ws.send_message(nonsense)
        with pytest.raises(ConnectionClosed) as caught:
            await vandal.hears("nothing")
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1008
        await ada.says(say="still here")
        assert (await ada.line())[2] == "still here"


async def test_chat_has_a_page() -> None:
    """It needs nothing from elsewhere."""
    async with open_here("chat_websocket.py") as room, open_browser(room.url) as browser:
        answer = await browser.get("/")
        assert answer.headers["content-type"].startswith("text/html")
        assert "/room" in answer.text
        assert "://" not in answer.text


async def test_chat_refuses_other_sites() -> None:
    """A page of another site cannot enter the room in its visitor's name."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://elsewhere.example",
    }
    async with open_here("chat_websocket.py") as room, open_browser(room.url) as browser:
        assert (await browser.get("/room", headers=handshake)).status_code == 403


async def test_chat_ends_with_the_server() -> None:
    """Who is in the room when the server is stopped is sent home, and the server does not wait for them."""
    command = (str(EXAMPLES / "chat_websocket.py"), "--port", "0")
    async with open_child(*command) as server, open_tab(await server.url()) as ada:
        assert await ada.hears("you")
        assert await server.stop() == 0
        assert server.errors() == ""
        with pytest.raises(ConnectionClosed):
            await ada.hears("nothing")


async def test_background_job() -> None:
    """Eight workers at one account: no booking is lost."""
    async with open_child(str(EXAMPLES / "background_job.py")) as child:
        assert await child.line() == "8 workers, 25 bookings each: the balance is 200"
        assert await child.end() == 0
        assert child.errors() == ""


async def test_the_port_may_come_from_the_environment() -> None:
    """As platforms do it that assign one."""
    async with open_child(str(EXAMPLES / "counter.py"), environment={"PORT": "0"}) as child:
        async with open_browser(await child.url()) as browser:
            assert (await browser.get("/visits")).json() == {"visits": 1}
        assert await child.stop() == 0


async def test_hypercorn_serves_them() -> None:
    """`hypercorn -k trio counter:app` in their folder does it as well."""
    command = ("-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "counter:app")
    async with open_child(*command, folder=str(EXAMPLES), joined=True) as child:
        async with open_browser(await child.url()) as browser:
            assert (await browser.get("/visits")).json() == {"visits": 1}
        assert await child.stop() == 0


@pytest.mark.parametrize("name", ["login.py", "plain_asgi.py", "chat_websocket.py"])
async def test_hypercorn_serves_the_others(name: str) -> None:
    """They need nothing from our server."""
    async with open_here(name, plain) as server, open_browser(server.url) as browser:
        assert (await browser.get("/")).status_code == 200
